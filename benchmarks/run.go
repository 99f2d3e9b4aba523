package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/oneport-go/oneport/benchmarks/internal/affinity"
	"github.com/oneport-go/oneport/benchmarks/internal/contender"
	"github.com/oneport-go/oneport/benchmarks/internal/load"
	"github.com/oneport-go/oneport/benchmarks/internal/machine"
	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// cell is a place in the table of results.
type cell struct{ scenario, contender string }

// runner is a run on its way.
type runner struct {
	options   *options
	results   *results.Results
	progress  *progress
	random    *rand.Rand
	proxied   bool // round-trip times are those of a proxy
	split     *split
	noted     map[string]bool
	latencies map[cell]*hdrhistogram.Histogram
	order     []cell // of latencies
}

// run measures everything. With results it can return an error too: that of a contender that has failed, or that the
// run was interrupted.
func run(ctx context.Context, o *options, errOut io.Writer) (*results.Results, error) {
	plays := o.plan()
	if len(plays) == 0 {
		return nil, errors.New("none of the contenders can play one of the scenarios")
	}
	began := time.Now()
	r := newRunner(o, began, errOut)
	defer r.end()
	machineBegan := machine.Now()
	r.results.Run.Busy = &results.Busy{LoadBegan: machine.Load()}
	s := &schedule{
		options: o, plays: plays, deadline: began.Add(o.limit),
		width: r.width,
		round: func(p *play) bool {
			if ctx.Err() != nil {
				return false
			}
			r.progress.at(p.scenario.Name, 1+slices.Index(plays, p), len(plays), p.rounds+1)
			return r.round(ctx, p)
		},
	}
	s.run()
	if ctx.Err() != nil {
		r.note("The run was interrupted.")
	}
	r.results.Run.Minutes = math.Round(time.Since(began).Minutes()*10) / 10
	busy := r.results.Run.Busy
	busy.LoadNow = machine.Load()
	busy.Steal = machine.Now().Stolen(machineBegan)
	if busy.Slices > 0 {
		busy.Others = max(0, busy.Others/float64(busy.Slices))
	}
	r.addLatencies()
	switch {
	case len(r.results.Failures) > 0:
		return r.results, fmt.Errorf("%d of the contenders' scenarios have failed, see the report", len(r.results.Failures))
	case ctx.Err() != nil:
		return r.results, errors.New("interrupted")
	}
	return r.results, nil
}

func newRunner(o *options, began time.Time, errOut io.Writer) *runner {
	r := &runner{
		options:   o,
		results:   newResults(o, began),
		progress:  newProgress(errOut, o.limit),
		random:    rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		noted:     make(map[string]bool),
		latencies: make(map[cell]*hdrhistogram.Histogram),
	}
	r.roundTrips()
	r.divide()
	if limit := connectionLimit(); limit > 0 && (o.most == 0 || limit < o.most) {
		o.most = limit
	}
	return r
}

func (r *runner) end() {
	r.progress.end()
	r.shareAll()
}

// width is that of the widest interval that decides whether a scenario has been measured long enough.
func (r *runner) width(p *play) float64 {
	// Of this scenario alone, since it is asked after each round, and of those that play in all rounds.
	one := *r.results
	one.Samples, one.Contenders = r.of(p.scenario.Name), nil
	for _, c := range p.contenders {
		if !c.Aside {
			one.Contenders = append(one.Contenders, results.Contender{Name: c.Name})
		}
	}
	return one.Width(p.scenario.Name, one.Summarize())
}

func (r *runner) of(scenario string) []results.Sample {
	var of []results.Sample
	for _, s := range r.results.Samples {
		if s.Scenario == scenario {
			of = append(of, s)
		}
	}
	return of
}

