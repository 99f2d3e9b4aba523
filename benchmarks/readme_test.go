package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// TestAgree compares the results of the two runs that are kept. Of intervals of 95 % confidence some miss, but two miss
// each other rarely.
func TestAgree(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := command(t.Context(), []string{"-compare", "results/full", "results/again"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var differ, all int
	if _, err := fmt.Sscanf(lines[len(lines)-1], "%d of %d ratios", &differ, &all); err != nil {
		t.Fatalf("%s: %v", lines[len(lines)-1], err)
	}
	if all < 1000 || differ > all/100 {
		t.Errorf("%d of %d ratios differ:\n%s", differ, all, &out)
	}
}

// TestREADME holds the figures in the project's README to the results that they link to.
func TestREADME(t *testing.T) {
	t.Parallel()
	r, err := results.Read(filepath.Join("results", "full", results.File))
	if err != nil {
		t.Fatal(err)
	}
	sum := r.Summarize()
	b, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	columns := []string{"oneport", "oneport-listen", "oneport-server", "cmux", "servehttp"}
	rows := map[string]struct{ scenario, metric string }{
		"server CPU, new strict gRPC connection, one RPC":             {"new-grpc", "cpu"},
		"server CPU, new HTTP/1 connection, one request":              {"new-http1", "cpu"},
		"server CPU, new connections with 100 other routes":           {"routes-100", "cpu"},
		"RPC/s on open connections, 32 in flight":                     {"rpc-32", "throughput"},
		"memory per idle gRPC connection":                             {"idle-grpc", "memory"},
		"requests/s, gRPC and REST on one connection, to `ServeHTTP`": {"mixed", "throughput"},
	}
	found := 0
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		row, ok := rows[strings.TrimSpace(cells[0])]
		if !ok {
			continue
		}
		found++
		if len(cells) != 1+len(columns) {
			t.Errorf("%s: %d columns, want %d", cells[0], len(cells)-1, len(columns))
			continue
		}
		for i, contender := range columns {
			want := ""
			e, ok := sum.Ratio(row.scenario, contender, row.metric)
			switch {
			case contender == "servehttp" && row.scenario == "mixed":
				want = "1" // it is the baseline
			case ok && e.Median >= 1.95:
				want = fmt.Sprintf("%.1f", e.Median)
			case ok:
				want = fmt.Sprintf("%.2f", e.Median)
			}
			if got := strings.TrimSpace(cells[1+i]); got != want {
				t.Errorf("%s, %s: %q, and the results say %q", strings.TrimSpace(cells[0]), contender, got, want)
			}
		}
	}
	if found != len(rows) {
		t.Errorf("the README has %d of %d rows", found, len(rows))
	}
}
