package load

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

// inParallel calls f for 0 to n-1, several at once.
func inParallel(n int, f func(i int) error) error {
	const several = 32
	errs := make([]error, several)
	var running sync.WaitGroup
	for first := range several {
		running.Go(func() {
			for i := first; i < n && errs[first] == nil; i += several {
				errs[first] = f(i)
			}
		})
	}
	running.Wait()
	return joinFew(errs)
}

// bounded is n, or as many connections as the load may have.
func (e *Env) bounded(n int) (int, string) {
	if e.Most > 0 && n > e.Most {
		return e.Most, fmt.Sprintf("%d connections instead of %d", e.Most, n)
	}
	return n, ""
}

// idle has n clients make a request each and then keep their connections, and looks at the memory and the CPU time that
// they take. After that each has to be answered once more.
func idle(n int, newWorker makeWorker) func(*Env) (*Measurement, error) {
	return atRest(n, newWorker, true)
}

// pending has n clients connect, and looks at what their connections take ahead of the first request. None makes one: by
// then a mux may have closed what has said nothing for long.
func pending(n int, newWorker makeWorker) func(*Env) (*Measurement, error) {
	return atRest(n, newWorker, false)
}

func atRest(n int, newWorker makeWorker, use bool) func(*Env) (*Measurement, error) {
	return func(e *Env) (*Measurement, error) {
		n, note := e.bounded(n)
		// The first connections have the server make what it needs once.
		if err := openMany(e, min(n, 100), newWorker, use, nil); err != nil {
			return nil, err
		}
		m := &Measurement{Ops: n, Connections: n, Note: note}
		var err error
		if m.Before, err = e.Server.Usage(contender.Trimmed); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := openMany(e, n, newWorker, use, func() error {
			err := m.lookAtRest(e)
			if took := time.Since(began); !use && took > pendingAge {
				m.Note = fmt.Sprintf("it took %v, in which a mux may have closed what has said nothing", took.Round(time.Second))
			}
			return err
		}); err != nil {
			return nil, err
		}
		m.Idle, err = e.Server.Usage(contender.Trimmed)
		return m, err
	}
}

// pendingAge is how old a connection may be that has said nothing: less than the 10 seconds of a mux.
const pendingAge = 9 * time.Second

// lookAtRest looks at a server whose connections were just opened.
func (m *Measurement) lookAtRest(e *Env) error {
	opened, err := e.Server.Usage(contender.Settled)
	if err != nil {
		return err
	}
	m.Opening = opened.CPU - m.Before.CPU
	if m.After, err = e.Server.Usage(contender.Trimmed); err != nil || e.Rest == 0 {
		return err
	}
	began, err := e.Server.Usage(contender.Undisturbed)
	if err != nil {
		return err
	}
	time.Sleep(e.Rest)
	ended, err := e.Server.Usage(contender.Undisturbed)
	m.Resting, m.Rested = ended.CPU-began.CPU, e.Rest
	return err
}

// openMany opens n connections, calls whileIdle if it is not nil, and closes them. With use, it makes a request on each
// when it is open, and another after whileIdle.
func openMany(e *Env, n int, newWorker makeWorker, use bool, whileIdle func() error) error {
	workers := make([]worker, n)
	defer func() {
		for _, w := range workers {
			if w != nil {
				w.close()
			}
		}
	}()
	rec := newRecorder() // for the workers; how long it takes where nothing else happens is measured elsewhere
	run := func(i int) error {
		if !use {
			return nil
		}
		return workers[i].run(time.Now(), rec) // one operation
	}
	err := inParallel(n, func(i int) (err error) {
		if workers[i], err = newWorker(e, i); err != nil {
			return err
		}
		return run(i)
	})
	if err != nil {
		return fmt.Errorf("opening %d connections: %w", n, err)
	}
	if whileIdle == nil {
		return nil
	}
	if err := whileIdle(); err != nil {
		return err
	}
	if err := inParallel(n, run); err != nil {
		return fmt.Errorf("using a connection that was idle: %w", err)
	}
	return nil
}

// The steady load beside silent clients.
const (
	steadyClients = 8
	steadyEvery   = 25 * time.Millisecond // for each client
)

// silentAge is how old a silent connection may be: less than the time after which a mux closes it.
const silentAge = 4 * time.Second

// silent has n clients connect and say nothing, half of them where gRPC is and half where HTTP is, beside a steady
// load.
func silent(n int) func(*Env) (*Session, error) {
	return func(e *Env) (*Session, error) {
		s, err := clients(steadyClients, func(e *Env, i int) (worker, error) {
			w, err := newEitherConnection(e, i)
			if err != nil {
				return nil, err
			}
			return &paced{
				op:     w.(*closedLoop).op,
				every:  steadyEvery,
				offset: steadyEvery * time.Duration(i) / steadyClients,
			}, nil
		})(e)
		if err != nil {
			return nil, err
		}
		n, note := e.bounded(n)
		s.note = note
		conns := make([]net.Conn, n)
		s.end = func() {
			for i, c := range conns {
				if c != nil {
					c.Close()
				}
				conns[i] = nil
			}
		}
		var opened time.Time
		s.refresh = func() (bool, error) {
			if time.Since(opened) < silentAge {
				return false, nil
			}
			s.end()
			opened = time.Now()
			err := inParallel(n, func(i int) (err error) {
				conns[i], err = e.Server.Dial([]string{e.Addresses.HTTP, e.Addresses.GRPC}[i%2])
				return err
			})
			if err != nil {
				return false, fmt.Errorf("opening %d silent connections: %w", n, err)
			}
			return true, nil
		}
		return s, nil
	}
}
