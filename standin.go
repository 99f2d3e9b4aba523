package oneport

import (
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// Between the early SETTINGS frame and the first request there is no server behind an HTTP/2 connection, and the client
// may want one: it asks for the acknowledgement of its SETTINGS, which some wait for before they send a request, and for
// answers to PING, without which its keep-alive takes the connection for dead. So the mux stands in for the server. What it
// has said must not be said again: an acknowledgement or an answer too many is a connection error for some clients. What it
// has answered is taken out of what the server reads, or the answer out of what the server writes.
//
// That takes a connection that filters, so the mux keeps silent for as long as it can: a client that sends its first request
// together with the acknowledgement of the early SETTINGS, as gRPC's do, gets its answers from the server.

// stoodIn is what was said in the server's place.
type stoodIn struct {
	acks  int // acknowledgements of the client's SETTINGS frames; 0 if nothing was said
	pings int // answers to PING
}

// handOver returns how the connection goes on with a server: what it reads first, in place of the client's preface and
// of the SETTINGS frames that were acknowledged, and what is taken out of either stream. The SETTINGS frames are made one,
// so that it is known what to take out of what the server writes: a server may acknowledge several at once, as
// net/http does.
func (s stoodIn) handOver(settings []http2.Setting) (first []byte, fromClient frameFilter, toClient streamFilter) {
	first = h2.AppendSettings([]byte(h2.Preface), settings...)
	return first, frameFilter{drop: len(h2.Preface), settings: s.acks, acks: 1, pings: s.pings}, &frameFilter{acks: 1}
}

// restTime is how long an HTTP/2 client that is ready has to go on to its first request before its SETTINGS are
// acknowledged in the server's place.
const restTime = 500 * time.Millisecond

// idle reports whether the client is at rest between connecting and its first request.
func (u *undecided) idle() bool { return u.early && u.preview.h2.Acknowledged() }

// restUntil returns when the mux will stand in for a client that is idle, or turn one away, or the zero time if it does
// already or is about to.
func (u *undecided) restUntil() time.Time {
	if u.turnedAway {
		return u.turnAwayAt()
	}
	if !u.idle() || u.acks > 0 || u.preview.h2.Requesting() {
		return time.Time{}
	}
	if u.rest.IsZero() {
		u.rest = time.Now().Add(restTime)
	}
	if u.rested() {
		return time.Time{}
	}
	return u.rest
}

func (u *undecided) rested() bool { return !u.rest.IsZero() && !time.Now().Before(u.rest) }

// say returns what to write to the client before waiting for more from it.
func (u *undecided) say() []byte {
	var b []byte
	if !u.early {
		if u.turnedAway || !earlySettingsDue(&u.preview) {
			return nil
		}
		u.early = true
		u.mux.counters.earlySettings.Add(1)
		b = append(b, u.mux.early...)
	}
	p := &u.preview.h2
	if p.Requesting() {
		return b // the server is about to come
	}
	// A client that pings, or sends SETTINGS again, has begun to use the connection.
	if u.rested() || len(p.Pings()) > u.pings || p.SettingsFrames() > max(1, u.acks) {
		for ; u.acks < p.SettingsFrames(); u.acks++ {
			b = h2.AppendSettingsACK(b)
		}
		for _, payload := range p.Pings()[u.pings:] {
			b = h2.AppendPingACK(b, payload)
		}
		u.pings = len(p.Pings())
	}
	return b
}
