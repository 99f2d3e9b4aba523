//go:build unix

// Systemd serves gRPC and HTTP on a socket that systemd has opened. The port is open before the program runs and while
// it restarts, and the program needs no privilege to open it.
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

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	listeners, err := sockets()
	if err == nil {
		err = serve(ctx, listeners)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// sockets are those that systemd passes on: TCP and Unix domain sockets alike.
func sockets() ([]net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, err
	}
	for i, l := range listeners {
		if l == nil {
			return nil, fmt.Errorf("socket %d of systemd is not a stream socket: use ListenStream", i)
		}
		// The options that oneport.Listen sets, which connections inherit.
		if err := new(oneport.ListenConfig).ApplyTo(l); err != nil {
			return nil, err
		}
	}
	if len(listeners) == 0 {
		return nil, errors.New("systemd has passed no socket: start oneport.socket, or try: systemd-socket-activate -l 127.0.0.1:8080 PROGRAM")
	}
	return listeners, nil
}

// serve serves on the listeners until ctx ends.
func serve(ctx context.Context, listeners []net.Listener) error {
	rpc := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	healthpb.RegisterHealthServer(rpc, health.NewServer())
	reflection.Register(rpc)
	s := &oneport.Server{
		GRPC: rpc,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "hello over", r.Proto)
		}),
	}
	served := make(chan error, len(listeners))
	for _, l := range listeners {
		log.Printf("serving on %s", l.Addr())
		go func() { served <- s.Serve(l) }()
	}
	// systemd starts units that come after this one. Where it does not wait for that, there is nothing to tell.
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Print("telling systemd: ", err)
	}

	var err error
	select {
	case err = <-served:
		s.Close()
	case <-ctx.Done():
		daemon.SdNotify(false, daemon.SdNotifyStopping+"\nSTATUS=waiting for running requests")
		log.Print("shutting down: waiting at most 10 seconds for running requests")
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = s.Shutdown(ctx)
		<-served
	}
	for range len(listeners) - 1 {
		<-served
	}
	return err
}
