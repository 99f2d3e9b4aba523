package cmux

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The suite of cmux v0.1.5 has one test whose outcome is a matter of luck, for the original as well: when a client has
// read what a server wrote, it closes the listener, and the server of another listener must not notice before the first
// one has noted that it is done.
const (
	luckyTest    = "TestTimeout"
	luckyFailure = "any rule did not match"
)

// TestSuite runs the original's own tests with the replacement: each 20 times, with the race detector.
func TestSuite(t *testing.T) {
	t.Parallel()
	const times, atOnce = 20, 4
	if strings.TrimSpace(string(run(t, "", "go", "env", "CGO_ENABLED"))) != "1" {
		const missing = "the race detector needs cgo, and so a C compiler"
		if os.Getenv("ONEPORT_REQUIRE_CLIENTS") == "1" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	var module struct{ Dir string }
	out := run(t, "", "go", "mod", "download", "-json", "github.com/soheilhy/cmux@v0.1.5")
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root := absolute(t, "../../..")
	replacement, err := filepath.Glob(root + "/cmux/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(replacement, root+"/cmux/go.mod", root+"/cmux/go.sum", module.Dir+"/cmux_test.go") {
		if !strings.HasSuffix(file, "_test.go") || filepath.Dir(file) == module.Dir {
			copyFile(t, file, filepath.Join(dir, filepath.Base(file)))
		}
	}
	run(t, dir, "go", "mod", "edit", "-replace=github.com/oneport-go/oneport="+root)
	test := filepath.Join(dir, "suite.test")
	run(t, dir, "go", "test", "-race", "-c", "-vet=off", "-o", test, ".")

	// The tests mostly wait. Some leave files where they run.
	var wg sync.WaitGroup
	for i := range atOnce {
		wg.Go(func() {
			dir := filepath.Join(dir, fmt.Sprint(i))
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Error(err)
				return
			}
			runSuite(t, dir, test, "-test.skip", "^"+luckyTest+"$", "-test.count", fmt.Sprint(times/atOnce))
		})
		wg.Go(func() {
			for range times / atOnce {
				for tries := 1; !runLucky(t, dir, test); tries++ {
					if tries == 10 {
						t.Errorf("%s has failed %d times in a row", luckyTest, tries)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func runSuite(t *testing.T, dir, test string, args ...string) {
	cmd := exec.CommandContext(t.Context(), test, append(args, "-test.timeout", "2m")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd, err, out)
	}
}

// runLucky runs the test that needs luck, and reports whether it had it.
func runLucky(t *testing.T, dir, test string) bool {
	cmd := exec.CommandContext(t.Context(), test, "-test.run", "^"+luckyTest+"$", "-test.timeout", "1m")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil && (!strings.Contains(string(out), luckyFailure) || strings.Contains(string(out), "DATA RACE")) {
		t.Errorf("%v: %v\n%s", cmd, err, out)
		return true
	}
	return err == nil
}

// run runs a command that has to succeed and returns what it prints.
func run(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd, err, out, &stderr)
	}
	return out
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
