package oneport

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-go/oneport/internal/caller"
	"github.com/oneport-go/oneport/internal/lobby"
	"github.com/oneport-go/oneport/internal/queue"
)

// A Route describes which connections a server receives from a [Mux] or a [TLSMux], and how. The zero value of each
// field except Matchers is a sensible default.
type Route struct {
	// Name identifies the route in logs, hooks and [Stats]. The name of the enclosing [TLSMux] or [RequestMux] is put
	// in front of it: "tls/grpc". If Name is empty, the names of the matchers are used. If the name is taken, a number
	// is appended: "grpc#2".
	Name string

	// Matchers select the connections: the route takes a connection that at least one of the matchers accepts.
	Matchers []Matcher

	// Upgrade accepts the upgrade from HTTP/1.1 to HTTP/2 (RFC 7540, Section 3.2). If a request has "Upgrade: h2c" and
	// the route's matchers accept it as an HTTP/2 request, the mux answers 101, and the server gets a connection that
	// begins like one with prior knowledge. Such a request may have at most 65,535 bytes of content, and needs a
	// Content-Length if it has any. All other requests, malformed ones included, stay HTTP/1 requests.
	//
	// Clients that upgrade often begin with a HEAD or OPTIONS request that says nothing about what follows. On a route for
	// whole connections all that follows goes where that request went, gRPC calls too; this is logged once. Use it with
	// [Mux.RequestsRoute], or a [Server], where they share a port with gRPC.
	//
	// Upgrade is off by default because of proxies: behind a proxy that forwards these header fields without
	// understanding h2c, a client bypasses the proxy's rules after the upgrade.
	Upgrade bool

	// MaxConns is how many connections the route's server may have at once, as [Limits.MaxConns] is for all routes
	// together. Zero means no bound.
	MaxConns int

	// SettingsACK says whether the server sees a client's acknowledgement of an early SETTINGS frame. The zero value,
	// ACKAuto, finds out what the server needs.
	SettingsACK ACKPolicy
}

// ACKPolicy says whether a server sees the client's acknowledgement of the early SETTINGS frame (see
// [Mux.EarlySettings]), which the server itself did not send.
type ACKPolicy uint8

const (
	// ACKAuto passes the acknowledgement on if google.golang.org/grpc.(*Server).Serve calls the first Accept of the
	// route's listener. grpc-go ignores the acknowledgement, and so can get the accepted connection itself. In all
	// other cases ACKAuto drops the acknowledgement, also if another goroutine accepts on behalf of grpc-go.
	ACKAuto ACKPolicy = iota
	// ACKDrop removes the acknowledgement from the stream. This is safe for every server.
	ACKDrop
	// ACKKeep passes the acknowledgement on. This is safe only for servers that ignore an unexpected acknowledgement.
	// grpc-go does; net/http and golang.org/x/net/http2 close the connection with PROTOCOL_ERROR.
	ACKKeep
)

// A route leads to a server, whose listener it is, or to the routes inside TLS or for the requests of an HTTP/2
// connection.
type route struct {
	mux      *Mux
	name     string
	matchers []Matcher
	silences []time.Duration // see silences
	foreign  bool            // one of matchers runs code that is not of this package
	upgrade  bool
	tls      *TLSMux     // if not nil, the route leads to its routes
	requests *RequestMux // the same
	run      *hostRun    // that the route is in, or nil

	queue queue.Queue[*pending]
	slots slots         // of the route's server
	done  chan struct{} // closed by Close
	end   sync.Once

	ack     ACKPolicy
	detect  sync.Once   // of the server
	keepACK atomic.Bool // the server ignores an unexpected ACK
	netHTTP atomic.Bool // the server is net/http's
	grpc    atomic.Bool // the server is grpc-go's

	checked  atomic.Int32 // how many connections have an answerCheck
	answered atomic.Bool  // the server is known to speak HTTP/2, or not to

	matched atomic.Uint64
	refused refusals

	accepting atomic.Bool // Accept was called
	awaited   sync.Once   // the first connection is in the queue
}

