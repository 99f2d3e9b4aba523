package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/oneport-go/oneport/benchmarks/internal/load"
	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// TestAgree compares the results of the two full runs that are kept. Of intervals of 95 % confidence some miss, but two
// miss each other rarely.
func TestAgree(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := command(t.Context(), []string{"-compare", "results/full", "results/again"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var differ, all int
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if _, err := fmt.Sscanf(lines[len(lines)-1], "%d of %d ratios", &differ, &all); err != nil {
		t.Fatalf("%s: %v", lines[len(lines)-1], err)
	}
	if all < 1000 || differ > all/100 {
		t.Errorf("%d of %d ratios differ:\n%s", differ, all, &out)
	}
}

// keptRun returns the results of the full run to which the project's pages link.
func keptRun(t *testing.T) (*results.Results, *results.Summary) {
	t.Helper()
	r, err := results.Read(filepath.Join("results", "full", results.File))
	if err != nil {
		t.Fatal(err)
	}
	return r, r.Summarize()
}

// readPage returns one of the project's pages.
func readPage(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A figure says which ratios are in a row of a table.
type figure struct{ scenario, metric string }

// checkMain checks that the scenarios of a table that are played in slices have more rounds than others.
func checkMain(t *testing.T, rows map[string]figure) {
	t.Helper()
	for _, s := range load.Table(2) {
		for name, row := range rows {
			if row.scenario == s.Name && s.Sliced() && !s.Main {
				t.Errorf("%s: %s has no more rounds than others", name, s.Name)
			}
		}
	}
}

// TestREADME holds the figures in the project's README to the results that they link to.
func TestREADME(t *testing.T) {
	t.Parallel()
	_, sum := keptRun(t)
	columns := []string{"oneport", "oneport-listen", "oneport-server", "cmux", "servehttp"}
	rows := map[string]figure{
		"server CPU, new strict gRPC connection, one RPC":             {"new-grpc", "cpu"},
		"server CPU, new HTTP/1 connection, one request":              {"new-http1", "cpu"},
		"server CPU, new connections with 100 other routes":           {"routes-100", "cpu"},
		"RPC/s on open connections, 32 in flight":                     {"rpc-32", "throughput"},
		"memory per idle gRPC connection":                             {"idle-grpc", "memory"},
		"requests/s, gRPC and REST on one connection, to `ServeHTTP`": {"mixed", "throughput"},
	}
	checkMain(t, rows)
	found := 0
	for line := range strings.Lines(readPage(t, "README.md")) {
		cells := tableCells(line)
		row, ok := rows[cells[0]]
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
			case ok:
				want = ratio(e.Median)
			}
			if got := cells[1+i]; got != want {
				t.Errorf("%s, %s: %q, and the results say %q", cells[0], contender, got, want)
			}
		}
	}
	if found != len(rows) {
		t.Errorf("the README has %d of %d rows", found, len(rows))
	}
}

// ratio returns a ratio as the pages have it.
func ratio(v float64) string {
	if v >= 1.95 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// TestGoals holds the tables of goals in docs/performance.md to the results: the figures, how certain they are, and which
// of the goals are reached. A goal within the interval is not told from one that is reached.
func TestGoals(t *testing.T) {
	t.Parallel()
	_, sum := keptRun(t)
	page := readPage(t, "docs/performance.md")
	contenders := map[string]string{"`Server`": "oneport-server", "`Mux` on `oneport.Listen`": "oneport-listen"}
	rows := map[string]figure{
		"server CPU, new strict gRPC connection, one RPC":                     {"new-grpc", "cpu"},
		"the same connection, one client at a time":                           {"one-grpc", "cpu"},
		"server CPU, new HTTP/1 connection, one request":                      {"new-http1", "cpu"},
		"the same request, one client at a time":                              {"one-http1", "cpu"},
		"server CPU, new HTTP/2 connection of net/http, one client at a time": {"one-h2c", "cpu"},
		"RPC/s on open connections, 32 in flight":                             {"rpc-32", "throughput"},
		"server CPU for each of these":                                        {"rpc-32", "cpu"},
		"memory of an idle gRPC connection":                                   {"idle-grpc", "memory"},
		"the same before its first RPC":                                       {"pending-grpc", "memory"},
		"gRPC and REST on one connection, requests/s, to `ServeHTTP`":         {"mixed", "throughput"},
	}
	checkMain(t, rows)
	_, tables, _ := strings.Cut(page, "## The goals\n")
	tables, _, _ = strings.Cut(tables, "**Compared with others")
	contender, found := "", 0
	for line := range strings.Lines(tables) {
		cells := tableCells(line)
		if c, ok := contenders[cells[0]]; ok {
			contender = c
		}
		row, ok := rows[cells[0]]
		if !ok {
			if !strings.HasPrefix(line, "|") || contenders[cells[0]] != "" || strings.HasPrefix(cells[0], "---") {
				continue
			}
			t.Fatalf("the page has a goal that is not known here: %s", cells[0])
		}
		found++
		e, ok := sum.Ratio(row.scenario, contender, row.metric)
		goal, err := strconv.ParseFloat(cells[1], 64)
		if !ok || err != nil {
			t.Fatalf("%s: there is no ratio, or no goal: %v", cells[0], err)
		}
		if e.Wide() {
			t.Errorf("%s, %s: the interval is [%.3f, %.3f]", contender, cells[0], e.Low, e.High)
		}
		if want := fmt.Sprintf("%s [%s, %s]", ratio(e.Median), ratio(e.Low), ratio(e.High)); cells[2] != want {
			t.Errorf("%s, %s: %q, and the results say %q", contender, cells[0], cells[2], want)
		}
		best, worst := e.Low, e.High // of what can be true
		if row.metric == "throughput" {
			best, worst, goal = -e.High, -e.Low, -goal
		}
		want := "not reached"
		switch {
		case worst <= goal:
			want = "reached"
		case best <= goal:
			want = "reached, within what the run can tell"
		}
		if got := strings.TrimPrefix(cells[3], "["); got != want && !strings.HasPrefix(got, want+"](#") {
			t.Errorf("%s, %s: %q, and the results say %q", contender, cells[0], got, want)
		}
	}
	if found < 17 {
		t.Errorf("the page has %d goals", found)
	}
}

// TestSizing holds the tables of docs/sizing.md to the results that it links to. The first cell of a table says what its
// rows have of the scenario that they name.
func TestSizing(t *testing.T) {
	t.Parallel()
	type table struct {
		metric  string
		ratio   bool
		unit    float64
		decimal int
	}
	tables := map[string]table{
		"memory, KiB":            {metric: "memory", unit: 1 << 10, decimal: 1},
		"goroutines":             {metric: "goroutines", unit: 1},
		"server CPU to open one": {metric: "opening", ratio: true, unit: 1, decimal: 2},
		"server CPU":             {metric: "cpu", ratio: true, unit: 1, decimal: 2},
	}
	columns := map[string]string{
		"plain": "plain", "plain, µs": "plain", "`Mux`": "oneport-listen", "`Server`": "oneport-server", "`ServeHTTP`": "servehttp",
	}
	r, sum := keptRun(t)
	baseline := make(map[string]string)
	for _, s := range r.Scenarios {
		baseline[s.Name] = s.Baseline
		for _, c := range r.Contenders {
			if e, ok := sum.Absolute(s.Name, c.Name, "rest"); ok && e.Median > 2000 {
				t.Errorf("%s, %s: %.0f µs/s at rest, and the page says less than two thousandths of a processor", s.Name, c.Name, e.Median)
			}
		}
	}
	page := readPage(t, "docs/sizing.md")
	scenario := regexp.MustCompile("`([a-z0-9-]+)`$")
	var header []string
	found := 0
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "|") {
			header = nil
			continue
		}
		cells := tableCells(line)
		if header == nil {
			header = cells
		}
		tab, ok := tables[header[0]]
		name := scenario.FindStringSubmatch(cells[0])
		if !ok || name == nil {
			continue
		}
		for i, cell := range cells[1:] {
			column := header[1+i]
			contender := columns[column]
			value, ok := sum.Absolute(name[1], contender, tab.metric)
			decimal, ratio := tab.decimal, tab.ratio
			switch {
			case strings.HasSuffix(column, "µs"):
				ratio, decimal = false, 0
			case ratio && baseline[name[1]] == contender:
				decimal, value.Median = 0, tab.unit
			case ratio:
				value, ok = sum.Ratio(name[1], contender, tab.metric)
			}
			want := ""
			if ok {
				want = strconv.FormatFloat(value.Median/tab.unit, 'f', decimal, 64)
			}
			if cell != want {
				t.Errorf("%s, %s, %s: %q, and the results say %q", header[0], name[1], column, cell, want)
			}
			found++
		}
	}
	if found < 50 {
		t.Errorf("the page has %d figures", found)
	}
}

