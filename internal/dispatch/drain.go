package dispatch

import (
	"errors"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// A connection is drained as grpc-go and net/http do it (RFC 9113, Section 6.8). The client is sent GOAWAY with the
// highest stream number, which asks it to open no stream, and PING. When the answer has come, it has read the GOAWAY,
// and whatever it had opened before has come too. From then on the connection ends when it has no stream left. A client
// that does not answer is taken to have done so after drainTime.
//
// While a connection passes through, both frames go out between two frames of the server's.

// drainPing is the payload of the PING.
var drainPing = [8]byte{'1', 'p', 'r', 't', 'g', 'o', 'n', 'e'}

// drainTime is what grpc-go grants as well.
const drainTime = 5 * time.Second

// shutdown is how far draining has come.
type shutdown uint8

const (
	notDraining shutdown = iota
	drainDue             // the frames are to be sent
	drainSent            // they were sent
	drained              // the client has answered: the connection ends with its last stream
)

// Dismiss ends the connection if no server has ever accepted it.
func (c *conn) Dismiss(reason string) { c.dismiss(errors.New(reason)) }

// Close ends the connection at once.
func (c *conn) Close() {
	c.lock()
	defer c.mu.Unlock()
	c.kill()
}

// Drain tells the client to go elsewhere with new requests, and ends the connection when those that it has made were
// answered.
func (c *conn) Drain() {
	c.lock()
	defer c.mu.Unlock()
	if c.shutdown != notDraining || c.closing || c.dead {
		return
	}
	c.shutdown = drainDue
	if c.mode == splitting {
		c.emit(c.appendDrain(c.out))
		return
	}
	c.drainPassing()
}

// appendDrain appends the frames, once.
func (c *conn) appendDrain(b []byte) []byte {
	if c.shutdown != drainDue {
		return b
	}
	c.shutdown = drainSent
	c.goAway = true
	c.pingTimer = time.AfterFunc(drainTime, func() {
		c.lock()
		defer c.mu.Unlock()
		c.drainAnswered()
	})
	// A server's GOAWAY may have gone before, and the number must not grow (RFC 9113, Section 6.8).
	b = h2.AppendGoAway(b, c.lastID, http2.ErrCodeNo, "shutting down")
	return h2.AppendFrame(b, http2.FramePing, 0, 0, drainPing[:])
}

// drainPassing sends the frames while the connection passes through, if they are due and the server is not in the
// middle of a frame. Whoever is writing does it when that is done. The caller holds mu, which is not held all the time.
func (c *conn) drainPassing() {
	switch {
	case c.shutdown != drainDue || c.closing || c.dead || c.writing:
	case c.mode == splitting: // since the Write began
		c.emit(c.appendDrain(c.out))
	case c.spoken && !c.inFrame:
		c.writeUnlocked(c.appendDrain(c.endWithholding(nil))) // if that fails, the server will see it
	}
}

// betweenFrames reports whether v has written whole frames only. The caller holds mu.
func (v *Conn) betweenFrames() bool { return !v.out.inFrame() && len(v.held) == 0 }

// writeUnlocked writes to the client while the connection passes through. The caller holds mu, which is not held
// meanwhile.
func (c *conn) writeUnlocked(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	c.beginWriting()
	c.mu.Unlock()
	_, err := c.sock.Write(b)
	c.lock()
	c.endWriting()
	return err
}

// beginWriting notes that somebody writes to the client while the connection passes through. The caller holds mu.
func (c *conn) beginWriting() { c.writing, c.writer = true, c.pass }

// endWriting notes that this has ended. The caller holds mu.
func (c *conn) endWriting() {
	c.writing, c.writer = false, nil
	c.forgetWithheld()
	c.wake.Broadcast()
	c.endPassing()
}

// takeDrainACK takes the answer to the PING. It reports whether it is that.
func (c *conn) takeDrainACK(it *item) bool {
	if c.shutdown != drainSent || [8]byte(it.payload) != drainPing {
		return false
	}
	c.drainAnswered()
	return true
}

// drainAnswered goes on with draining when the client has read the GOAWAY. The caller holds mu.
func (c *conn) drainAnswered() {
	if c.shutdown != drainSent || c.closing || c.dead {
		return
	}
	c.stopAnswer()
	c.shutdown = drained
	c.lastID = min(c.lastID, c.maxID)
	c.finish = true
	if c.mode == splitting {
		c.settle()
	} else {
		c.endPassing()
	}
}

func (c *conn) stopAnswer() {
	if c.pingTimer != nil {
		c.pingTimer.Stop()
		c.pingTimer = nil
	}
}

// lingerPassing closes a connection that was drained, so that the client can read the last response. Its server is
// closed.
func (c *conn) lingerPassing() {
	// The client may have made a request at the last moment, as the first GOAWAY permits. It was not taken, which the
	// client has to know in order to try again (RFC 9113, Section 6.8).
	c.lock()
	goAway := h2.AppendGoAway(nil, min(c.lastID, c.maxID), http2.ErrCodeNo, "shutting down")
	c.mu.Unlock()
	if c.sock.SetWriteDeadline(time.Now().Add(lingerTime)) == nil {
		c.sock.Write(goAway) // if that fails, the client has gone
	}
	c.owner.Linger(c.sock)
	c.lock()
	defer c.mu.Unlock()
	c.kill()
}

// endPassing ends a connection that passes through and was drained, if it has no stream left and the last response is
// written: the server is told that the client has ended its side, upon which it closes its own. It is called when what
// was read has been looked at, and when what was looked at has been written.
func (c *conn) endPassing() {
	if c.mode != passing || c.shutdown != drained || c.passed.open > 0 || c.writing || c.inFrame || c.ended || c.dead {
		return
	}
	c.ended = true
	c.sock.SetReadDeadline(aLongTimeAgo) // for a Read that waits
}
