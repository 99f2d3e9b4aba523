package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const version = "v0.1.0"

// TestRelease plays a whole release in a copy of the repository: prepare, commit, tag, publish on a module proxy that
// is a folder, and use by others, for whom nothing comes from this repository but by that proxy.
func TestRelease(t *testing.T) {
	t.Parallel()
	p := publish(t)
	root := p.repo.released[0]

	t.Run("command", func(t *testing.T) {
		t.Parallel()
		bin := t.TempDir()
		p.run(t, t.TempDir(), []string{"GOBIN=" + bin}, "go", "install", root.path+"/cmd/oneport@latest")
		program := filepath.Join(bin, "oneport")
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if info.Main.Version != version || info.Main.Sum == "" {
			t.Errorf("the command is of %+v", info.Main)
		}
		if out := p.run(t, bin, nil, program, "help"); !strings.Contains(out, "probe ") {
			t.Errorf("oneport help: %s", out)
		}
	})

	t.Run("package", func(t *testing.T) {
		t.Parallel()
		dir := p.stranger(t, "hello")
		p.run(t, dir, nil, "go", "get", root.path+"@"+version, p.grpc)
		p.run(t, dir, nil, "go", "mod", "tidy")
		if got := p.run(t, dir, nil, p.build(t, dir, root.path)); got != "hello SERVING\n" {
			t.Errorf("got %q", got)
		}
	})

	t.Run("cmux", func(t *testing.T) {
		t.Parallel()
		dir := p.stranger(t, "cmux")
		p.run(t, dir, nil, "go", "get", "github.com/soheilhy/cmux@v0.1.5", p.grpc)
		p.run(t, dir, nil, "go", "mod", "edit", "-replace=github.com/soheilhy/cmux="+root.path+"/cmux@"+version)
		p.run(t, dir, nil, "go", "mod", "tidy")
		if got := p.run(t, dir, nil, p.build(t, dir, root.path, root.path+"/cmux")); got != "SERVING\n" {
			t.Errorf("got %q", got)
		}
	})

	// The other modules with their own tests, of which some may need what only the repository has: they compile.
	for _, m := range p.repo.released[1:] {
		if m.dir == "cmux" {
			continue
		}
		t.Run(m.dir, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p.run(t, dir, nil, "go", "mod", "init", "example.com/stranger")
			p.run(t, dir, nil, "go", "get", m.path+"/...@"+version)
			p.run(t, dir, nil, "go", "build", m.path+"/...")
		})
	}

	// Examples are copied, by somebody who keeps neither their place nor their tests.
	for _, dir := range p.repo.examples {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			p.buildExample(t, root.path, dir)
		})
	}
}

// A published is a repository of which a release was published.
type published struct {
	repo struct {
		released []*mod
		examples []string // folders with programs
		root     string
	}
	env  []string
	grpc string // as go get has it
}

// publish releases a copy of the repository. The go command makes the proxy, from the tags, as every proxy does.
func publish(t *testing.T) *published {
	t.Helper()
	r := copyRepo(t)
	if err := r.prepare(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	commit(t, r)
	if err := r.tag(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	mods, err := r.modules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := new(published)
	p.repo.root = r.root
	fetch := []string{"mod", "download", "-json"}
	for _, m := range mods {
		if m.isReleased() {
			p.repo.released = append(p.repo.released, m)
			fetch = append(fetch, m.path+"@"+version)
		}
	}
	for _, require := range mods[0].file.Require {
		if require.Mod.Path == "google.golang.org/grpc" {
			p.grpc = require.Mod.String()
		}
	}
	programs, err := r.git(t.Context(), "grep", "-l", "^package main$", "--", "examples/*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range strings.Fields(programs) {
		p.repo.examples = append(p.repo.examples, filepath.Dir(file))
	}

	// Modules of others come from where they always do, and first of all from what has been downloaded already.
	var host struct{ GOPROXY, GOMODCACHE string }
	out, err := output(t.Context(), r.root, "go", "env", "-json", "GOPROXY", "GOMODCACHE")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &host); err != nil {
		t.Fatal(err)
	}
	origin, proxy := t.TempDir(), t.TempDir()
	p.env = append(os.Environ(),
		"GOFLAGS=-modcacherw", "GOWORK=off", "GONOSUMDB="+p.repo.released[0].path, "GOTOOLCHAIN=local",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url."+fileURL(r.root)+".insteadOf",
		"GIT_CONFIG_VALUE_0=https://"+p.repo.released[0].path)
	p.run(t, t.TempDir(), []string{"GOPROXY=direct", "GOMODCACHE=" + origin}, "go", fetch...)
	p.env = append(p.env, "GOFLAGS=-modcacherw -trimpath -mod=mod", "GOMODCACHE="+proxy, "GIT_CONFIG_COUNT=0", "GOPROXY="+strings.Join([]string{
		fileURL(filepath.Join(origin, "cache", "download")), fileURL(filepath.Join(host.GOMODCACHE, "cache", "download")), host.GOPROXY}, ","))
	return p
}

func fileURL(path string) string { return "file://" + filepath.ToSlash(path) }

// run runs a command of those who use the release, and returns what it prints on standard output.
func (p *published) run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(slices.Clip(p.env), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, stderr.String())
	}
	return string(out)
}

