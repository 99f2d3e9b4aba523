//go:build !linux

package affinity

import (
	"errors"
	"fmt"
)

var errUnsupported = fmt.Errorf("giving a process some of the processors: %w", errors.ErrUnsupported)

// Halves is for Linux only.
func Halves() (server, load []int, err error) { return nil, nil, errUnsupported }

// All is for Linux only.
func All() ([]int, error) { return nil, errUnsupported }

// Pin is for Linux only.
func Pin([]int) error { return errUnsupported }
