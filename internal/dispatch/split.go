package dispatch

import (
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// startSplitting goes over from opening or passing to splitting, between two frames of the client. The caller holds mu,
// and has readLoop read what follows.
func (c *conn) startSplitting() {
	v := c.pass
	c.mode, c.splitConn = splitting, new(splitConn)
	if v != nil {
		v.startSplitting()
		c.splitStreams(v)
	}
	c.countShared(1)
	if !c.spoken {
		c.out = c.appendEarlySettings(c.out)
	}
	c.out = c.appendDrain(append(c.out, c.endWithholding(nil)...))
	c.forgetWithheld()
	c.startDownload()
	c.startUpload()
	c.acknowledge()
	if v != nil {
		// The deadlines are the server's, not those of the client's connection.
		c.sock.SetDeadline(time.Time{})
		v.readDeadline.set(v, v.readDeadline.at, (*Conn).endRead)
		v.writeDeadline.set(v, v.writeDeadline.at, (*Conn).endWrite)
	}
	if v == nil {
		idle := c.d.Limits.IdleTimeout
		c.alone = time.AfterFunc(idle, func() { c.dismiss(ErrIdle) })
	}
	c.reading = true
	go c.writeLoop()
}

// splitStreams makes the streams that have passed through to v those of a split connection.
func (c *conn) splitStreams(v *Conn) {
	for _, p := range c.passed.places {
		if p.over() {
			continue
		}
		s := c.newStream(v, p.streamState)
		s.requestAt = -1
		s.toClient += p.upload
		s.toServer += p.upload
		s.downloadStream.window += p.download
	}
	c.passed = passedStreams{}
	if c.in.inFrame() && c.in.hdr.Type == http2.FrameData {
		c.cur = c.streams.find(c.in.hdr.StreamID)
	}
}

// readLoop reads from the client, from the split to the end of the connection. It begins with b.
func (c *conn) readLoop(b []byte) {
	defer c.endReading()
	socket := newSocket(c.sock)
	var lender bufferLender
	defer lender.Put()
	for {
		rest, ok := c.takeFrames(b)
		if !ok {
			return
		}
		var n int
		var err error
		if len(rest) == 0 && socket != nil {
			lender.Put()
			b, n, err = socket.read(&lender)
			b = b[:0]
		} else {
			b = makeRoom(b, rest)
			n, err = c.sock.Read(b[len(b):cap(b)])
		}
		if n == 0 && err != nil {
			c.clientEnded(err)
			return
		}
		b = append(b, c.skip.from(b[len(b):len(b)+n])...)
	}
}

// endReading ends readLoop.
func (c *conn) endReading() {
	c.dropReader()
	c.lock()
	defer c.mu.Unlock()
	c.reading = false
	c.wake.Broadcast()
}

// makeRoom returns what is left of b, at the start of its memory or of another if b has no room for more, or too much.
func makeRoom(b, rest []byte) []byte {
	switch most := 2 * len(rest); {
	case cap(b) < readBuffer, len(rest) == cap(b), most < readBuffer && cap(b) > readBuffer:
		return append(make([]byte, 0, max(readBuffer, most)), rest...)
	case len(rest) < len(b):
		return append(b[:0], rest...)
	}
	return b
}

const readBuffer = 32 << 10

// A bufferLender lends the memory to read into.
type bufferLender struct{ lent *[readBuffer]byte }

var readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// Get returns the memory.
func (l *bufferLender) Get() []byte {
	if l.lent == nil {
		l.lent = readBuffers.Get().(*[readBuffer]byte)
	}
	return l.lent[:]
}

// Put takes it back.
func (l *bufferLender) Put() {
	if l.lent != nil {
		readBuffers.Put(l.lent)
		l.lent = nil
	}
}

// takeFrames takes the frames in b, and returns what is left of it. It reports false when the client is not read from
// any more.
func (c *conn) takeFrames(b []byte) (rest []byte, ok bool) {
	c.lock()
	defer c.mu.Unlock()
	c.applyAdvertised()
	it := new(clientItem)
	for {
		for c.stalled() {
			c.unread.Wait()
		}
		if c.closing || c.dead {
			return nil, false
		}
		n, ferr := c.in.next(&it.item, b)
		if it.kind == blockItem && n > 0 && !c.recall(it) {
			c.mu.Unlock()
			c.examine(it) // which asks the matchers
			c.lock()
		}
		cerr := it.fault
		switch {
		case c.closing || c.dead:
			return nil, false
		case ferr != nil:
			cerr = &ferr.ConnError
		case n == 0:
			return b, true
		case cerr == nil:
			cerr = c.take(it)
			c.settle()
		}
		if it.kind == blockItem {
			c.shrink()
		}
		if cerr != nil {
			c.fail(cerr)
			return nil, false
		}
		b = b[n:]
	}
}

// stalled reports whether so much waits to be read by a server, or by the client, that nothing more is read from the
// client.
func (c *conn) stalled() bool {
	if c.closing || c.dead {
		return false
	}
	if len(c.out) > maxUnwritten {
		return true
	}
	for _, v := range c.joined {
		if v.in.len() > maxUnread {
			v.writable.Broadcast() // see mustWait
			return true
		}
	}
	return false
}

// clientEnded ends what the servers read. A client that has ended its side may still read, but neither net/http nor
// grpc-go go on with a connection then: they close it, and when all have the connection ends.
func (c *conn) clientEnded(err error) {
	c.lock()
	defer c.mu.Unlock()
	if c.closing || c.dead {
		return
	}
	c.ended = true
	for _, v := range slices.Clone(c.joined) {
		// A server that has not accepted its side will not close it.
		if v.target.queue.Remove(func(q *Conn) bool { return q == v }) != nil {
			v.close()
		}
	}
	switch {
	case c.closing || c.dead:
	case !errors.Is(err, io.EOF):
		c.kill()
	case len(c.joined) == 0:
		c.close(lingerTime)
	default:
		c.wakeAll()
	}
}
