// Package streams dispatches the requests of HTTP/2 connections, where package oneport dispatches connections: a proxy
// that sends gRPC and REST requests over one connection gets each answered by the server it is for.
//
//	                                     +---------+   GRPC()   +-------------+
//	proxy ===== one connection ========> | streams | =========> | grpc.Server |
//	        stream 1: gRPC, 3: REST, ... |   Mux   |            +-------------+
//	                                     |         |   Any()    +-------------+
//	                                     |         | =========> | http.Server |
//	                                     +---------+            +-------------+
//
// A [Mux] accepts HTTP/2 connections from a listener, such as a route of [oneport.Mux] or a TLS listener with ALPN
// protocol h2. Each of its routes is a [net.Listener], from which a server accepts a connection of its own for each
// client connection that has a stream for it, and on which it speaks HTTP/2 as if it were alone:
//
//	m := streams.New(mux.Match(oneport.HTTP2()))
//	go grpcServer.Serve(m.Match(oneport.GRPC()))
//	go httpServer.Serve(m.Match(oneport.Any()))
//	err = m.Serve()
//
// The http.Server has to take HTTP/2 without TLS (http.Server.Protocols, SetUnencryptedHTTP2), also where the client's
// connection is one of TLS, which the listener below has ended. Addresses are those of the client's connection, so that
// Request.RemoteAddr and gRPC's peer.Peer.Addr are right; Request.TLS is with [oneport.ConfigureHTTP].
//
// While one server alone has streams on a connection, the frames pass through as they are: its reads and writes are those
// of the client's connection. When a second server joins, header blocks are encoded anew, and credit is accounted for on
// each side. How, and when not to use this package, is in docs/streams.md.
package streams

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/accepting"
	"github.com/oneport-go/oneport/internal/dispatch"
)

// ErrClosed is what [Mux.Serve] returns after Shutdown or Close, or when the listener below was closed. It is also
// [net.ErrClosed].
var ErrClosed = fmt.Errorf("oneport/streams: mux closed: %w", net.ErrClosed)

// The defaults of the fields of [Mux].
const (
	DefaultOpenTimeout        = 10 * time.Second
	DefaultIdleTimeout        = 5 * time.Minute
	DefaultMaxStreams         = 10_000
	DefaultMaxHeaderListBytes = 1<<20 + 320 // as net/http
	DefaultMaxContinuations   = 128
	DefaultMaxBuffered        = 1 << 20
	DefaultResetBurst         = 10_000
	DefaultResetRate          = 1000
	DefaultControlBurst       = 10_000
	DefaultControlRate        = 1000
	DefaultQueueLength        = 1024
)

// UnmatchedPolicy says what becomes of a request that no route matches.
type UnmatchedPolicy uint8

const (
	// NotFound answers it with status 404, which to a gRPC client is UNIMPLEMENTED.
	NotFound UnmatchedPolicy = iota
	// RefuseStream resets its stream with REFUSED_STREAM (RFC 9113, 8.7), after which a client may try again elsewhere.
	RefuseStream
)

