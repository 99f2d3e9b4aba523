package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// An Outcome is what a load on a target has found.
type Outcome struct {
	Rate    float64 // that was wanted; 0 for a closed loop
	Ops     int     // that were answered
	Elapsed time.Duration
	Latency *hdrhistogram.Histogram // in nanoseconds

	Errors  int
	Unasked int // operations that were due, and for which nobody was free before the end
	Error   error

	// Late is how much later than due the load itself has begun operations, in nanoseconds: what it adds to latencies.
	Late *hdrhistogram.Histogram
}

// Achieved is how many operations were answered in a second.
func (o *Outcome) Achieved() float64 {
	if o.Elapsed <= 0 {
		return 0
	}
	return float64(o.Ops) / o.Elapsed.Seconds()
}

// Load is a load on a target.
type Load struct {
	Target   *Target
	Protocol Protocol
	Open     bool // one connection for all requests of a client, and not one for each
	Clients  int
}

// errorPause is how long a client waits after an error, so that a server that is not there is not asked a million
// times.
const errorPause = 10 * time.Millisecond

// Closed has each client make a request when it has the answer to the one before. A server that stalls is asked less.
func (l *Load) Closed(ctx context.Context, d time.Duration) *Outcome {
	out := &outcome{Outcome: Outcome{Latency: newHistogram()}}
	begin := time.Now()
	until := begin.Add(d)
	var running sync.WaitGroup
	for range l.Clients {
		running.Go(func() {
			op := l.Target.newOperation(l.Protocol, l.Open)
			defer op.close()
			for ctx.Err() == nil && time.Now().Before(until) {
				began := time.Now()
				err := op.do()
				out.add(time.Since(began), err)
				if err != nil {
					time.Sleep(errorPause)
				}
			}
		})
	}
	running.Wait()
	out.Elapsed = time.Since(begin)
	return &out.Outcome
}

// outcome is one that several clients add to.
type outcome struct {
	mu sync.Mutex
	Outcome
}

func (o *outcome) add(took time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.Errors++
		if o.Error == nil {
			o.Error = err
		}
		return
	}
	o.Ops++
	_ = o.Latency.RecordValue(clamp(took)) // which is in its range
}

func clamp(d time.Duration) int64 { return int64(min(max(d, time.Microsecond), 2*opTimeout)) }

// AtRate makes so many requests in a second, whether or not those before are answered. The latency of each counts from
// when it was due, so a stall counts for all requests that were due in it: there is no coordinated omission. Where no
// client is free a request waits for one, and that counts too.
func (l *Load) AtRate(ctx context.Context, rate float64, d time.Duration) *Outcome {
	loop := openLoop{
		rate: rate, clients: l.Clients, duration: d, grace: grace, sleep: sleepUntil,
		newOp: func() (func() error, func()) {
			op := l.Target.newOperation(l.Protocol, l.Open)
			op.timeout = d + grace
			if l.Open {
				// The connection is there before the first request is due. An error comes again.
				_ = op.do()
			}
			return op.do, op.close
		},
	}
	return loop.run(ctx)
}

// grace is how long after the end answers are waited for.
const grace = 2 * time.Second

// openLoop makes operations when they are due.
type openLoop struct {
	rate     float64
	clients  int
	duration time.Duration
	grace    time.Duration
	newOp    func() (do func() error, end func())
	sleep    func(until time.Time)
}

func (l *openLoop) run(ctx context.Context) *Outcome {
	out := &outcome{Outcome: Outcome{Rate: l.rate, Latency: newHistogram(), Late: newHistogram()}}
	type client struct {
		do  func() error
		end func()
	}
	clients := make([]client, l.clients)
	var starting sync.WaitGroup
	for i := range clients {
		starting.Go(func() { clients[i].do, clients[i].end = l.newOp() })
	}
	starting.Wait()

	// What is due and not begun. There is room for everything, so that the pace does not depend on the clients.
	total := max(1, int(l.rate*l.duration.Seconds()))
	due := make(chan time.Time, total)
	begin := time.Now()
	last := begin.Add(l.duration + l.grace)
	var running sync.WaitGroup
	for _, c := range clients {
		running.Go(func() {
			defer c.end()
			for at := range due {
				if time.Now().After(last) || ctx.Err() != nil {
					out.late(at)
					continue
				}
				err := c.do()
				out.add(time.Since(at), err)
			}
		})
	}
	for i := range total {
		at := begin.Add(time.Duration(float64(i) / l.rate * float64(time.Second)))
		l.sleep(at)
		if ctx.Err() != nil {
			break
		}
		out.pace(time.Since(at))
		due <- at
	}
	close(due)
	running.Wait()
	out.Elapsed = max(l.duration, time.Since(begin))
	return &out.Outcome
}

// late counts an operation that nobody has begun: it has taken at least as long as it has waited.
func (o *outcome) late(at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Unasked++
	if o.Error == nil {
		o.Error = errTooLate
	}
	_ = o.Latency.RecordValue(clamp(time.Since(at)))
}

func (o *outcome) pace(late time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.Late.RecordValue(clamp(late))
}

// A Bound is what a latency may be at most, as in p99=10ms.
type Bound struct {
	Name     string // p99
	Quantile float64
	Most     time.Duration
}

// ParseBound reads a bound.
func ParseBound(s string) (b Bound, err error) {
	name, most, ok := strings.Cut(s, "=")
	if _, scanErr := fmt.Sscanf(name, "p%g", &b.Quantile); !ok || scanErr != nil || b.Quantile <= 0 || b.Quantile >= 100 {
		return b, fmt.Errorf("%q is no bound such as p99=10ms", s)
	}
	if b.Most, err = time.ParseDuration(most); err != nil || b.Most <= 0 {
		return b, fmt.Errorf("%q is no bound such as p99=10ms", s)
	}
	b.Name = name
	return b, nil
}

// Kept reports whether an outcome keeps the bound: all was answered, nearly in time, and the quantile is no more than
// it may be.
func (b Bound) Kept(o *Outcome) bool {
	return o.Errors == 0 && o.Unasked == 0 && o.Ops > 0 && o.Achieved() >= 0.95*o.Rate &&
		time.Duration(o.Latency.ValueAtQuantile(b.Quantile)) <= b.Most
}

// Find searches the highest rate that keeps the bound, from a first guess, with measure. It returns all outcomes in
// order of their rates, and the best of those that keep the bound, if one does.
func (b Bound) Find(guess float64, measure func(rate float64) (*Outcome, error)) (all []*Outcome, best *Outcome, err error) {
	const (
		close = 1.1 // near enough
		steps = 14
	)
	low, high := 0.0, 0.0 // the highest that does, and the lowest that does not; 0 if there is none yet
	rate := max(1, guess)
	for range steps {
		o, err := measure(rate)
		if err != nil {
			return all, best, err
		}
		all = append(all, o)
		if b.Kept(o) {
			low, best = rate, o
		} else {
			high = rate
		}
		switch {
		case low > 0 && high > 0 && high/low < close, low == 0 && rate <= 1:
			return sorted(all), best, nil
		case high == 0:
			rate = low * 2
		case low == 0:
			rate = max(1, high/3)
		default:
			rate = math.Sqrt(low * high)
		}
	}
	return sorted(all), best, nil
}

func sorted(all []*Outcome) []*Outcome {
	slices.SortFunc(all, func(a, b *Outcome) int { return cmp.Compare(a.Rate, b.Rate) })
	return all
}

// ErrNoRate is that no rate keeps the bound.
var ErrNoRate = errors.New("no rate keeps the bound")
