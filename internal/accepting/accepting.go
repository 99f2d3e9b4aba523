// Package accepting accepts connections from a listener, and retries temporary errors of Accept.
package accepting

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Passes reports whether an error of Accept is temporary.
func Passes(err error) bool {
	if ne, ok := errors.AsType[net.Error](err); ok && (ne.Timeout() || temporary(ne)) {
		return true
	}
	for _, errno := range [...]syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, // the system is short of something
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EPROTO, // the connection went before it was accepted
		syscall.EINTR, syscall.EPERM, // a signal; a firewall's rule, accept(2)
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// temporary asks for what listeners other than the net package's still say with Temporary, as net/http does.
func temporary(err error) bool {
	t, ok := err.(interface{ Temporary() bool })
	return ok && t.Temporary()
}

// Backoff returns how long to wait before the next Accept after a temporary error: as in net/http, 5 ms, and twice as
// long each time, up to a second. last is the previous wait, or 0 if the previous Accept succeeded.
func Backoff(last time.Duration) time.Duration {
	return min(max(2*last, 5*time.Millisecond), time.Second)
}
