// Requests serves gRPC and REST behind a proxy that sends both over the same HTTP/2 connections, as HAProxy does with
// one backend for both. Each request reaches the server it is for: grpc-go or net/http.
//
// With -demo it starts HAProxy in front of itself, with the configuration in haproxy.cfg, makes requests of both kinds
// through it, and shows over how many connections they came.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/examples/quickstart/greeterpb"
	"github.com/oneport-go/oneport/grpccreds"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main with an exit status.
func run(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("requests", flag.ContinueOnError)
	fs.SetOutput(stderr)
	addr := fs.String("addr", "127.0.0.1:8080", "serve on this `address`")
	proxied := fs.Bool("demo", false, "start HAProxy in front of a server, call both kinds through it, show what came of it, and end")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *proxied {
		err = demo(ctx, stdout)
	} else {
		err = serve(ctx, *addr, stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// serve serves on the address until the context ends.
func serve(ctx context.Context, addr string, stdout io.Writer) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("cannot serve on %s, choose another address with -addr: %w", addr, err)
	}
	s := newServer(l)
	fmt.Fprintf(stdout, `Serving gRPC and REST on %[1]v. To put HAProxy in front of it:

    APP_ADDR=%[1]v PROXY_ADDR=127.0.0.1:8081 haproxy -f examples/requests/haproxy.cfg

and then, over the proxy's connection:

    curl http://127.0.0.1:8081/v1/hello/you
    grpcurl -plaintext -d '{"name": "you"}' 127.0.0.1:8081 oneport.examples.greeter.v1.Greeter/SayHello
`, l.Addr())
	<-ctx.Done()
	fmt.Fprintf(stdout, "Shutting down: waiting at most %v for running requests.\n", shutdownTimeout)
	return s.stop()
}

// A server has gRPC and REST on one port.
type server struct {
	mux  *oneport.Mux
	grpc *grpc.Server
	http *http.Server
}

func newServer(l net.Listener) *server {
	s := &server{
		mux:  oneport.New(l),
		grpc: grpc.NewServer(grpc.Creds(grpccreds.Credentials{})),
		http: &http.Server{Protocols: new(http.Protocols)},
	}
	greeterpb.RegisterGreeterServer(s.grpc, greeter{})
	reflection.Register(s.grpc)
	handler := http.NewServeMux()
	handler.HandleFunc("GET /v1/hello/{name}", hello)
	s.http.Handler = handler
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)

	// net/http serves HTTP/1. Each HTTP/2 request is routed on its own.
	http1 := s.mux.Match(oneport.HTTP1())
	requests := s.mux.Requests()
	grpcL := requests.Match(oneport.GRPC())
	http2 := requests.Match(oneport.Any())

	go s.http.Serve(http1)
	go s.http.Serve(http2)
	go s.grpc.Serve(grpcL)
	go s.mux.Serve()
	return s
}

// shutdownTimeout is what running requests have to come to an end.
const shutdownTimeout = 10 * time.Second

// stop lets the requests that are under way come to an end.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := s.mux.Shutdown(ctx)
	stopped := context.AfterFunc(ctx, s.grpc.Stop)
	defer stopped()
	s.grpc.GracefulStop()
	return errors.Join(err, s.http.Shutdown(ctx))
}

type greeter struct {
	greeterpb.UnimplementedGreeterServer
}

// SayHello answers a gRPC call.
func (greeter) SayHello(_ context.Context, r *greeterpb.SayHelloRequest) (*greeterpb.SayHelloResponse, error) {
	return &greeterpb.SayHelloResponse{Message: "Hello, " + r.GetName(), Protocol: "gRPC"}, nil
}

// hello answers a REST request.
func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	// This fails only if the client is gone.
	_ = json.NewEncoder(w).Encode(map[string]string{"message": "Hello, " + r.PathValue("name"), "protocol": r.Proto})
}