// A Mux dispatches the requests of HTTP/2 connections to routes.
//
// Make one with [New], set its fields, add routes with Match, then call Serve. The fields must not be changed after that.
// All methods may be called by several goroutines at once.
//
// A client that goes over one of the bounds is told so with GOAWAY and ENHANCE_YOUR_CALM, counted ([Stats]), and logged
// at most once per second and bound.
type Mux struct {
	// Unmatched says what becomes of a request that no route matches. The zero value is NotFound.
	Unmatched UnmatchedPolicy

	// OpenTimeout is the time a client has, from when its connection was accepted, for the preface and SETTINGS (RFC 9113,
	// 3.4). Zero means 10 seconds.
	OpenTimeout time.Duration

	// IdleTimeout is the time a client has for its first request. Until that comes the Mux answers its SETTINGS and PING
	// frames. When the time is up it is told to connect again when it needs to (GOAWAY with NO_ERROR). From the first
	// request on the servers' own settings apply. Zero means 5 minutes; a value below OpenTimeout means that.
	IdleTimeout time.Duration

	// MaxStreams is how many requests a connection may have open at once, for all servers. One more is reset with
	// REFUSED_STREAM. The servers' own SETTINGS_MAX_CONCURRENT_STREAMS applies too. Zero means 10,000.
	MaxStreams int

	// MaxHeaderListBytes bounds the header list of a request, or its trailers, once it is decompressed, as RFC 9113, 6.5.2
	// counts: 32 bytes for each field beside its name and value. It bounds the compressed block, too. The servers' own
	// bounds apply as well. Zero means 1 MiB.
	MaxHeaderListBytes int

	// MaxContinuations is how many CONTINUATION frames one header block of a client may have. Zero means 128.
	MaxContinuations int

	// MaxBuffered is how many bytes of content are held for a connection that several servers share: of requests, for all
	// servers together, because a server gives no credit for them; of responses, for each server, because the client does
	// not. For a server that had the connection alone before, its own window for the connection, or the client's, counts in
	// its place if it is larger. Zero means 1 MiB; a value below 65,535, the smallest window that HTTP/2 has, means that.
	MaxBuffered int

	// ResetBurst is how many streams a client may reset early at once, which is within a second and before they are answered,
	// and ResetRate how many of those are forgiven in a second. One is forgiven for each stream that is answered, too. Streams
	// that are reset because the client breaks HTTP/2 on them count as well. Servers bound their own work; this bounds what
	// the Mux does for streams that come to nothing. Zero means 10,000 and 1000.
	ResetBurst, ResetRate int

	// ControlBurst is how many frames that do nothing for a request (PING, SETTINGS, PRIORITY, DATA without content, frames
	// of unknown type) a client may send at once, and ControlRate how many of those are forgiven in a second. One is
	// forgiven for each frame of a response, too, since clients measure with PING while they receive. Zero means 10,000 and
	// 1000.
	ControlBurst, ControlRate int

	// QueueLength is how many connections can wait in a route until its server accepts them. Requests for which there is no
	// room are reset with REFUSED_STREAM. It applies to routes that are added afterwards. Zero means 1024.
	QueueLength int

	// EarlySettings are the contents of the SETTINGS frame that a client is sent whose first request is not there when the
	// Mux looks. See [oneport.DefaultEarlySettings], which nil stands for.
	EarlySettings []http2.Setting

	// Logger gets errors, and at level Warn clients that go over a bound and errors of Accept that are waited out. Nil means
	// [slog.Default].
	Logger *slog.Logger

	// OnAbuse, if not nil, is called for each connection that is ended because it is over a bound. It must not use the
	// connection but to ask for its addresses, and should return quickly.
	OnAbuse func(c net.Conn, err error)

	root         net.Listener
	engine       dispatch.Dispatcher
	matchers     [][]oneport.Matcher
	acceptErrors atomic.Uint64

	mu      sync.Mutex
	serving bool
	stopped bool
	done    chan struct{} // closed when stopped is set
}

// New makes a Mux that accepts HTTP/2 connections from l. What does not begin with the preface of HTTP/2 is closed.
func New(l net.Listener) *Mux { return &Mux{root: l, done: make(chan struct{})} }

// Match adds a route for the requests that one of the matchers matches, and returns the listener for its server. Routes
// are asked in the order in which they were added. It must be called before Serve.
//
// Closing the listener, which is what grpc.Server.GracefulStop and http.Server.Shutdown do, ends the route: requests for
// it are reset with REFUSED_STREAM unless the server has a connection for them already. The other routes go on.
func (m *Mux) Match(matchers ...oneport.Matcher) net.Listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.serving {
		panic("oneport/streams: Match was called after Serve")
	}
	m.matchers = append(m.matchers, append([]oneport.Matcher(nil), matchers...))
	t := m.engine.Target(m.root.Addr(), orDefault(m.QueueLength, DefaultQueueLength))
	if m.stopped {
		t.Close()
	}
	return t
}