func newRoute(m *Mux, prefix string, r Route) *route {
	return &route{
		mux:      m,
		name:     m.uniqueName(prefix + routeName(r.Name, r.Matchers)),
		matchers: slices.Clone(r.Matchers),
		silences: silences(r.Matchers),
		foreign:  slices.ContainsFunc(r.Matchers, isForeign),
		upgrade:  r.Upgrade,
		ack:      r.SettingsACK,
		slots:    newSlots(r.MaxConns),
		done:     make(chan struct{}),
	}
}

// routeName names a route that has no name of its own after its matchers.
func routeName(name string, matchers []Matcher) string {
	if name != "" {
		return name
	}
	names := make([]string, len(matchers))
	for i, m := range matchers {
		if s, ok := m.(fmt.Stringer); ok {
			names[i] = s.String()
		} else {
			names[i] = fmt.Sprintf("%T", m)
		}
	}
	return strings.Join(names, " or ")
}

// match asks the route's matchers. With upgraded, the route takes the connection as one of HTTP/2, once it is upgraded.
func (rt *route) match(p *Preview) (verdict Verdict, upgraded bool) {
	if rt.upgrade {
		if verdict := rt.matchUpgraded(p); verdict != No {
			return verdict, verdict == Yes
		}
	}
	if rt.requests != nil {
		if verdict := p.isHTTP2(); verdict != Yes {
			return verdict, false
		}
	}
	return matchAny(rt.matchers, p), false
}

// matchAny asks matchers, as AnyOf does.
func matchAny(matchers []Matcher, p *Preview) Verdict {
	verdict := No
	for _, m := range matchers {
		switch m.Match(p) {
		case Yes:
			return Yes
		case Undecided:
			verdict = Undecided
		}
	}
	return verdict
}

// Accept returns the next connection of the route.
func (rt *route) Accept() (net.Conn, error) {
	rt.detect.Do(rt.detectServer)
	rt.accepting.Store(true)
	c, ok := rt.queue.Pop()
	var held *hold
	if ok {
		if held, ok = acquire(rt.done, rt.slots, rt.mux.slots); !ok {
			go rt.mux.end(c, rt, c.refusal(ReasonRouteClosed, errRouteClosed))
		}
	}
	if !ok {
		return nil, &net.OpError{Op: "accept", Net: rt.Addr().Network(), Addr: rt.Addr(), Err: net.ErrClosed}
	}
	rt.matched.Add(1)
	rt.mux.noteServed()
	server := c.serverConn(rt, held)
	rt.mux.lobby.Leave(&c.Entry)
	c.recycle()
	return server, nil
}

// serverConn returns what the server gets: wherever the stream need not be changed, the connection that was accepted.
func (c *pending) serverConn(rt *route, held *hold) net.Conn {
	ch := changes{held: held, first: c.first, replay: c.replay, hideTLS: c.protocol == ProtocolHTTP2 && rt.netHTTP.Load()}
	if c.window != nil {
		ch.toClient = c.window
	}
	if c.acks > 0 {
		ch.first, ch.fromClient, ch.toClient = standIn(c.settings, c.acks, c.pings)
	} else if c.early && !rt.keepACK.Load() {
		ch.fromClient = newFrameFilter(1)
	}
	if rt.checkAnswer(c, &ch) {
		ch.check = &answerCheck{rt: rt}
	}
	if ch.none() {
		return c.conn
	}
	return newConn(c.conn, ch)
}

// detectServer finds out who calls Accept.
func (rt *route) detectServer() {
	rt.netHTTP.Store(caller.Is(caller.NetHTTP))
	rt.grpc.Store(caller.Is(caller.GRPC))
	rt.keepACK.Store(rt.ack == ACKKeep || rt.ack == ACKAuto && rt.grpc.Load())
}

// Close ends the route. Connections that are waiting in it, and those that would take it later, are refused. It does
// not wait for that, and leaves the mux and its other routes alone. It always returns nil.
func (rt *route) Close() error {
	rt.end.Do(func() { close(rt.done) })
	if rt.requests != nil {
		rt.requests.close()
	}
	for _, c := range rt.queue.Close() {
		go rt.mux.end(c, rt, c.refusal(ReasonRouteClosed, errRouteClosed))
	}
	return nil
}

