package oneport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/accepting"
	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/lobby"
	"github.com/oneport-go/oneport/internal/peek"
)

// ErrClosed is what [Mux.Serve] returns after Shutdown or Close, or when the listener below was closed. It is also
// [net.ErrClosed].
var ErrClosed = fmt.Errorf("oneport: mux closed: %w", net.ErrClosed)

// A Mux serves several protocols on one listener. It looks at the first bytes of each accepted connection and hands it
// to the first route whose matcher takes it. Routes lead to servers ([Mux.Match], each route is a [net.Listener]), to what
// is inside TLS ([Mux.TLS]), or to the requests of an HTTP/2 connection ([Mux.Requests]). All share the limits, the hooks,
// the counters and the shutdown of the Mux.
//
// Make one with [New], set its fields, add routes, then call Serve. The fields must not be changed after that. All methods
// may be called by several goroutines at once.
type Mux struct {
	Limits
	Hooks

	// TimeoutPolicy says what happens to a connection that has sent too little before [Limits.DecideTimeout]. The zero value
	// refuses it.
	TimeoutPolicy TimeoutPolicy

	// QueuePolicy says what happens to a connection whose route has a full queue. The zero value waits for room.
	QueuePolicy QueuePolicy

	// AllowMissingSettings lets HTTP/2 clients leave out the SETTINGS frame that has to be the first one of a client. RFC
	// 9113, Section 3.4 makes that a connection error, for which they are refused otherwise; with it, that is left to the
	// server.
	AllowMissingSettings bool

	// EarlySettings are the contents of the early SETTINGS frame, sent to an HTTP/2 client whose request is not there when
	// the mux looks, while a route depends on it: it might wait for the server's SETTINGS. They bind the server behind: see
	// [DefaultEarlySettings], which nil stands for. An empty slice that is not nil sends an empty frame.
	EarlySettings []Setting

	// Logger gets a record for each event, with a constant message and structured values: errors, and refused connections
	// at level Warn, at most one per second and reason, with a count of those left out. Routine closures are logged at level
	// Debug: the client closed the connection or said nothing at all (as port scans, health checks and browsers that connect
	// ahead do), was idle, or came during the shutdown. So is each matched connection. Nil means [slog.Default].
	Logger *slog.Logger

	root     net.Listener
	limits   Limits // those that hold, once Serve was called
	routes   atomic.Pointer[[]*route]
	lobby    lobby.Lobby
	buffers  peek.Pool
	slots    slots       // of all servers
	early    []byte      // the early SETTINGS frame
	quick    atomic.Bool // see quickToDecide
	counters counters
	refusals logLimiter
	upgrades sync.Once     // see warnOfUpgrade
	work     chan *pending // for goroutines that are idle
	idle     atomic.Int32  // how many these are

	mu       sync.Mutex
	names    map[string]int // of routes
	serving  bool
	stopping bool          // no connection is accepted any more
	closed   bool          // the routes for whole connections are closed
	stop     chan struct{} // closed when stopping is set
	done     chan struct{} // closed when closed is set
}

// peekSize is how much of a connection is looked at in the socket. Where that does not suffice, the bytes are taken out.
const peekSize = 16 << 10

// New makes a Mux that accepts from l.
func New(l net.Listener) *Mux {
	if l == nil {
		l = noListener{} // Serve says so
	}
	m := &Mux{root: l, work: make(chan *pending), stop: make(chan struct{}), done: make(chan struct{})}
	m.routes.Store(new([]*route))
	m.limits = m.Limits.withDefaults()
	return m
}

// Addr returns the address of the listener that the mux accepts from.
func (m *Mux) Addr() net.Addr { return m.root.Addr() }

// Match adds a route for the connections that one of the matchers matches and returns the listener for its server.
// Routes are asked in the order in which they were added.
//
// Closing the listener, which is what grpc.Server.GracefulStop and http.Server.Shutdown do, ends the route: connections
// for it are refused from then on. The other routes go on.
func (m *Mux) Match(matchers ...Matcher) net.Listener {
	return m.Route(Route{Matchers: matchers})
}

