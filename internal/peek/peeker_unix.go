//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package peek

import (
	"net"
	"os"
	"syscall"
)

// A Peeker looks at what a socket has received without taking it out (recv(2) with MSG_PEEK).
type Peeker struct {
	raw  syscall.RawConn
	try  func(fd uintptr) bool // Peeker.recv, bound once
	seen int                   // the caller knows this many bytes
	wait bool                  // for more than that, or for the end of the stream

	buf   *[]byte // what was found, from bufs; nil while there is nothing
	bufs  *Pool
	n     int
	ended bool
	err   error
}

// Init prepares p to look at c and reports whether it can: only on the net package's own connections over sockets.
// Any other type, even one that offers the socket below, may have a buffer or a transformation of its own above it.
func (p *Peeker) Init(c net.Conn, bufs *Pool) bool {
	var err error
	switch c := c.(type) {
	case *net.TCPConn:
		p.raw, err = c.SyscallConn()
	case *net.UnixConn:
		if c.LocalAddr().Network() != "unix" {
			return false
		}
		p.raw, err = c.SyscallConn()
	default:
		return false
	}
	if p.try == nil {
		p.try = p.recv
	}
	p.bufs = bufs
	return err == nil
}

// Peek returns everything that the socket holds, up to the size of the pool's buffers. With wait it waits until that is
// more than seen bytes, or the client has ended its side (then ended is set), or the read deadline passes. It is the
// caller's business not to wait where waiting is of no use (CanAwaitMore, NearlyFull).
//
// The result is valid until the next call of Peek or Release. While Peek waits it holds no buffer.
func (p *Peeker) Peek(seen int, wait bool) (data []byte, ended bool, err error) {
	p.seen, p.wait = seen, wait
	p.n, p.ended, p.err = 0, false, nil
	if err := p.raw.Read(p.try); err != nil {
		return nil, false, err
	}
	if p.err != nil {
		return nil, false, p.err
	}
	if p.n > 0 {
		data = (*p.buf)[:p.n]
	}
	return data, p.ended, nil
}

// recv is called by RawConn.Read, again after each wake-up until it returns true.
func (p *Peeker) recv(fd uintptr) bool {
	if p.buf == nil {
		p.buf = p.bufs.Get()
	}
	n, _, err := syscall.Recvfrom(int(fd), *p.buf, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	for err == syscall.EINTR {
		n, _, err = syscall.Recvfrom(int(fd), *p.buf, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	}
	switch {
	case err == syscall.EAGAIN:
		n = 0
	case err != nil:
		p.err = os.NewSyscallError("recvfrom", err)
		return true
	case n == 0:
		p.ended = true
		return true
	}
	p.n = n
	if n > p.seen || !p.wait {
		return true
	}
	// Nothing new, which proves nothing by itself: the poller is edge-triggered and reports readable again with every
	// edge of writable, for instance when the client's TCP acknowledges what was written to it. With bytes queued, recv
	// does not show the end of the stream either, so ask for it.
	if n > 0 && hungUp(fd) {
		p.ended = true
		return true
	}
	p.Release()
	return false
}

// Queued reports whether the socket holds bytes.
func (p *Peeker) Queued() bool {
	var one [1]byte
	n := 0
	err := p.raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && n > 0
}

// Release gives back the buffer of the last look.
func (p *Peeker) Release() {
	if p.buf != nil {
		p.bufs.Put(p.buf)
		p.buf = nil
	}
}

// NearlyFull reports whether the socket's receive buffer may be too small to take many more than the n bytes it holds,
// so that the rest would never come while they are left in it.
func (p *Peeker) NearlyFull(n int) bool {
	if n < 512 {
		return false // the smallest buffer that a system grants takes more
	}
	size := 0
	err := p.raw.Control(func(fd uintptr) {
		size, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
	})
	// A quarter, because the size counts the kernel's own overhead as well.
	return err != nil || n > size/4
}