// isClosed reports whether no server can get a connection by the route.
func (rt *route) isClosed() bool {
	switch {
	case rt.requests != nil:
		return rt.requests.isClosed()
	case rt.tls != nil:
		return false
	}
	return rt.queue.Closed()
}

// Addr returns the address of the listener that the mux accepts from.
func (rt *route) Addr() net.Addr { return rt.mux.root.Addr() }

var (
	errRouteClosed = errors.New("the listener of the route is closed")
	errQueueFull   = errors.New("the server of the route does not accept fast enough: the queue is full (Limits.QueueLength)")
)

// deliver puts a connection that was decided for rt in its queue. From then on it belongs to the server. If there is no
// room, deliver returns the reason.
func (rt *route) deliver(c *pending) *refusal {
	max := rt.mux.limits.QueueLength
	if rt.push(c, max) {
		return nil
	}
	switch {
	case rt.isClosed():
		return c.refusal(ReasonRouteClosed, errRouteClosed)
	case rt.mux.QueuePolicy == QueueRefuse:
		return c.refusal(ReasonQueueFull, errQueueFull)
	}
	timer := time.NewTimer(time.Until(c.since.Add(rt.mux.limits.DecideTimeout)))
	defer timer.Stop()
	interrupted := c.interruptible()
	if rt.mux.lobby.Move(&c.Entry, lobby.Blocked) != lobby.None {
		return c.interruption()
	}
	room := rt.queue.Wait(max)
	defer rt.queue.Leave(room)
	select {
	case <-room.Ready:
		if rt.mux.lobby.Move(&c.Entry, lobby.Queued) != lobby.None {
			return c.interruption()
		}
		if rt.handOver(c, func() bool { return rt.queue.PushInto(room, c) }) {
			return nil
		}
		return c.refusal(ReasonRouteClosed, errRouteClosed)
	case <-interrupted:
		return c.interruption()
	case <-timer.C:
		return c.refusal(ReasonQueueFull, errQueueFull)
	}
}

// push puts a connection in the queue, if there is room. It must not be touched after that.
func (rt *route) push(c *pending, max int) bool {
	return rt.handOver(c, func() bool { return rt.queue.Push(c, max) })
}

// handOver does push, which puts a connection in the queue.
func (rt *route) handOver(c *pending, push func() bool) bool {
	d := c.decision
	c.decision = nil // what it needs no more, it does not keep
	if !push() {
		c.decision = d
		return false
	}
	d.recycle()
	if !rt.accepting.Load() {
		rt.awaited.Do(rt.awaitServer)
	}
	return true
}

// A search finds the route of a connection: it asks the routes in order, and each again until it has answered.
type search struct {
	routes []*route
	next   int           // the first route that has not said No
	asking int           // the route that is being asked
	quiet  time.Duration // the longest silence about which they were asked
}

// ask asks the routes that have not said No yet, up to the first that is undecided. It reports whether there is one. If
// no more bytes can follow, no route remains undecided; if that is only so for now, the routes are asked again later.
func (s *search) ask(p *Preview) (rt *route, upgraded, undecided bool) {
	for i := s.next; i < len(s.routes); i++ {
		s.asking = i
		run := s.routes[i].run
		if run != nil {
			if i = run.next(i, p); i == run.end {
				i-- // all of them said No
				continue
			}
			s.asking = i
		}
		switch verdict, upgraded := s.routes[i].match(p); verdict {
		case Yes:
			return s.routes[i], upgraded, false
		case Undecided:
			if p.end == open {
				s.next = i
				return nil, false, true
			}
			if run != nil {
				i = run.end - 1 // so are the others of the run, none of which goes by silence
			}
		}
	}
	return nil, false, false
}

// nextSilence returns the shortest silence after which a route may take a client that has sent nothing, and about which
// the routes were not asked yet, or 0. It may have passed already: then the mux asks at once.
func (s *search) nextSilence() (next time.Duration) {
	for _, rt := range s.routes[min(s.next, len(s.routes)):] {
		for _, silence := range rt.silences {
			if silence > s.quiet && (next == 0 || silence < next) {
				next = silence
			}
		}
	}
	return next
}