// Route is [Mux.Match] with settings for the route.
func (m *Mux) Route(r Route) net.Listener {
	rt := newRoute(m, "", r)
	m.addTo(&m.routes, rt)
	return rt
}

// addTo adds a route to those of m or of what is inside TLS.
func (m *Mux) addTo(list *atomic.Pointer[[]*route], rt *route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	routes := append(slices.Clip(*list.Load()), rt)
	if m.serving {
		if rt.requests != nil {
			rt.requests.begin(m)
		}
		if list == &m.routes && !quickToDecide(routes) {
			m.quick.Store(false) // before the accept loop sees the route
		}
	}
	list.Store(&routes)
	if m.closed {
		rt.Close()
	}
}

// uniqueName returns the name, with a number if a route has it already.
func (m *Mux) uniqueName(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names == nil {
		m.names = make(map[string]int)
	}
	for unique := name; ; {
		m.names[name]++
		if n := m.names[name]; n > 1 {
			unique = name + "#" + strconv.Itoa(n)
		}
		if unique == name || m.names[unique] == 0 {
			m.names[unique] = max(m.names[unique], 1)
			return unique
		}
	}
}

// allRoutes yields the routes in order, those inside TLS behind the one that leads to them.
func (m *Mux) allRoutes(yield func(*route) bool) {
	for _, rt := range *m.routes.Load() {
		if !yield(rt) {
			return
		}
		if rt.tls == nil {
			continue
		}
		for _, inner := range *rt.tls.routes.Load() {
			if !yield(inner) {
				return
			}
		}
	}
}

// Serve accepts connections and hands them to the routes until the mux or the listener below is closed. It always
// returns an error: [ErrClosed] after that, else the fatal error, such as a Mux without a route or an error of Accept that
// is not known to be temporary. In each case the listener is closed. Temporary errors (too many open files, a connection that was aborted before it was accepted,
// a timeout) are retried.
//
// When Serve returns, no connection is undecided any more, those that had found a route have reached their servers, and
// the routes' listeners are closed, but for those of [Mux.Requests], whose connections may not have ended. If the listener below was closed by others, Serve does what Shutdown does, within
// [Limits.DecideTimeout].
func (m *Mux) Serve() error {
	if err := m.begin(); err != nil {
		if err != errServedTwice {
			m.Close() // clients that connect find that nobody serves them
		}
		return err
	}
	err := m.acceptAll()
	stopped := m.isStopping()
	m.lobby.Done()
	if stopped {
		<-m.done // whoever called Shutdown or Close says how long to wait
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), m.limits.DecideTimeout)
	defer cancel()
	if failed := m.Shutdown(ctx); failed != nil {
		m.log(slog.LevelWarn, "oneport: closed connections when the listener was closed", slog.Any("err", failed))
	}
	return err
}

var errServedTwice = errors.New("oneport: Serve was called twice")

func (m *Mux) begin() error {
	early := settingsOf(m.earlySettings())
	for _, s := range early {
		if err := s.Valid(); err != nil {
			return fmt.Errorf("oneport: EarlySettings: %v: %w", s, err)
		}
	}
	if err := m.check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.stopping:
		return ErrClosed
	case m.serving:
		return errServedTwice
	case len(*m.routes.Load()) == 0:
		return errors.New("oneport: Serve was called before Match: there is no route that a connection could take")
	}
	m.limits = m.Limits.withDefaults()
	m.lobby.Max, m.lobby.MaxHeld = m.limits.MaxUndecided, m.limits.MaxUndecidedBytes
	m.slots = newSlots(m.limits.MaxConns)
	m.early = h2.AppendSettings(nil, early...)
	m.buffers.Size = min(m.limits.MaxPreviewBytes, peekSize)
	indexHosts(*m.routes.Load())
	for rt := range m.allRoutes {
		switch {
		case rt.tls != nil:
			indexHosts(*rt.tls.routes.Load())
		case rt.requests != nil:
			rt.requests.begin(m)
		}
	}
	m.quick.Store(quickToDecide(*m.routes.Load()))
	m.warnOfRoutes()
	m.serving = true
	m.lobby.Open()
	return nil
}

