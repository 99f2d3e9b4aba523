// Hello serves gRPC and HTTP on one port.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

func main() {
	l, err := oneport.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("serving on %s, try:\n\ncurl http://%[1]s/hello/World\ngrpcurl -plaintext %[1]s grpc.health.v1.Health/Check\n", l.Addr())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := serve(ctx, l); err != nil {
		log.Fatal(err)
	}
}

// serve serves on l until ctx ends.
func serve(ctx context.Context, l net.Listener) error {
	grpcServer := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	healthpb.RegisterHealthServer(grpcServer, health.NewServer()) // and your own services
	reflection.Register(grpcServer)

	rest := http.NewServeMux()
	rest.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello, %s, over %s\n", r.PathValue("name"), r.Proto)
	})

	s := &oneport.Server{GRPC: grpcServer, Handler: rest}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		log.Print("shutting down: waiting at most 10 seconds for running requests")
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stopped <- s.Shutdown(ctx)
	})
	if err := s.Serve(l); !errors.Is(err, oneport.ErrClosed) {
		return err
	}
	return <-stopped
}
