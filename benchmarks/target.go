package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/oneport-go/oneport/benchmarks/internal/capacity"
	"github.com/oneport-go/oneport/benchmarks/internal/contender"
	"github.com/oneport-go/oneport/benchmarks/internal/load"
	"github.com/oneport-go/oneport/benchmarks/internal/machine"
	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// targetOptions are what the command line says of a listener to be put under load.
type targetOptions struct {
	address, path, method string
	protocol              string // the beginning of the names; empty for all
	clients               int
	rate                  float64
	find                  string
	pid                   int
}

// The defaults for a target.
const (
	targetDuration = 2 * time.Second
	targetClients  = 16
)

// measureTarget says what a listener carries.
func measureTarget(ctx context.Context, o *options, out, errOut io.Writer) error {
	t := &o.target
	var bound load.Bound
	if t.find != "" {
		var err error
		if bound, err = load.ParseBound(t.find); err != nil {
			return fmt.Errorf("-find: %w", err)
		}
	}
	if t.pid != 0 {
		if _, err := machine.Look(t.pid); err != nil {
			return fmt.Errorf("-pid: %w", err)
		}
	}
	began := time.Now()
	before := machine.Now()
	report := &capacity.Report{
		Environment: results.Look(), Command: o.command, Began: began.UTC().Format(time.RFC3339),
		Processors: "shared by server and load, if both are here",
	}
	target, asked, err := load.ParseTarget(t.address)
	if err != nil {
		return fmt.Errorf("-target: %w", err)
	}
	target.Path, target.Method = t.path, t.method
	m := &targetRun{options: o, bound: bound, errOut: errOut}
	failed := m.server(ctx, report, "target", target, asked, t.pid)
	for _, c := range o.contenders { // those that were named
		p, err := contender.Start(contender.Config{Contender: c.Name})
		if err != nil {
			return err
		}
		for _, at := range []struct {
			address string
			asked   []load.Protocol
		}{{p.HTTP, load.Protocols[:2]}, {p.GRPC, load.Protocols[2:3]}} {
			beside := &load.Target{Network: "tcp", Address: at.address, Authority: at.address, Path: contender.PathSmall, Method: load.HealthCheck}
			failed = errors.Join(failed, m.server(ctx, report, c.Name, beside, at.asked, p.Pid()))
		}
		if err := p.Stop(); err != nil {
			return err
		}
	}
	report.Seconds = time.Since(began).Seconds()
	report.Load = machine.Load()
	report.Others = max(0, machine.Now().Others(before, m.used))
	if err := report.Print(out); err != nil {
		return err
	}
	if err := report.Write(o.out); err != nil {
		return err
	}
	fmt.Fprintf(out, "The report is %s.\n", filepath.Join(o.out, "report.md"))
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return failed
}

// targetRun is the measuring of targets on its way.
type targetRun struct {
	options *options
	bound   load.Bound
	errOut  io.Writer
	used    time.Duration // CPU time of the servers, where that is known
}

// server finds out what a server speaks, and measures that.
func (m *targetRun) server(ctx context.Context, r *capacity.Report, name string, t *load.Target, asked []load.Protocol, pid int) error {
	s := capacity.Server{Name: name, Address: t.Address}
	var spoken []load.Protocol
	for _, p := range asked {
		if !strings.HasPrefix(strings.ToLower(p.Name), strings.ToLower(m.options.target.protocol)) {
			continue
		}
		if err := t.Probe(p); err != nil {
			s.Not = append(s.Not, capacity.Refusal{Protocol: p.Name, Why: strings.Join(strings.Fields(err.Error()), " ")})
			continue
		}
		spoken = append(spoken, p)
		s.Speaks = append(s.Speaks, p.Name)
	}
	for _, p := range spoken {
		for _, open := range []bool{false, true} {
			if ctx.Err() != nil {
				break
			}
			l := &load.Load{Target: t, Protocol: p, Open: open, Clients: m.options.target.clients}
			m.load(ctx, &s, l, pid)
		}
	}
	r.Servers = append(r.Servers, s)
	if len(spoken) == 0 {
		return fmt.Errorf("%s speaks nothing that was asked for; -path and -method say what is asked", t.Address)
	}
	return nil
}

