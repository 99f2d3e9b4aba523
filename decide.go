package oneport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/h2upgrade"
)

// undecided is a connection on its way from Accept to its route.
type undecided struct {
	transit

	// These keep their memory from one connection to the next.
	preview Preview
	peeker  peeker // if peeking, looks at the bytes in the socket
}

// transit is what an undecided has of one connection.
type transit struct {
	mux      *Mux
	raw      net.Conn // as it was accepted
	conn     net.Conn // what the server gets the bytes from: raw, or a *tls.Conn above it
	accepted time.Time
	since    time.Time // when the time to decide began: accepted, or the end of the TLS handshake

	routes []*route
	next   int  // the first route that has not said NoMatch
	asking int  // the route that is being asked
	early  bool // early SETTINGS are sent
	stoodIn
	turnedAway bool         // no route takes it, and it has yet to say what it wants
	spoken     <-chan error // if not nil, something is being written, and this tells the result
	rest       time.Time    // when the mux is to stand in for an idle client

	// What was known when the waiting began, since the buffer of peeker is not kept then.
	protocol Protocol
	language Protocol
	seen     int

	peeking     bool
	empty       bool   // a look has just found nothing
	judged      bool   // what a look has just found leaves it undecided
	onSocket    bool   // peeker can look at the socket below TLS
	consumed    []byte // what was taken out of the connection, if not peeking
	first       []byte // what the server reads before that, in place of an upgrade
	window      *h2upgrade.WindowFilter
	handshaking *Secure // TLS is being terminated for its routes

	// The following is guarded by mux.mu.
	older, newer *undecided
	in           *connList
	interrupted  RefuseReason
	armed        bool          // deadlines are set, and interrupt may set others
	timer        *time.Timer   // stands in for deadlines that the connection does not have
	wake         chan struct{} // if not nil, closed by interrupt
}

func (u *undecided) start(m *Mux, c net.Conn) {
	now := time.Now()
	u.mux, u.raw, u.conn, u.accepted, u.since = m, c, c, now, now
	u.routes = *m.routes.Load()
	u.preview.conn = c
	u.preview.h2.MaxFrames = orDefault(m.MaxFramesBeforeHeaders, DefaultMaxFramesBeforeHeaders)
	u.preview.h2.MaxHeaderListSize = orDefault(m.MaxHeaderListBytes, DefaultMaxHeaderListBytes)
	u.preview.h2.SettingsOptional = m.AllowMissingSettings
	u.peeking = u.peeker.init(c, &m.buffers)
}

// reset makes u ready for another connection.
func (u *undecided) reset() {
	if u.timer != nil {
		u.timer.Stop()
	}
	u.preview.reset()
	u.transit = transit{}
}

// decide finds the route of the connection. Until then the connection is in mux.waiting, where it can be interrupted.
func (u *undecided) decide() (rt *route, refused *refusal) {
	defer func() {
		if v := recover(); v != nil {
			rt, refused = nil, u.panicked(v)
		}
		u.endReaders()
		u.peeker.release()
		u.hearOut()
	}()
	if !u.peeking {
		// To ask a connection of another package for its address can mean to read from it, as behind a load balancer that
		// announces its clients by the PROXY protocol. So that this ends, whoever asks, the deadlines are set before.
		if refused = u.arm(); refused != nil {
			return nil, refused
		}
	}
	rt, refused = u.find()
	if refused == nil && rt.secure != nil {
		if refused = u.handshake(rt.secure); refused == nil {
			rt, refused = u.find()
		}
	}
	if refused == nil && u.preview.upgrading {
		refused = u.switchToHTTP2()
	}
	if refused == nil {
		u.hear() // if that failed, the server will see it
		refused = u.settle()
	}
	if refused != nil {
		return rt, refused
	}
	u.matched(rt)
	return rt, nil
}

