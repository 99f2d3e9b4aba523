package dispatch

import (
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/oneport-go/oneport/internal/h2"
)

// Write writes to the client.
//
// For each write, net/http starts a goroutine, of whose stack of 2 KiB a good part is taken. To grow it would cost more
// than all that is done here. So in passing, what needs much of a stack has returned before the socket is written to,
// and frames are small: what would make them large is not inlined. In splitting, which decodes and encodes, what is
// written is mostly left to writeLoop (TestWriteStack).
func (v *Conn) Write(p []byte) (int, error) {
	var err error
	v.wmu.Lock()
	switch {
	case v.writeLater(p):
	case !v.lockPassing():
		err = v.writeSplit(p)
	default:
		var b []byte
		if b, err = v.passOn(v.scanServer(p)); len(b) > 0 {
			_, err = v.c.sock.Write(b)
			v.finishWrite()
		}
	}
	v.wmu.Unlock()
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// writeLater leaves p to whoever locks the connection next, mostly writeLoop. It reports false if that is not to be: p is
// long, the connection is not split or has ended, or too much is queued. The caller holds wmu.
func (v *Conn) writeLater(p []byte) bool {
	c := v.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode != splitting || v.closed || c.closing || c.dead || v.mustWait() || len(v.written)+len(p) > writtenBuffer {
		return false
	}
	if v.written == nil {
		v.written = writtenBuffers.Get().(*[writtenBuffer]byte)[:0]
		c.written = append(c.written, v)
	}
	v.written = append(v.written, p...)
	if c.writerWaits {
		c.wake.Broadcast()
	} else {
		v.readable.Broadcast() // writeLoop may be in the socket for long, and Read may wait for what p brings about
	}
	return true
}

// writtenBuffers lends memory for what the servers have written.
var writtenBuffers = sync.Pool{New: func() any { return new([writtenBuffer]byte) }}

const writtenBuffer = 4 << 10

// lock locks mu, and takes what the servers have written, so that nobody sees the connection without that. In
// splitting, all use it but those who only wait, or wake others up.
func (c *conn) lock() {
	c.mu.Lock()
	c.takeWritten()
}

// takeWritten takes what the servers have written, in splitting.
func (c *conn) takeWritten() {
	if c.mode != splitting {
		return
	}
	for i := 0; i < len(c.written); i++ { // which ends if the connection does
		c.written[i].takeWritten()
	}
	clear(c.written)
	c.written = c.written[:0]
}

// takeWritten takes what the server has written.
func (v *Conn) takeWritten() {
	b := v.written
	v.written = nil
	if b == nil {
		return
	}
	if !v.closed && !v.c.closing && !v.c.dead {
		v.split(b) // a fault is kept for the next Write
	}
	writtenBuffers.Put((*[writtenBuffer]byte)(b[:writtenBuffer]))
}

// split takes what the server writes apart. A server that violates HTTP/2 has its side closed.
func (v *Conn) split(b []byte) error {
	if err := v.takeFrames(b); err != nil {
		v.fault = err
		v.logServerFault(err)
		v.close()
		return err
	}
	v.c.settle()
	return nil
}

// lockPassing locks mu, when nobody writes to the client's connection, and reports whether that passes through. The
// caller holds wmu.
func (v *Conn) lockPassing() bool {
	c := v.c
	c.lock()
	for c.writing && c.mode == passing { // not a Write, since there is one at a time
		c.wake.Wait()
	}
	return c.mode == passing && !v.closed && !c.ended && !c.closing && !c.dead
}

// passOn returns what has to be written to the client now of what scanServer has returned. If that is anything,
// finishWrite has to follow. The caller holds mu, which passOn unlocks, without a defer that would take room on the
// stack.
func (v *Conn) passOn(b []byte, cerr *h2.ConnError) (_ []byte, err error) {
	c := v.c
	switch c.inFrame = !v.betweenFrames(); {
	case cerr != nil:
		b, err = nil, v.failPassing(cerr)
	case c.withhold(b):
		b = nil
	default:
		if b = c.endWithholding(b); len(b) > 0 {
			c.beginWriting()
		} else {
			c.drainPassing()
		}
	}
	c.mu.Unlock()
	return b, err
}

// failPassing ends a connection that passes through to a server that has violated HTTP/2.
func (v *Conn) failPassing(cerr *h2.ConnError) error {
	v.logServerFault(cerr)
	v.c.kill()
	return v.opError("write", fmt.Errorf("the server has violated HTTP/2: %w", cerr))
}

// finishWrite goes on when what passOn has returned is written.
func (v *Conn) finishWrite() {
	c := v.c
	c.lock()
	defer c.mu.Unlock()
	c.endWriting()
	c.drainPassing()
}

// writeSplit is Write in splitting, and when nothing passes through any more. It waits while too much is queued. The
// caller holds mu, which it unlocks.
func (v *Conn) writeSplit(p []byte) error {
	c := v.c
	defer c.mu.Unlock()
	switch {
	case v.closed && v.splitServer != nil && v.fault != nil:
		return v.opError("write", v.fault)
	case v.closed:
		return v.opError("write", net.ErrClosed)
	case c.closing, c.dead:
		return v.opError("write", errClientGone)
	case c.mode == passing: // it was drained
		return nil
	}
	if err := v.split(p); err != nil {
		return v.opError("write", err)
	}
	for v.mustWait() {
		if v.writeDeadline.passed() {
			return v.opError("write", os.ErrDeadlineExceeded)
		}
		v.writable.Wait()
	}
	return nil
}
