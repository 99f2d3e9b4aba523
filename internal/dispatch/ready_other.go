//go:build !unix

package dispatch

import (
	"errors"
	"syscall"
)

// A socket cannot be read from without a buffer to wait with.
type socket struct{ raw syscall.RawConn }

func (*socket) init() bool { return false }

func (*socket) read(Memory) ([]byte, int, error) { return nil, 0, errors.ErrUnsupported }