// glance finds the route of a connection whose bytes at hand suffice for that, if there is nothing else to be done than to
// hand it over. It waits for nothing. If it finds none, decide goes on from there, or starts anew.
func (u *undecided) glance() *route {
	defer u.peeker.release()
	p := &u.preview
	data, ended, err := u.peeker.peek(0, false)
	if err != nil || len(data) == 0 {
		u.empty = err == nil && !ended
		return nil
	}
	p.show(data, ended, u.mux.maxPreviewBytes())
	rt, refused := u.judge()
	u.protocol, u.language = p.Protocol(), p.language()
	if rt == nil && refused == nil {
		u.judged, u.seen = true, len(data)
	}
	p.data = nil
	if rt != nil && (rt.secure != nil || p.upgrading) {
		return nil
	}
	return rt
}

// matched counts and reports a connection that has found its route.
func (u *undecided) matched(rt *route) {
	m, p := u.mux, &u.preview
	u.protocol, u.language = p.Protocol(), p.language()
	if p.upgrading {
		u.protocol, u.language = ProtocolHTTP2, ProtocolHTTP2
		m.counters.upgraded.Add(1)
	}
	if p.secured != nil && u.protocol == ProtocolHTTP2 && p.alpn() == "" {
		m.counters.bareHTTP2.Add(1)
	}
	if logger := m.logger(); logger.Enabled(context.Background(), slog.LevelDebug) {
		logger.LogAttrs(context.Background(), slog.LevelDebug, "oneport: matched",
			slog.Any("remote", u.raw.RemoteAddr()), slog.String("route", rt.name),
			slog.String("protocol", u.protocol.String()), slog.Bool("upgraded", p.upgrading),
			slog.Bool("tls", p.secured != nil), slog.String("alpn", p.alpn()), slog.Bool("early_settings", u.early))
	}
	if m.OnMatch != nil {
		m.OnMatch(Matched{
			Conn:          u.raw,
			TLS:           p.secured,
			Route:         rt.name,
			Protocol:      u.protocol,
			Upgraded:      p.upgrading,
			EarlySettings: u.early,
			Waited:        time.Since(u.accepted),
		})
	}
}

// endReaders ends the matchers that wait in a coroutine of their own.
func (u *undecided) endReaders() {
	if p := u.preview.endReaders(); p != nil {
		u.mux.logPanic("a ReaderFunc that was told to end", u.raw, p)
	}
}

// find looks, asks and waits until a route takes the connection or it is to be refused.
func (u *undecided) find() (*route, *refusal) {
	p := &u.preview
	for wait := false; ; wait = true {
		if u.judged {
			u.judged = false
		} else if data, ended, err := u.look(wait); err == nil {
			p.show(data, ended, u.mux.maxPreviewBytes())
			if rt, refused := u.judge(); rt != nil || refused != nil {
				return rt, refused
			}
			// The buffer is not kept while the connection waits, so note what the refusal would need.
			u.protocol, u.language, u.seen = p.Protocol(), p.language(), len(p.data)
			if p.secured != nil && !u.early && earlySettingsDue(p) && u.takeReceived() {
				continue
			}
		} else if rt, refused := u.failed(err); rt != nil || refused != nil {
			return rt, refused
		}
		if refused := u.arm(); refused != nil {
			return nil, refused
		}
		if b := u.say(); len(b) > 0 {
			if err := u.speak(b); err != nil {
				if rt, refused := u.failed(err); rt != nil || refused != nil {
					return rt, refused
				}
			}
		}
	}
}

// judge asks the routes, and the rules that hold for all of them.
func (u *undecided) judge() (*route, *refusal) {
	p := &u.preview
	if refused := u.contradicted(); refused != nil {
		return nil, refused
	}
	rt, open := u.ask()
	switch {
	case p.h2State == h2.Error:
		// A route has asked for the header block, so what breaks the rules before it is not left to the routes below.
		return nil, u.unmatched()
	case rt != nil:
		return rt, nil
	case !open && (u.awaitsRedirect() || u.awaitsRequest()):
		return nil, nil
	case !open:
		return nil, u.unmatched()
	case p.parseHTTP2() == h2.Error:
		return nil, u.unmatched() // a matcher that is still waiting waits for what the server must not answer
	case p.full:
		return nil, u.tooLong()
	case u.deadEnd():
		u.awaitsRequest()
	}
	return nil, nil
}

