package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
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
		{"", want{"plain", all[0].Name, 12, 500 * time.Millisecond, "results/full"}},
		{"-quick", want{"plain", all[0].Name, 2, 100 * time.Millisecond, "results/quick"}},
		{"-quick -rounds 3 -duration 1s -out x", want{"plain", all[0].Name, 3, time.Second, "x"}},
		{"-contender oneport,plain -scenario rpc-1", want{"oneport", "rpc-1", 12, 500 * time.Millisecond, "results/custom"}},
		{"-scenario rpc-*,rpc-1,new-grpc", want{"plain", "rpc-1", 12, 500 * time.Millisecond, "results/custom"}},
		{"-target localhost:80", want{"target", "new-http1", 12, 500 * time.Millisecond, "results/custom"}},
		{"-target localhost:80 -contender plain -quick", want{"target", "new-http1", 2, 100 * time.Millisecond, "results/custom"}},
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
		"go run . -scenario 'rpc-*,new-grpc' -rounds 2":            {"-scenario", "rpc-*,new-grpc", "-rounds", "2"},
		`go run . -target localhost:80 -path '/it'\''s/there?a=b'`: {"-target", "localhost:80", "-path", "/it's/there?a=b"},
		"go run . -out ''": {"-out", ""},
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
		"-target nowhere":                       "missing port",
		"-target a:1 -scenario body-100m-grpc":  "the target cannot play it",
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

// TestPlan has every contender be first in turn, and nobody play what it cannot.
func TestPlan(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"-contender", "plain,oneport,servehttp", "-scenario", "new-grpc,routes-1", "-rounds", "3"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range o.plan() {
		got = append(got, s.scenario.Name+" "+s.contender.Name)
	}
	want := []string{
		"new-grpc plain", "new-grpc oneport", "new-grpc servehttp", "routes-1 plain", "routes-1 oneport",
		"new-grpc oneport", "new-grpc servehttp", "new-grpc plain", "routes-1 oneport", "routes-1 plain",
		"new-grpc servehttp", "new-grpc plain", "new-grpc oneport", "routes-1 plain", "routes-1 oneport",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	o.rounds = 20
	o.scenarios[0].MaxRounds = 2
	n := 0
	for _, s := range o.plan() {
		if s.scenario.Name == "new-grpc" {
			n++
		}
	}
	if n != 2*3 {
		t.Errorf("a scenario of two rounds is played %d times by three", n)
	}
}

// TestFullFits holds the whole run to the time that README.md promises, as it is planned.
func TestFullFits(t *testing.T) {
	t.Parallel()
	for args, most := range map[string]time.Duration{"": 40 * time.Minute, "-quick": 5 * time.Minute} {
		o, err := parse(strings.Fields(args), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		o.scenarios = load.Table(2)
		var total time.Duration
		for _, s := range o.plan() {
			total += s.takes(o)
		}
		if total > most {
			t.Errorf("%q would take %v", args, total)
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
		if !strings.Contains(b.String(), c.About) {
			t.Errorf("%s is not listed", c.Name)
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
	if got := errOut.String(); !strings.Contains(got, "round 2 of 2") {
		t.Errorf("the progress was %s", got)
	}
	r, err := results.Read(filepath.Join(dir, results.File))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Samples) != 4 || len(r.Latencies) != 2 || len(r.Failures) != 0 {
		t.Fatalf("%d samples, %d latencies, %d failures", len(r.Samples), len(r.Latencies), len(r.Failures))
	}
	if got := r.Run.Processors; !strings.Contains(got, "for the server") && !strings.Contains(strings.Join(r.Notes, " "), "share the processors") {
		t.Errorf("the processors: %q, with the notes %q", got, r.Notes)
	}
	for _, s := range r.Samples {
		for _, metric := range []string{"throughput", "p50", "p999", "allocs"} {
			if !(s.Values[metric] > 0) {
				t.Errorf("%s, round %d: %s is %v", s.Contender, s.Round, metric, s.Values[metric])
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
		r := &runner{options: o, results: newResults(o, time.Now()), noted: make(map[string]bool)}
		r.divide()
		if args == "-shared" && r.split != nil {
			t.Errorf("%s: they are divided: %s", args, r.results.Run.Processors)
		}
		if args != "-shared" && r.split == nil && len(r.results.Notes) == 0 {
			t.Errorf("%s: they are shared, and nobody says why", args)
		}
	}
}

// TestTarget puts a server under load that is not one of the contenders, and one that drops every second connection.
func TestTarget(t *testing.T) {
	t.Parallel()
	for _, drops := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if drops {
			l = &dropping{Listener: l}
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/hello" {
				w.WriteHeader(http.StatusNotFound)
			}
			io.WriteString(w, "hello")
		})}
		served := make(chan error)
		go func() { served <- s.Serve(l) }()
		dir := t.TempDir()
		args := strings.Fields("-scenario new-http1 -rounds 1 -duration 10ms -path /v1/hello -target " + l.Addr().String())
		err = command(t.Context(), append(args, "-out", dir), io.Discard, io.Discard)
		s.Close()
		<-served
		r, readErr := results.Read(filepath.Join(dir, results.File))
		if readErr != nil {
			t.Fatal(readErr)
		}
		if drops {
			if err == nil || len(r.Failures) != 1 || len(r.Samples) != 0 {
				t.Errorf("a server that drops connections: %v, %+v, %d samples", err, r.Failures, len(r.Samples))
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Run.Processors; got != "shared by server and load" {
			t.Errorf("the processors: %s", got)
		}
		v := r.Samples[0].Values
		if _, measured := v["cpu"]; measured || !(v["throughput"] > 0) {
			t.Errorf("%v", v)
		}
	}
}

// dropping is a listener that closes every second connection.
type dropping struct {
	net.Listener
	n int
}

func (l *dropping) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if l.n++; err == nil && l.n%2 == 0 {
		c.Close()
	}
	return c, err
}

// TestInterrupted writes what there is.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	err := command(ctx, []string{"-quick", "-scenario", "rpc-1", "-out", dir}, io.Discard, io.Discard)
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
	before := contender.Usage{CPU: time.Second, GC: 100 * time.Millisecond, Allocs: 1000, AllocBytes: 10_000, Resident: 30 << 20, Peak: 40 << 20}
	after := contender.Usage{CPU: 3 * time.Second, GC: 200 * time.Millisecond, Allocs: 3000, AllocBytes: 110_000, Resident: 80 << 20, Peak: 90 << 20}
	idle := contender.Usage{Resident: 20 << 20}
	perOp := map[string]float64{
		"throughput": 50, "p50": 50_000, "p90": 90_000, "p99": 99_000, "p999": 100_000,
		"cpu": 20_000, "gc": 5, "allocs": 20, "bytes": 1000, "peak": 90, "idle": 20,
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
			with(nil, "cpu", "gc", "allocs", "bytes", "peak", "idle"),
		},
		{
			"idle connections", load.Scenario{},
			load.Measurement{Ops: 50, Connections: 50, Before: before, After: after, Idle: idle},
			map[string]float64{"memory": 1 << 20, "peak": 90, "idle": 20},
		},
	} {
		got := values(&tt.scenario, &tt.m)
		if diff := cmp.Diff(tt.want, got, cmpopts.EquateApprox(0.001, 0)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}