// stranger returns a new module with a program of testdata.
func (p *published) stranger(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", program))); err != nil {
		t.Fatal(err)
	}
	p.run(t, dir, nil, "go", "mod", "init", "example.com/stranger")
	return dir
}

// build builds the program in a folder and returns its path. It checks that the modules that it names have come from
// the proxy, and no module from a folder.
func (p *published) build(t *testing.T, dir string, modules ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	p.run(t, dir, nil, "go", "build", "-o", program, ".")
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		if dep.Sum == "" {
			t.Errorf("%s has come from a folder", dep.Path)
		}
		if dep.Version == version && (dep.Path == p.repo.released[0].path || strings.HasPrefix(dep.Path, p.repo.released[0].path+"/")) {
			found = append(found, dep.Path)
		}
	}
	slices.Sort(found)
	for _, want := range modules {
		if !slices.Contains(found, want) {
			t.Errorf("the program has %q of the release, and not %s", found, want)
		}
	}
	return program
}

// buildExample builds a copy of an example in a module of another name.
func (p *published) buildExample(t *testing.T, rootPath, example string) {
	t.Helper()
	dir := t.TempDir()
	from := filepath.Join(p.repo.root, filepath.FromSlash(example))
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	const stranger = "example.com/stranger"
	// The packages of the example itself move with it.
	old, moved := []byte(`"`+rootPath+"/"+example+"/"), []byte(`"`+stranger+"/")
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".go" {
			return err
		}
		if strings.HasSuffix(name, "_test.go") {
			return os.Remove(name)
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(name, bytes.ReplaceAll(source, old, moved), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
		p.run(t, dir, nil, "go", "mod", "edit", "-module="+stranger)
		for _, m := range p.repo.released {
			p.run(t, dir, nil, "go", "mod", "edit", "-dropreplace="+m.path)
		}
	} else {
		p.run(t, dir, nil, "go", "mod", "init", stranger)
		p.run(t, dir, nil, "go", "get", rootPath+"@"+version, p.grpc)
	}
	p.run(t, dir, nil, "go", "mod", "tidy")
	p.build(t, dir, rootPath)
}

// copyRepo returns a new repository with the files of this one as they are, committed or not.
func copyRepo(t *testing.T) *repo {
	t.Helper()
	top, err := output(t.Context(), ".", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		t.Fatal(err)
	}
	from := &repo{root: strings.TrimSpace(top)}
	files, err := from.git(t.Context(), "ls-files", "-z", "-co", "--exclude-standard", "--deduplicate")
	if err != nil {
		t.Fatal(err)
	}
	to := &repo{root: t.TempDir(), today: time.Now(), stdout: t.Output()}
	for name := range strings.SplitSeq(strings.TrimSuffix(files, "\x00"), "\x00") {
		source, err := os.ReadFile(filepath.Join(from.root, name))
		if os.IsNotExist(err) {
			continue // removed, and not committed as removed
		}
		if err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(to.root, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, source, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// After a release, nothing is unreleased.
	edit(t, to, "CHANGELOG.md", "\n## Unreleased\n", "\n## Unreleased\n\n- A rehearsal.\n")
	git(t, to, "init", "-q", "-b", "main")
	commit(t, to)
	return to
}

// edit replaces a text in a file, where it must be.
func edit(t *testing.T, r *repo, file, old, new string) {
	t.Helper()
	name := filepath.Join(r.root, file)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		t.Fatalf("%s has no %q", file, old)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(data), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func git(t *testing.T, r *repo, args ...string) string {
	t.Helper()
	out, err := r.git(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// commit commits all files. What the configuration of git's user says must not matter, but its tags are made as it
// says.
func commit(t *testing.T, r *repo) {
	t.Helper()
	for _, setting := range []string{"user.name=Rehearsal", "user.email=rehearsal@example.com", "commit.gpgSign=false", "tag.gpgSign=false"} {
		name, value, _ := strings.Cut(setting, "=")
		git(t, r, "config", name, value)
	}
	git(t, r, "add", "-A")
	git(t, r, "commit", "-q", "-m", "A rehearsal")
}

// TestVersions checks which release may follow which.
func TestVersions(t *testing.T) {
	t.Parallel()
	r := smallRepo(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	fails := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	fails(r.prepare(t.Context(), "0.1.0"), "not a version")
	fails(r.prepare(t.Context(), "v0.1"), "not a version")
	fails(r.tag(t.Context(), "v0.1.0"), "has no section for v0.1.0")
	must(r.prepare(t.Context(), "v0.1.0"))
	fails(r.tag(t.Context(), "v0.1.0"), "not committed")
	commit(t, r)
	must(r.tag(t.Context(), "v0.1.0"))
	if got := strings.Fields(git(t, r, "tag")); !slices.Equal(got, []string{"nested/v0.1.0", "v0.1.0"}) {
		t.Errorf("tags: %q", got)
	}
	fails(r.tag(t.Context(), "v0.1.0"), "already")
	fails(r.prepare(t.Context(), "v0.1.1"), "nothing under Unreleased")

	release := func(version string) error {
		edit(t, r, "CHANGELOG.md", "\n## Unreleased\n", "\n## Unreleased\n\n- A change.\n")
		if err := r.prepare(t.Context(), version); err != nil {
			return err
		}
		commit(t, r)
		return r.tag(t.Context(), version)
	}
	edit(t, r, "nested/nested.go", "func B() {}", "func B(int) {}\nfunc C() {}")
	fails(release("v0.1.1"), "nested is not compatible with v0.1.0")
	var said bytes.Buffer
	r.stdout = &said
	must(r.compareAll(t.Context()))
	for _, want := range []string{"example.com/a: as in v0.1.0\n", "  incompatible: B: changed", "  compatible: C: added\n"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("no %q in:\n%s", want, said.String())
		}
	}
	must(release("v0.2.0-rc.1"))
	must(release("v0.2.0"))
	edit(t, r, "nested/nested.go", "func C() {}", "func C() {}\nfunc D() {}")
	must(release("v0.2.1"))
	must(release("v1.0.0"))
	edit(t, r, "a.go", "func A() {}", "func A() {}\nfunc E() {}")
	fails(release("v1.0.1"), "has more than v1.0.0")
	must(release("v1.1.0"))
	edit(t, r, "a.go", "func A() {}", "")
	fails(release("v1.2.0"), "not compatible")
	fails(release("v2.0.0"), "does not fit the path")
}

// TestCheck names what is wrong with a go.mod.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ file, add, want string }{
		{"go.mod", "replace example.com/x => ../x", "go install refuses"},
		{"nested/go.mod", "replace example.com/x => ../x", "which others do not"},
		{"nested/go.mod", "toolchain go1.99.1", "toolchain"},
		{"nested/go.mod", "require example.com/a v0.0.9", ""},
	} {
		r := smallRepo(t)
		if err := r.prepare(t.Context(), version); err != nil {
			t.Fatal(err)
		}
		edit(t, r, tt.file, "\ngo 1.26.0\n", "\ngo 1.26.0\n\n"+tt.add+"\n")
		commit(t, r)
		err := r.tag(t.Context(), version)
		if tt.want == "" {
			tt.want = "it requires example.com/a@v0.0.9, not v0.1.0"
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s with %q: got %v, want %q", tt.file, tt.add, err, tt.want)
		}
	}
}

// smallRepo returns a repository with two modules to be released and one that is not.
func smallRepo(t *testing.T) *repo {
	t.Helper()
	r := &repo{root: t.TempDir(), today: time.Now(), stdout: t.Output()}
	for name, content := range map[string]string{
		"CHANGELOG.md":     "# Changelog\n\n## Unreleased\n\n- All.\n",
		"go.mod":           "module example.com/a\n\ngo 1.26.0\n",
		"a.go":             "package a\n\nfunc A() {}\n",
		"cmd/a/main.go":    "package main\n\nfunc main() {}\n",
		"nested/go.mod":    "module example.com/a/nested\n\ngo 1.26.0\n\nrequire example.com/a v0.0.0\n\nreplace example.com/a => ../\n",
		"nested/nested.go": "package nested\n\nimport _ \"example.com/a\"\n\nfunc B() {}\n",
		"examples/b/go.mod": "module example.com/a/examples/b\n\ngo 1.26.0\n\nrequire example.com/a/nested v0.0.0\n\n" +
			"require example.com/a v0.0.0 // indirect\n\nreplace example.com/a => ../..\n\nreplace example.com/a/nested => ../../nested\n",
		"examples/b/main.go": "package main\n\nimport _ \"example.com/a/nested\"\n\nfunc main() {}\n",
	} {
		file := filepath.Join(r.root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git(t, r, "init", "-q", "-b", "main")
	commit(t, r)
	return r
}
