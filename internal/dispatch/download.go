package dispatch

import (
	"slices"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// What the servers send. The client's windows for streams are the servers': WINDOW_UPDATE frames for them reach the
// server as they are. Of the connection's window each server has one of its own, which the dispatcher grants; what the
// client's does not cover is queued. For each server this holds once the connection is split, in bytes:
//
//	credit of the server + queued + to be granted == Limits.MaxBuffered
//
// where "to be granted" is negative for the server that was alone as long as it has more credit than that from the
// client. Its Write waits while more than MaxBuffered bytes are queued, so for no server more is.
//
// The servers are served in turn, a frame each, and so are the streams of each.
//
// Of the windows of streams the dispatcher keeps account as well, since the client may lower
// SETTINGS_INITIAL_WINDOW_SIZE while something is queued.

// download is the part of a conn in this.
type download struct {
	credit      int64 // what the client has given for all streams
	sendWindow  int64 // SETTINGS_INITIAL_WINDOW_SIZE of the client that streams go by
	ackedWindow int64 // as of the last SETTINGS frame that has been acknowledged

	writing bool  // somebody writes to the socket
	writer  *Conn // if it is the Write of a server through which the connection passed when it began
	wake    sync.Cond
}

// splitDownload is the part of a splitConn in this.
type splitDownload struct {
	enc         blockEncoder // of the header blocks for the client
	out         []byte       // what is to be written
	spare       []byte       // memory for it
	writerWaits bool         // writeLoop waits to be woken up
	queues      []*Conn      // the servers that have streams waiting, in the order in which they are served

	// While one server is in the middle of a DATA frame that has passed through in part, its rest goes first.
	raw     []byte
	rawFrom *Conn
}

// downloadServer is the part of a server in this.
type downloadServer struct {
	credit  int64     // what the server may send on all streams
	grant   int64     // what is to be granted to it
	waiting []*stream // those with something queued and a window, in the order in which they are served
	bytes   int64     // of content queued
	memory  int64     // taken by all that is queued

	isServed bool // the server is in queues
}

// downloadStream is the part of a stream in this.
type downloadStream struct {
	window      int64    // what the client may be sent on the stream
	queue       []queued // what waits, in order; content comes first
	waits       bool     // the stream is in waiting
	resetQueued bool     // the server has reset the stream, which the client learns behind what is queued
}

// queued is what waits on a stream for credit, or for what is queued before it. It is content, a header block, or
// RST_STREAM.
type queued struct {
	data   []byte
	end    bool // END_STREAM
	block  bool
	fields []hpack.HeaderField
	reset  bool
	code   http2.ErrCode
}

// memory is what a queued item takes, about.
func (q *queued) memory() int64 {
	return int64(queuedSize + cap(q.data) + listSize(q.fields))
}

const (
	queuedSize = 96      // of a queued
	queuedData = 1 << 14 // the most content in one, which is a frame
)

// queuedBuffers lends memory for content that is queued. What was sent in part is not given back.
var queuedBuffers = sync.Pool{New: func() any { return new([queuedData]byte) }}

// withQueuedRoom returns b with room for n bytes more, in lent memory if they fill more than a quarter of that.
func withQueuedRoom(b []byte, n int) []byte {
	if n += len(b); n <= cap(b) || n <= queuedData/4 {
		return b
	}
	return append(queuedBuffers.Get().(*[queuedData]byte)[:0], b...)
}

const (
	// maxOut is how much can wait to be written before the servers' Writes wait too. A large buffer has room for that,
	// and for what they write last.
	maxOut = 64 << 10

	// maxUnwritten is how much can wait before nothing is read from the client any more, since answers to it add to that.
	maxUnwritten = 512 << 10
)

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

// mustWait reports whether the server has to wait after a Write. For credit of the client's it does not have to while
// the client is not read from because of what this server has not read: it may read only when it has written, and the
// credit would not be read.
func (v *Conn) mustWait() bool {
	c := v.c
	if c.dead || c.closing || v.closed || c.rawFrom == v {
		return false
	}
	return len(c.out) > maxOut || v.queueFull() && v.in.len() <= maxUnread
}

// queueFull reports whether all is queued that may be. The server can come to more than MaxBuffered bytes if it was
// alone before, and to more memory if it writes many small pieces on many streams.
func (v *Conn) queueFull() bool {
	most := int64(v.c.d.Limits.MaxBuffered)
	return v.bytes > most || v.memory > most+most/2
}

// downloaded takes a part of the content of a response.
func (c *conn) downloaded(s *stream, b []byte, end bool) {
	v := s.server
	if len(s.queue) == 0 && (len(b) == 0 || len(c.queues) == 0 && int64(len(b)) <= min(c.download.credit, s.window)) {
		c.emitData(s, b, end)
		return
	}
	v.bytes += int64(len(b))
	for {
		q := s.lastData()
		if q == nil {
			c.enqueue(s, queued{})
			continue
		}
		n := min(len(b), queuedData-len(q.data))
		v.memory -= int64(cap(q.data))
		q.data = append(withQueuedRoom(q.data, n), b[:n]...)
		v.memory += int64(cap(q.data))
		if b = b[n:]; len(b) == 0 {
			q.end = end
			return
		}
	}
}

// lastData returns the item to which content can be added, or nil.
func (s *stream) lastData() *queued {
	if len(s.queue) == 0 {
		return nil
	}
	q := &s.queue[len(s.queue)-1]
	if q.block || q.reset || q.end || len(q.data) == queuedData {
		return nil
	}
	return q
}

// enqueue queues an item on a stream.
func (c *conn) enqueue(s *stream, q queued) {
	s.server.memory += q.memory()
	s.queue = append(s.queue, q)
	c.wait(s)
}

// wait has a stream served if something is queued on it and it has a window.
func (c *conn) wait(s *stream) {
	if s.waits || len(s.queue) == 0 || s.window <= 0 {
		return
	}
	s.waits = true
	v := s.server
	v.waiting = append(v.waiting, s)
	c.serve(v)
}

// serve has a server served.
func (c *conn) serve(v *Conn) {
	if !v.isServed {
		v.isServed = true
		c.queues = append(c.queues, v)
		c.wake.Broadcast()
	}
}

// dequeue takes the first item off a stream.
func (s *stream) dequeue() {
	s.server.memory -= s.queue[0].memory()
	s.queue[0] = queued{}
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
}

// dropQueued drops what is queued on a stream.
func (c *conn) dropQueued(s *stream) {
	v := s.server
	for len(s.queue) > 0 {
		n := int64(len(s.queue[0].data))
		v.bytes -= n
		v.sent(n)
		s.dequeue()
	}
	if s.waits {
		s.waits = false
		v.waiting = slices.DeleteFunc(v.waiting, func(w *stream) bool { return w == s })
		if len(v.waiting) == 0 {
			v.waiting, v.isServed = nil, false
			c.queues = slices.DeleteFunc(c.queues, func(w *Conn) bool { return w == v })
		}
		v.writable.Broadcast()
	}
}

// grow adds to the window of a stream, which can be negative.
func (c *conn) grow(s *stream, n int64) {
	s.window += n
	c.wait(s)
}

// updateWindows has the streams go by the client's SETTINGS_INITIAL_WINDOW_SIZE: by a higher one at once, by a lower
// one when it has been acknowledged.
func (c *conn) updateWindows() {
	if len(c.fromClient) == 0 {
		c.ackedWindow = int64(c.setting(http2.SettingInitialWindowSize, h2.DefaultWindow))
	}
	window := c.ackedWindow
	for _, f := range c.fromClient {
		window = max(window, f.window)
	}
	delta := window - c.sendWindow
	c.sendWindow = window
	if delta == 0 {
		return
	}
	for _, s := range c.streams {
		c.grow(s, delta)
	}
}

// emitData sends DATA to the client, which has given the credit for it.
func (c *conn) emitData(s *stream, b []byte, end bool) {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	c.emit(h2.AppendFrame(withRoom(c.out, h2.FrameHeaderLen+len(b)), http2.FrameData, flags, s.id, b))
	c.download.credit -= int64(len(b))
	s.window -= int64(len(b))
	s.server.sent(int64(len(b)))
	c.controls.forgive()
	c.emitted(s, end)
}

// emitBlock sends a header block to the client.
func (c *conn) emitBlock(s *stream, block []byte, end bool) {
	c.emit(h2.AppendHeaders(c.out, s.id, end, nil, block, h2.DefaultMaxFrameSize))
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
	for len(c.queues) > 0 && c.download.credit > 0 && len(c.out) < maxOut {
		v := c.queues[0]
		c.queues = append(c.queues[:0], c.queues[1:]...)
		v.isServed = false
		c.pumpServer(v)
		if len(v.waiting) > 0 {
			c.serve(v)
		} else if v.closed && !c.leftBehind() {
			c.stopPatience()
		}
		v.writable.Broadcast()
	}
	c.settle()
}

// pumpServer moves a frame of what a server has queued, and what can go behind that.
func (c *conn) pumpServer(v *Conn) {
	s := v.waiting[0]
	v.waiting[0] = nil
	if v.waiting = v.waiting[1:]; len(v.waiting) == 0 {
		v.waiting = nil
	}
	s.waits = false
	for sent := false; len(s.queue) > 0; {
		q := s.queue[0]
		if len(q.data) > 0 {
			n := min(int64(len(q.data)), c.download.credit, s.window)
			if sent || n <= 0 {
				break
			}
			sent = true
			v.bytes -= n
			if int(n) < len(q.data) {
				s.queue[0].data = q.data[n:]
				v.memory -= n
				c.emitData(s, q.data[:n], false)
				break
			}
		}
		s.dequeue()
		switch {
		case q.block:
			c.emitBlock(s, c.enc.encode(q.fields), q.end)
		case q.reset:
			c.emit(h2.AppendRSTStream(c.out, s.id, q.code))
			c.remove(s, byServer)
		default:
			c.emitData(s, q.data, q.end)
			if cap(q.data) == queuedData {
				queuedBuffers.Put((*[queuedData]byte)(q.data[:queuedData]))
			}
		}
	}
	c.wait(s)
}

// giveBack gives back the memory of out while nothing is to be written, if it is much.
func (d *splitDownload) giveBack() {
	if len(d.out) == 0 {
		d.out = emptied(d.out)
	}
	d.spare = emptied(d.spare)
}

// writeLoop writes to the client, from the split to the end of the connection.
func (c *conn) writeLoop() {
	c.lock()
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
			c.giveBack()
			c.writerWaits = true
			c.wake.Wait()
			c.writerWaits = false
			c.takeWritten()
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
			c.awaitReader()
			c.owner.Linger(c.sock)
		}
		c.lock()
		if err != nil || last || c.dead {
			c.kill()
			return
		}
		if c.spare == nil && cap(b) <= largeBuffer {
			c.spare = b[:0]
		}
		if len(c.out) <= maxOut {
			for _, v := range c.joined {
				v.writable.Broadcast()
			}
			c.unread.Broadcast()
		}
	}
}

// awaitReader waits until nobody reads from the client any more.
func (c *conn) awaitReader() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading && c.sock.SetReadDeadline(aLongTimeAgo) != nil {
		return // it reads until the client's connection is closed
	}
	for c.reading && !c.dead {
		c.wake.Wait()
	}
}
