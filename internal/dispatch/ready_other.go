//go:build !unix

package dispatch

import (
	"errors"
	"net"
)

// A socket cannot be read from without a buffer to wait with.
type socket struct{}

func newSocket(net.Conn) *socket { return nil }

func (*socket) read(Memory) ([]byte, int, error) { return nil, 0, errors.ErrUnsupported }
