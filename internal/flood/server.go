package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/certs"
)

// result is what a run measured.
type result struct {
	load          report
	stats         oneport.Stats // at the end
	left          leftovers
	mostUndecided sample
	mostMemory    sample
	longestWait   time.Duration // of a refused connection in the mux
}

// sample is the state of the server at one moment.
type sample struct {
	undecided, leaving int
	memory             int64 // more than at the beginning
	live               int64 // what of the heap the last garbage collection has found in use
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
	before := leftoversNow()
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
	r.stats = s.stats()
	r.longestWait = time.Duration(s.longestWait.Load())
	if err != nil {
		return &r, err
	}
	err = errors.Join(r.check(c), goleak.Find(others))
	r.left = leftoversNow().since(before)
	return &r, errors.Join(err, r.left.check(r.mostUndecided.undecided))
}

// leftovers are what a process has that could be left when everything has ended.
type leftovers struct {
	heap  int64
	files int // -1 if that is not known
}

func leftoversNow() leftovers {
	runtime.GC()
	runtime.GC() // what sync.Pool has is kept by the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	l := leftovers{int64(m.HeapAlloc), -1}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		l.files = len(files)
	}
	return l
}

func (l leftovers) since(before leftovers) leftovers {
	return leftovers{l.heap - before.heap, l.files - before.files}
}

func (l leftovers) check(goroutines int) error {
	// What is made once, such as tables of the standard library, and what the runtime keeps of goroutines that have ended.
	most := int64(4<<20 + 512*goroutines)
	if l.heap > most || l.files > 0 {
		return fmt.Errorf("at the end the heap has %d bytes and %d files more than at the beginning", l.heap, l.files)
	}
	return nil
}

// servers are grpc-go and net/http behind a port.
type servers struct {
	addr        string
	stats       func() oneport.Stats
	shutdown    func() error
	longestWait atomic.Int64
}

// serving are the ways to serve, with whether that is inside TLS.
var serving = map[string]bool{
	"mux": false, "tls": true, "requests": false, "requests-tls": true,
	"server": false, "server-tls": true, "per-connection": false,
}

func startServers(c config) (*servers, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &servers{addr: l.Addr().String()}
	limits := oneport.Limits{
		DecideTimeout: c.decide, IdleTimeout: c.decide, HandshakeTimeout: c.decide,
		MaxUndecided: cmp.Or(c.maxUndecided, 6*c.n), QueueLength: 10_000,
	}
	hooks := oneport.Hooks{OnRefuse: func(r oneport.Refused) {
		for {
			longest := s.longestWait.Load()
			if int64(r.Waited) <= longest || s.longestWait.CompareAndSwap(longest, int64(r.Waited)) {
				return
			}
		}
	}}
	quiet := slog.New(slog.DiscardHandler)

	gs := grpc.NewServer()
	healthpb.RegisterHealthServer(gs, health.NewServer())
	hs := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, content) }),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	var config *tls.Config
	if serving[c.serve] {
		if config, _, err = certs.Configs("localhost"); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(c.serve, "server") || c.serve == "per-connection" {
		server := &oneport.Server{
			GRPC: gs, HTTP: hs, TLSConfig: config, RequireTLS: config != nil, PerConnection: c.serve == "per-connection",
			Limits: limits, Hooks: hooks, Logger: quiet,
		}
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(l) }()
		s.stats = server.Stats
		s.shutdown = func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			err := server.Shutdown(ctx)
			if served := <-ended; !errors.Is(served, net.ErrClosed) {
				err = errors.Join(err, served)
			}
			return err
		}
		return s, nil
	}

	mux := oneport.New(l)
	mux.Limits, mux.Hooks, mux.Logger = limits, hooks, quiet
	oneport.ConfigureHTTP(hs)
	match, requests := mux.Match, mux.Requests
	if config != nil {
		inside := mux.TLS(config)
		match, requests = inside.Match, inside.Requests
	}
	var grpcL, httpL net.Listener
	var ls []net.Listener
	if strings.HasPrefix(c.serve, "requests") {
		q := requests()
		grpcL, httpL = q.Match(oneport.GRPC()), q.Match(oneport.Any())
		ls = []net.Listener{httpL, match(oneport.HTTP1())}
	} else {
		grpcL = match(oneport.GRPC())
		// HTTP2() would take a connection with its preface, and leave the bad ones to net/http.
		ls = []net.Listener{match(oneport.HTTP1(), oneport.Header(":method", http.MethodGet))}
	}
	ended := make(chan error, 2+len(ls))
	go func() { ended <- gs.Serve(grpcL) }()
	for _, l := range ls {
		go func() { ended <- hs.Serve(l) }()
	}
	go func() { ended <- mux.Serve() }()
	s.stats = mux.Stats
	s.shutdown = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		errs := []error{mux.Shutdown(ctx)}
		gs.Stop()
		errs = append(errs, hs.Close())
		for range cap(ended) {
			if err := <-ended; err != nil && err != http.ErrServerClosed && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	return s, nil
}

