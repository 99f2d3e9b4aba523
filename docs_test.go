package oneport

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
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

// TestDocsNameTests checks that the tests and benchmarks exist that the pages name as evidence. The name of a subtest
// may follow that of a test: TestBetter/GracefulStop.
func TestDocsNameTests(t *testing.T) {
	t.Parallel()
	defined := make(map[string]string) // the source of the test's file and of those beside it
	function := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)\(`)
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
	name := regexp.MustCompile(`\b((?:Test|Benchmark)[A-Z]\w+)(?:/(\w+))?`)
	for _, page := range pages(t) {
		text := readPage(t, page)
		for _, m := range append(name.FindAllStringSubmatch(text, -1), subtestsInTables(text)...) {
			switch source, ok := defined[m[1]]; {
			case !ok:
				t.Errorf("%s refers to %s, which does not exist", page, m[1])
			case m[2] != "" && !strings.Contains(source, `"`+m[2]+`"`):
				t.Errorf("%s refers to %s, which has no subtest of that name", page, m[0])
			}
		}
	}
}

// subtestsInTables returns the subtests in tables whose last column is headed "test in `TestBetter`", each as the whole
// name, the test and the subtest.
func subtestsInTables(page string) (names [][]string) {
	heading := regexp.MustCompile("test in `(Test\\w+)` \\|\n")
	test := ""
	for line := range strings.Lines(page) {
		if m := heading.FindStringSubmatch(line); m != nil {
			test = m[1]
		} else if !strings.HasPrefix(line, "|") {
			test = ""
		} else if test != "" {
			cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), "|"), "|")
			for _, m := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(cells[len(cells)-1], -1) {
				names = append(names, []string{test + "/" + m[1], test, m[1]})
			}
		}
	}
	return names
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

// TestImports holds package oneport, with all that it imports, to the standard library and golang.org/x, as the README
// says.
func TestImports(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	paths := strings.Fields(string(out))
	if !slices.Contains(paths, "github.com/oneport-go/oneport") {
		t.Errorf("the package is not among %q", paths)
	}
	for _, path := range paths {
		if !strings.HasPrefix(path, "github.com/oneport-go/oneport") && !strings.HasPrefix(path, "golang.org/x/") {
			t.Errorf("it imports %s", path)
		}
	}
}

// TestDefaultsAreDocumented compares the defaults of Limits with those that the documentation of each field and the
// tables of docs/security.md give.
func TestDefaultsAreDocumented(t *testing.T) {
	t.Parallel()
	count := func(n int64) string {
		switch {
		case n == 1<<20+320:
			return "1 MiB and 320 bytes"
		case n%(1<<20) == 0:
			return fmt.Sprintf("%d MiB", n>>20)
		case n >= 10_000:
			return fmt.Sprintf("%d,%03d", n/1000, n%1000)
		}
		return fmt.Sprint(n)
	}
	short, long := make(map[string]string), make(map[string]string) // in a table, and in a sentence
	limits := reflect.ValueOf(Limits{}.withDefaults())
	for i := range limits.NumField() {
		name := limits.Type().Field(i).Name
		d, ok := limits.Field(i).Interface().(time.Duration)
		switch {
		case name == "MaxConns":
			long[name] = "no bound of this kind"
		case !ok:
			long[name] = count(limits.Field(i).Int())
			short[name] = long[name]
			if strings.HasSuffix(name, "Rate") {
				short[name] += "/s"
			}
		case d%time.Minute == 0:
			short[name], long[name] = fmt.Sprintf("%d min", d/time.Minute), fmt.Sprintf("%d minutes", d/time.Minute)
		default:
			n := int(d.Seconds())
			short[name], long[name] = fmt.Sprintf("%d s", n), fmt.Sprintf("%d second%s", n, strings.Repeat("s", min(n-1, 1)))
		}
	}
	// check compares what is said of the fields named in names.
	check := func(where string, names []string, said []string, want map[string]string) {
		if len(said) != len(names) {
			t.Errorf("%s: %q for %q", where, said, names)
			return
		}
		for i, name := range names {
			if said[i] != want[name] {
				t.Errorf("%s: %s is %q, documented as %q", where, name, want[name], said[i])
			}
		}
	}

	inTables := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| (`\\w+`(?:, `\\w+`)*) \\| ([^|]+) \\|").FindAllStringSubmatch(readPage(t, "docs/security.md"), -1) {
		names := strings.Split(strings.ReplaceAll(row[1], "`", ""), ", ")
		check("docs/security.md", names, strings.Split(row[2], ", "), short)
		for _, name := range names {
			inTables[name] = true
		}
	}
	for name := range short {
		if !inTables[name] {
			t.Errorf("docs/security.md does not have %s", name)
		}
	}

	file, err := parser.ParseFile(token.NewFileSet(), "limits.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`The defaults? (?:is|are) (.+?)(?:, as in net/http|, as for [^.]+)?\.(?: |$)`)
	ast.Inspect(file, func(n ast.Node) bool {
		f, ok := n.(*ast.Field)
		if !ok || f.Doc == nil {
			return true
		}
		var names []string
		for _, name := range f.Names {
			names = append(names, name.Name)
		}
		m := said.FindStringSubmatch(strings.Join(strings.Fields(f.Doc.Text()), " "))
		if m == nil {
			t.Errorf("the documentation of %q gives no default", names)
			return true
		}
		check("limits.go", names, strings.SplitN(m[1], " and ", len(names)), long)
		return true
	})
}
