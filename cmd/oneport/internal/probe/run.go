package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// MaxConns is how many connections a probe has open at a time.
const MaxConns = 8

// Options says what is probed, and how. The zero values of all but Target have defaults.
type Options struct {
	Target    Target
	Timeout   time.Duration // for each way in; 5 s. The whole takes at most TotalTimeouts times as long.
	Idle      time.Duration // how long the way "idle" rests; 2 s, or less if Timeout is short
	Linger    time.Duration // how long the server has to end a connection that the probe has ended; 250 ms
	Path      string        // of HTTP requests; that of the URL, or "/"
	Host      string        // of requests; that of the target
	SNI       string        // the name asked for by TLS; the host
	Service   string        // of gRPC, for the health check
	Only      []string      // IDs or groups of ways in, nil for all
	Skip      []string
	Cert      *tls.Certificate // of the client
	Roots     *x509.CertPool   // nil for those of the system
	Insecure  bool             // what is wrong with certificates is no fault
	FromProxy string           // "v1" or "v2": send a PROXY header ahead of everything
	Resolve   string           // an address to connect to instead of the target's

	// Progress, if not nil, is called when a way in is begun (with no verdict) and when it has ended, by one goroutine at
	// a time.
	Progress func(r Result)
}

// TotalTimeouts bounds the time of a whole probe, in units of Options.Timeout.
const TotalTimeouts = 4

// ErrUnreachable is the error of Run when it cannot connect.
var ErrUnreachable = errors.New("cannot connect")

// A way is a way in.
type way struct {
	id    string
	group Group
	title string
	after []string             // the ways in whose results when looks at
	when  func(*prober) string // why there is no sense in trying, "" if there is
	run   func(*attempt)
}

// A prober is a probe that runs.
type prober struct {
	Options
	network, address string // that every connection goes to
	report           *Report

	mu      sync.Mutex
	results map[string]*Result
	done    map[string]chan struct{}
	places  chan struct{}
}

// Run probes the target. The report is not nil unless the error is one. When ctx ends, Run returns what it knows.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.setDefaults()
	ways, err := choose(allWays(o), o.Only, o.Skip)
	if err != nil {
		return nil, err
	}
	p := &prober{
		Options: o,
		report: &Report{
			Target: o.Target.String(), Timeout: o.Timeout, Scheme: o.Target.Scheme, Service: o.Service,
			FromProxy: o.FromProxy, HasCert: o.Cert != nil, HasRoots: o.Roots != nil, Insecure: o.Insecure,
		},
		results: make(map[string]*Result),
		done:    make(map[string]chan struct{}),
		places:  make(chan struct{}, MaxConns),
	}
	total, cancel := context.WithTimeout(ctx, TotalTimeouts*o.Timeout)
	defer cancel()
	if err := p.connect(total); err != nil {
		return nil, err
	}
	for _, w := range ways {
		p.done[w.id] = make(chan struct{})
	}
	var wg sync.WaitGroup
	for _, w := range ways {
		wg.Go(func() { p.try(total, w) })
	}
	wg.Wait()
	for _, w := range ways {
		p.report.Results = append(p.report.Results, p.results[w.id])
	}
	p.report.Interrupted = ctx.Err() != nil
	return p.report, nil
}

func (o *Options) setDefaults() {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Idle == 0 {
		o.Idle = min(2*time.Second, o.Timeout*2/5)
	}
	if o.Linger == 0 {
		o.Linger = 250 * time.Millisecond
	}
	if o.Path == "" {
		o.Path = o.Target.Path
	}
	if o.Path == "" {
		o.Path = "/"
	}
	if o.Host == "" {
		o.Host = o.Target.authority()
	}
	if o.SNI == "" {
		o.SNI = o.Target.host()
	}
}

