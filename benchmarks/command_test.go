package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
	"github.com/oneport-go/oneport/benchmarks/internal/load"
	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

func TestParse(t *testing.T) {
	t.Parallel()
	type want struct {
		Contenders, Scenarios string // the first and how many in all
		Rounds                int
		Duration              time.Duration
		Out                   string
	}
	all := load.Table(load.Processors())
	for _, tt := range []struct {
		args string
		want want
	}{
		{"", want{"plain", all[0].Name, 54, 75 * time.Millisecond, "results/full"}},
		{"-quick", want{"plain", all[0].Name, 1, 20 * time.Millisecond, "results/full"}},
		{"-selfcheck", want{"plain", "new-http1", 24, 75 * time.Millisecond, "results/custom"}},
		{"-quick -rounds 3 -duration 1s -out x", want{"plain", all[0].Name, 3, time.Second, "x"}},
		{"-contender oneport,plain -scenario rpc-1", want{"oneport", "rpc-1", 54, 75 * time.Millisecond, "results/custom"}},
		{"-scenario rpc-*,rpc-1,new-grpc", want{"plain", "rpc-1", 54, 75 * time.Millisecond, "results/custom"}},
	} {
		o, err := parse(strings.Fields(tt.args), io.Discard)
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		got := want{o.contenders[0].Name, o.scenarios[0].Name, o.rounds, o.duration, o.out}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.args, diff)
		}
	}
}

// TestCommand quotes what a shell would take for something else.
func TestCommand(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"go run .": nil,
		"go run . -scenario 'rpc-*,new-grpc' -rounds 2": {"-scenario", "rpc-*,new-grpc", "-rounds", "2"},
		`go run . -out '/it'\''s/there?a=b'`:            {"-out", "/it's/there?a=b"},
		"go run . -out ''":                              {"-out", ""},
	} {
		o, err := parse(args, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if o.command != want {
			t.Errorf("%s, want %s", o.command, want)
		}
	}
}

