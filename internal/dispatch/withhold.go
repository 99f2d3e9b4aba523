package dispatch

import (
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/alarm"
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
// Time is divided into periods of this length, the same for all connections, and withholding ends with one of them. So
// however many connections there are, that wakes up nobody more than 20 times a second.
const withholdTime = 50 * time.Millisecond

// withholdUntil returns when the withholding ends that begins now.
func withholdUntil() time.Time {
	now := time.Now()
	gone := now.Sub(epoch) % withholdTime
	if gone < 0 {
		gone += withholdTime // the clock can be set back, in tests
	}
	return now.Add(2*withholdTime - gone)
}

// maxWithheld is how much is withheld.
const maxWithheld = 256

// withheld is what a server has written to a connection that passes through and the client has not been sent.
type withheld struct {
	*withholding      // or nil; once it is over, until what was in it is sent
	over         bool // nothing is withheld any more
}

// A withholding has the bytes that are withheld, and the alarm at which that ends. It is lent.
type withholding struct {
	alarm alarm.Alarm
	c     *conn
	n     int // bytes
	mem   [maxWithheld]byte
}

var withholdings = sync.Pool{New: func() any { return new(withholding) }}

// Ring ends it.
func (w *withholding) Ring() { go w.c.sendWithheld() }

// withholds reports whether something is withheld.
func (w *withheld) withholds() bool { return w.withholding != nil && !w.over }

// len returns how many bytes are withheld.
func (w *withheld) len() int {
	if w.withholding == nil {
		return 0
	}
	return w.n
}

// withhold reports whether b, which the server has written in passing, is withheld. The caller holds mu.
func (c *conn) withhold(b []byte) bool {
	w := &c.withheld
	if w.over || c.shutdown != notDraining || c.inFrame || w.len()+len(b) > maxWithheld || !onlySettings(b) ||
		c.passed.sending() {
		return false
	}
	if len(b) == 0 {
		return true // acknowledgements that the client has had
	}
	if w.withholding == nil {
		w.withholding = withholdings.Get().(*withholding)
		w.c = c
		c.d.Alarms.Set(&w.alarm, w.withholding, withholdUntil())
	}
	w.n += copy(w.mem[w.n:], b)
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

// endWithholding returns b behind what was withheld, in memory that forgetWithheld takes back. The caller holds mu.
func (c *conn) endWithholding(b []byte) []byte {
	w := &c.withheld
	if w.withholds() {
		c.d.Alarms.Clear(&w.alarm)
		b = append(w.mem[:w.n], b...)
	}
	w.over = true
	return b
}

// forgetWithheld gives back the memory of what was withheld, when it is not being written. The caller holds mu.
func (c *conn) forgetWithheld() {
	if w := c.withheld.withholding; w != nil && c.withheld.over && !c.writing {
		w.c, w.n = nil, 0
		withholdings.Put(w)
		c.withheld.withholding = nil
	}
}