// failed judges an error of the connection. If it is one of a deadline, and more time is left than that, the waiting goes
// on.
func (u *undecided) failed(err error) (*route, *refusal) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return u.timeUp()
	}
	switch {
	case u.wasInterrupted():
		return nil, u.interruption()
	case u.timer != nil && time.Since(u.since) >= u.limit():
		return nil, u.timeout()
	}
	return nil, u.gone(err)
}

// look returns what the client has sent so far. With wait, it waits until that is more than there was.
func (u *undecided) look(wait bool) (data []byte, ended bool, err error) {
	if u.peeking {
		if u.empty && !wait {
			return nil, false, nil
		}
		if !wait || u.seen == 0 || canAwaitMore && u.seen < u.mux.buffers.size && !u.peeker.nearlyFull(u.seen) {
			return u.peeker.peek(u.seen, wait)
		}
		u.peeking = false
		u.peeker.release()
	}
	if !wait {
		return nil, false, nil
	}
	return u.read(u.mux.maxPreviewBytes())
}

// read is look where the bytes, up to a limit, have to be taken out of the connection.
func (u *undecided) read(limit int) (data []byte, ended bool, err error) {
	for len(u.consumed) <= u.seen && !ended {
		err := u.readOnce(limit)
		if err == io.EOF {
			ended = true
		} else if err != nil && len(u.consumed) <= u.seen {
			return nil, false, err
		}
	}
	return u.consumed, ended, nil
}

// readOnce takes more bytes out of the connection, up to the limit for all of them, of which it must be short.
func (u *undecided) readOnce(limit int) error {
	if n := len(u.consumed); n == cap(u.consumed) {
		grown := make([]byte, n, min(max(2*n, 512), limit))
		copy(grown, u.consumed)
		u.consumed = grown
	}
	n, err := u.conn.Read(u.consumed[len(u.consumed):cap(u.consumed)])
	u.consumed = u.consumed[:len(u.consumed)+n]
	return err
}

// ask asks the routes that have not said NoMatch yet, in order, up to the first that has not decided. It reports whether
// there is one.
func (u *undecided) ask() (rt *route, open bool) {
	p := &u.preview
	p.wake = 0
	first := -1
	for i := u.next; i < len(u.routes); i++ {
		u.asking, p.behind = i, first >= 0
		run := u.routes[i].run
		if run != nil {
			if i = run.next(i, p); i == run.end {
				i-- // all of them said NoMatch
				continue
			}
			u.asking = i
		}
		switch u.routes[i].match(p) {
		case Match:
			if first < 0 {
				return u.routes[i], false
			}
		case Undecided:
			if run != nil {
				i = run.end - 1 // so are the others of the run, none of which goes by silence
			}
			if p.ended || p.silent {
				continue
			}
			if first < 0 {
				first = u.asking
			}
			if len(p.data) > 0 {
				u.next = first
				return nil, true
			}
			// Before the first byte all are asked, for those that wait for a silence.
		}
	}
	if first < 0 {
		return nil, false
	}
	u.next = first
	return nil, true
}

// limit is the time that the connection has from u.since on.
func (u *undecided) limit() time.Duration {
	switch {
	case u.handshaking != nil:
		return orDefault(u.handshaking.settings.HandshakeTimeout, DefaultHandshakeTimeout)
	case u.idle():
		return u.mux.idleTimeout()
	}
	return u.mux.decideTimeout()
}

