package oneport

import (
	"errors"
	"time"

	"github.com/oneport-go/oneport/internal/h2"
)

// A gRPC client takes a connection for a good one when the server's SETTINGS have come. If it ends after that, the client
// connects again at once; if it ends before, the client fails its calls and waits, longer each time. GOAWAY, which says
// why a client is refused, takes SETTINGS in front of it (RFC 9113, 3.4). So where no route takes an HTTP/2 client that has
// asked for nothing yet, or all that could are closed, it is not answered at once: most clients ask in the same moment, and
// are told why then. One that waits for the server's SETTINGS is never sent them, and the connection is closed (3.4 lets
// GOAWAY be left out towards a peer that does not speak HTTP/2, which the mux does not where there is no route for it).

// awaitsRequest reports whether a client that no route takes has yet to say what it wants.
func (u *undecided) awaitsRequest() bool {
	p := &u.preview
	u.turnedAway = !u.early && !p.full && !p.ended && p.parseHTTP2() == h2.Incomplete && p.language() == ProtocolHTTP2
	return u.turnedAway
}

// deadEnd reports whether the routes that could still take an HTTP/2 client are closed.
func (u *undecided) deadEnd() bool {
	if !u.routes[u.next].isClosed() {
		return false // the usual case
	}
	for _, rt := range u.routes[u.next:] {
		t := takenByAny(rt.matchers)
		if !rt.isClosed() && (t.bare|t.inTLS)&speaksHTTP2 != 0 {
			return false
		}
	}
	return true
}

// turnAwayAt returns when the client that is turned away has had its time to say what it wants.
func (u *undecided) turnAwayAt() time.Time {
	if u.rest.IsZero() {
		u.rest = time.Now().Add(restTime)
	}
	return u.rest
}

// turnAway refuses the client without a word.
func (u *undecided) turnAway() *refusal {
	r := u.refusal(ReasonNoRoute, errors.New("no route takes it; it speaks HTTP/2, and has asked for nothing"))
	if u.next < len(u.routes) && u.routes[u.next].isClosed() {
		r = u.refusal(ReasonRouteClosed, errRouteClosed)
	} else if u.preview.secured == nil && u.mux.tlsOnly(speaksHTTP2) {
		r = u.plainHTTP()
	}
	r.mute, r.said = false, true
	return r
}
