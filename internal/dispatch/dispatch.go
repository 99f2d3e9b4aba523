package dispatch

import (
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/alarm"
	"github.com/oneport-go/oneport/internal/caller"
	"github.com/oneport-go/oneport/internal/queue"
)

// Decisions that are no index of a target.
const (
	NotFound = -1 - iota // the stream is answered with status 404
	Refuse               // the stream is reset with REFUSED_STREAM
)

// A Dispatcher hands the streams of connections to targets. All fields but Lasting must be set.
type Dispatcher struct {
	// Decide returns the index of the target for a request, or NotFound or Refuse. The fields are valid until it returns.
	// It is called by several goroutines at once for different connections.
	Decide func(c net.Conn, fields []hpack.HeaderField) int

	// Lasting reports whether Decide returns this target, as it did for one request, for all requests of the connection
	// with the same fields. Nil means that it does not. It is called like Decide.
	Lasting func(target int) bool

	Limits Limits

	// EarlySettings are sent to a client that is waiting while no server has spoken to it.
	EarlySettings []http2.Setting

	Logger *slog.Logger

	// Alarms end the withholding of what servers write first.
	Alarms *alarm.Clock

	// AlwaysSplit has no connection pass through, so that tests reach the other mode with one server.
	AlwaysSplit bool

	adding  sync.Mutex
	targets atomic.Pointer[[]*Target]

	shared                   atomic.Int64
	split, notFound, refused atomic.Uint64
}

// Shared returns how many connections with a server there are at the moment that do not pass through to it alone, and
// how many there have been.
func (d *Dispatcher) Shared() (now int, total uint64) { return int(d.shared.Load()), d.split.Load() }

// Unmatched returns how many requests were answered with 404, and how many were refused that were for no target or for
// one that had no place for them.
func (d *Dispatcher) Unmatched() (notFound, refused uint64) {
	return d.notFound.Load(), d.refused.Load()
}

// Target adds a target, which has the name in the log. Its index is the number of targets added before it. Connections
// that are there already have no streams for it.
func (d *Dispatcher) Target(name string, addr net.Addr) *Target {
	d.adding.Lock()
	defer d.adding.Unlock()
	list := slices.Clip(d.all())
	t := &Target{name: name, addr: addr, index: len(list)}
	list = append(list, t)
	d.targets.Store(&list)
	return t
}

// all returns the targets.
func (d *Dispatcher) all() []*Target {
	if list := d.targets.Load(); list != nil {
		return *list
	}
	return nil
}

var aLongTimeAgo = time.Unix(1, 0)

// decide asks Decide. A panic costs the one stream.
func (d *Dispatcher) decide(c net.Conn, fields []hpack.HeaderField) (target int) {
	defer func() {
		if v := recover(); v != nil {
			logPanic(d, c, v)
			target = Refuse
		}
	}()
	return d.Decide(c, fields)
}

// A Target is the listener for one server.
type Target struct {
	name  string // in the log
	addr  net.Addr
	index int
	queue queue.Queue[*Conn]

	expiring sync.Mutex
	expiry   *time.Timer // of the next call of expire, or nil

	detect    sync.Once
	accepting atomic.Bool
	hideTLS   bool // the server would not take HTTP/2 from what has a ConnectionState

	accepted, requests atomic.Uint64
	faulty             atomic.Int64 // when it was last logged that the server has violated HTTP/2, in nanoseconds
}

// TargetStats are the counts of a target.
type TargetStats struct {
	Accepted uint64 // connections that its server has accepted
	Queued   int    // those in its queue at the moment
	Requests uint64 // requests that its server was sent
}

// Stats returns the counts.
func (t *Target) Stats() TargetStats {
	return TargetStats{Accepted: t.accepted.Load(), Queued: t.queue.Len(), Requests: t.requests.Load()}
}

// Accept returns the server's side of a client connection that has a stream for it. Where that is one of TLS, the
// result has a method ConnectionState, but not for net/http: its Server (of Go 1.26) takes no HTTP/2 from what has that
// method and is no *tls.Conn.
func (t *Target) Accept() (net.Conn, error) {
	t.detect.Do(func() {
		t.hideTLS = caller.Is(caller.NetHTTP)
		t.accepting.Store(true)
	})
	v, ok := t.queue.Pop()
	if !ok {
		return nil, &net.OpError{Op: "accept", Net: t.addr.Network(), Addr: t.addr, Err: net.ErrClosed}
	}
	t.accepted.Add(1)
	v.c.accepted()
	return v.outer(t.hideTLS), nil
}

// push queues the server's side of a connection, for which room is reserved. It reports false if the target was closed.
func (t *Target) push(v *Conn, l *Limits) bool {
	v.expires = now() + instant(l.AcceptTimeout)
	if !t.queue.PushReserved(v) {
		return false
	}
	t.expireLater(l, l.AcceptTimeout)
	return true
}

// expireLater has expire called, unless it will be already: one timer for the target costs those nothing that are
// accepted at once.
func (t *Target) expireLater(l *Limits, in time.Duration) {
	t.expiring.Lock()
	defer t.expiring.Unlock()
	if t.expiry == nil && !t.queue.Closed() {
		t.expiry = time.AfterFunc(in, func() { t.expire(l) })
	}
}

// expire refuses what has waited in the queue for AcceptTimeout, up to a quarter more. While no server has accepted a
// connection that passes through, nobody reads from its client, and sees it go.
func (t *Target) expire(l *Limits) {
	at := now()
	for _, v := range t.queue.Remove(func(v *Conn) bool { return v.expires <= at }) {
		v.reject(ErrTargetFull)
	}
	t.expiring.Lock()
	t.expiry = nil
	t.expiring.Unlock()
	if t.queue.Len() > 0 {
		t.expireLater(l, l.AcceptTimeout/4)
	}
}

// stopExpiring stops the timer. The queue is closed.
func (t *Target) stopExpiring() {
	t.expiring.Lock()
	defer t.expiring.Unlock()
	if t.expiry != nil {
		t.expiry.Stop()
		t.expiry = nil
	}
}

// Close ends the target: streams for it that have no connection to its server yet are refused. It always returns nil.
func (t *Target) Close() error {
	for _, v := range t.queue.Close() {
		v.reject(ErrTargetClosed)
	}
	t.stopExpiring()
	return nil
}

// Accepting reports whether Accept was called.
func (t *Target) Accepting() bool { return t.accepting.Load() }

// IsClosed reports whether Close was called.
func (t *Target) IsClosed() bool { return t.queue.Closed() }

// Addr returns the address that the target was made with.
func (t *Target) Addr() net.Addr { return t.addr }

// Why a connection has ended that no server has accepted.
var (
	ErrIdle         = errors.New("no request came in time that a server has accepted")
	ErrUnmatched    = errors.New("no route took a request")
	ErrTargetClosed = errors.New("the server of its route has stopped accepting")
	ErrTargetFull   = errors.New("the server of its route does not accept fast enough")
)

var errClientGone = errors.New("the client's connection has ended")
