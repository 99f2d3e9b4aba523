package oneport

import (
	"go/format"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// pages returns the paths of all pages of documentation.
func pages(t *testing.T) []string {
	t.Helper()
	var pages []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && (name == "node_modules" || name == "results" || name == "testdata") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			pages = append(pages, path)
		}
		return nil
	})
	if err != nil || !slices.Contains(pages, "README.md") {
		t.Fatalf("pages %q: %v", pages, err)
	}
	return pages
}

func readPage(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDocsNameTests checks that the tests exist that the pages name as evidence. Behind a name can be that of a subtest:
// TestBetter/GracefulStop.
func TestDocsNameTests(t *testing.T) {
	t.Parallel()
	defined := make(map[string]string) // the source of the test's file and of those beside it
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	sources := make(map[string]string) // by directory
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		sources[filepath.Dir(path)] += string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		for _, m := range function.FindAllStringSubmatch(source, -1) {
			defined[m[1]] += source
		}
	}
	name := regexp.MustCompile(`\b(Test[A-Z]\w+)(?:/(\w+))?`)
	for _, page := range pages(t) {
		for _, m := range name.FindAllStringSubmatch(readPage(t, page), -1) {
			switch source, ok := defined[m[1]]; {
			case !ok:
				t.Errorf("%s refers to %s, which does not exist", page, m[1])
			case m[2] != "" && !strings.Contains(source, `"`+m[2]+`"`):
				t.Errorf("%s refers to %s, which has no subtest of that name", page, m[0])
			}
		}
	}
}

// TestDocsLinks checks that relative links lead to files, and their fragments to headings.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(withoutCode(readPage(t, page)), -1) {
			target, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if target.IsAbs() {
				continue
			}
			file := page
			if target.Path != "" {
				file = filepath.Join(filepath.Dir(page), target.Path)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			if target.Fragment != "" && !slices.Contains(anchors(readPage(t, file)), target.Fragment) {
				t.Errorf("%s links to %s: no such heading", page, m[1])
			}
		}
	}
}

// withoutCode returns the text of a page without its code blocks.
func withoutCode(page string) string {
	var text strings.Builder
	code := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "```") {
			code = !code
		} else if !code {
			text.WriteString(line)
		}
	}
	return text.String()
}

// anchors returns the names that GitHub gives to the headings of a page.
func anchors(page string) []string {
	var names []string
	for line := range strings.Lines(withoutCode(page)) {
		level := strings.IndexFunc(line, func(r rune) bool { return r != '#' })
		if level < 1 || line[level] != ' ' {
			continue
		}
		names = append(names, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(line[level:])))
	}
	return names
}

// TestREADMEProgram compiles the program in the README.
func TestREADMEProgram(t *testing.T) {
	t.Parallel()
	block := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindStringSubmatch(readPage(t, "README.md"))
	if block == nil {
		t.Fatal("there is none")
	}
	if formatted, err := format.Source([]byte(block[1])); err != nil || string(formatted) != block[1] {
		t.Errorf("it is not formatted as gofmt does: %v", err)
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(block[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
