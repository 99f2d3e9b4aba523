// Metrics serves gRPC, REST and its own metrics for Prometheus on one port.
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
)

// shutdownTimeout bounds the time that running requests have to finish.
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
	s := newServer()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	fmt.Printf("Serving on http://%s/ (Ctrl-C ends it). Try:\n\n", l.Addr())
	fmt.Printf("curl http://%s/hello\n", l.Addr())
	fmt.Printf("grpcurl -plaintext %s grpc.health.v1.Health/Check\n", l.Addr())
	fmt.Printf("curl http://%s/metrics\n", l.Addr())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop() // from here on a signal ends the process at once
	fmt.Printf("\nWaiting up to %v for running requests. Ctrl-C ends it at once.\n", shutdownTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	<-served
	return nil
}
