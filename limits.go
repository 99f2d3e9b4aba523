package oneport

import (
	"cmp"
	"time"

	"github.com/oneport-go/oneport/internal/dispatch"
	"github.com/oneport-go/oneport/internal/h2"
)

// Limits bound the resources that clients can make a [Mux] or a [Server] use. The zero value of each field stands for
// its default, and so does a negative value: no limit can be switched off. The defaults are meant for ports that face
// the internet.
//
// The fields up to QueueLength apply to every connection until a server gets it: to connections for a route of a [Mux],
// inside TLS ([Mux.TLS]), and for dispatched requests ([Mux.Requests]). A connection is called undecided until it has a
// route. The fields from MaxStreams on, and MaxHeaderListBytes, apply for as long as the requests of a connection are
// dispatched.
type Limits struct {
	// DecideTimeout bounds the time from Accept until the connection is in the queue of its route. Inside TLS the time
	// starts anew after the handshake. A connection that is not queued by then is refused with [ReasonTimeout], unless
	// [Mux.TimeoutPolicy] says otherwise. Where requests are dispatched, it also bounds the time that a server has to
	// accept its side of a connection, after which the requests for it are reset with REFUSED_STREAM. The default is 10
	// seconds.
	DecideTimeout time.Duration

	// IdleTimeout replaces DecideTimeout for an HTTP/2 client that has acknowledged the early SETTINGS frame and makes
	// no request, as gRPC clients that connect before their first call do. Until the request comes, the mux
	// acknowledges the client's SETTINGS and answers its PINGs. After IdleTimeout it closes the connection with GOAWAY
	// and NO_ERROR, and the client reconnects when it needs to. A request that has begun must be complete within
	// DecideTimeout. Where requests are dispatched, IdleTimeout also bounds the time that a connection may exist
	// without a server. The default is 5 minutes. Values below DecideTimeout are raised to it.
	IdleTimeout time.Duration

	// HandshakeTimeout bounds the TLS handshake in [Mux.TLS], from the moment that the ClientHello has its route. The
	// default is 10 seconds.
	HandshakeTimeout time.Duration

	// ShutdownGrace is the time that a Shutdown gives to connections that were accepted so recently that their first
	// request may be on its way: those accepted within ShutdownGrace before the Shutdown. All other connections without
	// a route are refused at once. The default is 1 second.
	ShutdownGrace time.Duration

	// MaxUndecided bounds the number of connections without a route, including those in a TLS handshake and those that
	// wait for room in the queue of their route. If there is one more, the oldest of them is refused with
	// [ReasonTooMany]. Clients that send a request are undecided only for a moment, so the oldest connections are those
	// of silent clients. Choose a value above the number of connections that arrive during one round trip. MaxUndecided
	// also bounds the number of refused connections that are still being answered. The default is 10,000.
	MaxUndecided int

	// MaxPreviewBytes bounds the number of first bytes that the matchers see. A connection that is still undecided then
	// is refused with [ReasonTooLong]; the routes below do not get it. The default is 1 MiB, as for the header of a
	// request in net/http.
	MaxPreviewBytes int

	// MaxUndecidedBytes bounds the memory that all undecided connections together use for first bytes, not counting 16
	// KiB for each. Beyond it, the connection that has held such memory for longest is refused with [ReasonTooMany].
	// The default is 64 MiB.
	MaxUndecidedBytes int

	// MaxFramesBeforeHeaders bounds the number of HTTP/2 frames up to the end of a client's first header block, if a route
	// depends on that block. One more frame is allowed for each second since the connection was accepted, so that a client
	// whose keepalive sends a PING each second can stay idle until IdleTimeout. The bytes of the frames count towards
	// MaxPreviewBytes. The default is 100.
	MaxFramesBeforeHeaders int

	// MaxHeaderListBytes bounds the uncompressed header list of an HTTP/2 request, with 32 bytes of overhead for each
	// field (RFC 9113, Section 6.5.2). It applies to the first request of a connection where a route depends on it, and
	// to all requests and trailers where requests are dispatched. The limits of the servers apply as well. The default
	// is 1 MiB and 320 bytes, as in net/http.
	MaxHeaderListBytes int

	// MaxConns bounds the number of connections that the servers of a Mux have at once. One more connection waits in
	// the queue of its route; where requests are dispatched, it is refused with [ReasonTooMany]. Connections without a
	// server do not count, so silent clients keep nobody out. If MaxConns is set, servers get a [Conn] or a [TCPConn]
	// in place of the accepted connection, so that the mux notices when they close it. The default is no bound of this
	// kind. See [Route.MaxConns] for one route.
	MaxConns int

	// QueueLength bounds the number of connections that wait in the queue of a route until its server accepts them.
	// [Mux.QueuePolicy] says what happens to one more. The default is 1024.
	QueueLength int

	// MaxStreams bounds the number of concurrent requests of a connection, for all servers together. One more request
	// is reset with REFUSED_STREAM. The SETTINGS_MAX_CONCURRENT_STREAMS of the servers apply as well. The default is
	// 10,000.
	MaxStreams int

	// MaxContinuations bounds the number of CONTINUATION frames in one header block of the client. The default is 128.
	MaxContinuations int

	// MaxBuffered bounds the number of bytes held for a connection that several servers share: of request content, for
	// all servers together, while a server gives no flow-control credit for it; and of responses, for each server,
	// while the client gives no credit. If one server had the connection alone before and a larger connection window
	// was in use, that window takes the place of MaxBuffered. The default is 1 MiB. Values below 65,535, the initial
	// window of HTTP/2 (RFC 9113, Section 6.9.2), are raised to it.
	MaxBuffered int

	// ResetBurst bounds the number of streams that the client resets before they are answered and within a second of
	// opening them, and of streams that are reset because of an error of the client. ResetRate of them are forgiven per
	// second, and one for each stream that is answered. The connection of a client that exceeds the bound is closed
	// with ENHANCE_YOUR_CALM and reported to [Hooks.OnAbuse]. The defaults are 10,000 and 1000.
	ResetBurst, ResetRate int

	// ControlBurst bounds the number of frames that carry no part of a request: PING, SETTINGS, PRIORITY, empty DATA,
	// unknown types, and requests beyond the acknowledged SETTINGS_MAX_CONCURRENT_STREAMS. ControlRate of them are
	// forgiven per second, and one for each frame of a response, since clients send PING to measure a connection while
	// they receive. The connection of a client that exceeds the bound is closed with ENHANCE_YOUR_CALM and reported to
	// [Hooks.OnAbuse]. The defaults are 10,000 and 1000.
	ControlBurst, ControlRate int
}

// Defaults of those [Limits] that apply until a server has a connection.
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

// TimeoutPolicy says what happens to a connection that no route could decide on within [Limits.DecideTimeout].
type TimeoutPolicy uint8

const (
	// TimeoutRefuse refuses the connection with [ReasonTimeout].
	TimeoutRefuse TimeoutPolicy = iota
	// TimeoutRematch asks the routes once more, as if the client had ended its stream: a matcher that is still
	// [Undecided] counts as [No]. A route with [Any] then takes the connection. A connection that no route takes is
	// refused with [ReasonTimeout]. TimeoutRematch does not apply to idle HTTP/2 clients, which have
	// [Limits.IdleTimeout].
	TimeoutRematch
)

// QueuePolicy says what happens to a connection whose route has [Limits.QueueLength] connections in its queue.
type QueuePolicy uint8

const (
	// QueueWait waits for room until [Limits.DecideTimeout], and then refuses the connection with [ReasonQueueFull].
	QueueWait QueuePolicy = iota
	// QueueRefuse refuses the connection at once with [ReasonQueueFull].
	QueueRefuse
)