// Serve accepts connections until the Mux or the listener below is closed. It always returns an error: [ErrClosed] after
// that, else what makes it impossible to go on. Errors of Accept that pass are waited out.
func (m *Mux) Serve() error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.stop()
	var backoff time.Duration
	for {
		c, err := m.root.Accept()
		switch {
		case err == nil:
			backoff = 0
			m.engine.Handle(c)
		case m.isStopped(), errors.Is(err, net.ErrClosed):
			return ErrClosed
		case accepting.Passes(err):
			backoff = accepting.Backoff(backoff)
			m.acceptErrors.Add(1)
			cmp.Or(m.Logger, slog.Default()).Warn("oneport/streams: accepting failed, trying again",
				slog.Any("err", err), slog.Duration("in", backoff))
			select {
			case <-time.After(backoff):
			case <-m.done:
				return ErrClosed
			}
		default:
			return fmt.Errorf("oneport/streams: accepting on %v: %w", m.root.Addr(), err)
		}
	}
}

func (m *Mux) begin() error {
	early := m.EarlySettings
	if early == nil {
		early = oneport.DefaultEarlySettings()
	}
	for _, s := range early {
		if err := s.Valid(); err != nil {
			return fmt.Errorf("oneport/streams: EarlySettings: %v: %w", s, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.stopped:
		return ErrClosed
	case m.serving:
		return errors.New("oneport/streams: Serve was called twice")
	case len(m.matchers) == 0:
		return errors.New("oneport/streams: Serve was called before Match: there is no route that a request could take")
	}
	m.serving = true
	e := &m.engine
	e.Decide = m.decide
	e.EarlySettings = early
	e.Logger, e.OnAbuse = m.Logger, m.OnAbuse
	e.Limits = dispatch.Limits{
		OpenTimeout:        orDefault(m.OpenTimeout, DefaultOpenTimeout),
		IdleTimeout:        orDefault(m.IdleTimeout, DefaultIdleTimeout),
		MaxStreams:         orDefault(m.MaxStreams, DefaultMaxStreams),
		MaxHeaderListBytes: orDefault(m.MaxHeaderListBytes, DefaultMaxHeaderListBytes),
		MaxContinuations:   orDefault(m.MaxContinuations, DefaultMaxContinuations),
		MaxBuffered:        max(orDefault(m.MaxBuffered, DefaultMaxBuffered), 1<<16-1),
		ResetBurst:         orDefault(m.ResetBurst, DefaultResetBurst),
		ResetRate:          orDefault(m.ResetRate, DefaultResetRate),
		ControlBurst:       orDefault(m.ControlBurst, DefaultControlBurst),
		ControlRate:        orDefault(m.ControlRate, DefaultControlRate),
	}
	return nil
}

// decide finds the route of a request.
func (m *Mux) decide(c net.Conn, fields []hpack.HeaderField) int {
	if i := oneport.MatchStream(c, fields, m.matchers); i >= 0 {
		return i
	}
	if m.Unmatched == RefuseStream {
		return dispatch.Refuse
	}
	return dispatch.NotFound
}

// Shutdown stops the Mux: it closes the listener below, tells clients that have made no request to go elsewhere, and
// closes the routes' listeners. Connections with requests go on until their servers end them, so to stop everything
// gracefully, call Shutdown first and the servers' own methods after it. It does not wait, so that ctx has no effect, and
// returns the error of closing the listener, if any.
func (m *Mux) Shutdown(ctx context.Context) error { return m.stop() }

// Close is Shutdown.
func (m *Mux) Close() error { return m.stop() }

func (m *Mux) stop() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return nil
	}
	m.stopped = true
	close(m.done)
	err := m.root.Close()
	m.engine.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil // closed from outside
	}
	return err
}

func (m *Mux) isStopped() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopped
}

// Stats are counts since the Mux was made.
type Stats struct {
	Conns    uint64 // client connections
	Shared   uint64 // of these, those whose frames do not pass through any more
	Streams  uint64 // requests that went to a server
	NotFound uint64 // requests that were answered with status 404
	Refused  uint64 // requests that were reset with REFUSED_STREAM before a server had them
	Abuse    uint64 // connections that were ended because they were over a bound

	AcceptErrors uint64 // errors of Accept that were waited out
}

// Stats returns the counts.
func (m *Mux) Stats() Stats {
	s := m.engine.Stats()
	return Stats{s.Conns, s.Split, s.Streams, s.NotFound, s.Refused, s.Abuse, m.acceptErrors.Load()}
}

// orDefault takes values that make no sense as a bound for zero, so that no setting means "no limit".
func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}