// runLoad starts the process of the clients and returns its report.
func (s *servers) runLoad(c config) (report, error) {
	program, err := os.Executable()
	if err != nil {
		return report{}, err
	}
	order, err := json.Marshal(job{Addr: s.addr, TLS: serving[c.serve], Hold: c.hold, N: c.n, Rate: c.rate, Decide: c.decide, Limit: c.limit})
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
		stats := s.stats()
		now := sample{undecided: stats.Undecided, leaving: stats.Refusing, memory: memory() - before, live: liveHeap()}
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

// liveHeap is what the heap takes without garbage.
func liveHeap() int64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return int64(live[0].Value.Uint64())
}

// check says what did not hold.
func (r *result) check(c config) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	var bad, good, requests uint64
	for _, b := range r.load.Bad {
		bad += uint64(b.Opened)
		if b.Closed != b.Opened {
			fail("%d of %d connections (%s) were not closed within %v", b.Opened-b.Closed, b.Opened, b.Kind, c.limit)
		}
		most := c.decide + linger + slack
		if serving[c.serve] {
			most += c.decide // for the handshake
		}
		if b.Last > most {
			fail("a connection (%s) was closed after %v, want %v at most", b.Kind, ms(b.Last), most)
		}
	}
	for _, g := range append(r.load.Quiet, r.load.Good...) {
		good += uint64(g.Opened)
		requests += uint64(g.Requests)
		if g.Failed > 0 {
			fail("%d of %d requests failed (%s), the first with: %s", g.Failed, g.Requests, g.Kind, g.FirstError)
		}
		if g.Requests == 0 {
			fail("no requests were made (%s)", g.Kind)
		}
	}
	most := c.decide + slack
	if serving[c.serve] {
		most += c.decide // for the handshake
	}
	if r.longestWait > most {
		fail("a connection was refused only after %v, want %v at most", ms(r.longestWait), most)
	}
	if most := int64(c.maxTotal) << 20; c.hold && r.mostMemory.memory > most {
		fail("at worst %d connections took %d bytes, more than the %d allowed", r.mostMemory.undecided, r.mostMemory.memory, most)
	}
	if each := r.mostUndecided.each(); !c.hold && each > int64(c.maxBytes) {
		fail("with %d undecided connections each costs %d bytes, more than the %d allowed", r.mostUndecided.undecided, each, c.maxBytes)
	}

	var refused uint64
	for _, n := range r.stats.Refused {
		refused += n
	}
	if r.stats.Accepted != good+bad || r.stats.Matched != requests || refused != good+bad-requests {
		fail("the mux counts %d accepted, %d matched and %d refused, but there were %d good connections with %d requests, and %d bad ones",
			r.stats.Accepted, r.stats.Matched, refused, good, requests, bad)
	}
	if n := r.stats.Undecided + r.stats.Refusing + r.stats.Queued; n != 0 {
		fail("after Shutdown the mux still has %d connections", n)
	}
	return errors.Join(errs...)
}
