package load

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A worker is one client. Its methods are called one after the other.
type worker interface {
	// run works until the time has come, and tells rec how long each operation took.
	run(until time.Time, rec *recorder) error
	close()
}

// recorder takes what the workers report.
type recorder struct {
	stop atomic.Bool // a worker has failed

	mu   sync.Mutex
	hist *hdrhistogram.Histogram
}

// The histogram has latencies in nanoseconds, from a microsecond to more than an operation may take.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(2*opTimeout), 3)
}

func newRecorder() *recorder { return &recorder{hist: newHistogram()} }

func (r *recorder) record(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// What is out of range cannot be, but for a clock that jumps.
	_ = r.hist.RecordValue(int64(min(max(took, time.Microsecond), 2*opTimeout)))
}

// more reports whether to go on.
func (r *recorder) more(until time.Time) bool { return !r.stop.Load() && time.Now().Before(until) }

// runAll has the workers work for d.
func runAll(workers []worker, d time.Duration) (rec *recorder, elapsed time.Duration, err error) {
	rec = newRecorder()
	begin := time.Now()
	until := begin.Add(d)
	errs := make([]error, len(workers))
	var running sync.WaitGroup
	for i, w := range workers {
		running.Go(func() {
			if errs[i] = w.run(until, rec); errs[i] != nil {
				rec.stop.Store(true)
			}
		})
	}
	running.Wait()
	elapsed = time.Since(begin)
	if err := joinFew(errs); err != nil {
		return nil, 0, err
	}
	return rec, elapsed, nil
}

// joinFew joins the errors, and leaves out those that would only fill the screen.
func joinFew(errs []error) error {
	const few = 3
	var joined []error
	more := 0
	for _, err := range errs {
		switch {
		case err == nil:
		case len(joined) < few:
			joined = append(joined, err)
		default:
			more++
		}
	}
	if more > 0 {
		joined = append(joined, fmt.Errorf("and %d more clients failed", more))
	}
	return errors.Join(joined...)
}

// closedLoop makes an operation when the one before it is done.
type closedLoop struct {
	op   func() error
	conn net.Conn // nil if each operation has its own
}

func (w *closedLoop) run(until time.Time, rec *recorder) error {
	if w.conn != nil {
		w.conn.SetDeadline(until.Add(opTimeout))
	}
	for {
		began := time.Now()
		if err := w.op(); err != nil {
			return err
		}
		rec.record(time.Since(began))
		if !rec.more(until) {
			return nil
		}
	}
}

func (w *closedLoop) close() {
	if w.conn != nil {
		w.conn.Close()
	}
}

// paced makes an operation every so often, whether or not the one before it took long: how long it took counts from
// when it was due.
type paced struct {
	op     func() error
	every  time.Duration
	offset time.Duration // so that the workers do not work all at once
}

func (w *paced) run(until time.Time, rec *recorder) error {
	due := time.Now().Add(w.offset)
	for {
		time.Sleep(time.Until(due))
		if err := w.op(); err != nil {
			return err
		}
		rec.record(time.Since(due))
		due = due.Add(w.every)
		if !rec.more(until) || due.After(until) {
			return nil
		}
	}
}

func (w *paced) close() {}

// pipelined keeps n requests in flight on its connection.
type pipelined struct {
	client *http2Client
	n      int
}

func (w *pipelined) run(until time.Time, rec *recorder) error {
	w.client.conn.SetDeadline(until.Add(opTimeout))
	return w.client.pipeline(w.n, func(took time.Duration) bool {
		rec.record(took)
		return rec.more(until)
	})
}

func (w *pipelined) close() { w.client.conn.Close() }

// perConnection returns an operation that is a new connection with one request.
func perConnection(dial func() (net.Conn, error), request func(net.Conn) error) func() error {
	return func() error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return request(c)
	}
}