// load measures one protocol, with new connections or open ones.
func (m *targetRun) load(ctx context.Context, s *capacity.Server, l *load.Load, pid int) {
	o := &m.options.target
	d := m.options.duration
	say := func(what string) {
		fmt.Fprintf(m.errOut, "%s, %s, %s connections: %s\n", s.Name, l.Protocol.Name, connections(l), what)
	}
	say(fmt.Sprintf("%d clients, each with a request at a time", l.Clients))
	closed := m.row(l, pid, func() *load.Outcome { return l.Closed(ctx, d) })
	s.Rows = append(s.Rows, closed)
	byRate := make(map[float64]capacity.Row)
	atRate := func(rate float64) (*load.Outcome, error) {
		say(fmt.Sprintf("%.0f requests/s", rate))
		// As many clients as there is something to wait for in half a second, within bounds.
		rated := *l
		rated.Clients = max(l.Clients, min(int(rate/2), maxRateClients))
		var outcome *load.Outcome
		byRate[rate] = m.row(&rated, pid, func() *load.Outcome {
			outcome = rated.AtRate(ctx, rate, d)
			return outcome
		})
		return outcome, ctx.Err()
	}
	if o.rate > 0 {
		if _, err := atRate(o.rate); err == nil {
			s.Rows = append(s.Rows, byRate[o.rate])
		}
	}
	if o.find == "" || ctx.Err() != nil {
		return
	}
	search := capacity.Search{Protocol: l.Protocol.Name, Connections: connections(l), Bound: o.find}
	all, best, err := m.bound.Find(closed.PerSecond/2, atRate)
	if err != nil {
		return // interrupted
	}
	for _, outcome := range all {
		search.Rows = append(search.Rows, byRate[outcome.Rate])
	}
	if best != nil {
		search.Found = best.Rate
	}
	s.Searches = append(s.Searches, search)
}

// maxRateClients bounds the connections of a load at a rate.
const maxRateClients = 256

func connections(l *load.Load) string {
	if l.Open {
		return "open"
	}
	return "new"
}

// row measures, and looks at the process if it is known.
func (m *targetRun) row(l *load.Load, pid int, measure func() *load.Outcome) capacity.Row {
	before, errBefore := machine.Look(pid)
	o := measure()
	after, errAfter := machine.Look(pid)
	row := capacity.Row{
		Protocol: l.Protocol.Name, Connections: connections(l), Clients: l.Clients, Wanted: o.Rate, PerSecond: o.Achieved(),
		Ops: o.Ops, Errors: o.Errors, Unasked: o.Unasked,
		P50: quantile(o.Latency, 50), P90: quantile(o.Latency, 90), P99: quantile(o.Latency, 99), P999: quantile(o.Latency, 99.9),
		Max: quantile(o.Latency, 100),
	}
	if o.Late != nil {
		row.LateP99 = quantile(o.Late, 99)
	}
	if o.Error != nil {
		row.Error = strings.Join(strings.Fields(o.Error.Error()), " ")
	}
	if pid != 0 && errBefore == nil && errAfter == nil && o.Ops > 0 {
		m.used += after.CPU - before.CPU
		ops := float64(o.Ops)
		row.Process = &capacity.Use{
			CPU:         microseconds(int64(after.CPU-before.CPU)) / ops,
			Voluntary:   float64(int64(after.Voluntary-before.Voluntary)) / ops,
			Involuntary: float64(int64(after.Involuntary-before.Involuntary)) / ops,
			ResidentMiB: float64(after.Resident) / (1 << 20), PeakMiB: float64(after.Peak) / (1 << 20), Files: after.Files,
		}
	}
	return row
}

// quantile is in microseconds, -1 if there is none.
func quantile(h *hdrhistogram.Histogram, q float64) float64 {
	if h.TotalCount() == 0 {
		return -1
	}
	return microseconds(h.ValueAtQuantile(q))
}
