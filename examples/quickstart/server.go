package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/examples/quickstart/greeterpb"
)

// A verdict is what the mux has found out about a connection and done with it.
type verdict struct {
	Protocol      string
	Route         string
	EarlySettings bool
	Refused       string // the reason, if it was refused
}

// server is everything that is on the port.
type server struct {
	mux    *oneport.Mux
	grpc   *grpc.Server
	http   *http.Server
	health *health.Server

	grpcListener net.Listener
	httpListener net.Listener
}

// newServer makes a server on l. It calls judged for each connection, before that is answered.
func newServer(l net.Listener, log *slog.Logger, judged func(remote net.Addr, v verdict)) *server {
	s := &server{
		mux:    oneport.New(l),
		grpc:   grpc.NewServer(),
		health: health.NewServer(),
		http: &http.Server{
			Handler:           newHandler(),
			Protocols:         new(http.Protocols),
			ReadHeaderTimeout: 5 * time.Second,
			IdleTimeout:       2 * time.Minute,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)

	greeterpb.RegisterGreeterServer(s.grpc, greeter{})
	healthpb.RegisterHealthServer(s.grpc, s.health)
	s.health.SetServingStatus(greeterpb.Greeter_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	reflection.Register(s.grpc)

	s.mux.Logger = log
	s.mux.OnMatch = func(m oneport.Matched) {
		judged(m.Conn.RemoteAddr(), verdict{
			Protocol:      m.Protocol.String(),
			Route:         m.Route,
			EarlySettings: m.EarlySettings,
		})
	}
	s.mux.OnRefuse = func(r oneport.Refused) {
		judged(r.Conn.RemoteAddr(), verdict{
			Protocol:      r.Protocol.String(),
			Route:         r.Route,
			EarlySettings: r.EarlySettings,
			Refused:       r.Reason.String(),
		})
	}
	// A gRPC call is HTTP/2 too, so its route comes first.
	s.grpcListener = s.mux.Route(oneport.Route{
		Name:     "grpc",
		Matchers: []oneport.Matcher{oneport.GRPC()},
	})
	s.httpListener = s.mux.Route(oneport.Route{
		Name:     "http",
		Matchers: []oneport.Matcher{oneport.HTTP1(), oneport.HTTP2()},
	})
	return s
}

// serve serves until shutdown is called, which it takes for no error, or accepting fails.
func (s *server) serve() error {
	var grpcErr, httpErr error
	var behind sync.WaitGroup
	behind.Go(func() { grpcErr = s.grpc.Serve(s.grpcListener) })
	behind.Go(func() { httpErr = s.http.Serve(s.httpListener) })
	muxErr := s.mux.Serve()
	behind.Wait() // the mux has closed their listeners
	return cmp.Or(unlessClosed(muxErr), unlessClosed(grpcErr), unlessClosed(httpErr))
}

func unlessClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// shutdown stops the server as soon as the requests that it has taken are answered. When ctx ends before that, it cuts
// them off and returns the context's error.
func (s *server) shutdown(ctx context.Context) error {
	s.health.Shutdown()
	// The mux goes first: the servers close their routes, which it may still have connections for.
	muxErr := s.mux.Shutdown(ctx)

	var grpcErr, httpErr error
	var behind sync.WaitGroup
	behind.Go(func() { grpcErr = shutdownGRPC(ctx, s.grpc) })
	behind.Go(func() { httpErr = shutdownHTTP(ctx, s.http) })
	behind.Wait()
	return cmp.Or(muxErr, grpcErr, httpErr)
}

func shutdownGRPC(ctx context.Context, s *grpc.Server) error {
	cutOff := context.AfterFunc(ctx, s.Stop)
	s.GracefulStop()
	if !cutOff() {
		return ctx.Err()
	}
	return nil
}

func shutdownHTTP(ctx context.Context, s *http.Server) error {
	err := s.Shutdown(ctx)
	if err != nil {
		s.Close()
	}
	return err
}

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

func newHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/hello/{name}", greeter{})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		// It fails only where the client has gone.
		_ = page.Execute(w, struct {
			Host, Protocol string
			Commands       []command
		}{r.Host, r.Proto, commands(r.Host)})
	})
	return mux
}

// A command is one to copy and paste.
type command struct{ Does, Line string }

// commands are those that talk to the server at the address.
func commands(addr string) []command {
	return []command{
		{"REST over HTTP/1.1", "curl http://" + addr + "/v1/hello/World"},
		{"REST over HTTP/2", "curl --http2-prior-knowledge http://" + addr + "/v1/hello/World"},
		{"gRPC", `grpcurl -plaintext -d '{"name":"World"}' ` + addr + " " + greeterpb.Greeter_ServiceDesc.ServiceName + "/SayHello"},
		{"gRPC health check", "grpcurl -plaintext " + addr + " grpc.health.v1.Health/Check"},
		{"gRPC server reflection", "grpcurl -plaintext " + addr + " list"},
	}
}