// arm sets the deadlines for waiting and for what is said meanwhile.
func (u *undecided) arm() *refusal {
	limit := u.since.Add(u.limit())
	wake := limit
	if d := u.preview.wake; d > 0 && u.seen == 0 {
		wake = earlier(wake, u.since.Add(d))
	}
	if t := u.restUntil(); !t.IsZero() {
		wake = earlier(wake, t)
	}
	u.mux.mu.Lock()
	defer u.mux.mu.Unlock()
	if u.interrupted != 0 {
		return u.interruption()
	}
	u.armed = true
	var err error
	if wake.Equal(limit) {
		err = u.conn.SetDeadline(limit) // for which the net package needs one timer, not two
	} else {
		err = errors.Join(u.conn.SetReadDeadline(wake), u.conn.SetWriteDeadline(limit))
	}
	if err == nil {
		return nil
	}
	// A connection without deadlines can be woken up only by its end.
	if u.timer == nil {
		c := u.raw // u may be on its next connection when the time is up
		u.timer = time.AfterFunc(time.Until(limit), func() { c.Close() })
	} else {
		u.timer.Reset(time.Until(limit))
	}
	return nil
}

func earlier(t, u time.Time) time.Time {
	if u.Before(t) {
		return u
	}
	return t
}

// interrupt ends the waiting. The caller holds mux.mu.
func (u *undecided) interrupt(reason RefuseReason) {
	u.interrupted = reason
	if u.wake != nil {
		close(u.wake)
	}
	if u.armed && (u.timer != nil || u.raw.SetDeadline(aLongTimeAgo) != nil) {
		u.raw.Close()
	}
}

var aLongTimeAgo = time.Unix(1, 0)

// wasInterrupted reports whether the waiting is to end. If so, the reason does not change any more.
func (u *undecided) wasInterrupted() bool {
	u.mux.mu.Lock()
	defer u.mux.mu.Unlock()
	return u.interrupted != 0
}

// settle takes the connection, for which a route was found, out of the reach of interrupt.
func (u *undecided) settle() *refusal {
	u.mux.mu.Lock()
	defer u.mux.mu.Unlock()
	if u.interrupted != 0 {
		if u.language == ProtocolUnknown { // it has not waited for anything
			u.language = u.preview.language()
		}
		return u.interruption()
	}
	u.mux.waiting.remove(u)
	if !u.armed {
		return nil
	}
	u.armed = false
	if u.timer != nil {
		if !u.timer.Stop() {
			return u.timeout()
		}
		return nil
	}
	// A pipe whose other end is closed takes no deadlines, and there is still what the client sent before for the server.
	if err := u.conn.SetDeadline(time.Time{}); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return u.gone(err)
	}
	return nil
}

// timeUp judges a connection whose deadline has passed: either its silence is long enough for a route, or its time is
// up. If neither, the waiting goes on.
func (u *undecided) timeUp() (*route, *refusal) {
	if u.wasInterrupted() {
		return nil, u.interruption()
	}
	p := &u.preview
	elapsed := time.Since(u.since)
	if u.seen == 0 && p.wake > 0 && p.wake < u.mux.decideTimeout() {
		p.quiet, p.silent = max(elapsed, p.wake), true
		rt, _ := u.ask()
		p.silent = false
		if rt != nil {
			return rt, nil
		}
		u.ask() // for the next silence to wait for
	}
	if u.turnedAway && u.rested() {
		return nil, u.turnAway()
	}
	if elapsed >= u.limit() {
		if u.mux.WhenTimeUp == TimeUpAsk && !u.idle() {
			return u.askLast()
		}
		return nil, u.timeout()
	}
	return nil, nil
}

// panicked is the end of a connection on which a user's code panicked.
func (u *undecided) panicked(v any) *refusal {
	name := "a hook"
	if u.asking < len(u.routes) {
		name = "the matchers, the hook or the TLS configuration of route " + u.routes[u.asking].name
	}
	u.mux.logPanic(name, u.raw, v)
	if u.handshaking == nil && !u.preview.upgrading {
		u.language = u.preview.language()
	}
	return u.refusal(ReasonPanic, fmt.Errorf("%s panicked: %v", name, v))
}
