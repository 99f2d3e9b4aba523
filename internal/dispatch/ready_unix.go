//go:build unix

package dispatch

import (
	"io"
	"net"
	"os"
	"syscall"

	"github.com/oneport-go/oneport/internal/netconn"
)

// A socket is read from without a buffer to wait with.
type socket struct {
	raw    syscall.RawConn
	try    func(fd uintptr) bool // socket.tryRead, bound once
	memory Memory

	b   []byte
	n   int
	err error
}

// newSocket returns the socket that c is, or nil if c is none or has something above it.
func newSocket(c net.Conn) *socket {
	if !netconn.IsSocket(c) {
		return nil
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw}
	s.try = s.tryRead
	return s
}

// read waits until there is something to read, and reads it into the memory's buffer.
func (s *socket) read(m Memory) (b []byte, n int, err error) {
	s.memory, s.n, s.err = m, 0, nil
	err = s.raw.Read(s.try)
	b, n = s.b, s.n
	if err == nil {
		err = s.err
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	s.memory, s.b = nil, nil
	return b, n, err
}

// tryRead is called by RawConn.Read, again after each wake-up until it returns true.
func (s *socket) tryRead(fd uintptr) bool {
	s.b = s.memory.Get()
	n, err := syscall.Read(int(fd), s.b)
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), s.b)
	}
	switch err {
	case nil:
		s.n = n
	case syscall.EAGAIN:
		s.memory.Put()
		return false
	default:
		s.err = &net.OpError{Op: "read", Net: "http2", Err: os.NewSyscallError("read", err)}
	}
	return true
}