func TestParseScenarios(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"-scenario", "rpc-*,rpc-1,new-grpc"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range o.scenarios {
		names = append(names, s.Name)
	}
	if diff := cmp.Diff([]string{"rpc-1", "rpc-32", "new-grpc"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestParseFails(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-contender nobody":                     `there is no "nobody"`,
		"-scenario nothing":                     `there is no "nothing"`,
		"-scenario nothing-*":                   `there is no "nothing-*"`,
		"-rounds -1":                            "-rounds and -duration",
		"-duration -1s":                         "-rounds and -duration",
		"-compare a":                            "two directories",
		"more":                                  `unexpected argument "more"`,
		"-report results/nothing":               "no such file",
		"-compare results/nothing results/more": "no such file",
	} {
		err := command(t.Context(), strings.Fields(args), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want %q in it", args, err, want)
		}
	}
	if err := command(t.Context(), []string{"-h"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
}

// TestPlan has the baseline first, and nobody play what it cannot.
func TestPlan(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"-contender", "oneport,servehttp,plain", "-scenario", "new-grpc,routes-1,mixed,idle-grpc", "-rounds", "9"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range o.plan() {
		var names []string
		for _, c := range p.contenders {
			names = append(names, c.Name)
		}
		got = append(got, fmt.Sprint(p.scenario.Name, ": ", strings.Join(names, " "), ", ", p.most))
	}
	want := []string{
		"new-grpc: plain oneport servehttp, 9", "routes-1: plain oneport, 9", "mixed: servehttp, 9", "idle-grpc: plain oneport servehttp, 6",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if o, err = parse([]string{"-scenario", "new-grpc,routes-1"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	for i, p := range o.plan() {
		control := slices.ContainsFunc(p.contenders, func(c contender.Contender) bool { return c.Control })
		if want := i == 0; control != want {
			t.Errorf("%s has the baseline twice: %v, want %v", p.scenario.Name, control, want)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := command(t.Context(), []string{"-list"}, &b, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, c := range contender.Table {
		if listed, err := strings.Contains(b.String(), c.About), c.Available(); listed != (err == nil) {
			t.Errorf("%s is listed: %v; it is available: %v", c.Name, listed, err)
		}
	}
	for _, s := range load.Table(load.Processors()) {
		if !strings.Contains(b.String(), s.Title) {
			t.Errorf("%s is not listed", s.Name)
		}
	}
}

// TestSmoke has two contenders play one scenario for a moment, and reads what is written. It is not parallel, since the
// process has fewer processors meanwhile.
func TestSmoke(t *testing.T) {
	procs := runtime.GOMAXPROCS(0)
	dir := t.TempDir()
	var out, errOut bytes.Buffer
	args := strings.Fields("-contender plain,oneport -scenario new-grpc -rounds 2 -duration 20ms")
	if err := command(t.Context(), append(args, "-out", dir), &out, &errOut); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "new-grpc  oneport") || !strings.Contains(got, "too few rounds") {
		t.Errorf("it has printed %s", got)
	}
	if got := errOut.String(); !strings.Contains(got, "new-grpc, 1 of 1") {
		t.Errorf("the progress was %s", got)
	}
	r, err := results.Read(filepath.Join(dir, results.File))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Kept) == 0 || len(r.Latencies) != 2 || len(r.Failures) != 0 {
		t.Fatalf("%d kept, %d latencies, %d failures", len(r.Kept), len(r.Latencies), len(r.Failures))
	}
	if b := r.Run.Busy; b == nil || b.Slices != 2*(2*results.Passes+1) {
		t.Errorf("how busy the machine was: %+v", b)
	}
	if got := r.Run.Processors; !strings.Contains(got, "for the server") && !strings.Contains(strings.Join(r.Notes, " "), "share the processors") {
		t.Errorf("the processors: %q, with the notes %q", got, r.Notes)
	}
	sum := r.Summarize()
	for _, c := range r.Contenders {
		for _, metric := range []string{"throughput", "cpu", "p50", "p999", "allocs", "voluntary", "goroutines"} {
			if e, ok := sum.Absolute("new-grpc", c.Name, metric); !ok || !(e.Median > 0) && runtime.GOOS != "windows" || e.N != 2 {
				t.Errorf("%s: %s is %+v", c.Name, metric, e)
			}
		}
	}
	if got := runtime.GOMAXPROCS(0); got != procs {
		t.Errorf("GOMAXPROCS is %d after the run, and was %d", got, procs)
	}
	before := files(t, dir)
	if err := command(t.Context(), []string{"-report", dir}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Errorf("-report makes another report of the same results: %s", diff)
	}
	var compared bytes.Buffer
	if err := command(t.Context(), []string{"-compare", dir, dir}, &compared, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := compared.String(); !strings.HasPrefix(got, "0 of ") {
		t.Errorf("a run compared with itself: %s", got)
	}
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	content := make(map[string]string)
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content[filepath.Base(path)] = string(b)
	}
	return content
}

// TestShared gives the servers and the load all processors.
func TestShared(t *testing.T) {
	for _, args := range []string{"-shared", "-shared=false"} {
		o, err := parse([]string{args}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		r := newRunner(o, time.Now(), io.Discard)
		if args == "-shared" && r.split != nil {
			t.Errorf("%s: they are divided: %s", args, r.results.Run.Processors)
		}
		if args != "-shared" && r.split == nil && len(r.results.Notes) == 0 {
			t.Errorf("%s: they are shared, and nobody says why", args)
		}
	}
}

// TestQuick says that all answers are right, of one scenario that is played in slices and one that is not.
func TestQuick(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := command(t.Context(), strings.Fields("-quick -contender plain,oneport -scenario new-http1,idle-http1,rtt-10"), &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"new-http1        all answers right: plain, oneport", "idle-http1       all answers right", "nothing was measured"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}

// TestInterrupted writes what there is.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	err := command(ctx, []string{"-scenario", "rpc-1", "-out", dir}, io.Discard, io.Discard)
	if err == nil || err.Error() != "interrupted" {
		t.Errorf("%v", err)
	}
	r, err := results.Read(filepath.Join(dir, results.File))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(r.Notes, "The run was interrupted.") {
		t.Errorf("the notes are %q", r.Notes)
	}
}

func TestNothingToDo(t *testing.T) {
	t.Parallel()
	err := command(t.Context(), []string{"-contender", "plain", "-scenario", "mixed"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "none of the contenders") {
		t.Errorf("%v", err)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	latency := hdrhistogram.New(1000, int64(time.Minute), 3)
	for i := range 100 {
		latency.RecordValue(int64(i+1) * int64(time.Millisecond))
	}
	before := contender.Usage{CPU: time.Second, GC: 100 * time.Millisecond, Allocs: 1000, AllocBytes: 10_000, Resident: 30 << 20, Peak: 40 << 20, Voluntary: 100, Involuntary: 10, Delay: time.Second, Goroutines: 10}
	after := contender.Usage{CPU: 3 * time.Second, GC: 200 * time.Millisecond, Allocs: 3000, AllocBytes: 110_000, Resident: 80 << 20, Peak: 90 << 20, Voluntary: 300, Involuntary: 15, Delay: 2 * time.Second, Goroutines: 110}
	idle := contender.Usage{Resident: 20 << 20, Goroutines: 12}
	perOp := map[string]float64{
		"throughput": 50, "p50": 50_000, "p90": 90_000, "p99": 99_000, "p999": 100_000,
		"cpu": 20_000, "gc": 5, "allocs": 20, "bytes": 1000, "peak": 90, "idle": 20,
		"voluntary": 2, "involuntary": 0.05, "delay": 10_000, "goroutines": 12,
	}
	with := func(more map[string]float64, without ...string) map[string]float64 {
		v := make(map[string]float64)
		for k, x := range perOp {
			if !slices.Contains(without, k) {
				v[k] = x
			}
		}
		for k, x := range more {
			v[k] = x
		}
		return v
	}
	m := load.Measurement{Ops: 100, Elapsed: 2 * time.Second, Latency: latency, Before: before, After: after, Idle: idle}
	for _, tt := range []struct {
		name     string
		scenario load.Scenario
		m        load.Measurement
		want     map[string]float64
	}{
		{"operations", load.Scenario{}, m, perOp},
		{"paced", load.Scenario{Paced: true}, m, with(nil, "throughput")},
		{
			"round trips", load.Scenario{Server: contender.Config{RTT: 10 * time.Millisecond}}, m,
			with(map[string]float64{"roundtrips": 5}),
		},
		{
			"a server that is not measured", load.Scenario{},
			load.Measurement{Ops: 100, Elapsed: 2 * time.Second, Latency: latency},
			with(nil, "cpu", "gc", "allocs", "bytes", "peak", "idle", "voluntary", "involuntary", "delay", "goroutines"),
		},
		{
			"idle connections", load.Scenario{},
			load.Measurement{Ops: 50, Connections: 50, Before: before, After: after, Idle: idle},
			map[string]float64{"memory": 1 << 20, "peak": 90, "idle": 20, "goroutines": 2},
		},
	} {
		got := values(&tt.scenario, &tt.m)
		if diff := cmp.Diff(tt.want, got, cmpopts.EquateApprox(0.001, 0)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}
