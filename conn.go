package oneport

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/oneport-go/oneport/internal/netconn"
	"github.com/oneport-go/oneport/internal/rewind"
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
	in   rewind.Reader
	out  rewind.Writer
	held *hold
}

// Read reads the client's bytes, each once and in order. The first call returns as many of the replayed bytes as fit.
func (c *Conn) Read(p []byte) (int, error) { return c.in.Read(p) }

// Write writes to the client. What the mux has said in the server's place is left out, once.
func (c *Conn) Write(p []byte) (int, error) { return c.out.Write(p) }

// Close closes the connection.
func (c *Conn) Close() error {
	c.held.release()
	return c.Conn.Close()
}

// NetConn returns the underlying connection. Bytes read from it directly are missing from c.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// CloseWrite shuts down the writing side, if the underlying connection can do that. Otherwise the error is
// [errors.ErrUnsupported].
func (c *Conn) CloseWrite() error { return wrapErr(netconn.CloseWrite(c.Conn)) }

// SyscallConn gives access to the socket below, also below TLS, for socket options and peer credentials, if there is one.
// Otherwise the error is [errors.ErrUnsupported].
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	raw, err := netconn.SyscallConn(c.Conn)
	return raw, wrapErr(err)
}

func wrapErr(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("oneport: %w", err)
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
	in   rewind.Reader
	held *hold
}

// Read reads the client's bytes, each once and in order. The first call returns as many of the replayed bytes as fit.
func (c *TCPConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// WriteTo copies the client's bytes to w until the end of the stream. Once the stream is no longer changed it leaves
// the work to [net.TCPConn.WriteTo], which on Linux splices.
func (c *TCPConn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.in.CopyChanged(w)
	if err != nil {
		if err == io.EOF {
			err = nil
		}
		return n, err
	}
	m, err := c.TCPConn.WriteTo(w)
	return n + m, err
}

// Close closes the connection.
func (c *TCPConn) Close() error {
	c.held.release()
	return c.TCPConn.Close()
}

// NetConn returns the accepted connection. Bytes read from it directly are missing from c.
func (c *TCPConn) NetConn() net.Conn { return c.TCPConn }

// changes are how the stream that a server gets differs from what its connection delivers.
type changes struct {
	first, replay []byte        // to be read first, and then
	fromClient    rewind.Filter // for replay and what follows it; nil for none
	toClient      rewind.Filter // for what is written; nil for none
	held          *hold         // to be released when it is closed
	hideTLS       bool          // the connection must not show that it is encrypted
}

func (ch *changes) none() bool {
	return len(ch.first) == 0 && len(ch.replay) == 0 && ch.fromClient == nil && ch.toClient == nil && ch.held == nil
}

// newConn makes the connection that a server gets in place of c. It keeps the bytes in ch.
func newConn(c net.Conn, ch changes) net.Conn {
	// Nothing that is written to a TCPConn can be changed: net.Buffers and ReadFrom go past its Write.
	if tc, ok := c.(*net.TCPConn); ok && ch.toClient == nil {
		w := &TCPConn{TCPConn: tc, held: ch.held}
		w.in.Init(tc, ch.first, ch.replay, ch.fromClient)
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
	w.Conn, w.held = c, ch.held
	w.in.Init(c, ch.first, ch.replay, ch.fromClient)
	w.out.Init(c, ch.toClient)
	return shown
}
