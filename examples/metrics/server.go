package main

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
	oneportprom "github.com/oneport-go/oneport/metrics/prometheus"
)

// newServer returns a server for gRPC, REST and /metrics.
//
// Whoever reaches the port can read the metrics. If that is too many, serve the handler of promhttp on a listener that
// only Prometheus reaches, in place of the route GET /metrics.
func newServer() *oneport.Server {
	grpcServer := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	healthpb.RegisterHealthServer(grpcServer, health.NewServer())
	reflection.Register(grpcServer)

	registry := prometheus.NewRegistry()
	rest := http.NewServeMux()
	rest.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	rest.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello over", r.Proto) })

	timer := oneportprom.NewDecideTimer()
	server := &oneport.Server{
		GRPC:    grpcServer,
		Handler: rest,
		Hooks:   timer.Hooks(oneport.Hooks{}), // or the program's own hooks
	}
	registry.MustRegister(oneportprom.NewCollector(server), timer, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return server
}
