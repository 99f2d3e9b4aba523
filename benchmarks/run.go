package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/oneport-go/oneport/benchmarks/internal/affinity"
	"github.com/oneport-go/oneport/benchmarks/internal/contender"
	"github.com/oneport-go/oneport/benchmarks/internal/load"
	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// cell is a place in the table of results.
type cell struct{ scenario, contender string }

// runner is a run on its way.
type runner struct {
	options   *options
	results   *results.Results
	proxied   bool // round-trip times are those of a proxy
	split     *split
	failed    map[cell]bool
	noted     map[string]bool
	latencies map[cell]*hdrhistogram.Histogram
	order     []cell // of latencies
}

// run measures everything. With results it can return an error too: that of a contender that has failed, or that the run
// was interrupted.
func run(ctx context.Context, o *options, errOut io.Writer) (*results.Results, error) {
	steps := o.plan()
	if len(steps) == 0 {
		return nil, errors.New("none of the contenders can play one of the scenarios")
	}
	began := time.Now()
	r := &runner{
		options:   o,
		results:   newResults(o, began),
		failed:    make(map[cell]bool),
		noted:     make(map[string]bool),
		latencies: make(map[cell]*hdrhistogram.Histogram),
	}
	r.roundTrips()
	r.divide()
	defer r.shareAll()
	if limit := connectionLimit(); limit > 0 && (o.most == 0 || limit < o.most) {
		o.most = limit
	}
	progress := newProgress(errOut, steps, o)
	defer progress.end()
	for _, s := range steps {
		if ctx.Err() != nil {
			r.note("The run was interrupted.")
			break
		}
		progress.at(s)
		at := cell{s.scenario.Name, s.contender.Name}
		if !r.failed[at] {
			if err := r.step(s); err != nil {
				r.failed[at] = true
				r.results.Failures = append(r.results.Failures, results.Failure{
					Scenario: at.scenario, Contender: at.contender, Round: s.round, Error: err.Error(),
				})
			}
		}
		progress.done(s)
	}
	r.results.Run.Minutes = math.Round(time.Since(began).Minutes()*10) / 10
	r.addLatencies()
	switch {
	case len(r.results.Failures) > 0:
		return r.results, fmt.Errorf("%d of the contenders' scenarios have failed, see the report", len(r.results.Failures))
	case ctx.Err() != nil:
		return r.results, errors.New("interrupted")
	}
	return r.results, nil
}

func newResults(o *options, began time.Time) *results.Results {
	r := &results.Results{
		Environment: results.Look(),
		Run: results.Run{
			Command:  o.command,
			Began:    began.UTC().Format(time.RFC3339),
			Rounds:   o.rounds,
			WarmUp:   o.warmUp.String(),
			Duration: o.duration.String(),
		},
	}
	for _, c := range o.contenders {
		r.Contenders = append(r.Contenders, results.Contender{Name: c.Name, About: c.About})
	}
	for _, s := range o.scenarios {
		rs := results.Scenario{
			Name: s.Name, Title: s.Title, Baseline: s.Baseline, Series: s.Series, X: s.X,
			RTT: float64(s.Server.RTT) / float64(time.Millisecond),
		}
		for _, c := range o.contenders {
			if _, why := s.Missing(c); why != "" {
				if rs.Lacks == nil {
					rs.Lacks = make(map[string]string)
				}
				rs.Lacks[c.Name] = why
			}
		}
		r.Scenarios = append(r.Scenarios, rs)
	}
	return r
}

// roundTrips finds out whether the system can simulate round-trip times.
func (r *runner) roundTrips() {
	needed := false
	for _, s := range r.options.scenarios {
		needed = needed || s.Server.RTT > 0
	}
	if !needed {
		return
	}
	p, err := contender.Start(contender.Config{Contender: contender.Table[0].Name, Namespace: true, RTT: time.Millisecond})
	if err == nil {
		err = p.Stop()
	}
	if err == nil {
		r.results.Run.RoundTrips = "netem on the loopback of a network namespace"
		return
	}
	r.proxied = true
	r.results.Run.RoundTrips = "a delaying proxy in the load's process"
	r.note("Round-trip times are those of a proxy, since a network namespace with netem cannot be had: " + err.Error() + ".")
}

// split is who has which processors.
type split struct {
	all, server, load []int
	procs             int  // GOMAXPROCS with all of them
	divided           bool // the load has load now, else it has all
}

// divide finds out which processors servers and load are to have.
func (r *runner) divide() {
	const shared = "shared by server and load"
	r.results.Run.Processors = shared
	if r.options.shared || !slices.ContainsFunc(r.options.contenders, func(c contender.Contender) bool { return c.Name != targetName }) {
		return
	}
	all, err := affinity.All()
	if err == nil {
		r.split = &split{all: all, procs: runtime.GOMAXPROCS(0)}
		r.split.server, r.split.load, err = affinity.Halves()
	}
	if err != nil {
		r.split = nil
		r.note("Servers and load share the processors: " + err.Error() + ".")
		return
	}
	r.results.Run.Processors = fmt.Sprintf("%s for the server, %s for the load; %s where the scenario is about their number",
		numbers(r.split.server), numbers(r.split.load), shared)
}

func numbers(list []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ", "), "[]")
}

