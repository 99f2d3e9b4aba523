package oneport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/caller"
	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/h2upgrade"
)

// A Route is a way out of a [Mux]: which connections take it, and what the server behind it is.
type Route struct {
	// Name stands for the route in logs, hooks and [Stats]. If it is empty, the matchers' names are used.
	Name string

	// Matchers are the route's matchers: it takes what one of them matches.
	Matchers []Matcher

	// Upgrade has the route take HTTP/1.1 requests with "Upgrade: h2c" (RFC 7540, 3.2) as the HTTP/2 requests that they ask
	// to be, if its matchers match them as such: the mux answers 101, and the server gets a connection that seems to have
	// begun with prior knowledge. The content of such a request can have 65,535 bytes at most, and must have a
	// Content-Length. All other requests, correct or not, stay requests of HTTP/1.
	//
	// It is off by default: where a proxy that knows nothing of h2c passes the fields on, the client goes past the proxy's
	// rules from then on.
	Upgrade bool

	// SettingsACK says what becomes of a client's acknowledgement of an early SETTINGS frame. The zero value finds out
	// what the server needs.
	SettingsACK ACKPolicy
}

// ACKPolicy says what becomes of the client's acknowledgement of the early SETTINGS frame, of which the server behind
// knows nothing.
type ACKPolicy uint8

const (
	// ACKAuto hands it over if the listener's first Accept is called by google.golang.org/grpc.(*Server).Serve, which
	// ignores it, so that the server gets the connection as it was accepted. It drops it for every other server, and
	// wherever that cannot be seen, for instance because a goroutine in between accepts.
	ACKAuto ACKPolicy = iota
	// ACKDrop drops it. It is right for every server.
	ACKDrop
	// ACKKeep hands it over. It is right for servers that ignore an acknowledgement too many: grpc-go's does, those of
	// net/http and golang.org/x/net/http2 end the connection with PROTOCOL_ERROR.
	ACKKeep
)

// QueuePolicy says what happens to a connection whose route has a full queue.
type QueuePolicy uint8

const (
	// QueueWait makes the connection wait for room, in its time to decide.
	QueueWait QueuePolicy = iota
	// QueueRefuse refuses it at once.
	QueueRefuse
)

// route is the listener for one route's server.
type route struct {
	mux      *Mux
	name     string
	matchers []Matcher
	foreign  bool // one of matchers runs code that is not of this package
	upgrade  bool
	secure   *Secure  // if not nil, the route leads to routes inside TLS and has no queue
	run      *hostRun // that the route is in, or nil

	queue  chan *arrival
	closed chan struct{}
	once   sync.Once

	ack     ACKPolicy
	detect  sync.Once   // of the server
	keepACK atomic.Bool // the server ignores an acknowledgement too many
	netHTTP atomic.Bool // the server is net/http's

	matched atomic.Uint64
}

// An arrival is a connection that has found its route. Whoever takes it out of the queue gives it back to arrivals: in the
// queue, which is made for many and mostly has none, it would be memory for each of them.
type arrival struct {
	raw      net.Conn // as it was accepted
	conn     net.Conn // raw, or a *tls.Conn above it
	tls      *tls.ConnectionState
	first    []byte                  // what the server reads in place of an upgrade
	window   *h2upgrade.WindowFilter // for what the server writes then, if it matters
	consumed []byte                  // to be replayed
	early    bool                    // the stream contains the acknowledgement of an early SETTINGS frame
	stoodIn  stoodIn
	settings []http2.Setting // of the client, if the mux stood in
	protocol Protocol
	accepted time.Time
}

var arrivals = sync.Pool{New: func() any { return new(arrival) }}

// done gives a back. It must not be used after that.
func (a *arrival) done() {
	*a = arrival{}
	arrivals.Put(a)
}

