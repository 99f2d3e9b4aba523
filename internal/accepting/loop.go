package accepting

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// A Loop accepts connections from a listener. Listener, Done and Handle must be set.
type Loop struct {
	Listener net.Listener

	// Done stops the loop when it is closed. Whoever closes it closes the listener afterwards, since nothing else
	// interrupts Accept.
	Done <-chan struct{}

	// Handle takes charge of a connection. No other connection is accepted before it returns. A connection that was
	// accepted while the loop was being stopped is handled, too.
	Handle func(net.Conn)

	// Retrying, if not nil, is called for a temporary error, before the loop waits and tries again.
	Retrying func(err error, in time.Duration)

	// OutOfFiles, if not nil, is called after Retrying if the process or the system has no file descriptors left, so
	// that some can be freed. It is called once per failed Accept.
	OutOfFiles func()
}

// Run accepts connections until Done or the listener is closed, and then returns [net.ErrClosed], or until an error
// that is not temporary, which it returns unchanged.
func (l *Loop) Run() error {
	var backoff time.Duration
	for {
		c, err := l.Listener.Accept()
		switch {
		case err == nil:
			backoff = 0
			l.Handle(c)
		case l.stopped(), errors.Is(err, net.ErrClosed):
			return net.ErrClosed
		case !Passes(err):
			return err
		default:
			backoff = Backoff(backoff)
			if l.Retrying != nil {
				l.Retrying(err, backoff)
			}
			if l.OutOfFiles != nil && outOfFiles(err) {
				l.OutOfFiles()
			}
			if !l.wait(backoff) {
				return net.ErrClosed
			}
		}
	}
}

// stopped reports whether Done is closed.
func (l *Loop) stopped() bool {
	select {
	case <-l.Done:
		return true
	default:
		return false
	}
}

// wait reports false if Done is closed within d.
func (l *Loop) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.Done:
		return false
	}
}

// outOfFiles reports whether an error of Accept means that there are too many open files, in the process or the system.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
