package oneport

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/accepting"
	"github.com/oneport-go/oneport/internal/h2"
)

// ErrClosed is what [Mux.Serve] returns after Shutdown or Close, or when the listener below was closed. It is also
// [net.ErrClosed].
var ErrClosed = fmt.Errorf("oneport: mux closed: %w", net.ErrClosed)

// The defaults of the fields of [Mux].
const (
	DefaultDecideTimeout          = 10 * time.Second
	DefaultIdleTimeout            = 5 * time.Minute
	DefaultMaxPreviewBytes        = 16 << 10
	DefaultMaxFramesBeforeHeaders = h2.DefaultMaxFrames
	DefaultMaxHeaderListBytes     = h2.DefaultMaxHeaderListSize
	DefaultMaxUndecided           = 10_000
	DefaultQueueLength            = 1024
)

// A Mux serves several protocols on one listener. It looks at the first bytes of each accepted connection and hands it
// to the first route whose matcher takes it; each route is a [net.Listener] for a server.
//
// Make one with [New], set its fields, add routes with Match or Route, then call Serve. The fields must not be changed
// after that. All methods may be called by several goroutines at once.
type Mux struct {
	// DecideTimeout is the time a connection has, from when it was accepted, to send what its route depends on and to
	// be taken into the route's queue. After that it is refused. Zero means 10 seconds.
	DecideTimeout time.Duration

	// IdleTimeout takes the place of DecideTimeout for an HTTP/2 client that has acknowledged the early SETTINGS frame: its
	// connection is ready, and it has no request yet. gRPC clients connect ahead of their first call. Until that comes the
	// mux answers the client's SETTINGS and PING frames. When the time is up the client is told to connect again when it
	// needs to (GOAWAY with NO_ERROR). Zero means 5 minutes; a value below DecideTimeout means that.
	IdleTimeout time.Duration

	// WhenTimeUp says what happens to a connection whose DecideTimeout is up. The zero value refuses it.
	WhenTimeUp TimeUpPolicy

	// MaxPreviewBytes is how many of a connection's first bytes are looked at. A connection for which they do not suffice
	// is refused; the matchers wait for no more, and no route below takes it instead. Zero means 16 KiB.
	MaxPreviewBytes int

	// MaxFramesBeforeHeaders is how many HTTP/2 frames a client may send up to the end of its first header block. After
	// that the connection is refused with ENHANCE_YOUR_CALM. It holds, as all the rules of HTTP/2 do, where a route asks for
	// the header block; HTTP2 alone does not. Zero means 100.
	MaxFramesBeforeHeaders int

	// AllowMissingSettings lets HTTP/2 clients leave out the SETTINGS frame that has to be the first one of a client. RFC
	// 9113, 3.4 makes that a connection error, for which they are refused otherwise; with it, that is left to the server.
	AllowMissingSettings bool

	// MaxHeaderListBytes bounds the first header block of an HTTP/2 connection once it is decompressed, as RFC 9113,
	// 6.5.2 counts: 32 bytes for each field beside its name and value. Zero means 64 KiB.
	MaxHeaderListBytes int

	// MaxUndecided is how many connections may be without a route at once. One more, and the connection that has been
	// waiting longest is refused: a client that talks needs a moment only, so those refused are the silent ones. It has to
	// be larger than the number of connections that arrive within a client's round-trip time. Zero means 10,000.
	MaxUndecided int

	// QueueLength is how many connections can wait in a route until its server accepts them. It applies to routes that
	// are added afterwards. Zero means 1024.
	QueueLength int

	// WhenQueueFull says what happens to a connection whose route has a full queue. The zero value waits for room.
	WhenQueueFull QueuePolicy

	// EarlySettings are the contents of the early SETTINGS frame, sent to an HTTP/2 client whose request is not there when
	// the mux looks, while a route depends on it: it might wait for the server's SETTINGS. They bind the server behind: see
	// [DefaultEarlySettings], which nil stands for. An empty slice that is not nil sends an empty frame.
	EarlySettings []http2.Setting

	// Logger gets errors, and refused connections at level Warn, at most once per second and reason. At level Debug are
	// those that are nobody's concern: the client went away or said nothing at all (as port scans, health checks and
	// browsers that connect ahead do), was idle, or came during the shutdown; and all of them if OnRefuse is set. Matched
	// connections are at level Debug too, each of them. Nil means [slog.Default].
	Logger *slog.Logger

	// OnMatch, if not nil, is called for each connection that has found its route, before its server gets it. It must not
	// use the connection but to ask for its addresses, and should return quickly. OnRefuse can still follow, if the route
	// is closed or its queue stays full.
	OnMatch func(Matched)

	// OnRefuse, if not nil, is called for each connection that is closed without having reached a server, before it is
	// answered. What holds for OnMatch holds here.
	OnRefuse func(Refused)

	root     net.Listener
	routes   atomic.Pointer[[]*route]
	buffers  bufferPool
	spare    sync.Pool   // of *undecided
	early    []byte      // the early SETTINGS frame
	quick    atomic.Bool // see quickToDecide
	counters counters
	refusals logLimiter
	work     chan *undecided // for goroutines that are idle
	idle     atomic.Int32    // how many these are

	mu       sync.Mutex
	serving  bool
	stopping bool              // no connection is accepted any more, and the undecided ones are refused
	closed   bool              // everything is closed
	waiting  connList          // connections without a route, oldest first
	leaving  connList          // connections that are being refused, oldest first
	alpn     map[string]uint64 // how many connections inside TLS have negotiated which protocol
	pending  sync.WaitGroup    // Serve, and every connection from Accept to its server's Accept or its end
	stop     chan struct{}     // closed when stopping is set
	done     chan struct{}     // closed when closed is set
}