func newRoute(m *Mux, r Route) *route {
	return &route{
		mux:      m,
		name:     routeName(r.Name, r.Matchers),
		matchers: slices.Clone(r.Matchers),
		foreign:  slices.ContainsFunc(r.Matchers, isForeign),
		queue:    make(chan *arrival, m.queueLength()),
		closed:   make(chan struct{}),
		upgrade:  r.Upgrade,
		ack:      r.SettingsACK,
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

// match asks the route's matchers.
func (rt *route) match(p *Preview) Verdict {
	if rt.upgrade {
		if verdict := rt.matchUpgraded(p); verdict != NoMatch {
			return verdict
		}
	}
	return rt.matchPlain(p)
}

// matchPlain asks the route's matchers, as AnyOf does.
func (rt *route) matchPlain(p *Preview) Verdict {
	verdict := NoMatch
	for _, m := range rt.matchers {
		switch m.Match(p) {
		case Match:
			return Match
		case Undecided:
			verdict = Undecided
		}
	}
	return verdict
}

// Accept returns the next connection of the route.
func (rt *route) Accept() (net.Conn, error) {
	rt.detect.Do(rt.detectServer)
	select {
	case a := <-rt.queue:
		return rt.open(a), nil
	default:
	}
	select {
	case a := <-rt.queue:
		return rt.open(a), nil
	case <-rt.closed:
		return nil, &net.OpError{Op: "accept", Net: rt.Addr().Network(), Addr: rt.Addr(), Err: net.ErrClosed}
	}
}

// open makes of an arrival what the server gets: wherever the stream need not be changed, the connection that was
// accepted.
func (rt *route) open(a *arrival) net.Conn {
	defer a.done()
	rt.matched.Add(1)
	rt.mux.pending.Done()
	ch := changes{first: a.first, replay: a.consumed, hideTLS: a.protocol == ProtocolHTTP2 && rt.netHTTP.Load()}
	if a.window != nil {
		ch.toClient = a.window
	}
	if a.stoodIn.acks > 0 {
		ch.first, ch.fromClient, ch.toClient = a.stoodIn.handOver(a.settings)
	} else if a.early && !rt.keepACK.Load() {
		ch.fromClient = frameFilter{skip: len(h2.Preface), acks: 1}
	}
	if ch.none() {
		return a.conn
	}
	return newConn(a.conn, ch)
}

// detectServer finds out who calls Accept.
func (rt *route) detectServer() {
	rt.netHTTP.Store(caller.Is(caller.NetHTTP))
	switch rt.ack {
	case ACKKeep:
		rt.keepACK.Store(true)
	case ACKAuto:
		rt.keepACK.Store(caller.Is(caller.GRPC))
	}
}

// Close ends the route. Connections that are waiting in it, and those that would take it later, are refused. It does
// not wait for that, and leaves the mux and its other routes alone. It always returns nil.
func (rt *route) Close() error {
	rt.once.Do(func() { close(rt.closed) })
	rt.refuseQueued()
	return nil
}

// Addr returns the address of the listener that the mux accepts from.
func (rt *route) Addr() net.Addr { return rt.mux.root.Addr() }

// refuseQueued empties the queue of a closed route. Close calls it, and deliver once more when it finds the route closed
// behind a connection that it has put in.
func (rt *route) refuseQueued() {
	for {
		select {
		case a := <-rt.queue:
			go func() {
				defer rt.mux.pending.Done()
				defer a.done()
				rt.mux.refuse(a.conn, rt, &refusal{
					raw:      a.raw,
					tls:      a.tls,
					reason:   ReasonRouteClosed,
					err:      errRouteClosed,
					language: a.protocol,
					early:    a.early,
					accepted: a.accepted,
				})
			}()
		default:
			return
		}
	}
}

var errRouteClosed = errors.New("the server of its route has stopped accepting")

// deliver puts a connection that was decided for rt in its queue. If that is impossible, it says why.
func (rt *route) deliver(u *undecided) *refusal {
	switch {
	case rt.deliverNow(u):
		return nil
	case rt.isClosed():
		return u.refusal(ReasonRouteClosed, errRouteClosed)
	}
	return rt.awaitRoom(u)
}

// deliverNow is deliver if it need not wait.
func (rt *route) deliverNow(u *undecided) bool {
	if rt.isClosed() {
		return false
	}
	rt.mux.pending.Add(1)
	a := u.arrival()
	select {
	case rt.queue <- a:
	default:
		rt.mux.pending.Done()
		a.done()
		return false
	}
	if rt.isClosed() {
		rt.refuseQueued()
	}
	return true
}

// arrival is u as it goes into the queue of its route.
func (u *undecided) arrival() *arrival {
	a := arrivals.Get().(*arrival)
	*a = arrival{
		raw:      u.raw,
		conn:     u.conn,
		tls:      u.preview.secured,
		first:    u.first,
		window:   u.window,
		consumed: u.consumed,
		early:    u.early,
		stoodIn:  u.stoodIn,
		protocol: u.protocol,
		accepted: u.accepted,
	}
	if u.acks > 0 {
		a.settings = slices.Clone(u.preview.h2.Settings())
	}
	return a
}

// awaitRoom is deliver for a full queue. While the connection waits it counts as undecided.
func (rt *route) awaitRoom(u *undecided) *refusal {
	m := rt.mux
	if m.WhenQueueFull == QueueRefuse {
		return u.refusal(ReasonQueueFull, errQueueFull)
	}
	timer := time.NewTimer(time.Until(u.since.Add(m.decideTimeout())))
	defer timer.Stop()
	m.mu.Lock()
	u.wake = make(chan struct{})
	m.waiting.add(u)
	m.mu.Unlock()
	m.pending.Add(1)
	a := u.arrival()
	var refused *refusal
	select {
	case rt.queue <- a:
		m.forget(u)
		if rt.isClosed() {
			rt.refuseQueued()
		}
		return nil
	case <-rt.closed:
		refused = u.refusal(ReasonRouteClosed, errRouteClosed)
	case <-u.wake:
		refused = u.interruption()
	case <-timer.C:
		refused = u.refusal(ReasonQueueFull, errQueueFull)
	}
	m.pending.Done()
	a.done()
	return refused
}

var errQueueFull = errors.New("its server does not accept fast enough, the queue of its route is full (Mux.QueueLength)")

func (rt *route) isClosed() bool {
	select {
	case <-rt.closed:
		return true
	default:
		return false
	}
}
