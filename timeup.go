package oneport

import (
	"time"

	"github.com/oneport-go/oneport/internal/h2"
)

// TimeUpPolicy says what happens to a connection whose [Mux.DecideTimeout] is up.
type TimeUpPolicy uint8

const (
	// TimeUpRefuse refuses it.
	TimeUpRefuse TimeUpPolicy = iota
	// TimeUpAsk asks the routes once more, with what the client has sent. An Undecided counts as NoMatch then, as at
	// the end of the stream, so that a route with [Any] takes what the routes above it are still waiting for. What no
	// route takes is refused. It does not apply to an HTTP/2 client that is idle, for which there is [Mux.IdleTimeout].
	TimeUpAsk
)

// askLast asks the routes for the last time.
func (u *undecided) askLast() (*route, *refusal) {
	u.mux.mu.Lock()
	if u.interrupted != 0 {
		u.mux.mu.Unlock()
		return nil, u.interruption()
	}
	err := u.conn.SetReadDeadline(time.Time{}) // with the one that has passed, the socket cannot be looked at
	u.mux.mu.Unlock()
	p := &u.preview
	p.data = u.consumed
	if err == nil && u.peeking {
		p.data, p.ended, err = u.peeker.peek(0, false)
	}
	if err != nil {
		return nil, u.gone(err)
	}
	p.silent, p.timeUp = true, true
	rt, _ := u.ask()
	p.silent, p.timeUp = false, false
	switch {
	case p.h2State == h2.Error:
		return nil, u.unmatched() // as in judge
	case rt == nil:
		u.seen, u.language = len(p.data), p.language()
		return nil, u.timeout()
	}
	return rt, nil
}
