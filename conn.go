package oneport

import (
	"crypto/tls"
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
	in  inbound
	out outbound
}

// Read reads the client's bytes, each once and in order. The first call returns as many of the replayed bytes as fit.
func (c *Conn) Read(p []byte) (int, error) { return c.in.Read(p) }

// Write writes to the client. What the mux has said in the server's place is left out, once.
func (c *Conn) Write(p []byte) (int, error) { return c.out.Write(p) }

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

// SyscallConn gives access to the socket below, also below TLS, for socket options and peer credentials, if there is one.
// Otherwise the error is [errors.ErrUnsupported].
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	below := c.Conn
	if tc, ok := below.(*tls.Conn); ok {
		below = tc.NetConn()
	}
	if sc, ok := below.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, fmt.Errorf("oneport: no socket below a %T: %w", c.Conn, errors.ErrUnsupported)
}

// TLSConn is a [Conn] inside TLS that the mux has terminated.
type TLSConn struct {
	Conn
	state tls.ConnectionState
}

// ConnectionState returns the state of the TLS at the end of the handshake, as [tls.Conn.ConnectionState] does. With it
// net/http fills [http.Request.TLS], and package grpccreds the AuthInfo of gRPC's peers.
func (c *TLSConn) ConnectionState() tls.ConnectionState { return c.state }

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

// changes are how the stream that a server gets differs from what its connection delivers.
type changes struct {
	first, replay []byte       // to be read first, and then
	fromClient    frameFilter  // what is taken out of replay and what follows it
	toClient      streamFilter // what is taken out of what is written; nil for nothing
	hideTLS       bool         // the connection must not show that it is encrypted
}

func (ch *changes) none() bool {
	return len(ch.first) == 0 && len(ch.replay) == 0 && ch.fromClient.Done() && ch.toClient == nil
}

// A streamFilter takes something out of a stream.
type streamFilter interface {
	// Filter goes over the next bytes of the stream behind what is held. It returns how many to deliver.
	Filter(b []byte) int
	// Held returns what Filter has kept back, to be put in front of the bytes that follow.
	Held() []byte
	// Done reports whether the rest of the stream is to pass as it is.
	Done() bool
}

// newConn makes the connection that a server gets in place of c. It keeps the bytes in ch.
func newConn(c net.Conn, ch changes) net.Conn {
	// Nothing that is written to a TCPConn can be changed: net.Buffers and ReadFrom go past its Write.
	if tc, ok := c.(*net.TCPConn); ok && ch.toClient == nil {
		w := &TCPConn{TCPConn: tc}
		w.in.init(tc, ch)
		return w
	}
	var w *Conn
	var shown net.Conn
	if tc, ok := c.(*tls.Conn); ok && !ch.hideTLS {
		t := &TLSConn{state: tc.ConnectionState()}
		w, shown = &t.Conn, t
	} else {
		w = new(Conn)
		shown = w
	}
	w.Conn = c
	w.in.init(c, ch)
	w.out.init(c, ch.toClient)
	return shown
}

// inbound is the stream that the server reads.
type inbound struct {
	src   io.Reader
	plain atomic.Bool // nothing is left to replay or to take out: src is the stream

	mu     sync.Mutex // guards what follows
	ready  []byte     // already read from src, still to be delivered
	filter frameFilter
}

func (in *inbound) init(src io.Reader, ch changes) {
	in.src, in.filter = src, ch.fromClient
	in.ready = ch.replay
	if !in.filter.Done() {
		in.ready = in.ready[:in.filter.Filter(in.ready)]
	}
	if len(ch.first) > 0 {
		in.ready = append(ch.first, in.ready...)
	}
	in.settle()
}

// settle notes when src has become the stream.
func (in *inbound) settle() {
	if len(in.ready) == 0 && in.filter.Done() {
		in.ready = nil // a replay buffer is not kept once it is empty
		in.plain.Store(true)
	}
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
	for !in.filter.Done() {
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
	held := copy(buf, in.filter.Held())
	n, err := in.src.Read(buf[held:])
	out := buf[:in.filter.Filter(buf[:held+n])]
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		// The rest of a frame header that is held back will not come: the server sees the part that did.
		out = append(out, in.filter.Held()...)
		in.filter = frameFilter{}
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

// outbound is the stream that the server writes.
type outbound struct {
	dst   io.Writer
	plain atomic.Bool // nothing is left to take out

	mu     sync.Mutex // guards what follows, and keeps writes in order
	filter streamFilter
}

func (out *outbound) init(dst io.Writer, filter streamFilter) {
	out.dst, out.filter = dst, filter
	out.plain.Store(filter == nil)
}

func (out *outbound) Write(p []byte) (int, error) {
	if out.plain.Load() {
		return out.dst.Write(p)
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	b := append(append(make([]byte, 0, len(out.filter.Held())+len(p)), out.filter.Held()...), p...)
	b = b[:out.filter.Filter(b)]
	if len(b) > 0 {
		if _, err := out.dst.Write(b); err != nil {
			return 0, err // part of a frame may be gone, so the connection cannot be used any more
		}
	}
	out.plain.Store(out.filter.Done())
	return len(p), nil
}
