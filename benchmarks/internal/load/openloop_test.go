package load

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stalling is a server that answers in a millisecond, but for stalls, by a clock that only waits.
type stalling struct {
	stalls []stall
	began  time.Time
}

type stall struct{ from, to time.Duration }

func (s *stalling) do() error {
	now := time.Since(s.began)
	answer := now + time.Millisecond
	for _, stall := range s.stalls {
		if stall.from <= now && now < stall.to {
			answer = stall.to + time.Millisecond
		}
	}
	time.Sleep(answer - now)
	return nil
}

// TestOpenLoop has a server with known stalls: whatever is due in one waits for its end, and a request that no client
// was free for waits too. Each latency is that from when it was due.
func TestOpenLoop(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		clients int
		stalls  []stall
		// latencies in milliseconds at quantiles
		want map[float64]float64
	}{
		{"no stall", 10, nil, map[float64]float64{50: 1, 99: 1, 99.9: 1}},
		// Of 1000 requests 200 are due in the stall, with latencies of 201, 200, ... 2 ms.
		{"one stall", 300, []stall{{400 * time.Millisecond, 600 * time.Millisecond}}, map[float64]float64{50: 1, 80: 1, 90: 101, 99: 191, 99.9: 200}},
		// One client alone has a request in the stall; those behind it have waited as well, and after it each takes 1 ms,
		// as fast as they come: none of those after the stall is in time.
		{"one client", 1, []stall{{400 * time.Millisecond, 600 * time.Millisecond}}, map[float64]float64{40: 1, 50: 201, 99: 201}},
		{"two stalls", 300, []stall{{0, 50 * time.Millisecond}, {500 * time.Millisecond, 550 * time.Millisecond}}, map[float64]float64{90: 1, 95: 26, 99: 46}},
	} {
		synctest.Test(t, func(t *testing.T) {
			server := &stalling{stalls: tt.stalls, began: time.Now()}
			l := openLoop{
				rate: 1000, clients: tt.clients, duration: time.Second, grace: time.Second,
				sleep: func(at time.Time) { time.Sleep(time.Until(at)) },
				newOp: func() (func() error, func()) { return server.do, func() {} },
			}
			o := l.run(t.Context())
			if o.Ops != 1000 || o.Errors != 0 || o.Unasked != 0 {
				t.Errorf("%s: %d answers, %d errors, %d unasked", tt.name, o.Ops, o.Errors, o.Unasked)
			}
			for quantile, want := range tt.want {
				got := float64(o.Latency.ValueAtQuantile(quantile)) / 1e6
				if math.Abs(got-want) > 1.5 {
					t.Errorf("%s: %v %% take %.1f ms, want %.1f", tt.name, quantile, got, want)
				}
			}
			if late := o.Late.Max(); late > int64(time.Millisecond) {
				t.Errorf("%s: the load itself was late by %v", tt.name, time.Duration(late))
			}
		})
	}
}

// TestOpenLoopEnds has a server that never recovers: what was due counts, and the loop ends.
func TestOpenLoopEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &stalling{stalls: []stall{{500 * time.Millisecond, 3 * time.Second}}, began: time.Now()}
		l := openLoop{
			rate: 100, clients: 2, duration: time.Second, grace: time.Second,
			sleep: func(at time.Time) { time.Sleep(time.Until(at)) },
			newOp: func() (func() error, func()) { return server.do, func() {} },
		}
		o := l.run(t.Context())
		if o.Ops != 52 || o.Unasked != 48 || o.Latency.TotalCount() != 100 || !errors.Is(o.Error, errTooLate) {
			t.Errorf("%d answers, %d unasked, %d latencies, %v", o.Ops, o.Unasked, o.Latency.TotalCount(), o.Error)
		}
		if took := o.Elapsed; took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestAtRateStall has a real server that stalls for a known time. A closed loop with one client sees one slow request;
