package dispatch

import (
	"slices"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// What the servers send. The client's windows for streams are the servers': WINDOW_UPDATE frames for them reach the server
// as they are. Of the connection's window each server has one of its own, which the dispatcher grants; what the client's
// does not cover is queued. For each server this holds once the connection is split, in bytes:
//
//	credit of the server + queued + to be granted == Limits.MaxBuffered
//
// where "to be granted" is negative for the server that was alone as long as it has more credit than that from the
// client. Its Write waits while more than MaxBuffered bytes are queued, so for no server more is.
//
// The queues are served in turn, a frame each.

// download is the part of a conn in this.
type download struct {
	credit int64        // what the client has given for all streams
	enc    blockEncoder // of the header blocks for the client
	out    []byte       // what is to be written
	spare  []byte       // memory for it

	// While one server is in the middle of a DATA frame that has passed through in part, its rest goes first.
	raw     []byte
	rawFrom *Conn

	writing bool // somebody writes to the socket
	wake    sync.Cond
	queues  []*Conn // the servers that have something queued, in the order in which they are served
}

// downloadServer is the part of a server in this.
type downloadServer struct {
	credit int64 // what the server may send on all streams
	grant  int64 // what is to be granted to it
	queue  []queued
	bytes  int64
}

// queued is what waits on a stream for credit, or for what is queued before it on the stream.
type queued struct {
	s      *stream
	data   []byte
	block  bool // it is a header block with the fields
	fields []hpack.HeaderField
	end    bool // END_STREAM
	reset  bool // it is RST_STREAM with the code
	code   http2.ErrCode
}

// maxOut is how much can wait to be written before the servers' Writes wait too.
const maxOut = 256 << 10

func (d *download) init(c *conn) { d.wake.L = &c.mu }

// grow takes credit from the client.
func (d *download) grow(n int64) (cerr *h2.ConnError) {
	d.credit, cerr = h2.GrowWindow(d.credit, n)
	return cerr
}

// startDownload begins to account for the credit apart.
func (c *conn) startDownload() {
	v := c.pass
	c.enc.init(c.tableSize, v == nil)
	if v == nil {
		return
	}
	v.enc.init(v.tableSize, false)
	v.downloadServer.credit = c.download.credit
	if v.out.inFrame() {
		c.rawFrom = v
	}
	v.sent(int64(c.d.Limits.MaxBuffered) - v.downloadServer.credit)
}

// init gives a server that joins its credit, with a frame for it.
func (d *downloadServer) init(c *conn, b *[]byte) {
	window := int64(c.d.Limits.MaxBuffered)
	d.credit = h2.DefaultWindow
	if more := window - h2.DefaultWindow; more > 0 {
		*b = h2.AppendWindowUpdate(*b, 0, uint32(more))
		d.credit = window
	}
}

// sent gives n bytes of credit back to the server, soon.
func (v *Conn) sent(n int64) {
	d := &v.downloadServer
	d.grant += n
	if d.grant < int64(v.c.d.Limits.MaxBuffered)/4 || v.closed {
		return
	}
	v.push(h2.AppendWindowUpdate(v.in.room(), 0, uint32(d.grant)))
	d.credit += d.grant
	d.grant = 0
}

// mustWait reports whether the server has to wait after a Write. For credit of the client's it does not have to while the
// client is not read from because of what this server has not read: it may read only when it has written, and the credit
// would not be read.
func (v *Conn) mustWait() bool {
	c := v.c
	if c.dead || c.closing || v.closed || c.rawFrom == v {
		return false
	}
	return len(c.out) > maxOut || v.bytes > int64(c.d.Limits.MaxBuffered) && v.in.len() <= maxUnread
}

// downloaded takes a part of the content of a response.
func (c *conn) downloaded(s *stream, b []byte, end bool) {
	v := s.server
	if s.queued == 0 && (len(b) == 0 || len(c.queues) == 0 && int64(len(b)) <= c.download.credit) {
		c.emitData(s, b, end)
		return
	}
	v.bytes += int64(len(b))
	c.enqueue(queued{s: s, data: slices.Clone(b), end: end})
}

func (c *conn) enqueue(q queued) {
	v := q.s.server
	q.s.queued++
	if v.queue = append(v.queue, q); len(v.queue) == 1 {
		c.queues = append(c.queues, v)
		c.wake.Broadcast()
	}
}

// emitData sends DATA to the client, which has given the credit for it.
func (c *conn) emitData(s *stream, b []byte, end bool) {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	c.emit(h2.AppendFrame(c.out, http2.FrameData, flags, s.id, b))
	c.download.credit -= int64(len(b))
	s.server.sent(int64(len(b)))
	c.controls.forgive()
	c.emitted(s, end)
}

// emitBlock sends a header block to the client.
func (c *conn) emitBlock(s *stream, fields []hpack.HeaderField, end bool) {
	c.emit(h2.AppendHeaders(c.out, s.id, end, nil, c.enc.encode(fields), h2.DefaultMaxFrameSize))
	c.controls.forgive()
	c.emitted(s, end)
}

func (c *conn) emitted(s *stream, end bool) {
	if end {
		s.serverEnded = true
		c.endIfDone(s)
	}
}

// emit sets what is to be written, to which something was appended.
func (c *conn) emit(out []byte) {
	c.out = out
	c.wake.Broadcast()
}

// pump moves what is queued to out, as far as the client has given credit.
func (c *conn) pump() {
	for stuck := 0; stuck < len(c.queues) && len(c.out) < maxOut/4; {
		v := c.queues[0]
		if c.pumpServer(v) {
			stuck = 0
		} else {
			stuck++
		}
		c.queues = append(c.queues[:0], c.queues[1:]...)
		switch {
		case len(v.queue) > 0:
			c.queues = append(c.queues, v)
		case v.closed && !c.leftBehind():
			c.stopPatience()
			fallthrough
		default:
			c.settle()
		}
	}
}

// pumpServer moves the first of what a server has queued.
func (c *conn) pumpServer(v *Conn) (moved bool) {
	q := &v.queue[0]
	n := len(q.data)
	if !q.s.removed {
		switch {
		case q.block:
			c.emitBlock(q.s, q.fields, q.end)
		case q.reset:
			c.emit(h2.AppendRSTStream(c.out, q.s.id, q.code))
			c.remove(q.s, byServer)
		default:
			if n = int(min(int64(n), max(c.download.credit, 0))); n == 0 && len(q.data) > 0 {
				return false
			}
			c.emitData(q.s, q.data[:n], q.end && n == len(q.data))
		}
	} else {
		v.sent(int64(n))
	}
	v.bytes -= int64(n)
	if n == len(q.data) {
		q.s.queued--
		v.queue[0] = queued{}
		if v.queue = v.queue[1:]; len(v.queue) == 0 {
			v.queue = nil
		}
	} else {
		q.data = q.data[n:]
	}
	v.writable.Broadcast()
	return true
}

// dropQueue drops what is queued.
func (v *Conn) dropQueue() {
	for _, q := range v.queue {
		q.s.queued = 0
	}
	v.queue, v.bytes = nil, 0
}

// writeLoop writes to the client, from the split to the end of the connection.
func (c *conn) writeLoop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for {
			if c.dead {
				return
			}
			if !c.closing && c.rawFrom == nil {
				c.pump()
			}
			if !c.writing && (len(c.raw) > 0 || len(c.out) > 0 && c.rawFrom == nil || c.closing) {
				break
			}
			c.wake.Wait()
		}
		b := c.raw
		c.raw = nil
		if c.rawFrom == nil {
			if len(b) > 0 {
				b = append(b, c.out...)
				c.out = c.out[:0]
			} else {
				b, c.out = c.out, c.spare[:0]
				c.spare = nil
			}
		}
		last := c.closing
		c.mu.Unlock()
		var err error
		if len(b) > 0 {
			_, err = c.sock.Write(b)
		}
		if last && err == nil {
			c.owner.Linger(c.sock)
		}
		c.mu.Lock()
		if err != nil || last || c.dead {
			c.kill()
			return
		}
		if c.spare == nil && cap(b) <= maxOut {
			c.spare = b[:0]
		}
		if len(c.out) <= maxOut {
			for _, v := range c.servers {
				if v != nil {
					v.writable.Broadcast()
				}
			}
			c.unread.Broadcast()
		}
	}
}
