//go:build !linux

package contender

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"time"
)

var errNoNamespaces = fmt.Errorf("network namespaces: %w", errors.ErrUnsupported)

func inNamespace(*exec.Cmd) error { return errNoNamespaces }

func prepareLoopback(time.Duration) error { return errNoNamespaces }

type namespace struct{}

func namespaceOf(int) (*namespace, error) { return nil, errNoNamespaces }

func (*namespace) dial(string) (net.Conn, error) { return nil, errNoNamespaces }

func (*namespace) close() {}