// acceptAll accepts until a fatal error.
func (m *Mux) acceptAll() error {
	loop := accepting.Loop{
		Listener: m.root,
		Done:     m.stop,
		Handle:   m.accepted,
		Retrying: func(err error, in time.Duration) {
			m.counters.acceptErrors.Add(1)
			m.log(slog.LevelWarn, "oneport: accept failed, trying again",
				slog.Any("local", m.root.Addr()), slog.Any("err", err), slog.Duration("in", in))
		},
		OutOfFiles: m.lobby.EvictOldest, // whose file is worth more to a client that talks
	}
	if err := loop.Run(); err != net.ErrClosed {
		return fmt.Errorf("oneport: accepting on %v: %w", m.root.Addr(), err)
	}
	return ErrClosed
}

// Shutdown stops the mux gracefully. It closes the listener below, decides the connections that came within
// [Limits.ShutdownGrace] before, and refuses the others that have no route. It waits until those that have one were
// accepted by their servers, at most for [Limits.DecideTimeout]. Clients whose requests are dispatched ([Mux.Requests]) are
// told to go elsewhere with new ones, and Shutdown waits until those that they have made were answered. Then it closes
// the routes' listeners.
//
// It does not wait for the servers of whole connections to be done with them. Their Serve methods return an error that is
// [net.ErrClosed], unless they were told to stop before. To stop everything gracefully, call Shutdown first and the servers'
// own methods after it.
//
// If ctx ends first, Shutdown closes what is left, as Close does, and returns the context's error. Otherwise it returns
// nil, or the error of closing the listener, or one that says that a server did not accept.
func (m *Mux) Shutdown(ctx context.Context) error {
	defer m.closeRest()
	err := m.stopAccepting()
	if failed := m.settle(ctx); failed != nil {
		err = failed
	}
	m.closeRoutes()
	if failed := m.lobby.Empty(ctx); failed != nil {
		return failed
	}
	return err
}

// settle waits until no connection is undecided or queued.
func (m *Mux) settle(ctx context.Context) error {
	m.lobby.Each(func(c lobby.Conn) { go c.(*dispatched).client.Drain() })
	if left := m.lobby.Drain(time.Now().Add(-m.limits.ShutdownGrace)); left {
		grace := time.AfterFunc(m.limits.ShutdownGrace, m.lobby.Stop)
		defer grace.Stop()
	}
	settling, cancel := context.WithTimeout(ctx, max(m.limits.DecideTimeout, m.limits.ShutdownGrace))
	defer cancel()
	err := m.lobby.Settled(settling)
	m.lobby.Stop()
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	for rt := range m.allRoutes {
		rt.Close() // which refuses what is queued
	}
	return fmt.Errorf("oneport: connections were refused that their servers had not accepted within %v (Limits.DecideTimeout)",
		m.limits.DecideTimeout)
}

// Close stops the mux at once: it closes the listener below, every connection that has no route yet, those whose requests
// are dispatched, and the routes' listeners, with which the connections in their queues are refused. It does not wait for
// anything, and returns the error of closing the listener, if any.
func (m *Mux) Close() error {
	err := m.stopAccepting()
	m.closeRest()
	return err
}

func (m *Mux) stopAccepting() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return nil
	}
	m.stopping = true
	close(m.stop)
	if err := m.root.Close(); err != nil && !errors.Is(err, net.ErrClosed) { // else closed from outside
		return err
	}
	return nil
}

// closeRoutes closes the routes for whole connections, and lets Serve return.
func (m *Mux) closeRoutes() {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		close(m.done)
	}
	m.mu.Unlock()
	for rt := range m.allRoutes {
		if rt.requests == nil {
			rt.Close()
		}
	}
}

