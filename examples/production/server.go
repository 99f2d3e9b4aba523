package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

// A server is gRPC and HTTP on one port, with what load balancers ask and what its end needs.
type server struct {
	*oneport.Server
	log      *slog.Logger
	health   *health.Server
	draining atomic.Bool
	running  running

	watching    context.Context // of streams that watch the health
	stopWatches context.CancelFunc

	after func(time.Duration) <-chan time.Time // time.After
}

func newServer(log *slog.Logger, register func(*grpc.Server, *http.ServeMux)) *server {
	s := &server{log: log, health: health.NewServer(), after: time.After}
	s.watching, s.stopWatches = context.WithCancel(context.Background())

	rpc := grpc.NewServer(
		grpc.Creds(grpccreds.Credentials{}),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			// Clients that connect again from time to time find servers that are new.
			MaxConnectionAge:      10 * time.Minute,
			MaxConnectionAgeGrace: time.Minute,
			// A client that has vanished is noticed after these two.
			Time:    time.Minute,
			Timeout: 20 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(s.running.unary),
		grpc.ChainStreamInterceptor(s.running.stream, s.endWatch),
	)
	healthpb.RegisterHealthServer(rpc, s.health)

	rest := http.NewServeMux()
	rest.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	rest.HandleFunc("GET /readyz", s.readyz)
	register(rpc, rest)
	reflection.Register(rpc) // last: it lists what is registered

	s.Server = &oneport.Server{
		GRPC: rpc,
		HTTP: &http.Server{
			Handler:           s.running.handler(rest),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       30 * time.Second,  // for the content too; a handler that takes uploads sets a later deadline
			WriteTimeout:      time.Minute,       // and a handler of a long response, by http.ResponseController
			IdleTimeout:       620 * time.Second, // longer than that of any load balancer in front: docs/cloud.md
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
		Logger: log,
	}
	return s
}

func (s *server) useTLS(c *certificate) {
	s.TLSConfig = &tls.Config{GetCertificate: c.get}
}

// readyz tells load balancers whether to send requests.
func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() {
		http.Error(w, "draining", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// endWatch ends the streams by which clients watch the health of the server, which would go on for ever and keep it
// from its end.
func (s *server) endWatch(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if info.FullMethod != healthpb.Health_Watch_FullMethodName {
		return handler(srv, stream)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.watching, cancel)()
	return handler(srv, streamWithContext{stream, ctx})
}

type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s streamWithContext) Context() context.Context { return s.ctx }

// end ends the server so that no request is lost. First it is no longer ready, and goes on serving until the load
// balancers have noticed. Then it takes no more connections, and waits for running requests, for the time of drain at
// most.
func (s *server) end(notice, drain time.Duration) error {
	s.draining.Store(true)
	s.health.Shutdown()
	s.log.Info("not ready: waiting for load balancers to notice", "notice", notice.String())
	<-s.after(notice)

	s.stopWatches()
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	counts := s.running.counts()
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	for {
		s.log.Info("shutting down: waiting for running requests", "running", counts, "at_most", drain.String())
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("cut off running requests: %v: %w", counts, err)
			}
			s.log.Info("shut down: all requests are answered")
			return nil
		case <-s.after(time.Second):
			counts = s.running.counts()
		}
	}
}