// processors gives the load its processors and returns those of the server. A scenario that is about the number of
// processors has all of them for both.
func (r *runner) processors(s step) ([]int, error) {
	if r.split == nil {
		return nil, nil
	}
	if s.scenario.Server.Procs > 0 {
		return r.split.all, r.shareAll()
	}
	if !r.split.divided {
		if err := affinity.Pin(r.split.load); err != nil {
			return nil, err
		}
		r.split.divided = true
	}
	return r.split.server, nil
}

// shareAll gives this process all processors again.
func (r *runner) shareAll() error {
	if r.split == nil || !r.split.divided {
		return nil
	}
	r.split.divided = false
	err := affinity.Pin(r.split.all)
	runtime.GOMAXPROCS(r.split.procs)
	return err
}

// note notes what a reader of the report has to know, once.
func (r *runner) note(s string) {
	if !r.noted[s] {
		r.noted[s] = true
		r.results.Notes = append(r.results.Notes, s)
	}
}

// step measures.
func (r *runner) step(s step) (err error) {
	env := &load.Env{
		TLS:      s.scenario.Server.TLS,
		WarmUp:   r.options.warmUp,
		Duration: r.options.duration,
		Most:     r.options.most,
	}
	rtt := s.scenario.Server.RTT
	processors, err := r.processors(s)
	if err != nil {
		return err
	}
	if s.contender.Name == targetName {
		env.Server = target{}
		env.Addresses = contender.Addresses{HTTP: r.options.target, GRPC: r.options.target}
		env.Path, env.Method = r.options.path, r.options.method
	} else {
		config := s.scenario.Server
		config.Contender = s.contender.Name
		config.Processors = processors
		config.Namespace = rtt > 0 && !r.proxied
		p, err := contender.Start(config)
		if err != nil {
			return err
		}
		defer func() {
			if err != nil && p.Said() != "" {
				err = fmt.Errorf("%w%s", err, p.Said())
			}
			err = errors.Join(err, p.Stop())
		}()
		env.Server, env.Addresses = p, p.Addresses
		if rtt > 0 && r.proxied {
			end, err := env.Slow(rtt)
			if err != nil {
				return err
			}
			defer end()
		}
	}
	m, err := s.scenario.Measure(env)
	if err != nil {
		return err
	}
	r.add(s, m)
	return nil
}

// add adds a measurement to the results.
func (r *runner) add(s step, m *load.Measurement) {
	if m.Note != "" {
		r.note(s.scenario.Name + ": " + m.Note + ".")
	}
	r.results.Samples = append(r.results.Samples, results.Sample{
		Scenario: s.scenario.Name, Contender: s.contender.Name, Round: s.round,
		Values: values(s.scenario, m),
	})
	at := cell{s.scenario.Name, s.contender.Name}
	if m.Latency == nil {
		return
	}
	if all := r.latencies[at]; all != nil {
		all.Merge(m.Latency)
	} else {
		r.latencies[at] = m.Latency
		r.order = append(r.order, at)
	}
}

// values are the metrics of a measurement.
func values(s *load.Scenario, m *load.Measurement) map[string]float64 {
	v := make(map[string]float64)
	ops := float64(m.Ops)
	if !s.Paced && m.Elapsed > 0 {
		v["throughput"] = ops / m.Elapsed.Seconds()
	}
	if m.Latency != nil {
		for metric, quantile := range map[string]float64{"p50": 50, "p90": 90, "p99": 99, "p999": 99.9} {
			v[metric] = microseconds(m.Latency.ValueAtQuantile(quantile))
		}
	}
	before, after := m.Before, m.After
	if m.Connections > 0 {
		if before.Resident > 0 {
			v["memory"] = (float64(after.Resident) - float64(before.Resident)) / float64(m.Connections)
		}
	} else if after.CPU > 0 {
		cpu := after.CPU - before.CPU
		v["cpu"] = float64(cpu) / float64(time.Microsecond) / ops
		v["gc"] = 100 * float64(after.GC-before.GC) / float64(cpu)
	}
	if after.Allocs > 0 && m.Connections == 0 {
		v["allocs"] = float64(after.Allocs-before.Allocs) / ops
		v["bytes"] = float64(after.AllocBytes-before.AllocBytes) / ops
	}
	if after.Peak > 0 {
		v["peak"] = float64(after.Peak) / (1 << 20)
	}
	if m.Idle.Resident > 0 {
		v["idle"] = float64(m.Idle.Resident) / (1 << 20)
	}
	if s.Server.RTT > 0 {
		v["roundtrips"] = v["p50"] / (float64(s.Server.RTT) / float64(time.Microsecond))
	}
	return v
}

func microseconds(nanoseconds int64) float64 { return float64(nanoseconds) / 1000 }

// addLatencies makes points of the histograms, which lie closer to each other the rarer the latencies are.
func (r *runner) addLatencies() {
	for _, at := range r.order {
		h := r.latencies[at]
		l := results.Latency{Scenario: at.scenario, Contender: at.contender}
		for _, q := range results.Quantiles(h.TotalCount()) {
			l.Points = append(l.Points, results.Point{Quantile: q, Microseconds: microseconds(h.ValueAtQuantile(100 * q))})
		}
		r.results.Latencies = append(r.results.Latencies, l)
	}
}

// target is a server of which only the address is known.
type target struct{}

func (target) Dial(address string) (net.Conn, error) { return net.Dial("tcp", address) }

func (target) Usage(contender.Moment) (contender.Usage, error) { return contender.Usage{}, nil }
