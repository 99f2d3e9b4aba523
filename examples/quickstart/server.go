package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/examples/quickstart/greeterpb"
	"github.com/oneport-go/oneport/grpccreds"
)

// A verdict is what the mux found out about a connection, and what it did.
type verdict struct {
	Protocol      string
	Route         string // or the servers, where requests are dispatched one by one
	Dispatched    bool
	TLS           bool
	ALPN          string // the protocol that ALPN has negotiated
	Upgraded      bool   // by Upgrade: h2c
	EarlySettings bool
	Refused       string // the reason, if it was refused
}

// server is everything that is on the port.
type server struct {
	port   *oneport.Server
	health *health.Server
}

// observers are told of connections before they are answered.
type observers struct {
	judged     func(remote net.Addr, v verdict)                         // of each one
	dispatched func(remote net.Addr, server string, earlySettings bool) // of one of HTTP/2, for each server that takes part
}

// newServer makes a server.
func newServer(config *tls.Config, log *slog.Logger, o observers) *server {
	grpcServer := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	healthServer := health.NewServer()
	greeterpb.RegisterGreeterServer(grpcServer, greeter{})
	healthpb.RegisterHealthServer(grpcServer, healthServer)
	healthServer.SetServingStatus(greeterpb.Greeter_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	reflection.Register(grpcServer)

	return &server{
		health: healthServer,
		port: &oneport.Server{
			GRPC: grpcServer,
			HTTP: &http.Server{
				Handler:           newHandler(),
				ReadHeaderTimeout: 5 * time.Second,
				IdleTimeout:       620 * time.Second,
				ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
			},
			TLSConfig: config,
			Upgrade:   true,
			Logger:    log,
			Hooks: oneport.Hooks{
				OnMatch: func(c oneport.Matched) {
					v := verdict{
						Protocol:      c.Protocol.String(),
						Route:         path.Base(c.Route),
						Upgraded:      c.Upgraded,
						EarlySettings: c.EarlySettings,
					}
					o.judged(c.Conn.RemoteAddr(), v.over(c.TLS))
				},
				OnRefuse: func(c oneport.Refused) {
					v := verdict{
						Protocol:      c.Protocol.String(),
						Route:         c.Route,
						EarlySettings: c.EarlySettings,
						Refused:       c.Reason.String(),
					}
					o.judged(c.Conn.RemoteAddr(), v.over(c.TLS))
				},
				OnDispatch: func(d oneport.Dispatched) {
					o.dispatched(d.Conn.RemoteAddr(), path.Base(d.Route), d.EarlySettings)
				},
			},
		},
	}
}

// over adds the TLS state of the connection, if any, to a verdict.
func (v verdict) over(state *tls.ConnectionState) verdict {
	if state != nil {
		v.TLS, v.ALPN = true, state.NegotiatedProtocol
	}
	return v
}

// serve serves on l until shutdown is called, and then returns nil, or until accepting fails.
func (s *server) serve(l net.Listener) error {
	if err := s.port.Serve(l); !errors.Is(err, oneport.ErrClosed) {
		return err
	}
	return nil
}

// shutdown stops accepting and waits until all running requests are answered. If ctx ends first, it cuts them off and
// returns the context's error.
func (s *server) shutdown(ctx context.Context) error {
	s.health.Shutdown()
	return s.port.Shutdown(ctx)
}