// tableCells returns the cells of a row of a table in Markdown.
func tableCells(line string) []string {
	cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

// TestBehind checks that docs/performance.md names every scenario in which oneport costs more, or carries less, than
// cmux or ServeHTTP by more than the intervals of the full run allow.
func TestBehind(t *testing.T) {
	t.Parallel()
	r, sum := keptRun(t)
	page := readPage(t, "docs/performance.md")
	_, list, _ := strings.Cut(page, "**Compared with others")
	list, _, _ = strings.Cut(list, "\n## ")
	for _, s := range r.Scenarios {
		for _, ours := range []string{"oneport", "oneport-listen", "oneport-server"} {
			for _, theirs := range []string{"cmux", "servehttp"} {
				for _, metric := range []string{"cpu", "throughput", "memory"} {
					a, okA := sum.Ratio(s.Name, ours, metric)
					b, okB := sum.Ratio(s.Name, theirs, metric)
					if s.Baseline == theirs {
						b, okB = results.Estimate{Median: 1, Low: 1, High: 1}, true
					}
					worse := a.Median > b.Median
					if metric == "throughput" {
						worse = a.Median < b.Median
					}
					if okA && okB && worse && !a.Overlaps(b) && !strings.Contains(list, "`"+s.Name+"`") {
						t.Errorf("%s: %s of %s is %.3f, and of %s %.3f", s.Name, metric, ours, a.Median, theirs, b.Median)
					}
				}
			}
		}
	}
}
