package contender

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// dropIn is this program with oneport's drop-in in the place of cmux, as a user of cmux builds his: with a replace
// directive.
var dropIn struct {
	sync.Mutex
	dir  string
	err  error
	done bool
}

// buildDropIn builds the program if it is not there yet, and returns its path. It takes the go command, and the source.
func buildDropIn() (string, error) {
	dropIn.Lock()
	defer dropIn.Unlock()
	if !dropIn.done {
		dropIn.done = true
		dropIn.dir, dropIn.err = build()
	}
	return filepath.Join(dropIn.dir, "server"), dropIn.err
}

// source finds the go.mod of this program, beside that of the drop-in.
func source() (path string, err error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	path = strings.TrimSpace(string(out))
	_, err = os.Stat(filepath.Join(filepath.Dir(path), "..", "cmux", "go.mod"))
	return path, err
}

func build() (dir string, err error) {
	path, err := source()
	if err != nil {
		return "", err
	}
	mod, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	root := filepath.Dir(path)
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("", "dropin"); err != nil {
		return "", err
	}
	mod = append(mod, "\nreplace github.com/soheilhy/cmux => ../cmux\n"...)
	for name, content := range map[string][]byte{"go.mod": mod, "go.sum": sum} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return dir, err
		}
	}
	cmd := exec.Command("go", "build", "-modfile", filepath.Join(dir, "go.mod"), "-o", filepath.Join(dir, "server"), ".")
	cmd.Dir = root
	if said, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("building with the drop-in: %w: %s", err, said)
	}
	return dir, nil
}

// CleanUp removes what was built.
func CleanUp() {
	dropIn.Lock()
	defer dropIn.Unlock()
	if dropIn.dir != "" {
		os.RemoveAll(dropIn.dir)
	}
	dropIn.dir, dropIn.done = "", false
}
