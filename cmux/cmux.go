package cmux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-go/oneport"
)

// Matcher matches a connection by the bytes that the client sends, which it reads from the [io.Reader]. The server gets
// the same bytes.
//
// It is called once for a connection, after all matchers before it have returned false. The matchers after it wait
// while it waits for bytes. Its reads fail with [io.EOF] at the end of the stream, with [os.ErrDeadlineExceeded] after
// the timeout of SetReadTimeout, and with another error when the connection is closed. It must return then.
type Matcher func(io.Reader) bool

// MatchWriter is a [Matcher] that can also write to the client. The [io.Writer] is the accepted connection.
type MatchWriter func(io.Writer, io.Reader) bool

// ErrorHandler handles errors of the listener, and connections that no matcher has matched ([ErrNotMatched]). It
// returns whether Serve continues. It may be called by several goroutines at once.
type ErrorHandler func(error) bool

// ErrNotMatched is passed to an [ErrorHandler] for a connection that no matcher has matched. The connection is closed.
// A client that speaks HTTP/1, HTTP/2 or TLS gets an answer in that protocol.
type ErrNotMatched struct {
	c      net.Conn
	reason error
}

var _ net.Error = ErrNotMatched{}

// Error names the remote address of the connection. [ErrNotMatched.Unwrap] says more.
func (e ErrNotMatched) Error() string {
	return fmt.Sprintf("mux: connection %v not matched by an matcher", e.c.RemoteAddr())
}

// Unwrap returns the reason.
func (e ErrNotMatched) Unwrap() error { return e.reason }

// Temporary returns true: the listener can go on.
func (e ErrNotMatched) Temporary() bool { return true }

// Timeout returns false.
func (e ErrNotMatched) Timeout() bool { return false }

type errListenerClosed string

func (e errListenerClosed) Error() string   { return string(e) }
func (e errListenerClosed) Temporary() bool { return false }
func (e errListenerClosed) Timeout() bool   { return false }

// ErrListenerClosed is returned by the Accept method of a matched listener if it is called after Serve has returned.
var ErrListenerClosed = errListenerClosed("mux: listener closed")

// ErrServerClosed is returned by the Accept method of a matched listener after Close, and when the underlying listener
// was closed or has failed.
var ErrServerClosed = errors.New("mux: server closed")

// CMux is a multiplexer for network connections. Its methods can be called by several goroutines at once.
type CMux interface {
	// Match returns a listener for the connections that at least one of the matchers matches. Matchers are tried in the
	// order of the calls and of their arguments; within one call, those of this package may decide before functions of
	// yours.
	//
	// Closing the listener closes the underlying listener, which ends Serve and all other listeners.
	Match(...Matcher) net.Listener
	// MatchWithWriters is Match for matchers that can write to the client.
	MatchWithWriters(...MatchWriter) net.Listener
	// Serve accepts connections and hands them to the listeners until the underlying listener fails permanently, and
	// returns its error. Connections that no server has accepted by then are closed. Serve must be called once.
	Serve() error
	// Close closes the connections that no server has accepted, makes the listeners return ErrServerClosed, and makes
	// Serve close all later connections. The underlying listener stays open, and Serve continues until it is closed.
	Close()
	// HandleError registers a handler for errors. Without one, temporary errors of the underlying listener and
	// connections that no matcher matches are ignored.
	HandleError(ErrorHandler)
	// SetReadTimeout limits the time from Accept in which a client must send what the matchers need. After that, the
	// matchers see the end of the stream, so the connection goes to a listener with Any, if there is one. By default
	// there is no limit. SetReadTimeout must be called before Serve.
	SetReadTimeout(time.Duration)
}

// The bounds on what a client can make the multiplexer hold. The original has none, so they are where a client that
// means well does not come near: net/http takes no larger head of a request either.
const (
	maxPreviewBytes    = http.DefaultMaxHeaderBytes + 4096
	maxHeaderListBytes = http.DefaultMaxHeaderBytes
	maxFrames          = 1 << 16
	maxUndecided       = 100_000
	forever            = time.Duration(1<<63 - 1)
)

// settleTime is how long Serve waits for the last connections to be closed: a second for a client that has to read an
// answer, and a matcher that does not return after its reads have failed cannot be waited for.
const settleTime = 2 * time.Second

