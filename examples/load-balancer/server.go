package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

// A server serves gRPC and REST on one port, and answers the health checks of a load balancer.
type server struct {
	oneport.Server
	health   *health.Server
	draining atomic.Bool
}

func newServer(cert tls.Certificate) *server {
	s := &server{health: health.NewServer()}
	g := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}), grpc.UnaryInterceptor(tellClient))
	healthpb.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	s.GRPC = g

	rest := http.NewServeMux()
	rest.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.RemoteAddr)
	})
	rest.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if s.draining.Load() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	s.Handler = rest
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	return s
}

// drain makes the health checks fail, so that the load balancer sends no more clients. Everything else is still served.
func (s *server) drain() {
	s.draining.Store(true)
	s.health.Shutdown()
}

// clientKey is the header that tells gRPC clients the address that the server sees for them.
const clientKey = "client"

func tellClient(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if err := grpc.SetHeader(ctx, metadata.Pairs(clientKey, p.Addr.String())); err != nil {
			return nil, err
		}
	}
	return handler(ctx, req)
}