func newResults(o *options, began time.Time) *results.Results {
	r := &results.Results{
		Environment: results.Look(),
		Run: results.Run{
			Command:  o.command,
			Began:    began.UTC().Format(time.RFC3339),
			Rounds:   o.rounds,
			Width:    results.Enough,
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
	if r.options.shared {
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
func (r *runner) processors(p *play) ([]int, error) {
	if r.split == nil {
		return nil, nil
	}
	if p.scenario.Server.Procs > 0 {
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

// A seat is a contender in a round: its process, and the load on it.
type seat struct {
	contender contender.Contender
	env       *load.Env
	session   *load.Session
	end       []func() error // in reverse
	merged    *hdrhistogram.Histogram
	err       error
}

// close ends what was begun for the seat.
func (s *seat) close() {
	for _, end := range slices.Backward(s.end) {
		s.err = errors.Join(s.err, end())
	}
	s.end = nil
}

// sit starts a contender.
func (r *runner) sit(p *play, c contender.Contender, processors []int) *seat {
	s := &seat{contender: c, env: &load.Env{
		TLS:      p.scenario.Server.TLS,
		WarmUp:   r.options.warmUp,
		Duration: p.slice(r.options),
		Rest:     p.rest(r.options),
		Most:     r.options.most,
	}}
	rtt := p.scenario.Server.RTT
	config := p.scenario.Server
	config.Contender = c.Name
	config.Processors = processors
	config.Namespace = rtt > 0 && !r.proxied
	process, err := contender.Start(config)
	if err != nil {
		s.err = err
		return s
	}
	s.end = append(s.end, func() error {
		if s.err != nil && process.Said() != "" {
			s.err = fmt.Errorf("%w%s", s.err, process.Said())
		}
		return process.Stop()
	})
	s.env.Server, s.env.Addresses = process, process.Addresses
	if rtt > 0 && r.proxied {
		end, err := s.env.Slow(rtt)
		if err != nil {
			s.err = err
			return s
		}
		s.end = append(s.end, func() error { end(); return nil })
	}
	return s
}

// round plays a round of a scenario, and reports whether that made sense.
func (r *runner) round(ctx context.Context, p *play) bool {
	var players []contender.Contender
	for _, c := range p.players(p.rounds) {
		if !r.failed(p, c) {
			players = append(players, c)
		}
	}
	if len(players) == 0 || r.failed(p, p.contenders[0]) && p.rounds > 0 {
		return false
	}
	processors, err := r.processors(p)
	if err != nil {
		for _, c := range players {
			r.fail(p, c, err)
		}
		return false
	}
	if p.scenario.Sliced() {
		r.sliced(ctx, p, players, processors)
	} else {
		r.whole(ctx, p, players, processors)
	}
	return true
}

func (r *runner) failed(p *play, c contender.Contender) bool {
	return slices.ContainsFunc(r.results.Failures, func(f results.Failure) bool {
		return f.Scenario == p.scenario.Name && f.Contender == c.Name
	})
}

func (r *runner) fail(p *play, c contender.Contender, err error) {
	r.results.Failures = append(r.results.Failures, results.Failure{
		Scenario: p.scenario.Name, Contender: c.Name, Round: p.rounds, Error: err.Error(),
	})
}

// whole measures each contender once, with a process that no other is beside.
func (r *runner) whole(ctx context.Context, p *play, players []contender.Contender, processors []int) {
	for at, i := range r.random.Perm(len(players)) {
		if ctx.Err() != nil {
			return
		}
		s := r.sit(p, players[i], processors)
		var m *load.Measurement
		if s.err == nil {
			m, s.err = p.scenario.Measure(s.env)
		}
		s.close()
		if s.err != nil {
			r.fail(p, s.contender, s.err)
			continue
		}
		r.addNote(p, m)
		r.addSample(p, s.contender, at, 0, values(p.scenario, m))
		r.addLatency(p, s.contender, m.Latency)
	}
}

// sliced has the contenders take turns, in slices. The first of the players is the baseline.
func (r *runner) sliced(ctx context.Context, p *play, players []contender.Contender, processors []int) {
	seats := make([]*seat, len(players))
	var starting sync.WaitGroup
	for i, c := range players {
		starting.Go(func() { seats[i] = r.sit(p, c, processors) })
	}
	starting.Wait()
	for _, i := range r.random.Perm(len(seats)) {
		if s := seats[i]; s.err == nil && ctx.Err() == nil {
			s.session, s.err = p.scenario.Open(s.env)
		}
	}
	at := 0
	play := func(i int) {
		if s := seats[i]; s.err == nil && ctx.Err() == nil {
			s.err = r.slice(p, s, at)
		}
		at++
	}
	for range p.passes() {
		for _, i := range results.Pass(r.random, len(seats)) {
			play(i)
		}
	}
	play(0)
	for _, s := range seats {
		var whole *load.Measurement
		if s.session != nil {
			m, err := s.session.Close()
			whole, s.err = m, errors.Join(s.err, err)
		}
		s.close()
		if s.err != nil {
			r.fail(p, s.contender, s.err)
			continue
		}
		if whole == nil || whole.Ops == 0 {
			continue // interrupted
		}
		r.addNote(p, whole)
		v := values(p.scenario, whole)
		for metric, quantile := range tail {
			if s.merged != nil {
				v[metric] = microseconds(s.merged.ValueAtQuantile(quantile))
			}
		}
		delete(v, "cpu") // which the slices have, each compared with its neighbours
		r.addSample(p, s.contender, 0, 0, v)
		r.addLatency(p, s.contender, s.merged)
	}
}

// slice measures a slice.
func (r *runner) slice(p *play, s *seat, at int) error {
	before := machine.Now()
	m, err := s.session.Slice(s.env.Duration)
	if err != nil {
		return err
	}
	after := machine.Now()
	others := after.Others(before, m.After.CPU-m.Before.CPU)
	busy := r.results.Run.Busy
	busy.Slices++
	busy.Others += others
	if others > disturbed {
		busy.Disturbed++
	}
	v := values(p.scenario, m)
	for metric := range tail { // a slice has too few operations for it
		delete(v, metric)
	}
	r.addSample(p, s.contender, at, others, v)
	if s.merged == nil {
		s.merged = m.Latency
	} else {
		s.merged.Merge(m.Latency)
	}
	return nil
}

// disturbed is the part of the processors that others have in a slice that is counted as disturbed.
const disturbed = 0.10

func (r *runner) addNote(p *play, m *load.Measurement) {
	if m.Note != "" {
		r.note(p.scenario.Name + ": " + m.Note + ".")
	}
}

func (r *runner) addSample(p *play, c contender.Contender, at int, others float64, v map[string]float64) {
	r.results.Samples = append(r.results.Samples, results.Sample{
		Scenario: p.scenario.Name, Contender: c.Name, Round: p.rounds, At: at, Others: math.Round(1e4*others) / 1e4, Values: v,
	})
}

func (r *runner) addLatency(p *play, c contender.Contender, h *hdrhistogram.Histogram) {
	if h == nil {
		return
	}
	at := cell{p.scenario.Name, c.Name}
	if all := r.latencies[at]; all != nil {
		all.Merge(h)
		return
	}
	r.latencies[at] = h
	r.order = append(r.order, at)
}

// The quantiles of the latencies, those of a slice and those of a round.
var (
	middle = map[string]float64{"p50": 50}
	tail   = map[string]float64{"p90": 90, "p99": 99, "p999": 99.9}
)

// values are the metrics of a measurement.
func values(s *load.Scenario, m *load.Measurement) map[string]float64 {
	v := make(map[string]float64)
	ops := float64(m.Ops)
	if !s.Paced && m.Elapsed > 0 {
		v["throughput"] = ops / m.Elapsed.Seconds()
	}
	if m.Latency != nil {
		for _, quantiles := range []map[string]float64{middle, tail} {
			for metric, quantile := range quantiles {
				v[metric] = microseconds(m.Latency.ValueAtQuantile(quantile))
			}
		}
		if s.Server.RTT > 0 {
			v["roundtrips"] = v["p50"] / (float64(s.Server.RTT) / float64(time.Microsecond))
		}
	}
	before, after := m.Before, m.After
	if m.Connections > 0 {
		n := float64(m.Connections)
		if before.Resident > 0 {
			v["memory"] = (float64(after.Resident) - float64(before.Resident)) / n
		}
		v["goroutines"] = float64(after.Goroutines-before.Goroutines) / n
		if m.Opening > 0 {
			v["opening"] = microseconds(int64(m.Opening)) / n
		}
		if m.Rested > 0 {
			v["rest"] = microseconds(int64(m.Resting)) / m.Rested.Seconds()
		}
	} else if after.CPU > 0 {
		cpu := after.CPU - before.CPU
		v["cpu"] = microseconds(int64(cpu)) / ops
		if after.GC > before.GC {
			v["gc"] = 100 * float64(after.GC-before.GC) / float64(cpu)
		}
		if after.Voluntary > 0 {
			v["voluntary"] = float64(after.Voluntary-before.Voluntary) / ops
			v["involuntary"] = float64(after.Involuntary-before.Involuntary) / ops
		}
		if after.Delay > 0 {
			v["delay"] = microseconds(int64(after.Delay-before.Delay)) / ops
		}
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
		if m.Connections == 0 {
			v["goroutines"] = float64(m.Idle.Goroutines)
		}
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
