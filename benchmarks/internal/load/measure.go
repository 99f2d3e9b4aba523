package load

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

// Measurement is what a scenario has found.
type Measurement struct {
	Ops     int
	Elapsed time.Duration           // 0 where the number of operations in a time means nothing
	Latency *hdrhistogram.Histogram // in nanoseconds; nil where there is none

	// What the server has used before and after the operations.
	Before, After contender.Usage

	// Idle is what it used when all clients were gone; zero where that was not looked at.
	Idle contender.Usage

	// Connections is how many idle connections the memory between Before and After is that of. Opening is the server's
	// CPU time to open them, and Resting that of Rested, in which nothing happened to them.
	Connections              int
	Opening, Resting, Rested time.Duration

	// Note says what was not as it should be, if anything.
	Note string
}

// A Session is a load on one server, that is played in slices: between two of them the server is idle, and those of
// other servers have their turn.
type Session struct {
	env     *Env
	once    bool
	workers []worker

	// refresh, if there is one, is called ahead of each slice. It opens anew what a server closes after a while, and
	// reports whether it has.
	refresh func() (bool, error)
	end     func() // what else is to be closed

	before contender.Usage // after the warm-up
	ops    int             // in all slices
	note   string
}

// Open begins to play a scenario that [Scenario.Sliced] reports true for, and warms the server up.
func (s *Scenario) Open(e *Env) (*Session, error) {
	session, err := s.open(e)
	if err != nil {
		return nil, err
	}
	session.env, session.once = e, s.Once
	if err := session.warmUp(e.WarmUp); err != nil {
		session.close()
		return nil, err
	}
	if session.before, err = e.Server.Usage(contender.Collected); err != nil {
		session.close()
		return nil, err
	}
	return session, nil
}

func (s *Session) warmUp(d time.Duration) error {
	if s.refresh != nil {
		if _, err := s.refresh(); err != nil {
			return err
		}
	}
	if _, _, err := runAll(s.workers, d); err != nil {
		return fmt.Errorf("warming up: %w", err)
	}
	return nil
}

// Slice plays for d. The usage before and after has CPU time and context switches only.
func (s *Session) Slice(d time.Duration) (*Measurement, error) {
	if s.refresh != nil {
		fresh, err := s.refresh()
		if err != nil {
			return nil, err
		}
		if fresh {
			if err := s.warmUp(d / 2); err != nil {
				return nil, err
			}
		}
	}
	m := new(Measurement)
	var err error
	if m.Before, err = s.env.Server.Usage(contender.Settled); err != nil {
		return nil, err
	}
	if s.once {
		d = 0
	}
	rec, elapsed, err := runAll(s.workers, d)
	if err != nil {
		return nil, err
	}
	if m.After, err = s.env.Server.Usage(contender.Settled); err != nil {
		return nil, err
	}
	m.Ops, m.Elapsed, m.Latency = int(rec.hist.TotalCount()), elapsed, rec.hist
	s.ops += m.Ops
	return m, nil
}

// Close ends the session, and returns what the server has used for all slices together, without their latencies.
func (s *Session) Close() (*Measurement, error) {
	m := &Measurement{Ops: s.ops, Before: s.before, Note: s.note}
	var err error
	m.After, err = s.env.Server.Usage(contender.Now)
	s.close()
	if err != nil {
		return nil, err
	}
	m.Idle, err = s.env.Server.Usage(contender.Trimmed)
	return m, err
}

// close closes all connections.
func (s *Session) close() {
	for _, w := range s.workers {
		w.close()
	}
	s.workers = nil
	if s.end != nil {
		s.end()
		s.end = nil
	}
}

// whole plays what could be played in slices in one.
func whole(open func(*Env) (*Session, error)) func(*Env) (*Measurement, error) {
	s := &Scenario{open: open}
	return s.oneSlice
}

// oneSlice plays a scenario once, in a slice.
func (s *Scenario) oneSlice(e *Env) (*Measurement, error) {
	session, err := s.Open(e)
	if err != nil {
		return nil, err
	}
	m, err := session.Slice(e.Duration)
	if err != nil {
		session.close()
		return nil, err
	}
	whole, err := session.Close()
	if err != nil {
		return nil, err
	}
	whole.Elapsed, whole.Latency = m.Elapsed, m.Latency
	return whole, nil
}
