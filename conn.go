package oneport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// Conn is a connection whose stream differs from what its underlying connection would deliver: bytes that were read
// while the route was looked for are replayed first, and the acknowledgement of an early SETTINGS frame is left out.
//
// A server gets a Conn only where that is unavoidable. From a listener of TCP or Unix sockets it gets what Accept
// returned, and over TCP, where the stream has to be changed, a [TCPConn].
//
// Its methods may be called by several goroutines at once, as those of any [net.Conn].
type Conn struct {
	net.Conn
	in inbound
}

// Read reads the client's bytes, each once and in order. The first call returns as many of the replayed bytes as fit.
func (c *Conn) Read(p []byte) (int, error) { return c.in.Read(p) }

// NetConn returns the underlying connection. Bytes read from it directly are missing from c.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// CloseWrite shuts down the writing side, if the underlying connection can do that. Otherwise the error is
// [errors.ErrUnsupported].
func (c *Conn) CloseWrite() error {
	if cw, ok := c.Conn.(closeWriter); ok {
		return cw.CloseWrite()
	}
	return fmt.Errorf("oneport: closing the writing side of a %T: %w", c.Conn, errors.ErrUnsupported)
}

// SyscallConn gives access to the socket below, for socket options and peer credentials, if there is one. Otherwise
// the error is [errors.ErrUnsupported].
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, fmt.Errorf("oneport: no socket below a %T: %w", c.Conn, errors.ErrUnsupported)
}

// TCPConn is a [Conn] over TCP. It embeds the accepted connection, so that everything else that a [net.TCPConn] can do
// works on it: ReadFrom (sendfile, splice), vectored writes of [net.Buffers], CloseWrite, SyscallConn, keep-alive.
type TCPConn struct {
	*net.TCPConn
	in inbound
}

// Read reads the client's bytes, each once and in order. The first call returns as many of the replayed bytes as fit.
func (c *TCPConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// WriteTo copies the client's bytes to w until the end of the stream. Once the stream is no longer changed it leaves
// the work to [net.TCPConn.WriteTo], which on Linux splices.
func (c *TCPConn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.in.copyChanged(w)
	if err != nil {
		if err == io.EOF {
			err = nil
		}
		return n, err
	}
	m, err := c.TCPConn.WriteTo(w)
	return n + m, err
}

// NetConn returns the accepted connection. Bytes read from it directly are missing from c.
func (c *TCPConn) NetConn() net.Conn { return c.TCPConn }

type closeWriter interface{ CloseWrite() error }

// newConn makes the connection that a server gets in place of c: replay first, then what c delivers. If dropACK is
// set, the first SETTINGS acknowledgement in the whole of that is dropped. It keeps replay.
func newConn(c net.Conn, replay []byte, dropACK bool) net.Conn {
	if tc, ok := c.(*net.TCPConn); ok {
		w := &TCPConn{TCPConn: tc}
		w.in.init(tc, replay, dropACK)
		return w
	}
	w := &Conn{Conn: c}
	w.in.init(c, replay, dropACK)
	return w
}

// inbound is the stream that the server reads.
type inbound struct {
	src   io.Reader
	plain atomic.Bool // nothing is left to replay or to drop: src is the stream

	mu      sync.Mutex // guards what follows
	ready   []byte     // already read from src, still to be delivered
	dropACK bool
	ack     ackFilter
}

func (in *inbound) init(src io.Reader, replay []byte, dropACK bool) {
	in.src, in.ready, in.dropACK = src, replay, dropACK
	if dropACK {
		in.ack = newACKFilter()
		in.ready = in.filter(replay)
	}
	in.settle()
}

// settle notes when src has become the stream.
func (in *inbound) settle() {
	if len(in.ready) == 0 && !in.dropACK {
		in.ready = nil // a replay buffer is not kept once it is empty
		in.plain.Store(true)
	}
}

// filter takes the acknowledgement out of b, in place, and returns what can be delivered of it.
func (in *inbound) filter(b []byte) []byte {
	n, found := in.ack.filter(b)
	if found {
		in.dropACK = false
	}
	return b[:n]
}

func (in *inbound) Read(p []byte) (int, error) {
	if in.plain.Load() || len(p) == 0 {
		return in.src.Read(p)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	defer in.settle()
	if len(in.ready) > 0 {
		n := copy(p, in.ready)
		in.ready = in.ready[n:]
		return n, nil
	}
	for in.dropACK {
		if n, err := in.readFiltered(p); n > 0 || err != nil {
			return n, err
		}
	}
	return in.src.Read(p)
}

// readFiltered reads from src once. It may deliver nothing, where all that came is held back or was dropped.
func (in *inbound) readFiltered(p []byte) (int, error) {
	buf := p
	if least := 2 * frameHeaderLen; len(buf) < least {
		buf = make([]byte, least) // a part of a frame header that was held back takes room before what is read now
	}
	held := copy(buf, in.ack.held())
	n, err := in.src.Read(buf[held:])
	out := in.filter(buf[:held+n])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		// The rest of a frame header that is held back will not come: the server sees the part that did.
		out = append(out, in.ack.held()...)
		in.dropACK = false
	}
	n = copy(p, out)
	if n < len(out) {
		in.ready = out[n:]
		return n, nil // an end of the stream, if that is what err is, is reported again by the next read
	}
	return n, err
}

// copyChanged copies to w for as long as the stream is not src's own.
func (in *inbound) copyChanged(w io.Writer) (int64, error) {
	var total int64
	var buf []byte
	for !in.plain.Load() {
		if buf == nil {
			buf = make([]byte, 4096)
		}
		n, err := in.Read(buf)
		m, werr := w.Write(buf[:n])
		total += int64(m)
		if werr != nil {
			return total, werr
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
