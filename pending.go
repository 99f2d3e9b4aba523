package oneport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/alarm"
	"github.com/oneport-go/oneport/internal/h2open"
	"github.com/oneport-go/oneport/internal/h2upgrade"
	"github.com/oneport-go/oneport/internal/lobby"
	"github.com/oneport-go/oneport/internal/peek"
	refusing "github.com/oneport-go/oneport/internal/refusal"
)

// A pending is a connection that no server has. Its phases are those of package lobby, in whose registry it is:
//
//	Accepted ──> Opening ──────────────> Queued ──> a server has it
//	   │            │  ▲                  │  ▲
//	   │            │  └── Handshaking    │  └── Blocked
//	   │            └── Switching         └──> Dispatched, if its requests are dispatched
//	   └── from each of these ──> Refusing ──> closed
type pending struct {
	lobby.Entry
	mux      *Mux
	raw      net.Conn             // as it was accepted
	conn     net.Conn             // what the server reads from: raw, or a connection above it
	tls      *tls.ConnectionState // of the TLS that the mux has terminated on it, or nil
	accepted time.Time
	since    time.Time // when the time to decide began: accepted, or the end of the TLS handshake
	handoff
	upgraded bool // by Upgrade: h2c

	// What was known when the waiting began, since the bytes are not kept then.
	protocol Protocol
	language Protocol // to refuse the client in
	seen     int      // bytes

	*decision // until it has a route

	alarm     alarm.Alarm // of a socket, in place of deadlines
	deadlines bool        // are set

	mu     sync.Mutex // guards what follows
	cause  lobby.Cause
	armed  bool          // the connection waits, and Interrupt may set deadlines
	silent bool          // nothing has arrived, and nothing can be waiting in a socket
	timer  *time.Timer   // stands in for deadlines that the connection does not have
	signal chan struct{} // if not nil, closed by Interrupt
}

// handoff is how the stream goes on with a server.
type handoff struct {
	first    []byte                  // what the server reads first, in place of an upgrade
	window   *h2upgrade.WindowFilter // for what the server writes then, if it matters
	replay   []byte                  // what was taken out of the connection
	early    bool                    // an early SETTINGS frame was sent
	acks     int                     // acknowledgements that were sent in the server's place
	pings    int                     // answers to PING that were
	settings []http2.Setting         // of the client, if acks are not 0
	request  refusing.Request        // to be answered if the server does not take the connection
}

// A decision has what is needed to find the route of a connection. It keeps the memory of its parsers from one
// connection to the next.
type decision struct {
	preview Preview
	source  peek.Source
	progress
}

// progress is what a decision has of one connection.
type progress struct {
	phase    lobby.Phase // Accepted to Switching
	search   search
	requests *RequestMux // has taken the connection, and needs its first request
	tlsMux   *TLSMux     // for whose routes TLS is being terminated
	opening  h2open.Opening
	waiting  bool          // what the client has sent was judged, and more is needed
	awaited  time.Duration // the silence that is waited for, or 0
	output   []byte
	written  <-chan error // if not nil, something is being written, and this gets the result
}

var (
	pendings  = sync.Pool{New: func() any { return new(pending) }}
	decisions = sync.Pool{New: func() any { return new(decision) }}
)

func (m *Mux) newPending(raw net.Conn) *pending {
	now := time.Now()
	c := pendings.Get().(*pending)
	c.mux, c.raw, c.conn, c.accepted, c.since = m, raw, raw, now, now
	c.decision = decisions.Get().(*decision)
	c.search.routes = *m.routes.Load()
	c.preview.conn = raw
	c.preview.h2.MaxFrames = m.limits.MaxFramesBeforeHeaders
	c.preview.h2.MaxHeaderListSize = m.limits.MaxHeaderListBytes
	c.preview.h2.SettingsOptional = m.AllowMissingSettings
	c.opening.Parser = &c.preview.h2
	c.source.Start(raw, &m.buffers)
	return c
}

