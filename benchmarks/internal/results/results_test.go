package results

import (
	"bytes"
	"encoding/xml"
	"flag"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fixed are results of every kind.
func fixed() *Results {
	r := &Results{
		Environment: Environment{
			System: "linux/amd64", Kernel: "6.1.0", CPU: "A processor", Processors: 8, MemoryGiB: 15.6, Go: "go1.26.0",
			Revision: "0123456789ab",
			Modules:  map[string]string{"google.golang.org/grpc": "v1.85.0", "github.com/soheilhy/cmux": "v0.1.5"},
		},
		Run: Run{
			Command: "go run .", Began: "2026-01-02T03:04:05Z", Minutes: 29.5, Rounds: 9,
			WarmUp: "150ms", Duration: "600ms", RoundTrips: "netem on the loopback of a network namespace",
			Processors: "0, 1, 2, 3 for the server, 4, 5, 6, 7 for the load", Width: Enough,
			Busy: &Busy{Others: 0.031, Steal: 0.004, Slices: 12345, Disturbed: 617, LoadBegan: "0.1 0.2 0.3", LoadNow: "1.1 0.9 0.4"},
		},
		Contenders: []Contender{{"plain", "no mux"}, {"oneport", "oneport.Mux"}, {"servehttp", "a handler of net/http"}},
		Scenarios: []Scenario{
			{Name: "new", Title: "New connections", Baseline: "plain"},
			{Name: "mixed", Title: "Both on one connection", Baseline: "servehttp", Lacks: map[string]string{"plain": "two ports"}},
			{Name: "routes-1", Title: "1 route", Baseline: "plain", Series: "routes", X: 1},
			{Name: "routes-1000", Title: "1,000 routes", Baseline: "plain", Series: "routes", X: 1000},
			{Name: "idle", Title: "Idle connections", Baseline: "plain"},
			{Name: "rtt-10", Title: "A first RPC", Baseline: "plain", RTT: 10},
		},
		Failures: []Failure{{Scenario: "idle", Contender: "servehttp", Round: 2, Error: "reading a frame:\nunexpected EOF"}},
		Notes:    []string{"idle: 2000 connections instead of 10000."},
	}
	for round := range 9 {
		slow := 1 + 0.1*float64(round%3) // a round is slow for all
		for i, c := range r.Contenders {
			noise := 1 + 0.002*float64((round*7+i*3)%5)
			f := slow * noise * []float64{1, 1.01, 1.5}[i]
			add := func(scenario string, values map[string]float64) {
				r.Samples = append(r.Samples, Sample{Scenario: scenario, Contender: c.Name, Round: round, Values: values})
			}
			add("new", map[string]float64{
				"throughput": 10_000 / f, "cpu": 80 * f, "p50": 700 * f, "p90": 900 * f, "p99": 1200 * f, "p999": 5000 * f * float64(round+1),
				"allocs": 123 * []float64{1, 1.01, 1.5}[i], "bytes": 45_678, "gc": 5.25, "peak": 40, "idle": 12.5,
			})
			if c.Name != "plain" {
				add("mixed", map[string]float64{"cpu": 30 / f, "throughput": 100_000 * f})
			}
			if c.Name != "servehttp" {
				add("routes-1", map[string]float64{"cpu": 80 * f})
				add("routes-1000", map[string]float64{"cpu": 81 * f})
			}
			if round < 5 && (c.Name != "servehttp" || round < 2) {
				add("idle", map[string]float64{"memory": 20_000 * f})
			}
			if round < 6 {
				add("rtt-10", map[string]float64{"p50": 30_000 * noise, "roundtrips": 3 * noise})
			}
		}
	}
	for i, c := range r.Contenders {
		l := Latency{Scenario: "new", Contender: c.Name}
		for j, q := range Quantiles(1000) {
			l.Points = append(l.Points, Point{q, 500 + float64(100*j*(i+1))})
		}
		r.Latencies = append(r.Latencies, l)
	}
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got), -update accepts it:\n%s", path, diff)
	}
}

