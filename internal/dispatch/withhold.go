package dispatch

import (
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// A server begins with a SETTINGS frame, and acknowledges that of the client, each in a send of its own. A client that
// has made a request waits for its response, which mostly follows at once, and for nothing else: if it is one that
// waits for SETTINGS before the request, it has had them. So, in passing, what a server writes first is withheld until
// there is more than that, or for a short time, and goes out with the rest. A client whose request has not ended may
// wait for the credit that is in it; from such a client nothing is withheld.

// withholdTime is the least time that something is withheld, and half of the most. Until then the client goes by the
// early SETTINGS, or by the defaults (RFC 9113, Section 6.5.2).
//
// Time is divided into periods of this length, the same for all connections, and withholding ends with one of them. A
// timer that was stopped can still wake up a thread when it would have fired, if many others are set. This way that
// happens 20 times a second at most, and not once for each connection.
const withholdTime = 50 * time.Millisecond

// withholdFor returns how long something is withheld from now on.
func withholdFor() time.Duration {
	gone := time.Duration(now()) % withholdTime
	if gone < 0 {
		gone += withholdTime // the clock can be set back, in tests
	}
	return 2*withholdTime - gone
}

// maxWithheld is how much is withheld.
const maxWithheld = 256

// withheld is what a server has written to a connection that passes through and the client has not been sent.
type withheld struct {
	bytes []byte
	timer *time.Timer // ends it
	over  bool        // nothing is withheld any more
}

// withhold reports whether b, which the server has written in passing, is withheld. The caller holds mu.
func (c *conn) withhold(b []byte) bool {
	w := &c.withheld
	if w.over || c.shutdown != notDraining || c.inFrame || len(w.bytes)+len(b) > maxWithheld || !onlySettings(b) ||
		c.passed.sending() {
		return false
	}
	if w.bytes == nil {
		w.bytes = make([]byte, 0, maxWithheld) // with room for a short response
	}
	w.bytes = append(w.bytes, b...)
	if w.timer == nil {
		w.timer = time.AfterFunc(withholdFor(), c.sendWithheld)
	}
	return true
}

// onlySettings reports whether b, which are whole frames, has only what begins a connection.
func onlySettings(b []byte) bool {
	for len(b) > 0 {
		h := h2.ParseFrameHeader(b)
		if h.Type != http2.FrameSettings && (h.Type != http2.FrameWindowUpdate || h.StreamID != 0) {
			return false
		}
		b = b[h2.FrameLen(h):]
	}
	return true
}

// sendWithheld sends what is withheld.
func (c *conn) sendWithheld() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode == passing && !c.writing && !c.closing && !c.dead { // else somebody has sent it, or nobody wants it
		c.writeUnlocked(c.endWithholding(nil)) // if that fails, the server will see it
		c.drainPassing()
	}
}

// endWithholding returns b behind what was withheld. The caller holds mu.
func (c *conn) endWithholding(b []byte) []byte {
	w := &c.withheld
	if w.timer != nil {
		w.timer.Stop()
		b = append(w.bytes, b...)
	}
	*w = withheld{over: true}
	return b
}