// recycle makes c ready for another connection. It has left the registry.
func (c *pending) recycle() {
	if c.decision != nil {
		c.decision.recycle()
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	*c = pending{}
	pendings.Put(c)
}

func (d *decision) recycle() {
	d.preview.reset()
	d.source.End()
	d.progress = progress{output: d.output[:0]}
	decisions.Put(d)
}

// decide finds the route of the connection, which is then ready to be delivered. Meanwhile it can be interrupted.
func (c *pending) decide() (rt *route, refused *refusal) {
	defer func() {
		if v := recover(); v != nil {
			rt, refused = nil, c.panicked(v)
		}
		c.endReaders()
		c.source.Release()
		if refused != nil {
			c.mux.alarms.Clear(&c.alarm)
			c.abandonWrite()
		}
	}()
	if !c.source.Peeking() {
		// Asking a connection of another package for its address can read from it, as behind a load balancer that
		// announces its clients by the PROXY protocol. The deadlines are set before, so that this ends, whoever asks.
		if refused = c.arm(time.Now()); refused != nil {
			return nil, refused
		}
	}
	if !c.waiting {
		if out := c.look(false); out.refused != nil {
			return nil, out.refused
		}
	}
	for {
		out := c.find()
		rt = out.route
		switch {
		case out.refused != nil:
			return nil, out.refused
		case rt.tls != nil:
			refused = c.handshake(rt.tls)
		case out.upgraded:
			if refused = c.switchToHTTP2(); refused == nil && rt.requests != nil {
				refused = c.enterUpgraded(rt.requests)
				break
			}
			fallthrough
		default:
			if refused == nil {
				refused = c.settle()
			}
			if refused == nil {
				c.matched(rt)
			}
			return rt, refused
		}
		if refused != nil {
			return rt, refused
		}
	}
}

// decideNow finds the route of a connection if the bytes that have arrived are sufficient, and the connection only has
// to be delivered. It does not wait. If it finds no route, decide continues from there, or starts anew.
func (c *pending) decideNow() *route {
	defer c.source.Release()
	data, ended, err := c.source.Look(false, c.mux.limits.MaxPreviewBytes)
	if err != nil || len(data) == 0 {
		return nil
	}
	c.preview.show(data, ended, c.mux.limits.MaxPreviewBytes)
	out := c.judge()
	if !out.final() {
		c.note(out)
		c.waiting = true
		return nil
	}
	c.protocol, c.language = c.preview.Protocol(), c.preview.language()
	if out.refused != nil || out.upgraded || out.route.tls != nil || !c.speechless() {
		c.requests = nil
		return nil
	}
	return out.route
}

// find peeks, asks the routes and waits until a route takes the connection or it has to be refused. The preview has
// seen what has arrived.
func (c *pending) find() outcome {
	for {
		if !c.waiting {
			out := c.judge()
			if out.final() {
				return out
			}
			c.note(out)
			if c.tls != nil && c.opening.Due() && c.takeReceived() {
				c.preview.show(c.source.Taken(), false, c.mux.limits.MaxPreviewBytes)
				continue
			}
		}
		c.waiting = true
		if c.requests != nil && c.source.Peeking() {
			// Its requests will be read from the connection anyway. Bytes that are left in the socket would wake up the
			// wait for more whenever the client's system acknowledges what was written.
			c.source.Take()
		}
		if out := c.await(); out.final() {
			return out
		}
		if out := c.look(true); out.final() {
			return out
		}
	}
}

// look shows the preview what the client has sent. With wait, it waits for more. If nothing has arrived when it is time
// to do something else, the connection keeps waiting.
func (c *pending) look(wait bool) outcome {
	data, ended, err := c.source.Look(wait, c.mux.limits.MaxPreviewBytes)
	if err != nil {
		return c.failed(err)
	}
	c.waiting = false
	if wait {
		// A client that pings while it has no request to make is not flooding.
		c.preview.h2.MaxFrames = c.mux.limits.MaxFramesBeforeHeaders + int(time.Since(c.accepted)/time.Second)
	}
	c.preview.show(data, ended, c.mux.limits.MaxPreviewBytes)
	return outcome{}
}

// note records what a refusal would report, since the bytes are not kept while the connection waits.
func (c *pending) note(out outcome) {
	p := &c.preview
	c.protocol, c.language, c.seen = p.Protocol(), p.language(), len(p.data)
	p.parseHTTP2()
	c.opening.Declined = out.declined
	if c.source.Peeking() {
		p.data = nil
	}
}

// await prepares to wait: it sets the deadlines, and writes what the client may be waiting for.
func (c *pending) await() outcome {
	now := time.Now()
	if c.phase == lobby.Accepted {
		if refused := c.enter(lobby.Opening); refused != nil {
			return outcome{refused: refused}
		}
	}
	if refused := c.hold(); refused != nil {
		return outcome{refused: refused}
	}
	c.opening.Advance(now)
	if !now.Before(c.due()) {
		return c.timedOut() // with a deadline that has passed nothing can be written
	}
	early := c.opening.Early()
	c.output = c.opening.Append(c.output[:0], c.mux.early, now)
	if refused := c.arm(now); refused != nil {
		return outcome{refused: refused}
	}
	if len(c.output) == 0 {
		return outcome{}
	}
	if err := c.write(c.output); err != nil {
		return c.failed(err)
	}
	if c.opening.Early() && !early {
		c.mux.counters.earlySettings.Add(1)
		c.early = true // a refusal begins with SETTINGS otherwise
	}
	return outcome{}
}

// enter brings the connection into another phase before it has a server.
func (c *pending) enter(phase lobby.Phase) *refusal {
	if c.mux.lobby.Move(&c.Entry, phase) != lobby.None {
		return c.interruption()
	}
	c.phase = phase
	return nil
}

// hold accounts for the memory that the connection takes while it waits.
func (c *pending) hold() *refusal {
	if c.mux.lobby.Hold(&c.Entry, max(0, cap(c.source.Taken())+c.preview.h2.Held()-peekSize)) != lobby.None {
		return c.interruption()
	}
	return nil
}

// settle ends interruptions of a connection for which a route was found, and collects what the server has to know.
func (c *pending) settle() *refusal {
	c.finishWrite() // if that failed, the server will see it
	if c.mux.lobby.Move(&c.Entry, lobby.Queued) != lobby.None {
		if c.language == ProtocolUnknown { // it has not waited for anything
			c.language = c.preview.language()
		}
		return c.interruption()
	}
	c.prepareHandoff()
	if !c.armed {
		return nil
	}
	c.armed = false
	if c.timer != nil {
		if !c.timer.Stop() {
			return c.timeout()
		}
		return nil
	}
	// A pipe whose other end is closed takes no deadlines, and there is still what the client sent before for the server.
	if err := c.disarm(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return c.clientClosed(err)
	}
	return nil
}

// prepareHandoff notes how the stream goes on with a server.
func (c *pending) prepareHandoff() {
	c.replay = c.source.Taken()
	c.acks, c.pings = c.opening.Acknowledged(), c.opening.Answered()
	if !c.upgraded {
		c.request = c.preview.answerable()
	}
	if c.acks > 0 {
		c.settings = append([]http2.Setting(nil), c.preview.h2.Settings()...)
	}
}

// endReaders ends the matchers that wait in a coroutine of their own.
func (c *pending) endReaders() {
	if p := c.preview.endReaders(); p != nil {
		c.mux.logPanic("a matcher that was told to end", c.raw, p)
	}
}

// panicked ends a connection on which a user's code panicked.
func (c *pending) panicked(v any) *refusal {
	name := "a hook"
	if c.search.asking < len(c.search.routes) {
		name = "the matchers, the hook or the TLS configuration of route " + c.search.routes[c.search.asking].name
	}
	c.mux.logPanic(name, c.raw, v)
	if c.phase != lobby.Handshaking && c.phase != lobby.Switching {
		c.language = c.preview.language()
	}
	return c.refusal(ReasonPanic, fmt.Errorf("%s panicked: %v", name, v))
}

// speechless reports whether the connection can be delivered as it is, with nothing to write to the client.
func (c *pending) speechless() bool { return c.preview.h2.SettingsFrames() <= 1 }
