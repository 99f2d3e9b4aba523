package main

import (
	"fmt"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

// traceContext is how clients say which span is the parent: the header field traceparent, in gRPC and HTTP alike.
var traceContext = propagation.TraceContext{}

// newServer returns a server for gRPC and REST whose requests are traced.
//
// Each server is instrumented as without oneport: grpc-go by a stats.Handler, net/http by a handler around the others.
// oneport is below both, and makes no spans: what it decides about a connection belongs to no request.
func newServer(provider trace.TracerProvider) *oneport.Server {
	grpcServer := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}), grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(provider), otelgrpc.WithPropagators(traceContext))))
	healthpb.RegisterHealthServer(grpcServer, health.NewServer())
	reflection.Register(grpcServer)

	tracer := provider.Tracer("github.com/oneport-go/oneport/examples/tracing")
	rest := http.NewServeMux()
	rest.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		_, span := tracer.Start(r.Context(), "greet") // a child of the request's span
		defer span.End()
		fmt.Fprintf(w, "Hello, %s\n", r.PathValue("name"))
	})
	traced := otelhttp.NewHandler(rest, "rest",
		otelhttp.WithTracerProvider(provider), otelhttp.WithPropagators(traceContext))
	return &oneport.Server{GRPC: grpcServer, Handler: traced}
}
