package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport"
)

// result is what a run measured.
type result struct {
	load          report
	stats         oneport.Stats // at the end
	mostUndecided sample
	mostMemory    sample
	longestWait   time.Duration // of a refused connection in the mux
}

// sample is the state of the server at one moment.
type sample struct {
	undecided, leaving int
	memory             int64 // more than at the beginning
}

// each is the memory that a connection without a server costs.
func (s sample) each() int64 { return s.memory / int64(max(s.undecided+s.leaving, 1)) }

const (
	// A refused client has this long to read the answer before the mux closes the connection.
	linger = time.Second

	// What a busy machine may add to a time limit.
	slack = 2 * time.Second
)

// run floods a mux and checks what has to hold.
func run(c config) (*result, error) {
	others := goleak.IgnoreCurrent()
	s, err := startServers(c)
	if err != nil {
		return nil, err
	}
	var r result
	sampled := make(chan struct{})
	stopSampling := make(chan struct{})
	go func() {
		defer close(sampled)
		r.mostUndecided, r.mostMemory = s.sample(stopSampling)
	}()
	r.load, err = s.runLoad(c)
	close(stopSampling)
	<-sampled
	err = errors.Join(err, s.shutdown())
	r.stats = s.mux.Stats()
	r.longestWait = time.Duration(s.longestWait.Load())
	if err != nil {
		return &r, err
	}
	return &r, errors.Join(r.check(c), goleak.Find(others))
}

// servers are a mux, and grpc-go and net/http behind it.
type servers struct {
	mux         *oneport.Mux
	addr        string
	grpc        *grpc.Server
	http        *http.Server
	ended       chan error // of mux, grpc and http
	longestWait atomic.Int64
}

func startServers(c config) (*servers, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &servers{mux: oneport.New(l), addr: l.Addr().String(), ended: make(chan error, 3)}
	s.mux.DecideTimeout = c.decide
	s.mux.IdleTimeout = c.decide
	s.mux.MaxUndecided = c.maxUndecided
	if c.maxUndecided == 0 {
		s.mux.MaxUndecided = 4 * c.n
	}
	s.mux.Logger = slog.New(slog.DiscardHandler)
	s.mux.OnRefuse = func(r oneport.Refused) {
		for {
			longest := s.longestWait.Load()
			if int64(r.Waited) <= longest || s.longestWait.CompareAndSwap(longest, int64(r.Waited)) {
				return
			}
		}
	}

	s.grpc = grpc.NewServer()
	healthpb.RegisterHealthServer(s.grpc, health.NewServer())
	s.http = &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, content) }),
		Protocols: new(http.Protocols),
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)

	grpcListener := s.mux.Match(oneport.GRPC())
	// HTTP2() would take a connection with its preface, and leave the bad ones to net/http.
	httpListener := s.mux.Match(oneport.HTTP1(), oneport.Header(":scheme", "http"))
	go func() { s.ended <- s.grpc.Serve(grpcListener) }()
	go func() { s.ended <- s.http.Serve(httpListener) }()
	go func() { s.ended <- s.mux.Serve() }()
	return s, nil
}

func (s *servers) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	errs := []error{s.mux.Shutdown(ctx)}
	s.grpc.Stop()
	errs = append(errs, s.http.Close())
	for range cap(s.ended) {
		if err := <-s.ended; err != nil && err != http.ErrServerClosed && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// runLoad starts the process of the clients and returns its report.
func (s *servers) runLoad(c config) (report, error) {
	program, err := os.Executable()
	if err != nil {
		return report{}, err
	}
	order, err := json.Marshal(job{Addr: s.addr, N: c.n, Rate: c.rate, Decide: c.decide, Limit: c.limit})
	if err != nil {
		return report{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*c.limit+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, loadCommand)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(order), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return report{}, fmt.Errorf("the process of the clients: %w", err)
	}
	var r report
	err = json.Unmarshal(out, &r)
	return r, err
}

// sample looks at the server every now and then, and returns it as it was with the most undecided connections and with
// the most memory.
func (s *servers) sample(stop <-chan struct{}) (mostUndecided, mostMemory sample) {
	runtime.GC()
	before := memory()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return mostUndecided, mostMemory
		case <-tick.C:
		}
		stats := s.mux.Stats()
		now := sample{undecided: stats.Undecided, leaving: stats.Refusing, memory: memory() - before}
		if now.undecided >= mostUndecided.undecided {
			mostUndecided = now
		}
		if now.memory >= mostMemory.memory {
			mostMemory = now
		}
	}
}

// memory is what heap and stacks take, garbage included.
func memory() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// check says what did not hold.
func (r *result) check(c config) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	var bad, good uint64
	for _, b := range r.load.Bad {
		bad += uint64(b.Opened)
		if b.Closed != b.Opened {
			fail("%d of %d connections (%s) were not closed within %v", b.Opened-b.Closed, b.Opened, b.Kind, c.limit)
		}
		if most := c.decide + linger + slack; b.Last > most {
			fail("a connection (%s) was closed after %v, want %v at most", b.Kind, ms(b.Last), most)
		}
	}
	for _, g := range append(r.load.Quiet, r.load.Good...) {
		good += uint64(g.Requests)
		if g.Failed > 0 {
			fail("%d of %d requests failed (%s), the first with: %s", g.Failed, g.Requests, g.Kind, g.FirstError)
		}
		if g.Requests == 0 {
			fail("no requests were made (%s)", g.Kind)
		}
	}
	if most := c.decide + slack; r.longestWait > most {
		fail("a connection was refused only after %v, want %v at most", ms(r.longestWait), most)
	}
	if each := r.mostUndecided.each(); each > int64(c.maxBytes) {
		fail("with %d undecided connections each costs %d bytes, more than the %d allowed", r.mostUndecided.undecided, each, c.maxBytes)
	}

	var refused uint64
	for _, n := range r.stats.Refused {
		refused += n
	}
	if r.stats.Accepted != good+bad || r.stats.Matched != good || refused != bad {
		fail("the mux counts %d accepted, %d matched and %d refused, but there were %d good and %d bad connections",
			r.stats.Accepted, r.stats.Matched, refused, good, bad)
	}
	if n := r.stats.Undecided + r.stats.Refusing + r.stats.Queued; n != 0 {
		fail("after Shutdown the mux still has %d connections", n)
	}
	return errors.Join(errs...)
}
