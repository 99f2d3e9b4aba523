package dispatch

import (
	"maps"
	"slices"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// How a connection ends, and what is left of it when a server leaves.

// fail ends the connection with a connection error (RFC 9113, Section 5.4.1). The caller holds mu.
func (c *conn) fail(err *h2.ConnError) {
	if c.closing || c.dead {
		return
	}
	c.ends(err)
	c.end(err.Code, err.Reason)
}

// end sends GOAWAY and closes the connection when that is written. Requests that no server has begun to read are reset
// with REFUSED_STREAM first, after which a client may try them again (RFC 9113, Section 8.7). Nothing comes behind
// GOAWAY: to a client of gRPC, streams that are open when the connection closes are UNAVAILABLE, those that are reset
// INTERNAL.
func (c *conn) end(code http2.ErrCode, debug string) {
	for _, s := range c.streams {
		if !s.begun() && !s.removed {
			c.out = h2.AppendRSTStream(c.out, s.id, http2.ErrCodeRefusedStream)
		}
	}
	c.out = h2.AppendGoAway(c.out, min(c.lastID, c.maxID), code, debug)
	c.goAway = true
	patience := lingerTime // for a client that is at fault, or refused
	if code == http2.ErrCodeNo && c.served {
		patience = c.d.Limits.WriteTimeout
	}
	c.close(patience)
}

// close closes the connection when what is in out is written, or after some time. The caller holds mu.
func (c *conn) close(patience time.Duration) {
	c.closing = true
	c.sock.SetWriteDeadline(time.Now().Add(patience))
	c.drop()
	c.wakeAll()
}

// attached ends the waiting for a first server.
func (c *conn) attached() {
	if c.alone != nil {
		c.alone.Stop()
		c.alone = nil
	}
}

// settle ends the connection when nothing is left to do on it.
func (c *conn) settle() {
	if c.finish && len(c.streams) == 0 && c.mode == splitting && !c.closing && !c.dead && c.rawFrom == nil {
		c.end(http2.ErrCodeNo, "")
	}
}

// lingerTime is how long a client that is at fault, or refused, is given to take what is written last.
const lingerTime = time.Second

// dismiss ends a connection that no server has accepted.
func (c *conn) dismiss(why error) {
	c.lock()
	defer c.mu.Unlock()
	if !c.served && len(c.joined) == 0 && !c.closing && !c.dead {
		c.why = why
		c.end(http2.ErrCodeNo, why.Error())
	}
}

// accepted notes that a server has accepted its side.
func (c *conn) accepted() {
	c.lock()
	defer c.mu.Unlock()
	if !c.served && !c.dead {
		c.served = true
		c.countShared(1)
		c.owner.Accepted()
	}
}

// countShared counts a connection that has a server and is split.
func (c *conn) countShared(n int64) {
	if !c.served || c.mode != splitting {
		return
	}
	c.d.shared.Add(n)
	if n > 0 {
		c.d.split.Add(1)
	}
}

// ends notes why the connection ends, if that is not known yet. The caller holds mu.
func (c *conn) ends(why error) {
	if c.why == nil {
		c.why = why
	}
}

// leave takes a server that has closed its side out of the connection. Its streams end as retryable as is true: those
// that it has not taken, or not read, are reset with REFUSED_STREAM; calls of gRPC end with UNAVAILABLE, as they would
// if the connection ended (RST_STREAM with any other code is INTERNAL to some clients, or says what is not true); all
// others are reset with the code. A server that closes without GOAWAY while the client owes it the answer to a PING has
// found the client to be gone, and the connection ends for all.
func (v *Conn) leave(code http2.ErrCode) {
	c := v.c
	switch {
	case c.closing || c.dead:
		return
	case c.rawFrom == v || c.writer == v:
		c.kill() // in the middle of a frame, or of a Write, which must return
		return
	case !v.leaving && v.clientSilent():
		c.kill()
		return
	}
	maps.DeleteFunc(c.pings.sent, func(_ [8]byte, p ping) bool { return p.server == v })
	v.acknowledgeAll()
	v.owes, v.next = v.next.frames, nextSettings{}
	v.acknowledgeAll()
	c.acknowledge()
	if c.ended {
		// Nothing can be sent any more that the client gives no credit for, and bare servers drop the rest of it, too.
		for _, s := range slices.Clone(c.streams) {
			if s.server == v {
				c.remove(s, byServer)
			}
		}
		if len(c.joined) == 0 {
			c.close(lingerTime)
		}
		return
	}
	for _, s := range slices.Clone(c.streams) {
		if s.server != v {
			continue
		}
		switch {
		case s.id > v.lastID || !s.begun():
			c.resetByServer(s, http2.ErrCodeRefusedStream)
		case s.resetQueued:
		case s.serverEnded || s.endQueued():
			// RFC 9113, Section 8.1: the answer is complete, and the rest of the request is not needed.
			c.resetByServer(s, http2.ErrCodeNo)
		case s.grpc:
			c.cutOff(s)
		default:
			c.resetByServer(s, code)
		}
	}
	if len(c.joined) == 0 || c.goAway {
		c.finish = true
	}
	c.settle()
	if c.leftBehind() && !c.closing {
		c.stopPatience()
		c.patience = time.AfterFunc(c.d.Limits.IdleTimeout, func() {
			c.lock()
			defer c.mu.Unlock()
			if c.leftBehind() {
				c.kill() // no server is there that would lose patience
			}
		})
	}
}

// cutOff ends a call of gRPC whose server is gone.
func (c *conn) cutOff(s *stream) {
	fields := grpcStatus(s.answered, grpcUnavailable, "the server has closed the connection")
	if len(s.queue) > 0 {
		c.enqueue(s, queued{block: true, fields: fields, end: true})
	} else {
		c.emitBlock(s, c.enc.encode(fields), true)
	}
	if !s.removed {
		c.resetByServer(s, http2.ErrCodeNo) // RFC 9113, Section 8.1
	}
}

// leftBehind reports whether something waits to be sent whose server has closed its side.
func (c *conn) leftBehind() bool {
	if len(c.joined) == 0 {
		return true
	}
	for _, s := range c.streams {
		if s.server.closed {
			return true
		}
	}
	return false
}

func (c *conn) stopPatience() {
	if c.patience != nil {
		c.patience.Stop()
		c.patience = nil
	}
}

// endQueued reports whether the end of the answer is queued.
func (s *stream) endQueued() bool {
	return slices.ContainsFunc(s.queue, func(q queued) bool { return q.end })
}
