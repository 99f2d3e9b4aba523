//go:build unix

package contender

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// reusePort lets several listeners share a port. On Linux the kernel spreads the connections over them.
func reusePort(_, _ string, c syscall.RawConn) error {
	var failed error
	if err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); err != nil {
		return err
	}
	return failed
}
