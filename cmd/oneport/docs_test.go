package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oneport-go/oneport/cmd/oneport/internal/diagnose"
	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
	"github.com/oneport-go/oneport/cmd/oneport/internal/render"
	"github.com/oneport-go/oneport/cmd/oneport/internal/zoo"
)

var update = flag.Bool("update", false, "write what the probe prints into the pages")

// pages have outputs of the probe in them, each after a comment with the animal and flags.
var pages = []string{"../../README.md", "../../docs/troubleshooting.md", "README.md"}

// TestPages holds the outputs in the pages to what the probe prints for the animals.
func TestPages(t *testing.T) {
	t.Parallel()
	pki := zoo.NewPKI(t)
	for _, page := range pages {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(filepath.FromSlash(page))
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(b), "\r\n", "\n")
			marker := regexp.MustCompile("(?m)^<!-- probe (.*) -->\n+(```console\n(?s:.*?)\n```\n)?")
			found := marker.FindAllStringSubmatchIndex(text, -1)
			if len(found) == 0 {
				t.Fatal("there are no outputs")
			}
			if n := strings.Count(text, "```console\n"); n > len(found) {
				t.Errorf("%d outputs, of which the test knows %d", n, len(found))
			}
			outputs := make([]string, len(found))
			t.Run("outputs", func(t *testing.T) {
				for i, at := range found {
					words := strings.Fields(text[at[2]:at[3]])
					was := ""
					if at[4] >= 0 {
						was = text[at[4]:at[5]]
					}
					t.Run(strings.Join(words, " "), func(t *testing.T) {
						t.Parallel()
						outputs[i] = shown(t, pki, words[0], words[1:])
						if diff := cmp.Diff(was, outputs[i]); diff != "" && !*update {
							t.Errorf("run go test -update (-page +probe):\n%s", diff)
						}
					})
				}
			})
			if !*update {
				return
			}
			var out strings.Builder
			last := 0
			for i, at := range found {
				fmt.Fprintf(&out, "%s<!-- probe %s -->\n\n%s", text[last:at[0]], text[at[2]:at[3]], outputs[i])
				if at[4] < 0 {
					out.WriteString("\n")
				}
				last = at[1]
			}
			out.WriteString(text[last:])
			if err := os.WriteFile(filepath.FromSlash(page), []byte(out.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// shown returns what the command prints for an animal, as a page has it: with what differs from run to run replaced.
func shown(t *testing.T, pki *zoo.PKI, name string, flags []string) string {
	t.Helper()
	i := slices.IndexFunc(animals, func(a animal) bool { return a.name == name })
	if i < 0 {
		t.Fatalf("there is no animal %q", name)
	}
	a := animals[i]
	addr := a.start(t, pki)
	args := slices.Concat(a.args, flags, []string{"-idle", "400ms"})
	if a.files != nil {
		args = append(args, a.files(t, pki)...)
	}
	var s settings
	var stderr bytes.Buffer
	if err := s.flags(&stderr).Parse(append(args, a.url+addr)); err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	if err := s.complete(); err != nil {
		t.Fatal(err)
	}
	target, err := probe.ParseTarget(a.url + addr)
	if err != nil {
		t.Fatal(err)
	}
	s.Target = target
	report, err := probe.Run(t.Context(), s.Options)
	if err != nil {
		t.Fatal(err)
	}
	const public = "127.0.0.1:8080"
	report.Target, report.Address, report.Connect = public, public, 200*time.Microsecond
	until := regexp.MustCompile(`until 20[2-9][2-9]-\d\d-\d\d`) // certificates that are valid are so for a month
	for _, r := range report.Results {
		r.Came = until.ReplaceAllString(r.Came, "until 2030-01-01")
		if r.Answered {
			r.FirstByte = 400 * time.Microsecond
		}
		at := time.Duration(0)
		for i := range r.Log {
			at += 100 * time.Microsecond
			r.Log[i].At = at
		}
	}
	judged, findings := diagnose.Diagnose(report)
	var b bytes.Buffer
	if err := render.Text(&b, judged, findings, render.Style{Verbose: s.verbose, Width: 110}); err != nil {
		t.Fatal(err)
	}
	shownArgs := slices.Concat(flagsOf(a), flags)
	out := fmt.Sprintf("```console\n$ oneport probe %s\n%s```\n", strings.Join(append(shownArgs, a.url+public), " "), &b)
	out = strings.ReplaceAll(out, addr, public)
	// The timeout of the tests is shorter than the default.
	out = strings.ReplaceAll(out, "600 ms", "5 s")
	out = regexp.MustCompile(`(?m)date: .* GMT$`).ReplaceAllString(out, "date: Tue, 01 Jan 2030 00:00:00 GMT")
	return strings.ReplaceAll(out, "idle for 400 ms", "idle for 2 s   ")
}

// flagsOf are the animal's flags that a reader has to know.
func flagsOf(a animal) []string {
	if slices.Equal(a.args, short) {
		return nil
	}
	return a.args
}

// TestFlagsInReadme holds the flags in the README to those that there are.
func TestFlagsInReadme(t *testing.T) { // by itself, since TestPages may write the page as well
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	const marker = "<!-- flags -->\n\n"
	text := strings.ReplaceAll(string(b), "\r\n", "\n")
	before, after, ok := strings.Cut(text, marker)
	if !ok {
		t.Fatalf("there is no %q", marker)
	}
	was := ""
	if strings.HasPrefix(after, "```text\n") {
		end := strings.Index(after, "\n```\n") + len("\n```\n")
		was, after = after[:end], after[end:]
	} else {
		after = "\n" + after
	}
	var out bytes.Buffer
	new(settings).flags(&out).PrintDefaults()
	want := "```text\n" + strings.ReplaceAll(out.String(), "\t", "    ") + "```\n"
	if *update {
		if err := os.WriteFile("README.md", []byte(before+marker+want+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(was, want); diff != "" {
		t.Errorf("run go test -update (-README +flags):\n%s", diff)
	}
}

// TestDocLinks checks that the sections that findings refer to exist.
func TestDocLinks(t *testing.T) {
	t.Parallel()
	for _, page := range diagnose.Pages() {
		file, section, _ := strings.Cut(page, "#")
		b, err := os.ReadFile(filepath.FromSlash("../../" + file))
		if err != nil {
			t.Error(err)
			continue
		}
		if section != "" && !slices.Contains(sections(string(b)), section) {
			t.Errorf("%s has no section %s", file, section)
		}
	}
	for _, page := range pages {
		b, err := os.ReadFile(filepath.FromSlash(page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\((#[^)]+)\)`).FindAllStringSubmatch(string(b), -1) {
			if !slices.Contains(sections(string(b)), m[1][1:]) {
				t.Errorf("%s links to %s, which it has not", page, m[1])
			}
		}
	}
}

// sections returns the names of a page's sections, as links have them.
func sections(page string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(name, " ", "-"))
	}
	return out
}
