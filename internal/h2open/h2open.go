// Package h2open follows an HTTP/2 connection from its first byte to its first request, while no server has it.
//
// gRPC clients send the preface and SETTINGS, and wait for the server's SETTINGS before they send a request. But the
// choice of the server depends on the request. So the mux speaks for the server: it sends an early SETTINGS frame to a
// client that waits. If the client then makes no request, the mux acknowledges its SETTINGS and answers its PINGs,
// without which the client would consider the connection broken.
//
// The server must not send the same acknowledgements again, since some clients treat an unexpected acknowledgement as a
// connection error. Dropping them requires a wrapped connection. Therefore the [Opening] delays them: a client that
// sends its first request together with the acknowledgement of the early SETTINGS, as gRPC clients do, gets them from
// the server.
//
// An Opening does no I/O and has no clock. It is given bytes and times, and returns what to write and when to wake it.
package h2open

import (
	"time"

	"github.com/oneport-go/oneport/internal/h2"
)

// RestTime is how long a client may take for its first request before the mux acknowledges and answers in the server's
// place, or, if no route takes the client, before the mux closes the connection.
const RestTime = 500 * time.Millisecond

// An Opening is the state of one connection. The zero value, with Parser set, is at its first byte.
type Opening struct {
	Parser *h2.Parser // of what the client has sent; shared with those who ask what the connection is

	// Declined says that no route takes the client, or that none can. Such a client is sent nothing: after SETTINGS, a
	// gRPC client would consider the connection ready, and reconnect at once when it ends. Its request, if one arrives,
	// can be answered.
	Declined bool

	early   bool      // the early SETTINGS frame was sent
	acks    int       // acknowledgements that were sent for the client's SETTINGS
	pings   int       // answers that were sent to the client's PINGs
	resting time.Time // when the client began to rest, or the zero time if it does not
	began   time.Time // when its first request began to come, or the zero time
}

// Early reports whether the early SETTINGS frame was sent.
func (o *Opening) Early() bool { return o.early }

// Acknowledged returns how many of the client's SETTINGS frames were acknowledged in the server's place.
func (o *Opening) Acknowledged() int { return o.acks }

// Answered returns how many of the client's PING frames were answered in the server's place.
func (o *Opening) Answered() int { return o.pings }

// Due reports whether early SETTINGS are due: the client has sent the whole preface, so it speaks HTTP/2, and it has
// not begun a request. RFC 9113, Section 3.4 lets a client send its request without waiting for the server's SETTINGS,
// and most do; a strict client waits for them, forever if necessary. A client whose request has begun is not waiting,
// since flow control does not apply to header blocks.
func (o *Opening) Due() bool {
	p := o.Parser
	return !o.early && !o.Declined && p.State() == h2.Incomplete && p.PrefaceSeen() && !p.Requesting()
}

// Ready reports whether the client has acknowledged the early SETTINGS: its connection is ready for a request.
func (o *Opening) Ready() bool { return o.early && o.Parser.Acknowledged() }

// Idle reports whether the client is Ready, and has not begun to send a request.
func (o *Opening) Idle() bool { return o.Ready() && !o.Parser.Requesting() }

// RequestBegan returns when a request was first seen to have begun, or the zero time.
func (o *Opening) RequestBegan() time.Time { return o.began }

// Advance sets the time. Call it when the client has sent something, and at the time that Wake returns.
func (o *Opening) Advance(now time.Time) {
	if o.resting.IsZero() && (o.Declined || o.Ready()) {
		o.resting = now
	}
	if o.began.IsZero() && o.Parser.Requesting() {
		o.began = now
	}
}

// Rested reports whether the client has made no request for RestTime since it could have made one.
func (o *Opening) Rested(now time.Time) bool {
	return !o.resting.IsZero() && !now.Before(o.resting.Add(RestTime))
}

// Wake returns when to call Advance and Append even if the client sends nothing, or the zero time if there is no need.
func (o *Opening) Wake(now time.Time) time.Time {
	switch {
	case o.resting.IsZero() || o.Rested(now):
		return time.Time{}
	case o.Declined, o.acks == 0 && !o.Parser.Requesting():
		return o.resting.Add(RestTime)
	}
	return time.Time{}
}

// Append appends to dst what has to be written to the client before waiting for it. The caller passes the early
// SETTINGS frame as it has to be written.
func (o *Opening) Append(dst, early []byte, now time.Time) []byte {
	if o.Due() {
		o.early = true
		dst = append(dst, early...)
	}
	if !o.early || o.Parser.Requesting() {
		return dst // the client waits for nothing, or the server will be there in a moment
	}
	// A client that pings, or sends SETTINGS again, has begun to use the connection.
	p := o.Parser
	if o.Rested(now) || len(p.Pings()) > o.pings || p.SettingsFrames() > max(1, o.acks) {
		dst = o.StandIn(dst)
	}
	return dst
}

// StandIn appends the acknowledgements and answers that are still due, in the server's place.
func (o *Opening) StandIn(dst []byte) []byte {
	for ; o.acks < o.Parser.SettingsFrames(); o.acks++ {
		dst = h2.AppendSettingsACK(dst)
	}
	for _, payload := range o.Parser.Pings()[o.pings:] {
		dst = h2.AppendPingACK(dst, payload)
	}
	o.pings = len(o.Parser.Pings())
	return dst
}
