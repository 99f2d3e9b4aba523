package oneport

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime/debug"
)

// ReadMatcher returns a matcher for a function that reads the client's bytes, which is the form of matchers in
// github.com/soheilhy/cmux. The function is called once for a connection, after all routes above have said No, and
// returns whether the route takes the connection. Its reads block until more bytes arrive. They fail with [io.EOF] when
// the client has closed its side, with [os.ErrDeadlineExceeded] after [Limits.DecideTimeout] if [Mux.TimeoutPolicy] is
// [TimeoutRematch], and with another error when the connection was decided without the function. After an error the
// function must return.
//
// The routes below wait while the function waits for bytes. A [MatcherFunc] can return No earlier, and is the better
// choice for new code. In a [RequestMux], which has no bytes to read, a ReadMatcher does not match.
func ReadMatcher(f func(io.Reader) bool) Matcher { return &readerMatcher{f} }

type readerMatcher struct {
	f func(io.Reader) bool
}

var errDecided = errors.New("oneport: the connection was decided without this matcher")

func (m *readerMatcher) String() string { return "ReadMatcher" }

func (m *readerMatcher) Match(p *Preview) Verdict {
	if p.stream != nil {
		return No // there are no bytes to read
	}
	s := p.readers[m]
	if s == nil {
		s = m.start(p)
	}
	if !s.done && (s.off < len(p.data) || p.end == eof || p.end == late || !s.begun) {
		s.begun = true
		s.resume()
	}
	switch {
	case s.panicked != nil:
		panic(s.panicked)
	case !s.done:
		return p.undecided()
	case s.matched:
		return Yes
	}
	return No
}

func (m *readerMatcher) start(p *Preview) *suspended {
	s := &suspended{preview: p}
	s.resume, s.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			if v := recover(); v != nil {
				s.panicked = &readerPanic{v, debug.Stack()} // passed on as it is, it would lose the stack
			}
			s.done = true
		}()
		s.yield = yield
		s.matched = m.f(s)
	})
	if p.readers == nil {
		p.readers = make(map[*readerMatcher]*suspended)
	}
	p.readers[m] = s
	return s
}

// readerPanic is what the function of a ReadMatcher panicked with.
type readerPanic struct {
	value any
	stack []byte
}

func (p *readerPanic) String() string { return fmt.Sprint(p.value) }

// ReadWriteMatcher returns a matcher for a function that also writes to the client, for protocols in which the server
// speaks first. The function is called as by [ReadMatcher]. Its writes go to the client at once, and the server of the
// route does not learn of them. w is the connection as it was accepted, or the connection inside TLS; the function must
// not read from w, since the other routes and the server would miss those bytes.
func ReadWriteMatcher(f func(w io.Writer, r io.Reader) bool) Matcher {
	return &readerMatcher{func(r io.Reader) bool { return f(r.(*suspended).preview.conn, r) }}
}

// A suspended is a user's function over an [io.Reader] that runs as a coroutine: it is resumed when there is more to
// read, and no goroutine waits for the client in its place.
type suspended struct {
	preview  *Preview
	off      int // how much the function has read
	resume   func() (struct{}, bool)
	stop     func()
	yield    func(struct{}) bool
	begun    bool
	done     bool
	matched  bool
	panicked *readerPanic
}

// Read reads the client's bytes. Where none are left it suspends the function.
func (s *suspended) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for s.off == len(s.preview.data) {
		switch {
		case s.preview.end == eof || s.preview.stream != nil:
			return 0, io.EOF
		case s.preview.end == late:
			return 0, os.ErrDeadlineExceeded
		}
		if !s.yield(struct{}{}) {
			return 0, errDecided
		}
	}
	n := copy(b, s.preview.data[s.off:])
	s.off += n
	return n, nil
}
