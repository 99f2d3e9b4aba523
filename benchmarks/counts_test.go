package main

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// TestCounts compares what an operation takes with what is kept in results/counts. It runs the command as a process,
// which the race detector is not in: it allocates for itself.
func TestCounts(t *testing.T) {
	t.Parallel()
	kept, err := results.ReadCounts(filepath.Join("results", "counts", results.CountsFile))
	if err != nil {
		t.Fatal(err)
	}
	if kept.Environment.Go != runtime.Version() || kept.Environment.System != runtime.GOOS+"/"+runtime.GOARCH {
		t.Skipf("the counts that are kept are those of %s on %s", kept.Environment.Go, kept.Environment.System)
	}
	out, err := exec.Command("go", "run", ".", "-counts", "-against", "results/counts", "-scenario", "new-http1,new-grpc,rpc-1",
		"-contender", "plain,oneport,oneport-server").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "are those of results/counts") {
		t.Errorf("%v: %s", err, out)
	}
}