// TestWrite compares the report and the CSV with those in testdata, and reads the others.
func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "latency-old.svg"), []byte("of another run"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := fixed()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{reportFile, csvFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == csvFile { // its beginning says all
			b = []byte(strings.Join(strings.SplitAfter(string(b), "\n")[:40], ""))
		}
		golden(t, name, b)
	}
	back, err := Read(filepath.Join(dir, File))
	if err != nil {
		t.Fatal(err)
	}
	// The samples are not kept, and what they say is: the report that is made of it is the same.
	again := t.TempDir()
	if err := back.Write(again); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{File, reportFile} {
		first, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		second, err := os.ReadFile(filepath.Join(again, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(first), string(second)); diff != "" {
			t.Errorf("%s, made of what was kept: %s", name, diff)
		}
	}
	if _, err := os.Stat(filepath.Join(again, csvFile)); err == nil {
		t.Errorf("%s was written, and there were no samples", csvFile)
	}
	plots, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range plots {
		names = append(names, filepath.Base(path))
		texts := svgTexts(t, path)
		if !slices.Contains(texts, "oneport") && !strings.Contains(path, "memory") {
			t.Errorf("%s has no legend for oneport: %q", path, texts)
		}
	}
	want := []string{
		"first-cpu.svg", "first-throughput.svg", "latency-new.svg", "memory.svg", "ratio-cpu.svg", "ratio-memory.svg", "ratio-p50.svg", "ratio-p99.svg",
		"ratio-throughput.svg", "routes-cpu.svg",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

// svgTexts returns the texts in a drawing, which must be well-formed.
func svgTexts(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var texts []string
	d := xml.NewDecoder(f)
	for {
		token, err := d.Token()
		if err == io.EOF {
			return texts
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return texts
		}
		if c, ok := token.(xml.CharData); ok {
			texts = append(texts, strings.TrimSpace(string(c)))
		}
	}
}

// TestWriteEmpty has nothing to show, as where all have failed.
func TestWriteEmpty(t *testing.T) {
	t.Parallel()
	r := fixed()
	r.Samples, r.Latencies = nil, nil
	dir := t.TempDir()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.Print(io.Discard, dir); err != nil {
		t.Fatal(err)
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := fixed().Print(&b, "results/full"); err != nil {
		t.Fatal(err)
	}
	golden(t, "print.txt", b.Bytes())
}

// TestPrintWithoutBaseline shows the numbers themselves.
func TestPrintWithoutBaseline(t *testing.T) {
	t.Parallel()
	r := fixed()
	r.Contenders = r.Contenders[1:2]
	r.Samples = slices.DeleteFunc(r.Samples, func(s Sample) bool { return s.Contender != "oneport" })
	r.Failures = nil
	var b bytes.Buffer
	if err := r.Print(&b, "results/custom"); err != nil {
		t.Fatal(err)
	}
	golden(t, "print-medians.txt", b.Bytes())
}

func TestEstimate(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for _, tt := range []struct {
		values []float64
		want   Estimate
	}{
		{[]float64{1}, Estimate{1, -inf, inf, 1}},
		{[]float64{5, 1, 3, 2, 4}, Estimate{3, -inf, 5, 5}},
		{[]float64{6, 5, 1, 3, 2, 4}, Estimate{3.5, 1, 6, 6}},
		// From nine on, one that is far off on either side is outside; from twelve on, two are.
		{[]float64{900, 2, 3, 4, 5, 6, 7, 8, -900}, Estimate{5, 2, 8, 9}},
		{[]float64{900, 800, 3, 4, 5, 6, 7, 8, 9, 10, -800, -900}, Estimate{6.5, 3, 10, 12}},
	} {
		got := estimate(tt.values)
		if diff := cmp.Diff(tt.want, got, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
			t.Errorf("%v: %s", tt.values, diff)
		}
	}
}

func TestWide(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		e    Estimate
		want bool
	}{
		{Estimate{Median: 1, Low: 0.98, High: 1.03}, false},
		{Estimate{Median: 1, Low: 0.96, High: 1.03}, true},
		{Estimate{Median: 10, Low: 9.8, High: 10.3}, false},
		{Estimate{Median: 1, Low: math.Inf(-1), High: math.Inf(1)}, true},
	} {
		if got := tt.e.Wide(); got != tt.want {
			t.Errorf("%+v: %v", tt.e, got)
		}
	}
}

// TestRatioWithinRounds has rounds that differ by more than the contenders do.
func TestRatioWithinRounds(t *testing.T) {
	t.Parallel()
	r := &Results{Scenarios: []Scenario{{Name: "s", Baseline: "a"}}}
	for round := range 9 {
		v := float64(round + 1)
		r.Samples = append(r.Samples,
			Sample{Scenario: "s", Contender: "a", Round: round, Values: map[string]float64{"cpu": v, "gc": 1}},
			Sample{Scenario: "s", Contender: "b", Round: round, Values: map[string]float64{"cpu": 2 * v, "gc": 1}})
	}
	// A round without the baseline has no ratio.
	r.Samples = append(r.Samples, Sample{Scenario: "s", Contender: "b", Round: 9, Values: map[string]float64{"cpu": 1000}})
	sum := r.Summarize()
	if e, ok := sum.Ratio("s", "b", "cpu"); !ok || !cmp.Equal(e, Estimate{2, 2, 2, 9}, cmpopts.EquateApprox(1e-9, 0)) {
		t.Errorf("%+v, %v", e, ok)
	}
	if e, ok := sum.Absolute("s", "b", "cpu"); !ok || e.N != 10 {
		t.Errorf("%+v, %v", e, ok)
	}
	if e, ok := sum.Ratio("s", "b", "gc"); ok {
		t.Errorf("a ratio of shares: %+v", e)
	}
	// What has failed has no result, and what is compared with it no ratio.
	r.Failures = []Failure{{Scenario: "s", Contender: "a", Round: 3, Error: "refused"}}
	sum = r.Summarize()
	if e, ok := sum.Absolute("s", "a", "cpu"); ok {
		t.Errorf("of a contender that has failed: %+v", e)
	}
	if e, ok := sum.Ratio("s", "b", "cpu"); ok {
		t.Errorf("against a baseline that has failed: %+v", e)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	a, b := fixed(), fixed()
	var same bytes.Buffer
	if err := Compare(a, b, &same); err != nil {
		t.Fatal(err)
	}
	if got := same.String(); !strings.HasPrefix(got, "0 of ") {
		t.Errorf("of the same results: %s", got)
	}
	scale := func(by float64) {
		for i, s := range b.Samples {
			if s.Scenario == "new" && s.Contender == "oneport" {
				b.Samples[i].Values = maps.Clone(s.Values)
				b.Samples[i].Values["cpu"] *= by
			}
		}
	}
	scale(1.015)
	var near bytes.Buffer
	if err := Compare(a, b, &near); err != nil {
		t.Fatal(err)
	}
	if got := near.String(); !strings.HasPrefix(got, "0 of ") {
		t.Errorf("of results that differ by 1.5 %%: %s", got)
	}
	scale(1.5 / 1.015)
	var other bytes.Buffer
	if err := Compare(a, b, &other); err != nil {
		t.Fatal(err)
	}
	if got := other.String(); !strings.HasPrefix(got, "new, oneport, server CPU: 1.011 [1.006, 1.016] and 1.516 ") || !strings.Contains(got, "\n1 of ") {
		t.Errorf("of others: %s", got)
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff([]float64{0, 1}, Quantiles(1)); diff != "" {
		t.Error(diff)
	}
	got := Quantiles(1000)
	if len(got) != 32 || math.Abs(got[10]-0.9) > 1e-9 || math.Abs(got[30]-0.999) > 1e-9 || got[31] != 1 || !slices.IsSorted(got) {
		t.Errorf("%v", got)
	}
}

func TestShowValue(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0.123: "0.12", 12.34: "12.3", 123.4: "123", 1234.5: "1,235", 1234567: "1,234,567", -1234: "-1,234", 999: "999",
	} {
		if got := showValue(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

func TestLook(t *testing.T) {
	t.Parallel()
	e := Look()
	if e.Processors < 1 || !strings.HasPrefix(e.Go, "go") && !strings.HasPrefix(e.Go, "devel") || e.System == "" {
		t.Errorf("%+v", e)
	}
	if got := parseGiB("16384000 kB"); got != 15.6 {
		t.Errorf("%v GiB", got)
	}
}

// TestWidth goes by the ratios that the pages have, and by the median latency only where the throughput is given.
func TestWidth(t *testing.T) {
	t.Parallel()
	narrow, wide := Estimate{Median: 1, Low: 0.99, High: 1.01}, Estimate{Median: 1, Low: 0.9, High: 1.1}
	for _, tt := range []struct {
		name   string
		ratios map[string]Estimate // by contender and metric
		want   float64
	}{
		{"the widest of all", map[string]Estimate{"a cpu": narrow, "a throughput": narrow, "b cpu": wide, "b throughput": narrow}, 0.2},
		{"throughput and latency", map[string]Estimate{"a cpu": narrow, "a throughput": narrow, "a p50": wide}, 0.02},
		{"latency alone", map[string]Estimate{"a cpu": narrow, "a p50": wide}, 0.2},
		{"the tail", map[string]Estimate{"a cpu": narrow, "a p99": wide}, 0.02},
		{"one that has failed", map[string]Estimate{"a cpu": narrow, "failed cpu": wide}, 0.02},
		{"one that is not asked for", map[string]Estimate{"a cpu": narrow, "c cpu": wide}, 0.02},
		{"the baseline", map[string]Estimate{"a cpu": narrow, "base cpu": wide}, 0.02},
		{"too few rounds", map[string]Estimate{"a cpu": {Median: 1, Low: math.Inf(-1), High: math.Inf(1)}}, math.Inf(1)},
		{"no ratio", nil, math.Inf(1)},
	} {
		r := &Results{
			Scenarios:  []Scenario{{Name: "s", Baseline: "base"}},
			Contenders: []Contender{{Name: "base"}, {Name: "a"}, {Name: "b"}, {Name: "failed"}},
			Failures:   []Failure{{Scenario: "s", Contender: "failed"}},
		}
		sum := &Summary{ratio: make(map[key]Estimate)}
		for k, e := range tt.ratios {
			contender, metric, _ := strings.Cut(k, " ")
			sum.ratio[key{"s", contender, metric}] = e
		}
		if got := r.Width("s", sum); got != tt.want && !(math.Abs(got-tt.want) < 1e-9) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