// connect finds the address that every connection goes to, by a first one.
func (p *prober) connect(ctx context.Context) error {
	network, address := p.Target.Network, p.Target.Address
	if p.Resolve != "" {
		network, address = "tcp", p.Resolve
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(strings.Trim(address, "[]"), p.Target.port())
		}
	}
	if network == "tcp" {
		host, port, _ := net.SplitHostPort(address)
		if net.ParseIP(host) == nil {
			if addrs, err := net.DefaultResolver.LookupHost(ctx, host); err == nil {
				for _, a := range addrs {
					p.report.Others = append(p.report.Others, net.JoinHostPort(a, port))
				}
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	began := time.Now()
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	p.report.Connect = time.Since(began)
	if network == "tcp" {
		address = c.RemoteAddr().String()
	}
	c.Close()
	p.report.Others = slices.DeleteFunc(p.report.Others, func(a string) bool { return a == address })
	p.network, p.address = network, address
	p.report.Network, p.report.Address = network, address
	return nil
}

// try runs a way in when those that it depends on have run.
func (p *prober) try(ctx context.Context, w way) {
	defer close(p.done[w.id])
	r := &Result{ID: w.id, Group: w.group, Title: w.title, Verdict: NotTried, Outcome: Untried, Asked: slices.Contains(p.Only, w.id)}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.results[w.id] = r
		if p.Progress != nil {
			p.Progress(*r)
		}
	}()
	for _, id := range w.after {
		if done := p.done[id]; done != nil {
			select {
			case <-done:
			case <-ctx.Done():
			}
		}
	}
	if w.when != nil && ctx.Err() == nil {
		if r.Came = w.when(p); r.Came != "" {
			return
		}
	}
	select {
	case p.places <- struct{}{}:
		defer func() { <-p.places }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		r.Came = "interrupted"
		if !errors.Is(ctx.Err(), context.Canceled) {
			r.Outcome, r.Came = Stopped, "no time left"
		}
		return
	}
	if p.Progress != nil {
		p.mu.Lock()
		p.Progress(Result{ID: w.id, Group: w.group, Title: w.title})
		p.mu.Unlock()
	}
	began := time.Now()
	a := &attempt{prober: p, r: r, log: wire.NewLog(), deadline: began.Add(p.Timeout)}
	if d, ok := ctx.Deadline(); ok && d.Before(a.deadline) {
		a.deadline = d
	}
	var cancel context.CancelFunc
	a.ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	w.run(a)
	a.closeAll()
	r.Took = time.Since(began)
	r.Log = a.log.Events()
	r.Came = wire.Printable(r.Came)
	if errors.Is(ctx.Err(), context.Canceled) && r.Verdict != Works {
		what := "nothing"
		if r.Answered {
			what = "no complete answer"
		}
		r.Verdict, r.Outcome = NotTried, Stopped
		r.Came = fmt.Sprintf("interrupted, %s in %.1f s", what, r.Took.Seconds())
	}
}

// result returns the result of a way in that has run before, or that of one that was not tried.
func (p *prober) result(id string) *Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.results[id]; r != nil {
		return r
	}
	return &Result{ID: id, Verdict: NotTried, Outcome: Untried}
}

// choose returns the ways in that are named, and those that they depend on.
func choose(ways []way, only, skip []string) ([]way, error) {
	known := func(name string) bool {
		return slices.ContainsFunc(ways, func(w way) bool { return w.named(name) })
	}
	for _, name := range slices.Concat(only, skip) {
		if !known(name) {
			return nil, fmt.Errorf("there is no way in called %q; there are %s", name, strings.Join(names(ways), ", "))
		}
	}
	wanted := make(map[string]bool)
	for _, w := range slices.Backward(ways) { // what a way in depends on stands above it
		chosen := len(only) == 0 || wanted[w.id] || slices.ContainsFunc(only, w.named)
		if !chosen || slices.ContainsFunc(skip, w.named) {
			continue
		}
		wanted[w.id] = true
		for _, id := range slices.Concat(w.after, compared[w.id]) {
			wanted[id] = true
		}
	}
	return slices.DeleteFunc(ways, func(w way) bool {
		return !wanted[w.id] || slices.ContainsFunc(skip, w.named)
	}), nil
}

// compared are the ways in that help to explain others: if a request that is sent at once is answered, that explains
// why a client that waits hangs.
var compared = map[string][]string{"h2-strict": {"h2"}, "grpc": {"h2"}, "tls-grpc": {"tls-h2"}}

// named reports whether name is that of the way in, or of its group.
func (w way) named(name string) bool { return name == w.id || name == strings.ToLower(string(w.group)) }

func names(ways []way) []string {
	var out []string
	for _, w := range ways {
		out = append(out, w.id)
	}
	return append(out, "clear", "proxy", "tls")
}

// A Name is a way in, for a list of them.
type Name struct{ ID, Group, Title string }

// Names returns all the ways in that there are.
func Names() []Name {
	var out []Name
	for _, w := range allWays(Options{Cert: new(tls.Certificate)}) {
		out = append(out, Name{w.id, string(w.group), w.title})
	}
	return out
}
