package oneport

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/dispatch"
	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/lobby"
	refusing "github.com/oneport-go/oneport/internal/refusal"
)

// UnmatchedPolicy says what happens to a request that no route of a [RequestMux] takes.
type UnmatchedPolicy uint8

const (
	// UnmatchedNotFound answers the request with status 404. A gRPC client reports that as UNIMPLEMENTED.
	UnmatchedNotFound UnmatchedPolicy = iota
	// UnmatchedRefuse resets the stream with REFUSED_STREAM. The client may then retry the request, also one that is
	// not idempotent (RFC 9113, Section 8.7).
	UnmatchedRefuse
)

// A RequestMux routes each request of an HTTP/2 connection on its own, where a [Mux] routes whole connections. Create
// one with [Mux.Requests] or [TLSMux.Requests].
//
// Each route is a [net.Listener]. Its server accepts one connection for each client connection that has a request for
// it, and speaks HTTP/2 on it as if it were the only server. The addresses are those of the client's connection. While
// one server has all requests of a connection, HTTP/2 frames pass through unchanged. When a second server joins, header
// blocks are encoded anew, and flow control is kept for each server separately: docs/requests.md explains how.
//
// An [http.Server] behind a RequestMux must accept HTTP/2 without TLS, also for connections that arrive over TLS, since
// the mux has terminated TLS: see [ConfigureHTTP].
//
// Set the fields before [Mux.Serve] is called. The methods may be called by several goroutines at once.
type RequestMux struct {
	// Unmatched says what happens to a request that no route takes. The zero value, UnmatchedNotFound, answers 404.
	Unmatched UnmatchedPolicy

	mux    *Mux
	route  *route // that leads here
	none   string // stands for the requests that no server was sent, in Stats
	routes atomic.Pointer[[]*requestRoute]
	engine dispatch.Dispatcher
}

// A requestRoute is the listener for the server of a route.
type requestRoute struct {
	*dispatch.Target
	name     string
	matchers []Matcher
	foreign  bool
	awaited  sync.Once // the first connection waits for the server
}

// Requests adds a route for the HTTP/2 connections that at least one of the matchers accepts, and dispatches their
// requests one by one. Without matchers the route takes all HTTP/2 connections. Like the routes of [Mux.Match] it is
// tried in the order of the calls.
//
// Use it where a client or proxy sends requests of several kinds over one connection, as HAProxy or Armeria do with
// gRPC and REST:
//
//	requests := mux.Requests()
//	grpcL := requests.Match(oneport.GRPC())
//	restL := requests.Match(oneport.Any())
//
// A connection is undecided, and subject to the [Limits] for such connections, until a request has found its route.
func (m *Mux) Requests(matchers ...Matcher) *RequestMux {
	return newRequestMux(m, "", &m.routes, Route{Matchers: matchers})
}

// RequestsRoute adds a route as [Mux.Requests] does, with settings. Its default name is "requests". SettingsACK has no
// effect.
func (m *Mux) RequestsRoute(r Route) *RequestMux { return newRequestMux(m, "", &m.routes, r) }

func newRequestMux(m *Mux, prefix string, list *atomic.Pointer[[]*route], r Route) *RequestMux {
	if len(r.Matchers) == 0 {
		r.Matchers = []Matcher{HTTP2()}
	}
	if r.Name == "" {
		r.Name = "requests"
	}
	q := &RequestMux{mux: m}
	q.routes.Store(new([]*requestRoute))
	q.route = newRoute(m, prefix, r)
	q.route.requests = q
	q.none = m.uniqueName(q.route.name + "/none")
	m.addTo(list, q.route)
	return q
}

// Match adds a route for the requests that at least one of the matchers accepts, and returns the listener for the
// route's server. Routes are tried in the order in which they were added. The matchers see the request by
// [Preview.Request]; [Preview.Bytes] is empty.
//
// Closing the listener, as grpc.Server.GracefulStop and http.Server.Shutdown do, ends the route. Requests for it are
// then reset with REFUSED_STREAM, except those on connections that the server has already accepted. The other routes
// are not affected.
func (q *RequestMux) Match(matchers ...Matcher) net.Listener {
	return q.Route(Route{Matchers: matchers})
}

