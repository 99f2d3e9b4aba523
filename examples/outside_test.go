// Package examples_test checks what holds for all examples.
package examples_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOutside copies each example into a stranger's module, and builds it there. What imports an internal package
// fails.
func TestOutside(t *testing.T) {
	if testing.Short() {
		t.Skip("builds many packages")
	}
	t.Parallel()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob("*/main.go")
	if err != nil || len(examples) == 0 {
		t.Fatalf("examples %q, %v", examples, err)
	}
	together := t.TempDir() // those of the root's module
	newModule(t, together, root, root)
	dirs := map[string]string{"the root's module": together}
	for _, file := range examples {
		name := filepath.Dir(file)
		dir := filepath.Join(together, name)
		if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
			dir = filepath.Join(t.TempDir(), name)
			dirs[name] = dir
		}
		copyExample(t, name, dir)
		if dirs[name] != "" {
			newModule(t, dir, name, root)
		}
	}
	for name, dir := range dirs {
		t.Run(name, func(t *testing.T) {
			run(t, dir, "vet", "./...")
		})
	}
}

// copyExample copies an example without its tests to a folder of that name, as a user does who then changes the import
// paths.
func copyExample(t *testing.T, name, to string) {
	t.Helper()
	err := filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".go") {
			b = bytes.ReplaceAll(b, []byte(`"github.com/oneport-go/oneport/examples/`+name+`/`), []byte(`"`+modulePath(name)+`/`))
		}
		rel, err := filepath.Rel(name, path)
		if err != nil {
			return err
		}
		file := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			return err
		}
		return os.WriteFile(file, b, 0o666)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// modulePath is where the package of a copied example is.
func modulePath(name string) string { return "stranger.example/" + name }

// newModule makes a module that needs what the module in from needs, and oneport as it is here.
func newModule(t *testing.T, dir, from, root string) {
	t.Helper()
	for _, file := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(from, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), b, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	module := "stranger.example"
	if from != root {
		module = modulePath(from)
	}
	args := []string{"mod", "edit", "-module", module}
	for path, folder := range replaced(t, from) {
		args = append(args, "-replace", path+"="+folder)
	}
	run(t, dir, append(args, "-require", "github.com/oneport-go/oneport@v0.0.0", "-replace", "github.com/oneport-go/oneport="+root)...)
}

// replaced returns the folders of the modules that the one in a folder replaces.
func replaced(t *testing.T, dir string) map[string]string {
	t.Helper()
	var mod struct {
		Replace []struct{ Old, New struct{ Path string } }
	}
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &mod)
	}
	if err != nil {
		t.Fatalf("go mod edit -json in %s: %v", dir, err)
	}
	folders := make(map[string]string)
	for _, r := range mod.Replace {
		folder, err := filepath.Abs(filepath.Join(dir, r.New.Path))
		if err != nil {
			t.Fatal(err)
		}
		folders[r.Old.Path] = folder
	}
	return folders
}

func run(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
