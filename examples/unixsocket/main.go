//go:build unix

// Unixsocket serves gRPC and HTTP on one Unix domain socket, for clients on the same machine.
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
	"path/filepath"
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
	path := flag.String("socket", filepath.Join(os.TempDir(), "oneport.sock"), "serve on this `path`")
	flag.Parse()
	l, err := listen(*path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Serving on %s (Ctrl-C ends it). Try:\n\n", l.Addr())
	fmt.Printf("curl --unix-socket %s http://localhost/\n", l.Addr())
	fmt.Printf("grpcurl -plaintext -unix %s list\n\n", l.Addr())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := serve(ctx, l); err != nil {
		log.Fatal(err)
	}
}

// listen listens on a Unix domain socket, for clients of the same user. A socket that a process has left behind when it
// was killed is replaced; one that a process listens on is not.
func listen(path string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := listenPrivate(addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		c, dialErr := net.DialUnix("unix", nil, addr)
		if dialErr == nil {
			c.Close()
		}
		if !errors.Is(dialErr, syscall.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		l, err = listenPrivate(addr)
	}
	return l, err
}

// listenPrivate listens on a socket that only processes of the same user can connect to. The process must not create
// other files meanwhile: they would get the same umask.
func listenPrivate(addr *net.UnixAddr) (*net.UnixListener, error) {
	defer syscall.Umask(syscall.Umask(0o077))
	return net.ListenUnix("unix", addr)
}

// serve serves on l until ctx ends.
func serve(ctx context.Context, l net.Listener) error {
	grpcServer := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	healthpb.RegisterHealthServer(grpcServer, health.NewServer())
	reflection.Register(grpcServer)
	s := &oneport.Server{
		GRPC: grpcServer,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "hello over", r.Proto)
		}),
	}
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
