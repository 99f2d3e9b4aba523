package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

const unreleasedHeading = "## Unreleased\n"

// dateUnreleased gives what CHANGELOG.md has under Unreleased to a version, and begins a new section of that name.
func dateUnreleased(changelog, version string, today time.Time) (string, error) {
	if hasSection(changelog, version) {
		return "", fmt.Errorf("CHANGELOG.md has a section for %s already", version)
	}
	before, after, found := strings.Cut(changelog, "\n"+unreleasedHeading)
	if !found {
		return "", errors.New("CHANGELOG.md has no section Unreleased")
	}
	section, _, _ := strings.Cut(after, "\n## ")
	if !strings.Contains(section, "\n- ") {
		return "", errors.New("CHANGELOG.md has nothing under Unreleased")
	}
	return before + "\n" + unreleasedHeading + "\n" + heading(version) + today.Format(time.DateOnly) + "\n" + after, nil
}

// hasSection reports whether CHANGELOG.md has a section for a version.
func hasSection(changelog, version string) bool {
	return strings.Contains(changelog, "\n"+heading(version))
}

// heading returns the heading of a version up to the date.
func heading(version string) string { return "## " + strings.TrimPrefix(version, "v") + " - " }
