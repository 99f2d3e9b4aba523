package oneport

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/h2upgrade"
	"github.com/oneport-go/oneport/internal/http1"
)

// upgrade returns the request with which the client asks for the upgrade to HTTP/2 (RFC 7540, 3.2), if it is correct: all
// others are requests like any other of HTTP/1, since a server may ignore Upgrade (RFC 9110, 7.8). Inside TLS there is no
// such upgrade (RFC 7540, 3.3).
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
				p.upgradeRequest, p.upgradeVerdict = req, Match
				return req, Match
			}
		}
	}
	p.upgradeVerdict = NoMatch
	return nil, NoMatch
}

// matchUpgraded asks the route's matchers about the request as it is once it is upgraded.
func (rt *route) matchUpgraded(p *Preview) Verdict {
	req, verdict := p.upgrade()
	if verdict != Match {
		return verdict
	}
	if p.upgraded == nil {
		p.upgraded = NewStreamPreview(p.conn, req.Fields())
	}
	if rt.matchPlain(p.upgraded) != Match {
		return NoMatch
	}
	p.upgrading = true
	return Match
}

// switchToHTTP2 does the upgrade on a connection that a route takes with it. The server gets an ordinary connection with
// prior knowledge: the client's preface and SETTINGS, for which it takes another round trip, the request on stream 1, and
// the rest.
func (u *undecided) switchToHTTP2() *refusal {
	req := u.preview.upgradeRequest
	u.endReaders()
	u.preview.data, u.preview.wake = nil, 0
	u.peeker.release()
	u.peeking, u.language = false, ProtocolHTTP1
	for switched := false; ; {
		state, connErr := req.Parse(u.consumed)
		switch {
		case state == h2.Error && !switched:
			r := u.refusal(ReasonProtocolError, fmt.Errorf("malformed bytes behind a request to upgrade to h2c: %w", connErr))
			r.status = http.StatusBadRequest
			return r
		case state == h2.Error:
			r := u.refusal(ReasonProtocolError, connErr)
			r.goAway, r.code, r.text = true, connErr.Code, connErr.Reason
			return r
		case state == h2.Complete && switched:
			var rest int
			u.first, rest = req.Translate(nil, u.consumed)
			u.consumed = u.consumed[rest:]
			if window := req.WindowFilter(); !window.Done() {
				u.window = &window
			}
			return nil
		}
		if refused := u.arm(); refused != nil {
			return refused
		}
		var err error
		if !switched && len(u.consumed) >= req.Len() {
			switched, u.language = true, ProtocolHTTP2
			err = u.speak([]byte(h2upgrade.SwitchingProtocols))
		} else {
			var ended bool
			u.seen = len(u.consumed)
			if _, ended, err = u.read(req.MaxLen()); ended {
				return u.refusal(ReasonGone, errors.New("the client stopped sending during the upgrade to h2c"))
			}
		}
		if err != nil {
			if _, refused := u.failed(err); refused != nil {
				return refused
			}
		}
	}
}