// Matched describes a connection that has found its route.
type Matched struct {
	Conn          net.Conn             // as it was accepted
	TLS           *tls.ConnectionState // of the TLS that the mux has terminated, with the protocol of ALPN; nil without
	Route         string               // the route's name
	Protocol      Protocol
	Upgraded      bool          // by Upgrade: h2c
	EarlySettings bool          // an early SETTINGS frame was sent: the request was not there when the mux looked
	Waited        time.Duration // since the connection was accepted
}

// Refused describes a connection that is closed without having reached a server.
type Refused struct {
	Conn          net.Conn             // as it was accepted
	TLS           *tls.ConnectionState // of the TLS that the mux has terminated; nil without
	Route         string               // the name of the route that it had found, if any
	Protocol      Protocol
	EarlySettings bool // an early SETTINGS frame was sent
	Reason        RefuseReason
	Err           error         // what happened, in a sentence
	Waited        time.Duration // since the connection was accepted
}

// New makes a Mux that accepts from l.
func New(l net.Listener) *Mux {
	m := &Mux{root: l, work: make(chan *undecided), stop: make(chan struct{}), done: make(chan struct{})}
	m.routes.Store(new([]*route))
	return m
}

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
	rt := newRoute(m, r)
	m.addTo(&m.routes, rt)
	return rt
}

// addTo adds a route to those of m or of what is inside TLS.
func (m *Mux) addTo(list *atomic.Pointer[[]*route], rt *route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	routes := append(slices.Clip(*list.Load()), rt)
	if m.serving && list == &m.routes && !quickToDecide(routes) {
		m.quick.Store(false) // before the accept loop sees the route
	}
	list.Store(&routes)
	if m.closed {
		rt.Close()
	}
}

// allRoutes yields the routes in order, those inside TLS behind the one that leads to them.
func (m *Mux) allRoutes(yield func(*route) bool) {
	for _, rt := range *m.routes.Load() {
		if !yield(rt) {
			return
		}
		if rt.secure == nil {
			continue
		}
		for _, inner := range *rt.secure.routes.Load() {
			if !yield(inner) {
				return
			}
		}
	}
}

// Serve accepts connections and hands them to the routes until the mux or the listener below is closed. It always
// returns an error: [ErrClosed] after that, else what makes it impossible to go on, such as a Mux without a route or an
// error of Accept that is not known to pass. Those that pass (too many open files, a connection that was aborted before
// it was accepted, a timeout) are waited out.
//
// When Serve returns, no connection is undecided any more, those that had found a route have reached their servers, and
// the routes' listeners are closed. Where a server does not accept, it waits no longer than DecideTimeout for it.
func (m *Mux) Serve() error {
	if err := m.begin(); err != nil {
		return err
	}
	err := m.acceptAll()
	stopped := m.isStopping()
	m.pending.Done()
	if stopped {
		<-m.done // whoever called Shutdown or Close says how long to wait
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), m.decideTimeout())
	defer cancel()
	if m.Shutdown(ctx) != nil {
		m.log(slog.LevelWarn, "oneport: closed connections that their servers had not accepted when the listener was closed")
	}
	return err
}

