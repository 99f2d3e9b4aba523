package dispatch

import (
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

	// AlwaysSplit has no connection pass through, so that tests reach the other mode with one server.
	AlwaysSplit bool

	targets []*Target
	stats   stats
	refused sync.Map // reason to the time when it was last logged

	mu      sync.Mutex
	opening map[*conn]struct{}
	closed  bool
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
		if d.opening == nil {
			d.opening = make(map[*conn]struct{})
		}
		d.opening[c] = struct{}{}
	}
	d.mu.Unlock()
	if closed {
		sock.Close()
		return
	}
	go c.open()
}

// opened takes c out of the connections without a request. It reports false if Close was faster.
func (d *Dispatcher) opened(c *conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.opening, c)
	return !d.closed
}

// Close closes the targets, and tells the clients that have not made a request to go elsewhere. Connections with
// requests go on, until their servers end them.
func (d *Dispatcher) Close() {
	d.mu.Lock()
	d.closed = true
	for c := range d.opening {
		c.sock.SetReadDeadline(aLongTimeAgo)
	}
	d.mu.Unlock()
	for _, t := range d.targets {
		t.Close()
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

	detect  sync.Once // of the server
	netHTTP bool      // it is net/http's

	mu     sync.Mutex
	cond   sync.Cond
	queue  []net.Conn
	closed bool
}

// Accept returns the server's side of a client connection that has a stream for it.
//
// net/http speaks HTTP/2 on no connection that shows a TLS state and is no *tls.Conn, so it gets one that does not.
func (t *Target) Accept() (net.Conn, error) {
	t.detect.Do(func() { t.netHTTP = caller.Is(caller.NetHTTP) })
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) == 0 && !t.closed {
		t.cond.Wait()
	}
	if t.closed {
		return nil, &net.OpError{Op: "accept", Net: t.addr.Network(), Addr: t.addr, Err: net.ErrClosed}
	}
	c := t.queue[0]
	t.queue = t.queue[1:]
	if t.netHTTP {
		return underlying(c), nil
	}
	return c, nil
}

// Close ends the target: streams for it that have no connection to its server yet are refused. It always returns nil.
func (t *Target) Close() error {
	t.mu.Lock()
	t.closed = true
	queue := t.queue
	t.queue = nil
	t.cond.Broadcast()
	t.mu.Unlock()
	for _, c := range queue {
		underlying(c).reject()
	}
	return nil
}

// Addr returns the address that the target was made with.
func (t *Target) Addr() net.Addr { return t.addr }

// deliver puts a connection into the queue, if there is room.
func (t *Target) deliver(c net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.queue) >= t.max {
		return false
	}
	t.queue = append(t.queue, c)
	t.cond.Signal()
	return true
}

var errClientGone = errors.New("the client's connection has ended")
