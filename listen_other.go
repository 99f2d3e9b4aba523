//go:build !linux

package oneport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

func (lc *ListenConfig) controlSocket(string, syscall.RawConn) error { return nil }

func (lc *ListenConfig) listenTCP(ctx context.Context, network, address string) (net.Listener, error) {
	if lc.ReusePort {
		return nil, fmt.Errorf("oneport: listening on %s %s: ReusePort: %w", network, address, errors.ErrUnsupported)
	}
	return lc.ListenConfig.Listen(ctx, network, address)
}
