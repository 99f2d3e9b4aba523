package zoo

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net/http"
	"testing"

	"github.com/oneport-go/oneport"
)

// This file holds all that the zoo needs of oneport's API.

// Mux is a oneport.Mux with grpc-go and net/http, and with TLS if there is a PKI.
func Mux(t testing.TB, p *PKI) string {
	l := Listen(t)
	m := oneport.New(l)
	m.Logger = slog.New(slog.DiscardHandler)
	if p != nil {
		inside := m.TLS(p.Config(p.Server))
		serveGRPC(t, inside.Match(oneport.GRPC()))
		s := newHTTP(true)
		oneport.ConfigureHTTP(s)
		httpL := inside.Match(oneport.HTTP1(), oneport.HTTP2())
		run(t, func() error { return s.Serve(httpL) }, func() { s.Close() })
	}
	grpcL := m.Match(oneport.GRPC())
	httpL := m.Match(oneport.HTTP1(), oneport.HTTP2())
	run(t, m.Serve, func() { m.Close() })
	serveGRPC(t, grpcL)
	serveHTTP(t, httpL, true)
	return l.Addr().String()
}

// Server is a oneport.Server with grpc-go and net/http, in cleartext, and over TLS if there is a PKI.
func Server(t testing.TB, p *PKI) string {
	l := Listen(t)
	s := &oneport.Server{GRPC: newGRPC(), Handler: Hello}
	if p != nil {
		s.TLSConfig = p.Config(p.Server)
	}
	run(t, func() error { return s.Serve(l) }, func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nobody is to be waited for
		s.Shutdown(ctx)
	})
	return l.Addr().String()
}

// HTTPOnly is a oneport.Mux without a route for HTTP/2.
func HTTPOnly(t testing.TB) string {
	l := Listen(t)
	m := oneport.New(l)
	m.Logger = slog.New(slog.DiscardHandler)
	httpL := m.Match(oneport.HTTP1())
	run(t, m.Serve, func() { m.Close() })
	s := &http.Server{Handler: Hello, ErrorLog: log.New(io.Discard, "", 0)}
	run(t, func() error { return s.Serve(httpL) }, func() { s.Close() })
	return l.Addr().String()
}
