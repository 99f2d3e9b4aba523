package oneport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/lobby"
)

// An outcome is the result of judging a connection. The zero outcome means to wait for more bytes.
type outcome struct {
	route    *route
	upgraded bool // the route takes it as one of HTTP/2, once it is upgraded
	refused  *refusal
	declined bool // no route takes it, and it has yet to say what it asks for
}

func (o outcome) final() bool { return o.route != nil || o.refused != nil }

// judge asks the routes, and the rules that hold for all of them.
func (c *pending) judge() outcome {
	p := &c.preview
	if refused := c.contradicted(); refused != nil {
		return outcome{refused: refused}
	}
	if c.requests != nil {
		return c.judgeRequest()
	}
	rt, upgraded, undecided := c.search.ask(p)
	switch {
	case p.h2State == h2.Error:
		// A route has asked for the header block, so what breaks the rules before it is not left to the routes below.
		return outcome{refused: c.unmatched()}
	case rt != nil && rt.requests != nil && !upgraded:
		c.requests = rt.requests
		return c.judgeRequest()
	case rt != nil:
		return outcome{route: rt, upgraded: upgraded}
	case !undecided && c.awaitsRedirect():
		return outcome{}
	case !undecided && c.awaitsRequest():
		return outcome{declined: true}
	case !undecided:
		return outcome{refused: c.unmatched()}
	case p.parseHTTP2() == h2.Error:
		return outcome{refused: c.unmatched()} // a matcher that is still waiting waits for what the server must not answer
	case p.full:
		return outcome{refused: c.tooLong()}
	}
	return outcome{declined: c.deadEnd() && c.awaitsRequest()}
}

// judgeRequest looks for the first request of a connection whose requests are dispatched.
func (c *pending) judgeRequest() outcome {
	p := &c.preview
	switch state := p.parseHTTP2(); {
	case state == h2.Complete:
		return outcome{route: c.requests.route}
	case state != h2.Incomplete || p.end == eof:
		return outcome{refused: c.unmatched()}
	case p.full:
		return outcome{refused: c.tooLong()}
	}
	return outcome{declined: c.requests.isClosed() && c.awaitsRequest()}
}

// awaitsRequest reports whether a client that no route takes speaks HTTP/2 and has not sent a request yet. Most clients
// send one at once, and then get an answer that says why they are refused. A strict client waits for the server's
// SETTINGS; it never gets them, and the connection is closed. (RFC 9113, Section 3.4 allows an endpoint to omit GOAWAY
// towards a peer that does not speak HTTP/2, and without a route the mux does not speak it.) If it got SETTINGS before
// GOAWAY, a gRPC client would consider the connection ready, and reconnect at once.
func (c *pending) awaitsRequest() bool {
	p := &c.preview
	return !c.opening.Early() && !p.full && p.end != eof && p.parseHTTP2() == h2.Incomplete && p.language() == ProtocolHTTP2
}

// deadEnd reports whether the routes that could still take an HTTP/2 client are closed.
func (c *pending) deadEnd() bool {
	if !c.search.routes[c.search.next].isClosed() {
		return false // the usual case
	}
	for _, rt := range c.search.routes[c.search.next:] {
		t := takenByAny(rt.matchers)
		if !rt.isClosed() && (t.bare|t.inTLS)&speaksHTTP2 != 0 {
			return false
		}
	}
	return true
}

// failed judges an error of the connection. If a deadline has passed, but the connection has more time, it keeps
// waiting.
func (c *pending) failed(err error) outcome {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return c.timedOut()
	}
	switch {
	case c.interrupted() != lobby.None:
		return outcome{refused: c.interruption()}
	case !time.Now().Before(c.due()):
		// The connection was closed then, or has its own word for a deadline that has passed.
		return outcome{refused: c.timeout()}
	}
	if !isEnd(err) {
		return outcome{refused: c.refusal(ReasonReadError, fmt.Errorf("the connection could not be read: %w", err))}
	}
	return outcome{refused: c.clientClosed(err)}
}

// isEnd reports whether an error of a connection says that the client has ended it, or that the network has.
func isEnd(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return true // an alert of TLS
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return true
	}
	return slices.ContainsFunc([]error{
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	}, func(end error) bool { return errors.Is(err, end) })
}

// timedOut judges a connection whose deadline has passed: it has been silent for long enough for a route, or it has
// timed out, or it keeps waiting.
func (c *pending) timedOut() outcome {
	if c.interrupted() != lobby.None {
		return outcome{refused: c.interruption()}
	}
	now := time.Now()
	elapsed := now.Sub(c.since)
	if c.seen == 0 && c.awaited > 0 && c.awaited < c.mux.limits.DecideTimeout {
		p := &c.preview
		c.search.quiet = max(elapsed, c.awaited)
		p.end, p.quiet = silent, c.search.quiet
		rt, upgraded, _ := c.search.ask(p)
		p.end, p.quiet = open, 0
		if rt != nil {
			return outcome{route: rt, upgraded: upgraded}
		}
	}
	switch {
	case c.opening.Declined && c.opening.Rested(now):
		return outcome{refused: c.turnedAway()}
	case now.Before(c.due()):
		return outcome{}
	case c.mux.TimeoutPolicy == TimeoutRematch && !c.opening.Idle() && c.requests == nil && c.phase == lobby.Opening:
		return c.rematch()
	}
	return outcome{refused: c.timeout()}
}

// rematch asks the routes for the last time about a connection that has timed out.
func (c *pending) rematch() outcome {
	c.mu.Lock()
	if c.cause != lobby.None {
		c.mu.Unlock()
		return outcome{refused: c.interruption()}
	}
	err := c.conn.SetReadDeadline(time.Time{}) // with the one that has passed, the socket cannot be looked at
	c.mu.Unlock()
	p := &c.preview
	var ended bool
	if err == nil {
		p.data, ended, err = c.source.Again()
	}
	if err != nil {
		return outcome{refused: c.clientClosed(err)}
	}
	p.end = late
	if ended {
		p.end = eof
	}
	rt, upgraded, _ := c.search.ask(p)
	switch {
	case p.h2State == h2.Error:
		return outcome{refused: c.unmatched()} // as in judge
	case rt == nil:
		c.seen, c.language = len(p.data), p.language()
		return outcome{refused: c.timeout()}
	case rt.requests != nil && !upgraded:
		return outcome{refused: c.timeout()} // its request has not come
	}
	return outcome{route: rt, upgraded: upgraded}
}
