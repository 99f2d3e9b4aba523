package cmux

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestOriginal runs the tests of this module against cmux v0.1.5: all in TestBetter have to fail there, and all in
// TestSame have to pass.
func TestOriginal(t *testing.T) {
	t.Parallel()
	if original {
		t.Skip("this is it")
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-modfile=original.mod", "-json", "-vet=off", "-run", "^Test(Better|Same)$", ".")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Fatalf("%v: %v\n%s\n%s", cmd, err, out, &stderr)
	}
	results, said := make(map[string]string), make(map[string]string)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var event struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatalf("%v: %v: %s", cmd, err, lines.Bytes())
		}
		switch event.Action {
		case "pass", "fail", "skip":
			results[event.Test] = event.Action
		case "output":
			said[event.Test] += event.Output
		}
	}
	for name := range better {
		if got := results["TestBetter/"+name]; got != "fail" {
			t.Errorf("against the original, TestBetter/%s has the result %q, want fail\n%s", name, got, said["TestBetter/"+name])
		}
	}
	for test, result := range results {
		if strings.HasPrefix(test, "TestSame") && result != "pass" {
			t.Errorf("against the original, %s has the result %q, want pass\n%s", test, result, said[test])
		}
	}
	if results["TestSame"] != "pass" {
		t.Errorf("against the original, TestSame has the result %q, want pass", results["TestSame"])
	}
}
