package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/caller"
)

// Decisions that are no index of a target.
const (
	NotFound = -1 - iota // the stream is answered with status 404
	Refuse               // the stream is reset with REFUSED_STREAM
)

// A Dispatcher hands the streams of connections to targets.
type Dispatcher struct {
	// Decide returns the index of the target for a request, or NotFound or Refuse. The fields are valid until it returns.
	// It is called by several goroutines at once for different connections.
	Decide func(c net.Conn, fields []hpack.HeaderField) int

	Limits Limits

	// EarlySettings are sent to a client that is waiting while no server has spoken to it.
	EarlySettings []http2.Setting

	Logger *slog.Logger // nil means slog.Default

	// OnAbuse, if not nil, is called for each connection that is ended because it is over a limit.
	OnAbuse func(c net.Conn, err error)

	// OnServer, if not nil, is called for each client connection and target when the first stream for it has come. early
	// says that the client was sent EarlySettings. The connection may be locked meanwhile, and only that.
	OnServer func(c net.Conn, target int, early bool)

	// AlwaysSplit has no connection pass through, so that tests reach the other mode with one server.
	AlwaysSplit bool

	targets []*Target
	stats   stats
	refused sync.Map // reason to the time when it was last logged

	mu     sync.Mutex
	waits  map[*conn]struct{} // connections that no server has had a stream of
	closed bool
}

type stats struct {
	conns, split, streams, notFound, refused, abuse atomic.Uint64
}

// Stats are counts since the start.
type Stats struct {
	Conns    uint64 // client connections
	Split    uint64 // of these, those that do not pass through any more
	Streams  uint64 // streams that went to a server
	NotFound uint64 // streams that were answered with 404
	Refused  uint64 // streams that were reset with REFUSED_STREAM before a server had them
	Abuse    uint64 // connections that were ended because they were over a limit
}

// Stats returns the counts.
func (d *Dispatcher) Stats() Stats {
	s := &d.stats
	return Stats{
		Conns: s.conns.Load(), Split: s.split.Load(), Streams: s.streams.Load(), NotFound: s.notFound.Load(),
		Refused: s.refused.Load(), Abuse: s.abuse.Load(),
	}
}

// Target adds a target, whose queue of connections that were not accepted yet has the length. Its index is the number of
// targets added before it.
func (d *Dispatcher) Target(addr net.Addr, queueLength int) *Target {
	t := &Target{addr: addr, max: queueLength, index: len(d.targets)}
	t.cond.L = &t.mu
	d.targets = append(d.targets, t)
	return t
}

// Handle takes charge of a client connection.
func (d *Dispatcher) Handle(sock net.Conn) {
	d.stats.conns.Add(1)
	c := newConn(d, sock)
	d.mu.Lock()
	closed := d.closed
	if !closed {
		if d.waits == nil {
			d.waits = make(map[*conn]struct{})
		}
		d.waits[c] = struct{}{}
	}
	d.mu.Unlock()
	if closed {
		sock.Close()
		return
	}
	go c.open()
}

// forget takes c out of the connections that no server has had a stream of. It is called with c.mu held.
func (d *Dispatcher) forget(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waits, c)
}

// Close closes the targets, and tells the clients that no server has had a request of to go elsewhere. Other connections
// go on, until their servers end them.
func (d *Dispatcher) Close() {
	d.mu.Lock()
	d.closed = true
	waits := slices.Collect(maps.Keys(d.waits))
	d.mu.Unlock()
	for _, t := range d.targets {
		t.Close()
	}
	for _, c := range waits {
		c.dismiss(errClosed.Error())
	}
}

func (d *Dispatcher) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

var aLongTimeAgo = time.Unix(1, 0)

// decide asks Decide. A panic costs the one stream.
func (d *Dispatcher) decide(c net.Conn, fields []hpack.HeaderField) (target int) {
	defer func() {
		if v := recover(); v != nil {
			d.log(slog.LevelError, "oneport: panic in a matcher", slog.Any("remote", c.RemoteAddr()), slog.Any("panic", v))
			target = Refuse
		}
	}()
	return d.Decide(c, fields)
}

// abuse reports a connection that is over a limit.
func (d *Dispatcher) abuse(c net.Conn, reason string) {
	d.stats.abuse.Add(1)
	err := fmt.Errorf("oneport: connection from %v ended: %s", c.RemoteAddr(), reason)
	now := time.Now()
	if last, ok := d.refused.Load(reason); !ok || now.Sub(last.(time.Time)) >= time.Second {
		d.refused.Store(reason, now)
		d.log(slog.LevelWarn, "oneport: connection ended with ENHANCE_YOUR_CALM",
			slog.Any("remote", c.RemoteAddr()), slog.String("reason", reason))
	}
	if d.OnAbuse != nil {
		d.OnAbuse(c, err)
	}
}

// joined reports that c has a server.
func (d *Dispatcher) joined(c *conn, target int, early bool) {
	if d.OnServer == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			d.log(slog.LevelError, "oneport: panic in a hook", slog.Any("remote", c.sock.RemoteAddr()), slog.Any("panic", v))
		}
	}()
	d.OnServer(c.sock, target, early)
}

func (d *Dispatcher) log(level slog.Level, msg string, attrs ...slog.Attr) {
	logger := d.Logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.LogAttrs(context.Background(), level, msg, attrs...)
}

// A Target is the listener for one server.
type Target struct {
	addr  net.Addr
	max   int
	index int

	detect  sync.Once
	hideTLS bool // the server would not take HTTP/2 from what has a ConnectionState

	mu     sync.Mutex
	cond   sync.Cond
	queue  []*Conn
	closed bool
}

// Accept returns the server's side of a client connection that has a stream for it. Where that is one of TLS, the result
// has a method ConnectionState, but not for net/http: its Server (of Go 1.26) takes no HTTP/2 from what has that method and
// is no *tls.Conn.
func (t *Target) Accept() (net.Conn, error) {
	t.detect.Do(func() { t.hideTLS = caller.Is(caller.NetHTTP) })
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) == 0 && !t.closed {
		t.cond.Wait()
	}
	if t.closed {
		return nil, &net.OpError{Op: "accept", Net: t.addr.Network(), Addr: t.addr, Err: net.ErrClosed}
	}
	v := t.queue[0]
	t.queue = t.queue[1:]
	return v.outer(t.hideTLS), nil
}

// Close ends the target: streams for it that have no connection to its server yet are refused. It always returns nil.
func (t *Target) Close() error {
	t.mu.Lock()
	t.closed = true
	queue := t.queue
	t.queue = nil
	t.cond.Broadcast()
	t.mu.Unlock()
	for _, v := range queue {
		v.reject()
	}
	return nil
}

// Addr returns the address that the target was made with.
func (t *Target) Addr() net.Addr { return t.addr }

// deliver puts a connection into the queue, if there is room.
func (t *Target) deliver(v *Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.queue) >= t.max {
		return false
	}
	t.queue = append(t.queue, v)
	t.cond.Signal()
	return true
}

var errClientGone = errors.New("the client's connection has ended")
