package load

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

func TestTable(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	for _, s := range Table(8) {
		if names[s.Name] {
			t.Errorf("%s is there twice", s.Name)
		}
		names[s.Name] = true
		c, ok := contender.Find(s.Baseline)
		if !ok {
			t.Errorf("%s: the baseline is %q", s.Name, s.Baseline)
		} else if need, why := s.Missing(c); need != "" {
			t.Errorf("%s: the baseline has no %s: %s", s.Name, need, why)
		}
	}
}

func TestCoreCounts(t *testing.T) {
	t.Parallel()
	for processors, want := range map[int][]int{1: {1}, 2: {1, 2}, 6: {1, 2, 4, 6}, 8: {1, 2, 4, 8}} {
		if diff := cmp.Diff(want, coreCounts(processors)); diff != "" {
			t.Errorf("%d processors: %s", processors, diff)
		}
	}
}

// TestMeasure plays every kind of scenario, for a moment.
func TestMeasure(t *testing.T) {
	t.Parallel()
	const most = 40
	for _, s := range Table(2) {
		if s.Name != "churn-10" && s.X > 1 && s.Name != "silent-100" || slices.Contains(s.Needs, contender.Bodies) && strings.Contains(s.Name, "100m") {
			continue // like others, and long
		}
		t.Run(s.Name, func(t *testing.T) {
			config := s.Server
			config.Contender, config.RTT = s.Baseline, 0
			p, err := contender.Start(config)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Stop()
			e := &Env{
				Server: p, Addresses: p.Addresses, TLS: config.TLS,
				WarmUp: time.Millisecond, Duration: 5 * time.Millisecond, Rest: time.Millisecond, Most: most,
			}
			if s.Server.RTT > 0 {
				end, err := e.Slow(time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				defer end()
			}
			m, err := s.Measure(e)
			if err != nil {
				t.Fatal(err)
			}
			if m.Ops < 1 {
				t.Errorf("%d operations", m.Ops)
			}
			if m.Latency != nil && m.Latency.TotalCount() != int64(m.Ops) {
				t.Errorf("%d latencies of %d operations", m.Latency.TotalCount(), m.Ops)
			}
			if m.Connections != 0 && (m.Connections != most || m.Note == "") {
				t.Errorf("%d connections, and the note %q", m.Connections, m.Note)
			}
			if m.Connections != 0 && (m.Opening <= 0 || m.Resting <= 0 || m.Rested != e.Rest) {
				t.Errorf("CPU time %v to open the connections, and %v in %v of rest", m.Opening, m.Resting, m.Rested)
			}
			if m.After.CPU < m.Before.CPU || m.After.Allocs <= m.Before.Allocs {
				t.Errorf("before %+v, after %+v", m.Before, m.After)
			}
		})
	}
}

// TestLarge sends the large bodies, with fewer pieces than a scenario does.
func TestLarge(t *testing.T) {
	t.Parallel()
	p, err := contender.Start(contender.Config{Contender: "oneport"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	e := &Env{Server: p, Addresses: p.Addresses, WarmUp: 0, Duration: time.Millisecond}
	for _, n := range []int{1, 33} {
		for name, worker := range map[string]makeWorker{
			"HTTP/1": bodiesHTTP1(upload(n), download(n)),
			"gRPC":   bodiesGRPC(grpcUpload(n), grpcDownload(n)),
		} {
			s := Scenario{open: clients(1, worker)}
			if _, err := s.Measure(e); err != nil {
				t.Errorf("%s, %d pieces: %v", name, n, err)
			}
		}
	}
}

// fails is a worker that does.
type fails struct{ closed *bool }

func (f fails) run(time.Time, *recorder) error { return errors.New("refused") }
func (f fails) close()                         { *f.closed = true }

type noServer struct{}

func (noServer) Dial(string) (net.Conn, error)                         { return nil, errors.New("nobody is there") }
func (noServer) Usage(contender.Moment) (u contender.Usage, err error) { return u, nil }

// TestErrors has an error of one client fail the measurement, and end the others' work.
func TestErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var closed bool
		other := &closedLoop{op: func() error { time.Sleep(time.Millisecond); return nil }}
		e := &Env{Server: noServer{}, WarmUp: time.Hour}
		began := time.Now()
		s := Scenario{open: func(*Env) (*Session, error) { return &Session{workers: []worker{other, fails{&closed}}}, nil }}
		_, err := s.Measure(e)
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("the error is %v", err)
		}
		if took := time.Since(began); took > time.Millisecond {
			t.Errorf("the other client went on for %v", took)
		}
		if !closed {
			t.Error("a client was not closed")
		}
	})
	e := &Env{Server: noServer{}}
	for _, s := range Table(1) {
		if _, err := s.Measure(e); err == nil {
			t.Errorf("%s: there is no server, and no error", s.Name)
		}
	}
}

func TestJoinFew(t *testing.T) {
	t.Parallel()
	var errs []error
	for i := range 6 {
		errs = append(errs, nil, fmt.Errorf("client %d", i))
	}
	want := "client 0\nclient 1\nclient 2\nand 3 more clients failed"
	if got := joinFew(errs).Error(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err := joinFew(make([]error, 3)); err != nil {
		t.Error(err)
	}
}

// TestPaced has one operation take long: those that were due meanwhile count from when they were.
func TestPaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first := true
		w := &paced{every: 10 * time.Millisecond, offset: 5 * time.Millisecond, op: func() error {
			if first {
				first = false
				time.Sleep(25 * time.Millisecond)
			}
			return nil
		}}
		rec := newRecorder()
		began := time.Now()
		if err := w.run(began.Add(50*time.Millisecond), rec); err != nil {
			t.Fatal(err)
		}
		// Due at 5, 15, 25, 35 and 45 ms; at 30 ms the first is done and those of 15 and 25 follow at once.
		var got []int64
		for _, b := range rec.hist.Distribution() {
			for range b.Count {
				got = append(got, (b.From+500_000)/1_000_000)
			}
		}
		if diff := cmp.Diff([]int64{0, 0, 5, 15, 25}, got); diff != "" {
			t.Errorf("milliseconds: %s", diff)
		}
	})
}

// TestClosedLoop works until the time has come, at least once.
func TestClosedLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &closedLoop{op: func() error { time.Sleep(10 * time.Millisecond); return nil }}
		for d, want := range map[time.Duration]int64{0: 1, 35 * time.Millisecond: 4} {
			rec, elapsed, err := runAll([]worker{w, w}, d)
			if err != nil {
				t.Fatal(err)
			}
			if n := rec.hist.TotalCount(); n != 2*want || elapsed != time.Duration(want)*10*time.Millisecond {
				t.Errorf("%v: %d operations in %v", d, n, elapsed)
			}
		}
	})
}
