package oneport

import (
	"cmp"
	"time"

	"github.com/oneport-go/oneport/internal/dispatch"
	"github.com/oneport-go/oneport/internal/h2"
)

// Limits bound what clients can make a [Mux] or a [Server] hold, and for how long. The zero value of each field stands for
// its default, which is safe on the open internet, and so does a negative value: no value means "no limit", but for
// MaxConns.
//
// The first group holds for each connection that no server has yet, whichever way it goes: to a route of a [Mux], inside
// TLS ([Mux.TLS]), or request by request ([Mux.Requests]). The second group holds where requests are dispatched one by
// one.
type Limits struct {
	// DecideTimeout bounds the time from Accept until a route queues the connection. A connection that has sent too little
	// by then is refused, unless [Mux.TimeoutPolicy] says otherwise. Inside TLS the time begins anew after the handshake.
	// The default is 10 seconds.
	DecideTimeout time.Duration

	// IdleTimeout takes the place of DecideTimeout for an HTTP/2 client that has acknowledged the early SETTINGS frame: its
	// connection stands, and it has made no request. Clients of gRPC connect ahead of their first call. Until that comes
	// their SETTINGS and PING frames are answered; afterwards they are told to connect again when they need to (GOAWAY with
	// NO_ERROR). Where requests are dispatched, it also bounds the time that a connection without any server may last. The
	// default is 5 minutes. Values below DecideTimeout are raised to it.
	IdleTimeout time.Duration

	// HandshakeTimeout bounds a TLS handshake that the mux does. The default is 10 seconds.
	HandshakeTimeout time.Duration

	// ShutdownGrace is how long a Shutdown goes on to decide connections that were accepted within that time before it, so
	// that no request is lost that is on its way. Others without a server are refused at once. The default is 1 second.
	ShutdownGrace time.Duration

	// MaxUndecided is how many connections may be without a server at once. One more, and the connection that has waited
	// longest is refused: a client that talks needs a moment only, so those refused are the silent ones. It must be larger
	// than the number of connections that arrive within the round-trip time of a client. The default is 10,000.
	MaxUndecided int

	// MaxPreviewBytes is how many of a connection's first bytes are looked at. A connection for which they do not suffice
	// is refused; no route below takes it instead. The default is 1 MiB, the bound of net/http on the head of a request.
	MaxPreviewBytes int

	// MaxUndecidedBytes bounds the memory that all undecided connections together take for first bytes beyond 16 KiB. One
	// more, and the connection that has held such memory longest is refused. The default is 64 MiB.
	MaxUndecidedBytes int

	// MaxFramesBeforeHeaders is how many HTTP/2 frames a client may send up to the end of its first header block, where a
	// route depends on it. The default is 100.
	MaxFramesBeforeHeaders int

	// MaxHeaderListBytes bounds the header list of an HTTP/2 request, decompressed, as RFC 9113, Section 6.5.2 counts it: 32
	// bytes for each field beside its name and value. It holds for the first request of a connection, and for all of them,
	// with their trailers, where requests are dispatched. The servers' own bounds apply as well. The default is 1 MiB.
	MaxHeaderListBytes int

	// MaxConns is how many connections the servers of a Mux may have at once. One more waits in its route's queue; where
	// requests are dispatched, it is refused. Clients that no server has yet do not count, so silent ones keep nobody out.
	// Over a bound, a server gets a [Conn] or a [TCPConn] in place of the accepted connection, whose Close makes room. The
	// default is no bound of this kind. See [Route.MaxConns] for one route.
	MaxConns int

	// QueueLength is how many connections can wait in a route until its server accepts them. The default is 1024.
	QueueLength int

	// MaxStreams is how many requests a connection may have open at once, for all servers. One more is reset with
	// REFUSED_STREAM. The servers' own SETTINGS_MAX_CONCURRENT_STREAMS applies too. The default is 10,000.
	MaxStreams int

	// MaxContinuations is how many CONTINUATION frames one header block of a client may have. The default is 128.
	MaxContinuations int

	// MaxBuffered is how many bytes are held for a connection that several servers share: of requests, for all servers
	// together, because a server gives no credit for them; of responses, for each server, because the client does not. For a
	// server that had the connection alone before, its own flow-control window for the connection, or the client's, counts
	// in its place if it is larger. The default is 1 MiB. Values below 65,535, the smallest window that HTTP/2 has, are
	// raised to it.
	MaxBuffered int

	// ResetBurst is how many streams a client may reset early at once, which is within a second and before they are answered,
	// and ResetRate how many of those are forgiven in a second. One is forgiven for each stream that is answered, too. Streams
	// that are reset because the client breaks HTTP/2 on them count as well. The defaults are 10,000 and 1000.
	ResetBurst, ResetRate int

	// ControlBurst is how many frames that do nothing for a request (PING, SETTINGS, PRIORITY, DATA without content, frames
	// of unknown type) a client may send at once, and ControlRate how many of those are forgiven in a second. One is
	// forgiven for each frame of a response, too, since clients measure with PING while they receive. The defaults are
	// 10,000 and 1000.
	ControlBurst, ControlRate int
}