func (m *Mux) begin() error {
	early := m.earlySettings()
	for _, s := range early {
		if err := s.Valid(); err != nil {
			return fmt.Errorf("oneport: EarlySettings: %v: %w", s, err)
		}
	}
	for _, rt := range *m.routes.Load() {
		if rt.secure != nil {
			if err := rt.secure.check(); err != nil {
				return err
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.stopping:
		return ErrClosed
	case m.serving:
		return errors.New("oneport: Serve was called twice")
	case len(*m.routes.Load()) == 0:
		return errors.New("oneport: Serve was called before Match: there is no route that a connection could take")
	}
	indexHosts(*m.routes.Load())
	for _, rt := range *m.routes.Load() {
		if rt.secure != nil {
			indexHosts(*rt.secure.routes.Load())
		}
	}
	m.quick.Store(quickToDecide(*m.routes.Load()))
	m.serving = true
	m.early = h2.AppendSettings(nil, early...)
	m.buffers.size = min(m.maxPreviewBytes(), DefaultMaxPreviewBytes) // for more than that, the bytes are taken out
	m.pending.Add(1)
	return nil
}

// acceptAll accepts until an error that does not pass.
func (m *Mux) acceptAll() error {
	var backoff time.Duration
	for {
		c, err := m.root.Accept()
		switch {
		case err == nil:
			backoff = 0
			m.accepted(c)
		case m.isStopping(), errors.Is(err, net.ErrClosed):
			return ErrClosed
		case accepting.Passes(err):
			backoff = accepting.Backoff(backoff)
			m.counters.acceptErrors.Add(1)
			m.log(slog.LevelWarn, "oneport: accepting failed, trying again",
				slog.Any("err", err), slog.Duration("in", backoff))
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				m.refuseOldest() // whose file is worth more to a client that talks
			}
			select {
			case <-time.After(backoff):
			case <-m.stop:
				return ErrClosed
			}
		default:
			return fmt.Errorf("oneport: accepting on %v: %w", m.root.Addr(), err)
		}
	}
}

// Shutdown stops the mux gracefully: it closes the listener below, refuses at once the connections that have no route
// yet, waits until those that have one are accepted by their servers, and closes the routes' listeners. It does not wait
// for the servers to be done with them. Their Serve methods return an error that is [net.ErrClosed], unless they were told
// to stop before. To stop everything gracefully, call Shutdown first and the servers' own methods after it.
//
// If ctx ends first, Shutdown closes what is left, as Close does, and returns the context's error. Otherwise it returns
// nil, or the error of closing the listener.
func (m *Mux) Shutdown(ctx context.Context) error {
	err := m.stopAccepting()
	done := make(chan struct{})
	go func() {
		m.pending.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	m.closeRest()
	return err
}

// Close stops the mux at once: it closes the listener below, every connection that has no route yet, and the routes'
// listeners, with which the connections in their queues are refused. It does not wait for anything, and returns the
// error of closing the listener, if any.
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
	err := m.root.Close()
	for u := m.waiting.oldest; u != nil; {
		next := u.newer
		if u.wake == nil { // else it has a route, and waits for room in its queue
			m.interrupt(u, ReasonShutdown)
		}
		u = next
	}
	if errors.Is(err, net.ErrClosed) {
		return nil // closed from outside, which is how Serve came to an end
	}
	return err
}

func (m *Mux) closeRest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		close(m.done)
	}
	for u := m.leaving.oldest; u != nil; u = u.newer {
		u.raw.Close()
	}
	for rt := range m.allRoutes {
		rt.Close()
	}
}

func (m *Mux) isStopping() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopping
}

// accepted takes charge of a connection from the listener below.
func (m *Mux) accepted(c net.Conn) {
	m.counters.accepted.Add(1)
	u, _ := m.spare.Get().(*undecided)
	if u == nil {
		u = new(undecided)
	}
	u.start(m, c)
	m.pending.Add(1) // while Serve is pending itself, so that it cannot come after a Wait that has seen zero
	if m.handOverNow(u) {
		return
	}

	m.mu.Lock()
	m.waiting.add(u)
	if m.stopping {
		m.interrupt(u, ReasonShutdown)
	} else if m.waiting.n > m.maxUndecided() {
		m.interrupt(m.waiting.oldest, ReasonTooMany)
	}
	m.mu.Unlock()
	select {
	case m.work <- u:
	default:
		go m.handleSome(u)
	}
}

// maxIdle is how many goroutines wait for another connection when they are done with one. That spares the next ones a new
// goroutine, whose stack would grow with the depth of the calls.
const maxIdle = 8

