package oneport

import (
	"io"
	"net"
)

// Matches reports whether m matches the stream r, without a [Mux]. It reads from r until m has decided, r ends or
// fails, or [DefaultMaxPreviewBytes] were read. It may read up to one buffer more than m needs. The connection that m
// sees has no addresses.
//
// Matches is meant for tests of matchers, and for programs that inspect a stream of their own.
func Matches(m Matcher, r io.Reader) bool {
	p := &Preview{facts: facts{conn: noConn{}}}
	defer p.endReaders()
	buf := make([]byte, 0, 512)
	for {
		p.data = buf
		switch m.Match(p) {
		case Yes:
			return true
		case No:
			return false
		}
		if p.end == eof || len(buf) == DefaultMaxPreviewBytes {
			return false
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf), DefaultMaxPreviewBytes)), buf...)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			p.end = eof
		}
	}
}

// noConn stands for a connection where there is none.
type noConn struct{ net.Conn }

func (noConn) LocalAddr() net.Addr  { return nil }
func (noConn) RemoteAddr() net.Addr { return nil }

// Write is what the function of a [ReadWriteMatcher] finds: there is nobody to write to.
func (noConn) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
