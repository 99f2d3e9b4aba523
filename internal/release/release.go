package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// prepare changes the work tree so that its commit can be released.
func (r *repo) prepare(ctx context.Context, version string) error {
	mods, err := r.modules(ctx)
	if err != nil {
		return err
	}
	if err := r.checkVersion(ctx, mods, version); err != nil {
		return err
	}
	name := filepath.Join(r.root, "CHANGELOG.md")
	changelog, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	dated, err := dateUnreleased(string(changelog), version, r.today)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, []byte(dated), 0o644); err != nil {
		return err
	}

	released := releasedPaths(mods)
	for _, m := range mods {
		changed, err := m.setVersion(released, version)
		if err != nil {
			return err
		}
		if !changed {
			continue
		}
		data, err := m.file.Format()
		if err != nil {
			return err
		}
		dir := filepath.Join(r.root, filepath.FromSlash(m.dir))
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), data, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(r.stdout, "%s requires %s\n", m.path, version)
	}
	// A module that requires the drop-in, say, requires what that does only indirectly. So all go.mod must be written
	// before the first is made tidy.
	for _, m := range mods {
		if _, err := output(ctx, filepath.Join(r.root, filepath.FromSlash(m.dir)), "go", "mod", "tidy"); err != nil {
			return err
		}
	}
	return nil
}

// tag checks that HEAD can be released, and tags it.
func (r *repo) tag(ctx context.Context, version string) error {
	if status, err := r.git(ctx, "status", "--porcelain"); err != nil {
		return err
	} else if status != "" {
		return fmt.Errorf("the work tree has changes that are not committed:\n%s", status)
	}
	mods, err := r.modules(ctx)
	if err != nil {
		return err
	}
	if err := r.checkVersion(ctx, mods, version); err != nil {
		return err
	}
	changelog, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if !hasSection(string(changelog), version) {
		return fmt.Errorf("CHANGELOG.md has no section for %s: run release prepare %[1]s", version)
	}
	released := releasedPaths(mods)
	var tags []string
	for _, m := range mods {
		if !m.isReleased() {
			continue
		}
		if err := m.check(mods[0], released, version); err != nil {
			return err
		}
		tags = append(tags, m.tag(version))
	}
	for _, tag := range tags {
		if _, err := r.git(ctx, "tag", "-a", "-m", tag, tag); err != nil {
			return err
		}
	}
	fmt.Fprintf(r.stdout, "Tagged. To publish it, which cannot be undone:\n\n\tgit push --atomic origin %s\n", strings.Join(tags, " "))
	return nil
}

// checkVersion reports why a version cannot come next.
func (r *repo) checkVersion(ctx context.Context, mods []*mod, version string) error {
	if semver.Canonical(version) != version || semver.Build(version) != "" {
		return fmt.Errorf("%q is not a version such as v1.2.3", version)
	}
	var errs []error
	for _, m := range mods {
		if !m.isReleased() {
			continue
		}
		if _, pathMajor, _ := module.SplitPathVersion(m.file.Module.Mod.Path); !module.MatchPathMajor(version, pathMajor) {
			return fmt.Errorf("%s does not fit the path %s", version, m.file.Module.Mod.Path)
		}
		last, err := r.lastVersion(ctx, m, true)
		if err != nil {
			return err
		}
		if last != "" && semver.Compare(version, last) <= 0 {
			errs = append(errs, fmt.Errorf("%s has been released as %s already", m.path, last))
			continue
		}
		changes, since, err := r.compare(ctx, m)
		if err != nil {
			return err
		}
		errs = append(errs, checkStep(m.path, since, version, changes))
	}
	return errors.Join(errs...)
}

// lastVersion returns the highest version for which a module has a tag, or "".
func (r *repo) lastVersion(ctx context.Context, m *mod, prereleases bool) (string, error) {
	tags, err := r.git(ctx, "tag", "--list", m.tag("v*"))
	if err != nil {
		return "", err
	}
	last := ""
	for _, tag := range strings.Fields(tags) {
		version := strings.TrimPrefix(tag, m.tag(""))
		if semver.IsValid(version) && semver.Compare(version, last) > 0 && (prereleases || semver.Prerelease(version) == "") {
			last = version
		}
	}
	return last, nil
}
