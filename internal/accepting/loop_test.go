package accepting

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// script is a listener whose Accept returns one of the steps after the other, a connection for nil. Behind the last one
// it waits until the listener is closed.
type script struct {
	net.Listener
	steps  []error
	times  []time.Duration // of the calls of Accept, since start
	start  time.Time
	closed chan struct{}
}

func newScript(steps ...error) *script {
	return &script{steps: steps, start: time.Now(), closed: make(chan struct{})}
}

func (s *script) Accept() (net.Conn, error) {
	s.times = append(s.times, time.Since(s.start))
	if len(s.steps) == 0 {
		<-s.closed
		return nil, errors.New("closed in words of its own")
	}
	err := s.steps[0]
	s.steps = s.steps[1:]
	if err != nil {
		return nil, err
	}
	return &net.TCPConn{}, nil
}

func TestLoop(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	emfile := &net.OpError{Op: "accept", Err: syscall.EMFILE}
	const ms = time.Millisecond
	for _, tt := range []struct {
		name     string
		steps    []error
		want     error
		handled  int
		retried  []time.Duration
		outOf    int
		accepted []time.Duration
	}{
		{"closed", []error{net.ErrClosed}, net.ErrClosed, 0, nil, 0, []time.Duration{0}},
		{"closed, wrapped", []error{&net.OpError{Op: "accept", Err: net.ErrClosed}}, net.ErrClosed, 0, nil, 0, []time.Duration{0}},
		{"broken", []error{nil, nil, broken}, broken, 2, nil, 0, []time.Duration{0, 0, 0}},
		{
			"errors that pass", []error{syscall.ECONNABORTED, syscall.ECONNABORTED, nil, syscall.ECONNABORTED, broken}, broken, 1,
			[]time.Duration{5 * ms, 10 * ms, 5 * ms}, 0, []time.Duration{0, 5 * ms, 15 * ms, 15 * ms, 20 * ms},
		},
		{
			"out of files", []error{emfile, syscall.ENFILE, syscall.ENOMEM, nil, broken}, broken, 1,
			[]time.Duration{5 * ms, 10 * ms, 20 * ms}, 2, []time.Duration{0, 5 * ms, 15 * ms, 35 * ms, 35 * ms},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScript(tt.steps...)
				var handled, outOf int
				var retried []time.Duration
				l := Loop{
					Listener: s,
					Done:     make(chan struct{}),
					Handle:   func(net.Conn) { handled++ },
					Retrying: func(err error, in time.Duration) {
						if !Passes(err) {
							t.Errorf("retries after %v", err)
						}
						retried = append(retried, in)
					},
					OutOfFiles: func() { outOf++ },
				}
				if err := l.Run(); err != tt.want {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if handled != tt.handled || outOf != tt.outOf || !slices.Equal(retried, tt.retried) || !slices.Equal(s.times, tt.accepted) {
					t.Errorf("handled %d, out of files %d times, retried in %v, accepted at %v", handled, outOf, retried, s.times)
				}

				// The callbacks can be left out.
				l = Loop{Listener: newScript(tt.steps...), Done: l.Done, Handle: func(net.Conn) {}}
				if err := l.Run(); err != tt.want {
					t.Errorf("without callbacks: got %v, want %v", err, tt.want)
				}
			})
		})
	}
}

func TestLoopStops(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		steps  []error
		closes bool // the listener, too
	}{
		{"in Accept", []error{nil}, true},
		{"while it waits", []error{syscall.EMFILE}, false},
		{"before an error that passes", []error{nil, syscall.EMFILE}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScript(tt.steps...)
				done := make(chan struct{})
				stop := func() {
					close(done)
					if tt.closes {
						close(s.closed)
					}
				}
				handled := 0
				l := Loop{Listener: s, Done: done, Handle: func(net.Conn) {
					if handled++; len(s.steps) > 0 {
						stop()
					}
				}}
				result := make(chan error, 1)
				go func() { result <- l.Run() }()
				synctest.Wait()
				select {
				case <-done:
				default:
					stop()
				}
				if err := <-result; err != net.ErrClosed {
					t.Errorf("got %v", err)
				}
				if d := time.Since(s.start); d != 0 {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}
