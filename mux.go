package oneport

import (
	"cmp"
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
	"github.com/oneport-go/oneport/internal/alarm"
	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/lobby"
	"github.com/oneport-go/oneport/internal/peek"
)

// ErrClosed is returned by [Mux.Serve] and [Server.Serve] after Shutdown or Close, or if the listener was closed by
// other means. errors.Is(err, [net.ErrClosed]) reports true for it.
var ErrClosed = fmt.Errorf("oneport: mux closed: %w", net.ErrClosed)

// A Mux serves several protocols on one listener. It peeks at the first bytes of each accepted connection and hands the
// connection to the first route whose matchers accept it. A route leads to a server ([Mux.Match]), to the routes inside
// TLS ([Mux.TLS]), or to the routes for single HTTP/2 requests ([Mux.Requests]). All routes share the limits, hooks,
// counters and shutdown of the Mux.
//
// Create a Mux with [New], set its fields, add routes, then call Serve. Do not change the fields after that. Routes may
// be added at any time. All methods may be called by several goroutines at once.
type Mux struct {
	Limits
	Hooks

	// TimeoutPolicy says what happens to a connection that is still undecided after [Limits.DecideTimeout]. The zero
	// value, TimeoutRefuse, refuses it.
	TimeoutPolicy TimeoutPolicy

	// QueuePolicy says what happens to a connection whose route has a full queue. With the zero value, QueueWait, the
	// connection waits for room.
	QueuePolicy QueuePolicy

	// AllowMissingSettings accepts HTTP/2 clients that do not send SETTINGS as their first frame. RFC 9113, Section 3.4
	// makes that a connection error, and the mux refuses such clients by default. With AllowMissingSettings their
	// server decides.
	AllowMissingSettings bool

	// EarlySettings are the parameters of the early SETTINGS frame. The mux sends this frame when a route depends on
	// the first request of an HTTP/2 client and the client has sent the preface without a request: the client may be
	// waiting for the server's SETTINGS. The parameters bind the server that gets the connection later. Nil stands for
	// [DefaultEarlySettings]; an empty slice that is not nil sends an empty frame.
	EarlySettings []Setting

	// Logger receives one record per event, with a constant message and structured values. Errors of Accept, refused
	// connections, and connections closed for abuse are logged at level Warn, panics at level Error. Routine events are
	// logged at level Debug: matched connections, and refusals because the client closed the connection, sent nothing
	// at all (as port scans, health checks and browsers that connect ahead do), was idle, or came during a shutdown.
	// The attribute help links to the section of docs/troubleshooting.md with the fix.
	// For each refusal reason and level at most one record is logged per second; the attribute not_logged counts the
	// records that were left out. Nil means [slog.Default].
	Logger *slog.Logger

	root     net.Listener
	limits   Limits // those that hold, once Serve was called
	routes   atomic.Pointer[[]*route]
	lobby    lobby.Lobby
	alarms   alarm.Clock // for connections in it
	buffers  peek.Pool
	slots    slots       // of all servers
	early    []byte      // the early SETTINGS frame
	quick    atomic.Bool // see quickToDecide
	counters counters
	refusals logLimiter
	upgrades sync.Once     // see warnOfUpgrade
	reach    reach         // see warnOfUnreached
	work     chan *pending // for goroutines that are idle
	idle     atomic.Int32  // how many these are
	late     atomic.Bool   // a server has got a connection since the mux began to stop

	mu      sync.Mutex
	names   map[string]int // of routes
	serving bool
	closed  bool          // the routes for whole connections are closed
	stop    chan struct{} // closed when no connection is accepted any more
	done    chan struct{} // closed when closed is set
}

// peekSize is how much of a connection is looked at in the socket. Where that does not suffice, the bytes are taken
// out.
const peekSize = 16 << 10

// New returns a Mux that accepts connections from l. The Mux owns l: Serve, Shutdown and Close close it.
func New(l net.Listener) *Mux {
	if l == nil {
		l = noListener{} // Serve says so
	}
	m := &Mux{root: l, work: make(chan *pending), stop: make(chan struct{}), done: make(chan struct{})}
	m.routes.Store(new([]*route))
	m.limits = m.Limits.withDefaults()
	return m
}

// Addr returns the address of the listener that was passed to New.
func (m *Mux) Addr() net.Addr { return m.root.Addr() }

// Match adds a route for the connections that at least one of the matchers accepts, and returns the listener for the
// route's server. Routes are tried in the order in which they were added.
//
// Closing the returned listener, as grpc.Server.GracefulStop and http.Server.Shutdown do, ends the route. The mux then
// refuses connections for it with [ReasonRouteClosed]. The other routes are not affected.
func (m *Mux) Match(matchers ...Matcher) net.Listener {
	return m.Route(Route{Matchers: matchers})
}

// Route adds a route with settings, such as a name, and returns the listener for its server. [Mux.Match] explains how
// routes are chosen and how they end.
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