// the open loop sees all that were due. Other processes can only add to that.
func TestAtRateStall(t *testing.T) {
	t.Parallel()
	const length = 300 * time.Millisecond
	var mu sync.Mutex
	var began time.Time
	l := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if began.IsZero() {
			began = time.Now()
		}
		from, to := began.Add(200*time.Millisecond), began.Add(200*time.Millisecond+length)
		mu.Unlock()
		if now := time.Now(); now.After(from) && now.Before(to) {
			time.Sleep(to.Sub(now))
		}
		w.Write([]byte("hello"))
	})
	target := &Target{Network: "tcp", Address: l.Addr().String(), Authority: "example.com", Path: "/"}
	load := &Load{Target: target, Protocol: Protocols[0], Open: true, Clients: 1}
	o := load.AtRate(t.Context(), 200, time.Second)
	if o.Errors != 0 || o.Ops != 200 {
		t.Fatalf("%d answers, %d errors: %v", o.Ops, o.Errors, o.Error)
	}
	// 60 are due in the stall, 30 of them in its first half.
	if got := time.Duration(o.Latency.ValueAtQuantile(85)); got < length/2 {
		t.Errorf("85 %% of the requests take %v, and 15 %% were due while there were %v to wait", got, length/2)
	}
	mu.Lock()
	began = time.Time{}
	mu.Unlock()
	if c := load.Closed(t.Context(), time.Second); c.Latency.Max() < int64(length)*9/10 || c.Ops < 2 {
		t.Errorf("a closed loop: %d requests, at most %v", c.Ops, time.Duration(c.Latency.Max()))
	}
}

// TestProbe tells which protocols servers speak.
func TestProbe(t *testing.T) {
	t.Parallel()
	web := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello")) })
	rpc := serveGRPC(t)
	path := filepath.Join(t.TempDir(), "socket")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Skip(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler()}
	var running sync.WaitGroup
	running.Go(func() { s.Serve(unix) })
	t.Cleanup(func() { s.Close(); running.Wait() })
	for address, want := range map[string][]string{
		web.Addr().String():             {"HTTP/1", "h2c"},
		"http://" + web.Addr().String(): {"HTTP/1", "h2c"},
		rpc.Addr().String():             {"gRPC"},
		"unix:" + path:                  nil, // what was asked for is not there
	} {
		target, asked, err := ParseTarget(address)
		if err != nil {
			t.Fatal(err)
		}
		target.Path, target.Method = "/", HealthCheck
		var spoken []string
		for _, p := range asked {
			if err := target.Probe(p); err == nil {
				spoken = append(spoken, p.Name)
			} else if target.Network == "unix" && p.Name == "HTTP/1" && !strings.Contains(err.Error(), "404") {
				t.Error(err)
			}
		}
		if diff := cmp.Diff(want, spoken); diff != "" {
			t.Errorf("%s: %s", address, diff)
		}
	}
}

func TestParseTarget(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]Target{
		"localhost:80":         {Network: "tcp", Address: "localhost:80", Authority: "localhost:80"},
		"https://example.com/": {Network: "tcp", Address: "example.com:443", Authority: "example.com:443"},
		"http://[::1]":         {Network: "tcp", Address: "[::1]:80", Authority: "[::1]:80"},
		"unix:/run/s":          {Network: "unix", Address: "/run/s", Authority: "localhost"},
	} {
		got, _, err := ParseTarget(s)
		if err != nil || *got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"nowhere", "ftp://a:1", ""} {
		if _, _, err := ParseTarget(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

// TestFind searches the rate of a server that slows down at a known one.
func TestFind(t *testing.T) {
	t.Parallel()
	b, err := ParseBound("p99=10ms")
	if err != nil || b.Quantile != 99 || b.Most != 10*time.Millisecond {
		t.Fatalf("%+v, %v", b, err)
	}
	for _, tt := range []struct{ guess, limit float64 }{{100, 5000}, {50_000, 5000}, {5000, 5000}, {300, 0}} {
		all, best, err := b.Find(tt.guess, func(rate float64) (*Outcome, error) {
			o := &Outcome{Rate: rate, Ops: int(rate), Elapsed: time.Second, Latency: newHistogram()}
			took := time.Millisecond
			if rate > tt.limit {
				took = time.Second
			}
			o.Latency.RecordValue(int64(took))
			return o, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(all, func(a, b *Outcome) int { return int(a.Rate - b.Rate) }) {
			t.Error("the outcomes are not in order")
		}
		switch {
		case tt.limit == 0 && best != nil:
			t.Errorf("%v, and no rate keeps the bound", best.Rate)
		case tt.limit > 0 && (best == nil || best.Rate > tt.limit || best.Rate < 0.9*tt.limit):
			t.Errorf("from %v: %+v, want %v", tt.guess, best, tt.limit)
		}
	}
	if _, _, err := b.Find(1, func(float64) (*Outcome, error) { return nil, context.Canceled }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, s := range []string{"", "p99", "p99=", "p99=-1ms", "99=1ms", "p100=1ms", "p0=1s"} {
		if _, err := ParseBound(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}