// The defaults of [Limits], but for those where requests are dispatched.
const (
	DefaultDecideTimeout          = 10 * time.Second
	DefaultIdleTimeout            = 5 * time.Minute
	DefaultHandshakeTimeout       = 10 * time.Second
	DefaultShutdownGrace          = time.Second
	DefaultMaxUndecided           = 10_000
	DefaultMaxPreviewBytes        = 1 << 20
	DefaultMaxUndecidedBytes      = 64 << 20
	DefaultMaxFramesBeforeHeaders = h2.DefaultMaxFrames
	DefaultMaxHeaderListBytes     = 1<<20 + 320 // as net/http
	DefaultQueueLength            = 1024
)

// withDefaults returns the limits that hold.
func (l Limits) withDefaults() Limits {
	d := dispatch.DefaultLimits()
	l.DecideTimeout = orDefault(l.DecideTimeout, DefaultDecideTimeout)
	l.IdleTimeout = max(orDefault(l.IdleTimeout, DefaultIdleTimeout), l.DecideTimeout)
	l.HandshakeTimeout = orDefault(l.HandshakeTimeout, DefaultHandshakeTimeout)
	l.ShutdownGrace = orDefault(l.ShutdownGrace, DefaultShutdownGrace)
	l.MaxUndecided = orDefault(l.MaxUndecided, DefaultMaxUndecided)
	l.MaxPreviewBytes = orDefault(l.MaxPreviewBytes, DefaultMaxPreviewBytes)
	l.MaxUndecidedBytes = orDefault(l.MaxUndecidedBytes, DefaultMaxUndecidedBytes)
	l.MaxFramesBeforeHeaders = orDefault(l.MaxFramesBeforeHeaders, DefaultMaxFramesBeforeHeaders)
	l.MaxHeaderListBytes = orDefault(l.MaxHeaderListBytes, DefaultMaxHeaderListBytes)
	l.MaxConns = max(l.MaxConns, 0)
	l.QueueLength = orDefault(l.QueueLength, DefaultQueueLength)
	l.MaxStreams = orDefault(l.MaxStreams, d.MaxStreams)
	l.MaxContinuations = orDefault(l.MaxContinuations, d.MaxContinuations)
	l.MaxBuffered = max(orDefault(l.MaxBuffered, d.MaxBuffered), minWindow)
	l.ResetBurst = orDefault(l.ResetBurst, d.ResetBurst)
	l.ResetRate = orDefault(l.ResetRate, d.ResetRate)
	l.ControlBurst = orDefault(l.ControlBurst, d.ControlBurst)
	l.ControlRate = orDefault(l.ControlRate, d.ControlRate)
	return l
}

// minWindow is the flow-control window of a connection before anything changes it (RFC 9113, Section 6.9.2).
const minWindow = 1<<16 - 1

// orDefault takes values that make no sense as a bound for zero.
func orDefault[T int | time.Duration](v, def T) T { return cmp.Or(max(v, 0), def) }

// TimeoutPolicy says what happens to a connection that has sent too little before [Limits.DecideTimeout].
type TimeoutPolicy uint8

const (
	// TimeoutRefuse refuses the connection.
	TimeoutRefuse TimeoutPolicy = iota
	// TimeoutRematch asks the routes once more, with the bytes that the client has sent. An Undecided counts as No then,
	// as at the end of the stream, so that a route with [Any] takes what the routes above it are still waiting for. A
	// connection that no route takes is refused. It does not apply to an HTTP/2 client that is idle, for which there is
	// [Limits.IdleTimeout].
	TimeoutRematch
)

// QueuePolicy says what happens to a connection whose route has a full queue.
type QueuePolicy uint8

const (
	// QueueWait makes the connection wait for room until [Limits.DecideTimeout].
	QueueWait QueuePolicy = iota
	// QueueRefuse refuses the connection at once.
	QueueRefuse
)
