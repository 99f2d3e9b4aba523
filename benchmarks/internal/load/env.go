package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

// Server is what is put under load.
type Server interface {
	// Dial connects to one of its addresses.
	Dial(address string) (net.Conn, error)
	// Usage returns what its process has used, all zero if that is not known.
	Usage(contender.Moment) (contender.Usage, error)
}

// Env is what a scenario has to work with.
type Env struct {
	Server    Server
	Addresses contender.Addresses
	TLS       bool

	// WarmUp is how long the load is there before the measuring begins, and Duration how long that takes.
	WarmUp, Duration time.Duration

	// Rest is how long idle connections are left alone, to see whether that takes CPU time; 0 if they are not.
	Rest time.Duration

	// Most is how many connections the load may have at once; scenarios that are to have more have as many.
	Most int

	// Path and Method are the request of a target. Where they are empty, the harness's own services are asked.
	Path, Method string
}

// opTimeout is when an operation has failed. It is the time for 100 MB, too.
const opTimeout = 60 * time.Second

func (e *Env) scheme() string {
	if e.TLS {
		return "https"
	}
	return "http"
}

// dial connects to the address, and agrees on the protocol (RFC 7301) if there is TLS.
func (e *Env) dial(address, protocol string) (net.Conn, error) {
	c, err := e.Server.Dial(address)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(opTimeout))
	if !e.TLS {
		return c, nil
	}
	tc := tls.Client(c, &tls.Config{
		NextProtos:         []string{protocol},
		InsecureSkipVerify: true, // the certificate was made by the server process, for itself
	})
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("TLS with %s: %w", address, err)
	}
	if got := tc.ConnectionState().NegotiatedProtocol; got != protocol {
		c.Close()
		return nil, fmt.Errorf("TLS with %s: the protocol is %q, want %q", address, got, protocol)
	}
	return tc, nil
}

// small are the two requests of most scenarios.
func (e *Env) small() (http, grpc *request) {
	if e.Path != "" {
		return get(e.Path, anySize), call(e.Method, anySize)
	}
	return get(contender.PathSmall, len(contender.SmallBody)), call(HealthCheck, serving)
}
