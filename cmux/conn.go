package cmux

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/oneport-go/oneport"
)

// MuxConn is a connection that a matched listener has accepted. The embedded Conn is the one that the underlying
// listener has accepted. If the multiplexer could not peek at it and had to read, what it has read is missing from the
// stream of the embedded Conn.
type MuxConn struct {
	net.Conn

	// stream reads and writes in place of Conn where oneport has to replay or to leave out something.
	stream net.Conn
}

func newMuxConn(c net.Conn) *MuxConn {
	switch changed := c.(type) {
	case *oneport.Conn:
		return &MuxConn{changed.NetConn(), c}
	case *oneport.TCPConn:
		return &MuxConn{changed.NetConn(), c}
	case *oneport.TLSConn:
		return &MuxConn{changed.NetConn(), c}
	}
	return &MuxConn{Conn: c}
}

func (m *MuxConn) through() net.Conn {
	if m.stream != nil {
		return m.stream
	}
	return m.Conn
}

// Read reads what the client sends, from the first byte on.
func (m *MuxConn) Read(p []byte) (int, error) { return m.through().Read(p) }

// Write writes to the client.
func (m *MuxConn) Write(p []byte) (int, error) { return m.through().Write(p) }

// ReadFrom copies from r to the client, over TCP in the kernel if r is a file or a connection. net/http sends files in
// this way.
func (m *MuxConn) ReadFrom(r io.Reader) (int64, error) {
	if rf, ok := m.through().(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{m}, r)
}

// WriteTo copies from the client to w, over TCP in the kernel if w is a connection.
func (m *MuxConn) WriteTo(w io.Writer) (int64, error) {
	if wt, ok := m.through().(io.WriterTo); ok {
		return wt.WriteTo(w)
	}
	return io.Copy(w, struct{ io.Reader }{m})
}

// CloseWrite shuts down the writing side, if the connection can do that. net/http does so before it closes a connection
// whose client is still sending, so that the client can read the response.
func (m *MuxConn) CloseWrite() error {
	if cw, ok := m.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return fmt.Errorf("mux: closing the writing side of a %T: %w", m.Conn, errors.ErrUnsupported)
}
