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

// Conn is a connection whose stream differs from that of the underlying connection: it replays bytes that the mux has
// read, and leaves out frames that the server must not see, such as the client's acknowledgement of an early SETTINGS
// frame.
//
// A server gets a Conn only where it is needed. From a TCP or Unix socket on Linux a server usually gets the accepted
// connection itself. If the stream of a TCP connection has to be changed in one direction only, the server gets a
// [TCPConn]. net/http gets its first HTTP/2 connections as a Conn, so that the mux can check whether it speaks HTTP/2.
//
// The methods may be called by several goroutines at once, as those of any [net.Conn].
type Conn struct {
	net.Conn
	in    rewind.Reader
	out   rewind.Writer
	held  *hold
	check *answerCheck
}

// Read reads the client's bytes, each once and in order. The first call returns as many of the replayed bytes as fit.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.check.noteRead(n, err)
	return n, err
}

// Write writes to the client. It leaves out SETTINGS acknowledgements that the mux has sent in the server's place.
func (c *Conn) Write(p []byte) (int, error) {
	c.check.noteWrite(p)
	return c.out.Write(p)
}

// Close closes the connection.
func (c *Conn) Close() error {
	c.check.noteClose()
	c.held.release()
	return c.Conn.Close()
}

// NetConn returns the underlying connection. Bytes that are read from it directly are lost to c, and bytes that c
// replays are missing from it.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// CloseWrite shuts down the writing side of the connection. If the underlying connection has no such method, the error
// wraps [errors.ErrUnsupported].
func (c *Conn) CloseWrite() error { return wrapErr(netconn.CloseWrite(c.Conn)) }

// SyscallConn gives access to the socket below the connection, also below TLS, for socket options and peer credentials.
// If there is no socket, the error wraps [errors.ErrUnsupported].
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

// TLSConn is a connection inside TLS that the mux has terminated. It replays the decrypted bytes that the mux has read:
// see [Conn].
type TLSConn struct {
	Conn
	state tls.ConnectionState
}

// ConnectionState returns the state of TLS after the handshake, as [tls.Conn.ConnectionState] does. net/http uses it
// for [http.Request.TLS], and package grpccreds for AuthInfo.
func (c *TLSConn) ConnectionState() tls.ConnectionState { return c.state }

// TCPConn is a TCP connection that replays bytes that the mux has read, or leaves out a frame that the server must not
// see: see [Conn]. It embeds the accepted connection, so all other methods of [net.TCPConn] work as usual: ReadFrom
// (sendfile, splice), vectored writes of [net.Buffers], CloseWrite, SyscallConn, keep-alive.
type TCPConn struct {
	*net.TCPConn
	in   rewind.Reader
	held *hold
}

// Read reads the client's bytes, each once and in order. The first call returns as many of the replayed bytes as fit.
func (c *TCPConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// WriteTo copies the client's bytes to w until the end of the stream. When nothing is left to replay or leave out, it
// calls [net.TCPConn.WriteTo], which uses splice on Linux.
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

// NetConn returns the accepted connection. Bytes that are read from it directly are lost to c.
func (c *TCPConn) NetConn() net.Conn { return c.TCPConn }

// changes are how the stream that a server gets differs from what its connection delivers.
type changes struct {
	first, replay []byte        // to be read first, and then
	fromClient    rewind.Filter // for replay and what follows it; nil for none
	toClient      rewind.Filter // for what is written; nil for none
	held          *hold         // to be released when it is closed
	check         *answerCheck  // of what is written; nil for none
	hideTLS       bool          // the connection must not show that it is encrypted
}

func (ch *changes) none() bool {
	return len(ch.first) == 0 && len(ch.replay) == 0 &&
		ch.fromClient == nil && ch.toClient == nil && ch.held == nil && ch.check == nil
}

// newConn makes the connection that a server gets in place of c. It keeps the bytes in ch.
func newConn(c net.Conn, ch changes) net.Conn {
	// Nothing that is written to a TCPConn can be changed: net.Buffers and ReadFrom go past its Write.
	if tc, ok := c.(*net.TCPConn); ok && ch.toClient == nil && ch.check == nil {
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
	w.Conn, w.held, w.check = c, ch.held, ch.check
	w.in.Init(c, ch.first, ch.replay, ch.fromClient)
	w.out.Init(c, ch.toClient)
	return shown
}
