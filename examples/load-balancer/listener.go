package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/pires/go-proxyproto"
)

// headerTimeout is the time that a load balancer has for its header, which it sends as soon as it is connected.
const headerTimeout = 5 * time.Second

// behind makes of l the listener for the clients of load balancers that announce them by the PROXY protocol, version 1 or
// 2. Who it is that connects is known from that header alone, so it is believed from the balancers' addresses only, and
// connections from elsewhere are closed.
func behind(l net.Listener, balancers []string) (net.Listener, error) {
	trusted, err := proxyproto.TrustProxyHeaderFromRanges(balancers)
	if err != nil {
		return nil, err
	}
	return listener{&proxyproto.Listener{Listener: l, ConnPolicy: trusted, ReadHeaderTimeout: headerTimeout}}, nil
}

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if pc, ok := c.(*proxyproto.Conn); ok {
		return conn{pc}, nil
	}
	return c, err
}

// A conn can close its writing side, as the socket below can: a refused client gets the time to read why.
type conn struct{ *proxyproto.Conn }

func (c conn) CloseWrite() error {
	tc, ok := c.TCPConn()
	if !ok {
		return fmt.Errorf("closing the writing side of a %T: %w", c.Raw(), errors.ErrUnsupported)
	}
	return tc.CloseWrite()
}
