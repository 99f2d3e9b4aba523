package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/pires/go-proxyproto"
)

// headerTimeout bounds the wait for the header, which a load balancer sends as soon as it has connected.
const headerTimeout = 5 * time.Second

// behind wraps l in a listener for load balancers that send the client's address by the PROXY protocol, version 1 or 2.
// Anybody could send such a header, so it is accepted only from the balancers' addresses. Connections from other
// addresses are closed.
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

// A conn can close its writing side, as its socket can, so that a refused client has time to read the answer.
type conn struct{ *proxyproto.Conn }

func (c conn) CloseWrite() error {
	tc, ok := c.TCPConn()
	if !ok {
		return fmt.Errorf("closing the writing side of a %T: %w", c.Raw(), errors.ErrUnsupported)
	}
	return tc.CloseWrite()
}