// handleSome handles u, and other connections after it.
func (m *Mux) handleSome(u *undecided) {
	for {
		m.handle(u)
		if m.idle.Add(1) > maxIdle {
			m.idle.Add(-1)
			return
		}
		select {
		case u = <-m.work:
			m.idle.Add(-1)
		case <-m.stop:
			return
		}
	}
}

// handOverNow brings a connection whose first bytes are there already to its route, where that takes no time: on the way
// through a goroutine of its own the server would get it later, and at a higher cost. Users' code must not run here, since
// it could hold up all other connections.
func (m *Mux) handOverNow(u *undecided) bool {
	if !u.peeking || !m.quick.Load() || m.OnMatch != nil || m.logger().Enabled(context.Background(), slog.LevelDebug) {
		return false
	}
	if rt := u.glance(); rt == nil || !rt.deliverNow(u) {
		return false
	}
	m.finish(u)
	return true
}

// quickToDecide reports whether asking routes takes no time that other connections would notice.
func quickToDecide(routes []*route) bool {
	const few = 32
	return effort(routes) <= few && !slices.ContainsFunc(routes, func(rt *route) bool { return rt.foreign })
}

// refuseOldest refuses the connection that has been without a route for longest.
func (m *Mux) refuseOldest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting.oldest != nil {
		m.interrupt(m.waiting.oldest, ReasonTooMany)
	}
}

// interrupt has u refused, for the reason. The caller holds mu.
func (m *Mux) interrupt(u *undecided, reason RefuseReason) {
	m.sendAway(u)
	u.interrupt(reason)
}

// sendAway moves u to the connections that are being refused, which are bounded like those that wait: the oldest has had
// its time to read the answer. The caller holds mu.
func (m *Mux) sendAway(u *undecided) {
	m.waiting.remove(u)
	m.leaving.remove(u)
	m.leaving.add(u)
	if m.leaving.n > m.maxUndecided() {
		m.leaving.oldest.raw.Close()
		m.leaving.remove(m.leaving.oldest)
	}
}

// handle brings a connection to its route or to its end.
func (m *Mux) handle(u *undecided) {
	rt, refused := u.decide()
	if refused == nil {
		refused = rt.deliver(u)
	}
	if refused != nil {
		m.mu.Lock()
		m.sendAway(u)
		m.mu.Unlock()
		m.refuse(u.conn, rt, refused)
		m.forget(u)
	}
	m.finish(u)
}

// finish is the end of u's way.
func (m *Mux) finish(u *undecided) {
	u.reset()
	m.spare.Put(u)
	m.pending.Done()
}

// forget takes u out of the lists, and so out of the reach of others.
func (m *Mux) forget(u *undecided) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting.remove(u)
	m.leaving.remove(u)
}

func (m *Mux) logger() *slog.Logger { return cmp.Or(m.Logger, slog.Default()) }

func (m *Mux) log(level slog.Level, msg string, attrs ...slog.Attr) {
	m.logger().LogAttrs(context.Background(), level, msg, attrs...)
}

// logPanic reports what a user's code panicked with. It must be called where the stack is still that of the panic.
func (m *Mux) logPanic(who string, c net.Conn, v any) {
	stack := debug.Stack()
	if p, ok := v.(*readerPanic); ok {
		v, stack = p.value, p.stack
	}
	m.log(slog.LevelError, "oneport: panic in "+who,
		slog.Any("remote", c.RemoteAddr()), slog.Any("panic", v), slog.String("stack", string(stack)))
}

func (m *Mux) earlySettings() []http2.Setting {
	if m.EarlySettings == nil {
		return DefaultEarlySettings()
	}
	return m.EarlySettings
}

func (m *Mux) decideTimeout() time.Duration { return orDefault(m.DecideTimeout, DefaultDecideTimeout) }
func (m *Mux) idleTimeout() time.Duration {
	return max(orDefault(m.IdleTimeout, DefaultIdleTimeout), m.decideTimeout())
}
func (m *Mux) maxPreviewBytes() int { return orDefault(m.MaxPreviewBytes, DefaultMaxPreviewBytes) }
func (m *Mux) maxUndecided() int    { return orDefault(m.MaxUndecided, DefaultMaxUndecided) }
func (m *Mux) queueLength() int     { return orDefault(m.QueueLength, DefaultQueueLength) }

// orDefault takes values that make no sense as a bound for zero, so that no setting means "no limit".
func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}