type cMux struct {
	root   net.Listener
	mux    *oneport.Mux
	onErr  atomic.Pointer[ErrorHandler]
	ended  atomic.Bool // Serve has returned
	routed atomic.Bool // there is a listener

	mu      sync.Mutex
	timeout time.Duration

	err error // of root, set by the goroutine of Serve
}

// New returns a multiplexer of the connections that l accepts.
func New(l net.Listener) CMux {
	m := &cMux{root: l}
	m.mux = oneport.New(gate{m})
	m.mux.MaxPreviewBytes = maxPreviewBytes
	m.mux.MaxHeaderListBytes = maxHeaderListBytes
	m.mux.MaxFramesBeforeHeaders = maxFrames
	m.mux.MaxUndecided = maxUndecided
	m.mux.TimeoutPolicy = oneport.TimeoutRematch
	m.mux.AllowMissingSettings = true
	m.mux.Logger = slog.New(panics{})
	m.mux.OnRefuse = m.refused
	return m
}

func (m *cMux) Match(matchers ...Matcher) net.Listener {
	list := make(anyOf, len(matchers))
	for i, f := range matchers {
		list[i] = fromMatcher(f)
	}
	return m.listen(list)
}

func (m *cMux) MatchWithWriters(matchers ...MatchWriter) net.Listener {
	list := make(anyOf, len(matchers))
	for i, f := range matchers {
		list[i] = fromMatchWriter(f)
	}
	return m.listen(list)
}

func (m *cMux) listen(matchers anyOf) net.Listener {
	m.routed.Store(true)
	return &listener{mux: m, route: m.mux.Match(matchers)}
}

func (m *cMux) SetReadTimeout(t time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timeout = t
}

func (m *cMux) Serve() error {
	if !m.routed.Load() {
		m.mux.Match(oneport.AnyOf()) // to a oneport.Mux, a listener of which nothing comes out is a mistake
	}
	m.mu.Lock()
	m.mux.DecideTimeout = m.timeout
	m.mu.Unlock()
	if m.mux.DecideTimeout <= 0 {
		m.mux.DecideTimeout = forever
	}
	if err := m.mux.Serve(); !errors.Is(err, oneport.ErrClosed) {
		return err // it was called twice
	}
	for m.err == nil { // Close was called before
		c, err := gate{m}.Accept()
		if err == nil {
			c.Close()
		} else {
			m.err = cmp.Or(m.err, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	m.mux.Shutdown(ctx)
	m.ended.Store(true)
	return m.err
}

func (m *cMux) Close() { m.mux.Close() }

func (m *cMux) HandleError(h ErrorHandler) { m.onErr.Store(&h) }

// goOn asks the handler, and reports whether to go on after err.
func (m *cMux) goOn(err error) bool {
	if h := m.onErr.Load(); h != nil && !(*h)(err) {
		return false
	}
	ne, ok := err.(net.Error)
	return ok && ne.Temporary() //lint:ignore SA1019 it is what cmux goes by
}

// refused is told of a connection that has not reached a server.
func (m *cMux) refused(r oneport.Refused) {
	switch r.Reason {
	case oneport.ReasonShutdown, oneport.ReasonRouteClosed:
		return // which is nothing about the connection
	}
	if !m.goOn(ErrNotMatched{r.Conn, r.Err}) {
		m.root.Close()
	}
}

// A gate is the listener below as the mux gets it: one that ends it with the first error that does not pass, and that
// it cannot close.
type gate struct{ *cMux }

func (g gate) Accept() (net.Conn, error) {
	c, err := g.root.Accept()
	if err == nil || g.goOn(err) {
		return c, err // the mux waits a moment and tries again
	}
	g.err = err
	g.mux.Close()
	return nil, net.ErrClosed
}

// Close does nothing, since CMux.Close leaves the listener below open.
func (g gate) Close() error { return nil }

// Addr is for the mux's own errors, which nobody gets to see. Some listeners, in tests for instance, do not have one.
func (g gate) Addr() net.Addr { return &net.TCPAddr{} }

// panics logs what a matcher has panicked with, as that is a fault of the program. What there is to say of clients goes
// to the ErrorHandler.
type panics struct{}

func (panics) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }

func (panics) Handle(ctx context.Context, r slog.Record) error {
	return slog.Default().Handler().Handle(ctx, r)
}

func (p panics) WithAttrs([]slog.Attr) slog.Handler { return p }

func (p panics) WithGroup(string) slog.Handler { return p }