// closeRest closes whatever is left.
func (m *Mux) closeRest() {
	m.closeRoutes()
	m.lobby.Stop()
	m.lobby.CloseRefusing()
	for rt := range m.allRoutes {
		rt.Close()
	}
	m.lobby.Each(func(c lobby.Conn) { c.(*dispatched).client.Close() })
	m.refusals.flush(m)
}

func (m *Mux) isStopping() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopping
}

// accepted takes charge of a connection from the listener below.
func (m *Mux) accepted(raw net.Conn) {
	m.counters.accepted.Add(1)
	c := m.newPending(raw)
	if m.deliverNow(c) {
		return
	}
	m.lobby.Enter(&c.Entry, c, lobby.Accepted, c.accepted)
	select {
	case m.work <- c:
	default:
		go m.handleSome(c)
	}
}

// maxIdle is how many goroutines wait for another connection when they are done with one. That spares the next ones a new
// goroutine, whose stack would grow with the depth of the calls.
const maxIdle = 8

// handleSome handles c, and other connections after it.
func (m *Mux) handleSome(c *pending) {
	for {
		m.handle(c)
		if m.idle.Add(1) > maxIdle {
			m.idle.Add(-1)
			return
		}
		select {
		case c = <-m.work:
			m.idle.Add(-1)
		case <-m.stop:
			return
		}
	}
}

// deliverNow brings a connection whose first bytes are there already to its route, where that takes no time: on the way
// through a goroutine of its own the server would get it later, and at a higher cost. Users' code must not run here, since
// it could hold up all other connections.
func (m *Mux) deliverNow(c *pending) bool {
	if !c.source.Peeking() || !m.quick.Load() || m.OnMatch != nil || m.OnDispatch != nil ||
		m.logger().Enabled(context.Background(), slog.LevelDebug) {
		return false
	}
	rt := c.decideNow()
	if rt == nil || rt.requests == nil && !rt.queue.HasRoom(m.limits.QueueLength) {
		c.requests = nil
		return false
	}
	m.lobby.Enter(&c.Entry, c, lobby.Queued, c.accepted)
	c.prepareHandoff()
	if rt.requests == nil {
		if !rt.push(c, m.limits.QueueLength) { // somebody else was faster
			go m.deliverOrEnd(rt, c)
		}
		return true
	}
	if refused := m.deliver(rt, c); refused != nil {
		go m.end(c, rt, refused)
	}
	return true
}

// quickToDecide reports whether asking routes takes no time that other connections would notice.
func quickToDecide(routes []*route) bool {
	const few = 32
	return effort(routes) <= few && !slices.ContainsFunc(routes, func(rt *route) bool {
		return rt.foreign || rt.requests != nil && slices.ContainsFunc(*rt.requests.routes.Load(), func(rt *requestRoute) bool { return rt.foreign })
	})
}

// handle brings a connection to its route or to its end.
func (m *Mux) handle(c *pending) {
	rt, refused := c.decide()
	if refused == nil {
		refused = m.deliver(rt, c)
	}
	if refused != nil {
		m.end(c, rt, refused)
	}
}

// deliver hands a connection over, which must not be touched after that. If that is impossible, it says why.
func (m *Mux) deliver(rt *route, c *pending) *refusal {
	if rt.requests != nil {
		return rt.requests.start(c)
	}
	return rt.deliver(c)
}

// deliverOrEnd delivers a connection that has a route, or refuses it.
func (m *Mux) deliverOrEnd(rt *route, c *pending) {
	if refused := m.deliver(rt, c); refused != nil {
		m.end(c, rt, refused)
	}
}

// end refuses a connection.
func (m *Mux) end(c *pending, rt *route, refused *refusal) {
	m.refuse(c, rt, refused)
	c.recycle()
}

func (m *Mux) earlySettings() []Setting {
	if m.EarlySettings == nil {
		return DefaultEarlySettings()
	}
	return m.EarlySettings
}

func settingsOf(list []Setting) []http2.Setting {
	settings := make([]http2.Setting, len(list))
	for i, s := range list {
		settings[i] = s.setting()
	}
	return settings
}
