// Gateway serves a gRPC service, and its REST API with grpc-gateway, on one port.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/examples/gateway/greeterpb"
)

// shutdownTimeout is how long a shutdown waits for running requests.
const shutdownTimeout = 10 * time.Second

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "serve on this `address`")
	flag.Parse()
	if err := run(*addr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr string) error {
	l, err := oneport.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s, err := newServer(l, greeter{pause: func() <-chan time.Time { return time.After(time.Second) }})
	if err != nil {
		l.Close()
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.serve() }()
	fmt.Printf("Serving on http://%s/ (Ctrl-C ends it). Try:\n\n", l.Addr())
	fmt.Printf("curl http://%s/v1/hello/World\n", l.Addr())
	fmt.Printf("curl -d '{\"name\":\"World\"}' http://%s/v1/hello\n", l.Addr())
	fmt.Printf("curl -N 'http://%s/v1/hello/World/again?times=3'\n", l.Addr())
	fmt.Printf("grpcurl -plaintext -d '{\"name\":\"World\"}' %s %s/SayHello\n\n", l.Addr(), greeterpb.Greeter_ServiceDesc.ServiceName)

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop() // from here on a signal ends the process at once
	fmt.Printf("Shutting down: waiting at most %v for running requests.\n", shutdownTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := s.shutdown(ctx); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	return <-served
}
