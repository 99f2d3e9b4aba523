package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// unreleased are the folders whose modules are only for those who have the repository: they get no tags. Every other
// module is released.
var unreleased = []string{"benchmarks", "examples", "internal"}

// A mod is a module of the repository.
type mod struct {
	dir  string // below the root of the repository, with slashes; "." for the root
	path string // by which others require it, which for the drop-in is not what its go.mod says
	file *modfile.File
}

func (m *mod) isReleased() bool {
	first, _, _ := strings.Cut(m.dir, "/")
	return !slices.Contains(unreleased, first)
}

// tag returns the name of the tag for a version.
func (m *mod) tag(version string) string {
	if m.dir == "." {
		return version
	}
	return m.dir + "/" + version
}

// modules returns the modules that are under version control or will be, the root first.
func (r *repo) modules(ctx context.Context) ([]*mod, error) {
	list, err := r.git(ctx, "ls-files", "-co", "--exclude-standard", "--deduplicate", "go.mod", "*/go.mod")
	if err != nil {
		return nil, err
	}
	var mods []*mod
	for _, name := range strings.Fields(list) {
		data, err := os.ReadFile(filepath.Join(r.root, filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		file, err := modfile.Parse(name, data, nil)
		if err != nil {
			return nil, err
		}
		mods = append(mods, &mod{dir: path.Dir(name), file: file})
	}
	slices.SortFunc(mods, func(a, b *mod) int { return cmp.Compare(a.dir, b.dir) })
	if len(mods) == 0 || mods[0].dir != "." {
		return nil, fmt.Errorf("there is no go.mod in %s", r.root)
	}
	for _, m := range mods {
		m.path = path.Join(mods[0].file.Module.Mod.Path, m.dir)
	}
	return mods, nil
}

// setVersion lets a module require the version of each released module that it requires at all. It reports whether the
// file has changed.
func (m *mod) setVersion(released map[string]bool, version string) (changed bool, err error) {
	for _, require := range m.file.Require {
		if !released[require.Mod.Path] || require.Mod.Version == version {
			continue
		}
		changed = true
		if err := m.file.AddRequire(require.Mod.Path, version); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// check reports what would make a released module useless to others, who use neither its replace directives nor its
// go.sum.
func (m *mod) check(root *mod, released map[string]bool, version string) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: %s", path.Join(m.dir, "go.mod"), fmt.Sprintf(format, args...))
	}
	if m.file.Go == nil || root.file.Go == nil || semver.Compare("v"+m.file.Go.Version, "v"+root.file.Go.Version) > 0 {
		return fail("it must have a go directive that is no newer than that of the root")
	}
	if m.file.Toolchain != nil {
		return fail("it has a toolchain directive, for which there is no need")
	}
	if m == root && len(m.file.Replace) > 0 {
		return fail("it has a replace directive, with which go install refuses its commands")
	}
	for _, replace := range m.file.Replace {
		if !released[replace.Old.Path] {
			return fail("it replaces %s, which others do not", replace.Old.Path)
		}
	}
	for _, require := range m.file.Require {
		if released[require.Mod.Path] && require.Mod.Version != version {
			return fail("it requires %s, not %s: run release prepare %[2]s", require.Mod, version)
		}
	}
	return nil
}

// releasedPaths returns the paths of the modules that are released.
func releasedPaths(mods []*mod) map[string]bool {
	paths := make(map[string]bool)
	for _, m := range mods {
		if m.isReleased() {
			paths[m.path] = true
		}
	}
	return paths
}