// Serve accepts connections and hands them to the routes until the mux or its listener is closed. Serve always closes
// the listener and returns a non-nil error: [ErrClosed] after Shutdown, Close, or the listener being closed by somebody
// else, otherwise the fatal error. A Mux without routes, a TLS configuration without a certificate and an invalid
// EarlySettings parameter are fatal before the first connection is accepted. Temporary errors of Accept, such as a lack
// of file descriptors or an aborted connection, are retried with growing delays of 5 milliseconds to 1 second.
//
// When Serve returns, no connection is undecided or queued, and the listeners of the routes are closed. Listeners of a
// [RequestMux] may stay open until their connections have ended or the Shutdown in progress returns. If somebody else
// closed the listener, Serve itself shuts down as [Mux.Shutdown] does, for at most [Limits.DecideTimeout].
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
	case m.isStopping():
		return ErrClosed
	case m.serving:
		return errServedTwice
	case len(*m.routes.Load()) == 0:
		return errors.New("oneport: the Mux has no routes: call Match, TLS or Requests before Serve")
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
	m.warnOfUnreached(0)
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

// Shutdown stops the mux gracefully. It closes the listener that the mux accepts from and refuses undecided connections
// with [ReasonShutdown], except those accepted within the last [Limits.ShutdownGrace], which get that time to be
// decided. It waits until the servers have accepted all connections that have a route, for at most
// [Limits.DecideTimeout]. On connections whose requests are dispatched ([Mux.Requests]) it sends GOAWAY and waits until
// all requests have been answered. Then it closes the listeners of the routes.
//
// Shutdown does not wait for servers that got whole connections. Their Serve methods return an error that is
// [net.ErrClosed], unless they were stopped before. To stop everything gracefully, call Shutdown first and the servers'
// own methods afterwards.
//
// If ctx ends first, Shutdown closes the remaining connections, as Close does, and returns the context's error.
// Otherwise it returns nil, the error of closing the listener, or an error saying that a server did not accept its
// connections in time.
func (m *Mux) Shutdown(ctx context.Context) error {
	err := m.settle(ctx)
	return cmp.Or(m.finish(ctx), err)
}

// settle stops accepting, and waits until no connection is undecided or queued.
func (m *Mux) settle(ctx context.Context) error {
	closing := m.stopAccepting()
	m.lobby.Each(func(c lobby.Conn) { go c.(*dispatched).client.Drain() })
	if left := m.lobby.Drain(time.Now().Add(-m.limits.ShutdownGrace)); left {
		grace := time.AfterFunc(m.limits.ShutdownGrace, m.lobby.Stop)
		defer grace.Stop()
	}
	settling, cancel := context.WithTimeout(ctx, max(m.limits.DecideTimeout, m.limits.ShutdownGrace))
	defer cancel()
	err := m.lobby.Settled(settling)
	m.lobby.Stop()
	if m.late.Load() {
		select {
		case <-time.After(min(beginTime, m.limits.ShutdownGrace)):
		case <-ctx.Done():
		}
	}
	if err == nil || ctx.Err() != nil {
		return cmp.Or(ctx.Err(), closing)
	}
	for rt := range m.allRoutes {
		rt.Close() // which refuses what is queued
	}
	return fmt.Errorf("oneport: connections were refused because their servers did not accept them "+
		"within %v (Limits.DecideTimeout)", m.limits.DecideTimeout)
}

// finish closes the routes when all has settled, and waits until the connections whose requests are dispatched have
// ended.
func (m *Mux) finish(ctx context.Context) error {
	defer m.closeRest()
	m.closeRoutes()
	return m.lobby.Empty(ctx)
}

// beginTime is how long servers have, after the last of the connections that were decided during a shutdown, to begin
// with it. When they are told to stop, grpc-go closes a connection on which it has done nothing, and net/http one of
// HTTP/2 whose first request it has not seen and one of HTTP/1 whose first request it is reading.
const beginTime = 100 * time.Millisecond

// noteServed notes that a server has got a connection.
func (m *Mux) noteServed() {
	if m.isStopping() {
		m.late.Store(true)
	}
}

// Close stops the mux at once. It closes the listener that the mux accepts from, all connections without a route, all
// connections whose requests are dispatched, and the listeners of the routes, which refuses the connections queued
// there. Close does not wait, and returns the error of closing the listener, if any.
func (m *Mux) Close() error {
	err := m.stopAccepting()
	m.closeRest()
	return err
}

func (m *Mux) stopAccepting() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isStopping() {
		return nil
	}
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
	defer m.alarms.Stop()
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
	select {
	case <-m.stop:
		return true
	default:
		return false
	}
}

// accepted takes charge of a connection from the listener below.
func (m *Mux) accepted(raw net.Conn) {
	if n := m.counters.accepted.Add(1); n%reachConns == 0 {
		go m.warnOfUnreached(n) // which calls the logger
	}
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

// maxIdle is how many goroutines wait for another connection when they are done with one. That spares the next ones a
// new goroutine, whose stack would grow with the depth of the calls.
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
// through a goroutine of its own the server would get it later, and at a higher cost. Users' code must not run here,
// since it could hold up all other connections.
func (m *Mux) deliverNow(c *pending) bool {
	if !c.source.Peeking() || !m.quick.Load() || m.OnMatch != nil || m.OnDispatch != nil ||
		m.logger().Enabled(context.Background(), slog.LevelDebug) {
		return false
	}
	rt := c.decideNow()
	if rt == nil || rt.requests == nil && !rt.queue.HasRoom(m.limits.QueueLength) {
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
	foreign := func(rt *requestRoute) bool { return rt.foreign }
	return effort(routes) <= few && !slices.ContainsFunc(routes, func(rt *route) bool {
		return rt.foreign || rt.requests != nil && slices.ContainsFunc(*rt.requests.routes.Load(), foreign)
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
