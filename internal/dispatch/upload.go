package dispatch

import (
	"slices"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// What the client sends. Credit is given by the servers, to the dispatcher, and by the dispatcher, to the client. DATA
// for which the client has credit and the dispatcher none is held.
//
// For the connection this holds once it is split, in bytes:
//
//	credit of the client + held of all servers + to be granted == Limits.MaxBuffered
//
// where "to be granted" is negative as long as the client has more credit than that from before the split. So the
// client can always send unless MaxBuffered bytes are held, and never more is held than the larger of MaxBuffered and
// the connection window that the server had given when it was alone. A server is sent no more than its own credit.
//
// For a stream, the client's credit is at most what the server has given, less what is held, except where the client
// had not heard yet of a SETTINGS_INITIAL_WINDOW_SIZE. While anything is held for a server, its streams get no more
// credit, so that a slow reader cannot take all that MaxBuffered allows.

// upload is the part of a conn in this.
type upload struct {
	credit int64 // what the client may send on all streams
}

// splitUpload is the part of a splitConn in this.
type splitUpload struct {
	grant  int64 // what is to be granted to the client
	unread sync.Cond
}

// uploadServer is the part of a server in this.
type uploadServer struct {
	credit   int64     // what the server may be sent on all streams
	held     int64     // bytes
	trailers int64     // bytes of trailers that are held behind them
	holding  []*stream // those for which something is held, in the order in which they are served
	withheld bool      // streams have not been given credit because of held
	read     int64     // bytes that the server has read since the connection was split
}

// uploadStream is the part of a stream in this.
type uploadStream struct {
	requestAt int64 // where the request begins in all that the server reads once the connection is split, or -1

	toClient int64 // credit that the client has
	toServer int64 // credit that the server has given
	content  byteQueue
	end      bool                // END_STREAM is held behind content,
	trailers []hpack.HeaderField // in a header block with these fields, if not nil
	size     int64               // of trailers
	isHeld   bool                // the stream is in holding
}

// begun reports whether the server has read anything of the request.
func (s *stream) begun() bool { return s.server.uploadServer.read > s.requestAt }

const (
	// maxPending is how much DATA waits for a server to read it. The rest is held.
	maxPending = 64 << 10

	// maxUnread is how much of everything can wait for a server to read it. After that nothing is read from the client.
	maxUnread = 256 << 10
)

// startUpload begins to account for the credit apart.
func (c *conn) startUpload() {
	c.unread.L = &c.mu
	if v := c.pass; v != nil {
		v.uploadServer.credit = c.upload.credit
	}
	c.refund(int64(c.d.Limits.MaxBuffered) - c.upload.credit)
}

// refund gives n bytes of the connection's credit back to the client, soon.
func (c *conn) refund(n int64) {
	c.grant += n
	if c.grant < int64(c.d.Limits.MaxBuffered)/4 || c.closing {
		return
	}
	c.out = h2.AppendWindowUpdate(c.out, 0, uint32(c.grant))
	c.upload.credit += c.grant
	c.grant = 0
	c.wake.Broadcast()
}

// topUp gives the client what it lacks of the credit that the server has given for the stream.
func (c *conn) topUp(s *stream) {
	lead := s.toServer - int64(s.content.len()) - s.toClient + c.lowerWindow()
	if c.cur == s {
		lead -= c.begun // is on its way
	}
	if lead <= 0 || s.clientEnded || s.removed || s.resetQueued || c.closing {
		return
	}
	if s.server.uploadServer.held > 0 {
		s.server.withheld = true
		return
	}
	lead = min(lead, h2.MaxWindow)
	c.out = h2.AppendWindowUpdate(c.out, s.id, uint32(lead))
	s.toClient += lead
	c.wake.Broadcast()
}

// lowerWindow returns by how much less the client may have because of SETTINGS that it has not acknowledged, and will
// not if it never does.
func (c *conn) lowerWindow() (most int64) {
	for _, f := range c.toClient {
		if f.hasWindow {
			most = max(most, c.window-f.window)
		}
	}
	return most
}

// topUpIfLow is topUp for a stream whose server has given credit in ways that the client has not seen: as its
// SETTINGS_INITIAL_WINDOW_SIZE, or for padding.
func (c *conn) topUpIfLow(s *stream) {
	if s.toClient-c.lowerWindow() <= c.window/2 {
		c.topUp(s)
	}
}

// uploaded takes a part of the content of a request.
func (c *conn) uploaded(s *stream, b []byte, end bool) {
	v := s.server
	if v.closed || s.resetQueued {
		c.refund(int64(len(b)))
		return
	}
	if !s.isHeld {
		n := v.fits(s, len(b))
		if n == len(b) {
			c.forward(s, b, end)
			return
		}
		if n > 0 {
			c.forward(s, b[:n], false)
			b = b[n:]
		}
		s.isHeld = true
		v.holding = append(v.holding, s)
	}
	s.content.append(b)
	s.end = s.end || end
	v.uploadServer.held += int64(len(b))
}

// uploadedTrailers takes the header block that ends a request.
func (c *conn) uploadedTrailers(s *stream, l *headerList) {
	switch v := s.server; {
	case v.closed || s.resetQueued:
	case s.isHeld && v.uploadServer.trailers+int64(l.size) > int64(c.d.Limits.MaxBuffered):
		// No window holds the client back from sending more, and few bytes can be many fields.
		c.reset(s, http2.ErrCodeEnhanceYourCalm)
	case s.isHeld:
		s.end, s.trailers, s.size = true, slices.Clone(l.fields), int64(l.size)
		v.uploadServer.trailers += s.size
		if s.trailers == nil {
			s.trailers = []hpack.HeaderField{}
		}
	default:
		v.push(h2.AppendHeaders(v.in.room(), s.id, true, nil, v.enc.recode(l), v.maxFrame))
	}
}

// fits returns how much of n bytes the server can be sent on the stream.
func (v *Conn) fits(s *stream, n int) int {
	if n == 0 {
		return 0
	}
	room := min(s.toServer, v.uploadServer.credit, int64(maxPending-v.in.len()), int64(n))
	return int(max(room, 0))
}

// forward sends DATA to a server, which has the credit for it.
func (c *conn) forward(s *stream, b []byte, end bool) {
	v := s.server
	s.toServer -= int64(len(b))
	v.uploadServer.credit -= int64(len(b))
	q := withRoom(v.in.room(), len(b)+(len(b)/v.maxFrame+1)*h2.FrameHeaderLen)
	for total := len(b); ; {
		n := min(len(b), v.maxFrame)
		var flags http2.Flags
		if end && n == len(b) {
			flags = http2.FlagDataEndStream
		}
		q = h2.AppendFrame(q, http2.FrameData, flags, s.id, b[:n])
		if b = b[n:]; len(b) == 0 {
			v.push(q)
			c.refund(int64(total))
			return
		}
	}
}

// push sets what the server is to read, to which something was appended.
func (v *Conn) push(q []byte) {
	v.in.b = q
	v.readable.Signal()
}

// pumpUploads forwards what is held for a server as far as it has the credit.
func (c *conn) pumpUploads(v *Conn) {
	if len(v.holding) == 0 {
		return
	}
	waiting := v.holding[:0]
	for i, s := range v.holding {
		if s.removed || s.resetQueued || c.pumpStream(s) {
			s.isHeld = false
			c.endIfDone(s)
			continue
		}
		if v.uploadServer.credit <= 0 || v.in.len() >= maxPending {
			// The others before it next time.
			waiting = append(append(waiting, v.holding[i+1:]...), s)
			break
		}
		waiting = append(waiting, s)
	}
	clear(v.holding[len(waiting):])
	v.holding = waiting
	if v.uploadServer.held == 0 && v.withheld {
		v.withheld = false
		for _, s := range c.streams {
			if s.server == v {
				c.topUp(s)
			}
		}
	}
}

// pumpStream forwards what is held for a stream. It reports whether that was all.
func (c *conn) pumpStream(s *stream) bool {
	v := s.server
	n := v.fits(s, s.content.len())
	rest := s.content.len() - n
	if n > 0 {
		v.uploadServer.held -= int64(n)
		c.forward(s, s.content.bytes()[:n], rest == 0 && s.end && s.trailers == nil)
		s.content.skip(n)
		c.topUpIfLow(s)
	}
	if rest > 0 {
		return false
	}
	if s.end && s.trailers != nil {
		v.uploadServer.trailers -= s.size
		v.push(h2.AppendHeaders(v.in.room(), s.id, true, nil, v.enc.encode(s.trailers), v.maxFrame))
		s.trailers, s.size = nil, 0
	} else if s.end && n == 0 {
		c.forward(s, nil, true)
	}
	return true
}

// dropHeld forgets what is held for a stream that has been removed.
func (c *conn) dropHeld(s *stream) {
	if s.isHeld {
		s.server.uploadServer.trailers -= s.size
		s.trailers, s.size = nil, 0
	}
	if n := int64(s.content.len()); n > 0 {
		s.content = byteQueue{}
		s.server.uploadServer.held -= n
		c.refund(n)
	}
}
