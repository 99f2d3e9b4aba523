//go:build unix

// Tableflip serves gRPC and HTTP on one port, and restarts on SIGHUP without a gap: the new process takes over the
// listening socket, and the old one answers the requests that it has.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "serve on this `address`")
	pidFile := flag.String("pid-file", "", "write the process ID to this `file`, for systemd")
	flag.Parse()
	log.SetFlags(log.Flags() | log.Lmsgprefix)
	log.SetPrefix(fmt.Sprintf("process %d: ", os.Getpid()))
	if err := run(*addr, *pidFile); err != nil {
		log.Fatal(err)
	}
}

func run(addr, pidFile string) error {
	flip, err := tableflip.New(tableflip.Options{PIDFile: pidFile})
	if err != nil {
		return err
	}
	defer flip.Stop()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for s := range signals {
			if s != syscall.SIGHUP {
				signal.Reset() // from here on a signal ends the process at once
				flip.Stop()
				return
			}
			if err := upgrade(flip); err != nil {
				log.Print("this process goes on, the new one has failed: ", err)
			}
		}
	}()

	// The first process listens, the others inherit the socket.
	l, err := flip.ListenWithCallback("tcp", addr, oneport.Listen)
	if err != nil {
		return err
	}
	if err := new(oneport.ListenConfig).ApplyTo(l); err != nil {
		return err
	}
	s := newServer()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	log.Printf("serving on %s; to restart: kill -HUP %d", l.Addr(), os.Getpid())
	if err := flip.Ready(); err != nil { // the old process stops
		return err
	}
	select {
	case err := <-served:
		return err
	case <-flip.Exit():
	}
	log.Print("shutting down: waiting at most 10 seconds for running requests")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	if err := <-served; !errors.Is(err, oneport.ErrClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	log.Print("ended")
	return nil
}

// upgrade starts the process that takes the place of this one. There is one restart at a time: the process before this
// one may still be answering requests.
func upgrade(flip *tableflip.Upgrader) error {
	if err := flip.WaitForParent(context.Background()); err != nil {
		return err
	}
	for {
		err := flip.Upgrade()
		if err == nil || err.Error() != "parent hasn't exited" {
			return err
		}
		time.Sleep(10 * time.Millisecond) // tableflip takes note of the end a moment later
	}
}

func newServer() *oneport.Server {
	rpc := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	healthpb.RegisterHealthServer(rpc, health.NewServer())
	reflection.Register(rpc)
	return &oneport.Server{
		GRPC: rpc,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "process %d over %s\n", os.Getpid(), r.Proto)
		}),
	}
}
