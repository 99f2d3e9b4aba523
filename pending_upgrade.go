package oneport

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/h2upgrade"
	"github.com/oneport-go/oneport/internal/http1"
	"github.com/oneport-go/oneport/internal/lobby"
	refusing "github.com/oneport-go/oneport/internal/refusal"
)

// upgrade returns the request with which the client asks for the upgrade to HTTP/2 (RFC 7540, Section 3.2), if it is
// correct: all others are requests like any other of HTTP/1, since a server may ignore Upgrade (RFC 9110, Section 7.8).
// Inside TLS there is no such upgrade (RFC 7540, Section 3.3).
func (p *Preview) upgrade() (*h2upgrade.Request, Verdict) {
	if p.upgradeVerdict != Undecided {
		return p.upgradeRequest, p.upgradeVerdict
	}
	switch state := p.parseHTTP1(); {
	case state == http1.Incomplete && p.secured == nil && !p.full:
		return nil, p.undecided()
	case state == http1.Complete && p.secured == nil:
		if req, err := h2upgrade.Check(p.data, &p.http1); err == nil {
			// What follows the request already, before the client can know that it is upgraded, must not contradict it.
			if state, _ := req.Parse(p.data); state != h2.Error {
				p.upgradeRequest, p.upgradeVerdict = req, Yes
				return req, Yes
			}
		}
	}
	p.upgradeVerdict = No
	return nil, No
}

// matchUpgraded asks the route's matchers about the request as it is once it is upgraded.
func (rt *route) matchUpgraded(p *Preview) Verdict {
	req, verdict := p.upgrade()
	if verdict != Yes {
		return verdict
	}
	if p.upgraded == nil {
		p.upgraded = new(Preview)
		p.upgraded.showStream(p.conn, req.Fields())
	}
	if matchAny(rt.matchers, p.upgraded) != Yes {
		return No
	}
	return Yes
}

// switchToHTTP2 does the upgrade on a connection that a route takes with it. The server gets an ordinary connection
// with prior knowledge: the client's preface and SETTINGS, for which it takes another round trip, the request on stream
// 1, and the rest.
func (c *pending) switchToHTTP2() *refusal {
	req := c.preview.upgradeRequest
	c.endReaders()
	c.preview.data = nil
	c.source.Take()
	c.language, c.search.asking = ProtocolHTTP1, len(c.search.routes)
	if refused := c.enter(lobby.Switching); refused != nil {
		return refused
	}
	for switched := false; ; {
		taken := c.source.Taken()
		state, connErr := req.Parse(taken)
		switch {
		case state == h2.Error && !switched:
			r := c.refusal(ReasonProtocolError, fmt.Errorf("malformed bytes after a request to upgrade to h2c: %w", connErr))
			r.status = http.StatusBadRequest
			return r
		case state == h2.Error:
			r := c.refusal(ReasonProtocolError, connErr)
			r.goAway, r.code, r.text = true, connErr.Code, connErr.Reason
			return r
		case state == h2.Complete && switched:
			var rest int
			c.first, rest = req.Translate(nil, taken)
			c.source.Drop(rest)
			if window := req.WindowFilter(); !window.Done() {
				c.window = &window
			}
			c.protocol, c.language = ProtocolHTTP2, ProtocolHTTP2
			c.upgraded = true
			// The request is on stream 1 (RFC 7540, Section 3.2).
			c.request = refusing.Request{Stream: 1, Ended: true, Window: h2.DefaultWindow}
			c.request.GRPC, c.request.NoBody = kindOf(req.Fields())
			return nil
		}
		if refused := c.arm(time.Now()); refused != nil {
			return refused
		}
		var err error
		if !switched && len(taken) >= req.Len() {
			switched, c.language = true, ProtocolHTTP2
			err = c.write([]byte(h2upgrade.SwitchingProtocols))
		} else {
			var ended bool
			if _, ended, err = c.source.ReadMore(req.MaxLen()); ended {
				return c.refusal(ReasonClientClosed, errors.New("the client stopped sending during the upgrade to h2c"))
			}
			c.seen = len(c.source.Taken())
			if refused := c.hold(); refused != nil {
				return refused
			}
		}
		if err != nil {
			if out := c.failed(err); out.refused != nil {
				return out.refused
			}
		}
	}
}

// enterUpgraded goes on with a connection that was upgraded as with one that has begun as HTTP/2.
func (c *pending) enterUpgraded(r *RequestMux) *refusal {
	ch := changes{first: c.first, replay: c.source.Taken()}
	if c.window != nil {
		ch.toClient = c.window
	}
	c.first, c.window = nil, nil
	c.enterAbove(newConn(c.conn, ch))
	c.requests = r
	return c.enter(lobby.Opening)
}