// Route adds a route as [RequestMux.Match] does, with settings such as a name. Upgrade and SettingsACK have no effect.
func (q *RequestMux) Route(r Route) net.Listener {
	m := q.mux
	rt := &requestRoute{
		name:     m.uniqueName(q.route.name + "/" + routeName(r.Name, r.Matchers)),
		matchers: slices.Clone(r.Matchers),
		foreign:  slices.ContainsFunc(r.Matchers, isForeign),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	rt.Target = q.engine.Target(rt.name, m.root.Addr())
	routes := append(slices.Clip(*q.routes.Load()), rt)
	if m.serving && rt.foreign {
		m.quick.Store(false) // before the accept loop sees the route
	}
	q.routes.Store(&routes)
	if m.closed {
		rt.Close()
	}
	return rt
}

// begin prepares for connections. The caller holds mux.mu.
func (q *RequestMux) begin(m *Mux) {
	l := m.limits
	q.engine.Decide, q.engine.Lasting = q.decide, q.lasting
	q.engine.EarlySettings = settingsOf(m.earlySettings())
	q.engine.Logger, q.engine.Alarms = m.logger(), &m.alarms
	q.engine.Limits = dispatch.Limits{
		WriteTimeout:       l.DecideTimeout,
		IdleTimeout:        l.IdleTimeout,
		QueueLength:        l.QueueLength,
		AcceptTimeout:      l.DecideTimeout,
		MaxStreams:         l.MaxStreams,
		MaxHeaderListBytes: l.MaxHeaderListBytes,
		MaxContinuations:   l.MaxContinuations,
		MaxBuffered:        l.MaxBuffered,
		ResetBurst:         l.ResetBurst,
		ResetRate:          l.ResetRate,
		ControlBurst:       l.ControlBurst,
		ControlRate:        l.ControlRate,
	}
}

// decide finds the route of a request.
func (q *RequestMux) decide(c net.Conn, fields []hpack.HeaderField) int {
	if i := matchRequest(c, fields, *q.routes.Load()); i >= 0 {
		return i
	}
	if q.Unmatched == UnmatchedRefuse {
		return dispatch.Refuse
	}
	return dispatch.NotFound
}

// lasting reports whether requests with equal fields on a connection all go to the route to which one of them went. A
// matcher of a user, if one was asked, can depend on more than the fields.
func (q *RequestMux) lasting(target int) bool {
	return target >= 0 && !slices.ContainsFunc((*q.routes.Load())[:target+1], func(rt *requestRoute) bool { return rt.foreign })
}

// isClosed reports whether no server takes a request any more.
func (q *RequestMux) isClosed() bool {
	return !slices.ContainsFunc(*q.routes.Load(), func(rt *requestRoute) bool { return !rt.IsClosed() })
}

func (q *RequestMux) close() {
	for _, rt := range *q.routes.Load() {
		rt.Close()
	}
}

func (q *RequestMux) stats() []RouteStats {
	var list []RouteStats
	for _, rt := range *q.routes.Load() {
		s := rt.Stats()
		list = append(list, RouteStats{Name: rt.name, Matched: s.Accepted, Queued: s.Queued, Requests: s.Requests})
	}
	notFound, refused := q.engine.Unmatched()
	return append(list, RouteStats{Name: q.none, Requests: notFound, Refused: refused})
}

// start begins to dispatch the requests of a connection, whose first request has come.
func (q *RequestMux) start(c *pending) *refusal {
	held, ok := acquire(full, q.route.slots, q.mux.slots)
	if !ok {
		return c.refusal(ReasonTooMany, errors.New("the servers have reached MaxConns"))
	}
	parser := &c.preview.h2
	if c.opening.Acknowledged() == 0 && !c.speechless() {
		// The server gets one SETTINGS frame for all that have come, and acknowledges one.
		err := c.write(c.opening.StandIn(nil))
		if err == nil {
			err = c.finishWrite()
		}
		if err != nil {
			held.release()
			return c.clientClosed(err)
		}
		c.prepareHandoff()
	}
	received := c.replay
	if c.source.Peeking() {
		buf := q.mux.buffers.Get()
		defer q.mux.buffers.Put(buf)
		n, err := c.conn.Read((*buf)[:c.source.Seen()]) // which does not wait: as many bytes are there
		if err != nil {
			held.release()
			return c.clientClosed(err)
		}
		received = (*buf)[:n:n]
	}
	opened := dispatch.Opened{
		Conn:         c.conn,
		Received:     received,
		StreamID:     parser.StreamID(),
		Fields:       c.preview.h2Fields(),
		Block:        parser.Block(received),
		Settings:     parser.Settings(),
		SettingsEnd:  max(parser.SettingsEnd(), len(h2.Preface)),
		Early:        c.early,
		Acknowledged: c.acks,
		Answered:     c.pings,
	}
	if !dispatch.KeepsBlock(opened.Block) {
		opened.Decoder = parser.TakeDecoder()
	}
	owner := &dispatched{requests: q, raw: c.raw, tls: c.tls, accepted: c.accepted, early: c.early, held: held}
	if q.mux.lobby.Replace(&c.Entry, &owner.Entry, owner) != lobby.None {
		held.release()
		return c.interruption()
	}
	q.engine.Start(opened, owner)
	c.source.Reuse()
	c.recycle()
	return nil
}

// dispatched is a connection whose requests are dispatched: the owner of what the engine has, with the place in the
// registry.
type dispatched struct {
	lobby.Entry
	requests *RequestMux
	raw      net.Conn
	tls      *tls.ConnectionState
	accepted time.Time
	early    bool
	served   bool // a server has accepted it
	held     *hold
	client   dispatch.Client
}

var (
	_ dispatch.Owner = (*dispatched)(nil)
	_ lobby.Conn     = (*dispatched)(nil)
)

// Interrupt ends the connection, which no server has. The registry calls it, which is locked.
func (d *dispatched) Interrupt(cause lobby.Cause) { go d.client.Dismiss(cause.String()) }

// Close closes the connection at once.
func (d *dispatched) Close() error { return d.raw.Close() }

// Started is called before anything else can happen.
func (d *dispatched) Started(client dispatch.Client, queued bool) {
	m := d.requests.mux
	d.client = client
	if !queued {
		m.lobby.Move(&d.Entry, lobby.Opening)
	}
	if m.isStopping() {
		go client.Drain()
	}
}

// Joined is called when the first request for a server is on its way.
func (d *dispatched) Joined(target int) {
	m, rt := d.requests.mux, (*d.requests.routes.Load())[target]
	if !rt.Accepting() {
		rt.awaited.Do(func() { rt.awaitServer(m) })
	}
	if m.OnDispatch == nil {
		return
	}
	m.callHook("OnDispatch", d.raw, func() {
		m.OnDispatch(Dispatched{Conn: d.raw, TLS: d.tls, Route: rt.name, EarlySettings: d.early})
	})
}

// Accepted is called when a server has accepted the connection.
func (d *dispatched) Accepted() {
	d.served = true
	m := d.requests.mux
	m.counters.dispatched.Add(1)
	m.noteServed()
	m.lobby.Move(&d.Entry, lobby.Dispatched)
	if m.isStopping() {
		go d.client.Drain() // Shutdown has drained those that were dispatched then
	}
}

// Linger closes the connection so that the client can read what was written last.
func (d *dispatched) Linger(c net.Conn) {
	m := d.requests.mux
	m.lobby.Refuse(&d.Entry)
	buf := m.buffers.Get()
	defer m.buffers.Put(buf)
	refusing.Send(c, nil, *buf)
}

// Ended is called when the connection has ended.
func (d *dispatched) Ended(err error) {
	d.held.release()
	m := d.requests.mux
	connErr, faulty := errors.AsType[*h2.ConnError](err)
	abused := faulty && connErr.Code == http2.ErrCodeEnhanceYourCalm
	switch {
	case d.served && abused:
		m.counters.abused.Add(1)
		go func() {
			d.reportAbuse(err)
			m.lobby.Leave(&d.Entry)
		}()
		return
	case d.served:
		m.lobby.Leave(&d.Entry)
		return
	}
	r := &refusal{language: ProtocolHTTP2, early: d.early, err: err, reason: ReasonClientClosed}
	switch cause := m.lobby.Interrupted(&d.Entry); {
	case cause != lobby.None:
		r.reason, r.err = interruptionOf(cause)
	case faulty:
		r.reason = ReasonProtocolError
	case errors.Is(err, dispatch.ErrIdle):
		r.reason = ReasonIdle
	case errors.Is(err, dispatch.ErrUnmatched):
		r.reason = ReasonNoRoute
	case errors.Is(err, dispatch.ErrTargetClosed):
		r.reason = ReasonRouteClosed
	case errors.Is(err, dispatch.ErrTargetFull):
		r.reason = ReasonQueueFull
	}
	go func() {
		m.reportRefused(d.raw, d.tls, d.accepted, d.requests.route, r)
		m.lobby.Leave(&d.Entry)
	}()
}

// reportAbuse reports a connection that is ended for going over a limit.
func (d *dispatched) reportAbuse(err error) {
	m := d.requests.mux
	abused := Abused{Conn: d.raw, TLS: d.tls, Route: d.requests.route.name, Err: err}
	if m.logger().Enabled(context.Background(), slog.LevelWarn) {
		m.refusals.log(m, reasonAbuse, slog.LevelWarn, "oneport: connection closed for exceeding a limit",
			append(abused.LogValue().Group(), help(sectionAbuse)))
	}
	if m.OnAbuse != nil {
		m.callHook("OnAbuse", d.raw, func() { m.OnAbuse(abused) })
	}
}
