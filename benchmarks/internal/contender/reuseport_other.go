//go:build !unix

package contender

import (
	"errors"
	"syscall"
)

func reusePort(_, _ string, c syscall.RawConn) error { return errors.ErrUnsupported }
