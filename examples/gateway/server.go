package main

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/examples/gateway/greeterpb"
)

// server is everything that is on the port.
//
//	gRPC ----> mux ----> grpc.Server <-- in memory -- gateway
//	REST ----> mux ----> http.Server ---------------> gateway
type server struct {
	mux  *oneport.Mux
	grpc *grpc.Server
	http *http.Server

	grpcListener net.Listener
	httpListener net.Listener
	inMemory     *bufconn.Listener // from the gateway to the gRPC server
	gateway      *grpc.ClientConn  // its other end
}

func newServer(l net.Listener, greeter greeter) (*server, error) {
	s := &server{
		mux:      oneport.New(l),
		grpc:     grpc.NewServer(),
		inMemory: bufconn.Listen(64 << 10),
	}
	greeterpb.RegisterGreeterServer(s.grpc, greeter)
	reflection.Register(s.grpc)

	// The gateway is a gRPC client of the server, so interceptors see REST requests too. It could connect to the port as
	// other clients do, but a connection in memory still works when the port is closed and REST requests are running.
	var err error
	s.gateway, err = grpc.NewClient("passthrough:in-memory",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.inMemory.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	rest := runtime.NewServeMux()
	if err := greeterpb.RegisterGreeterHandler(context.Background(), rest, s.gateway); err != nil {
		s.gateway.Close()
		return nil, err
	}
	s.http = &http.Server{
		Handler:           rest,
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       620 * time.Second,
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)

	// A gRPC call is HTTP/2 too, so its route comes first.
	s.grpcListener = s.mux.Match(oneport.GRPC())
	s.httpListener = s.mux.Match(oneport.HTTP1(), oneport.HTTP2())
	return s, nil
}

// serve serves until shutdown is called, and then returns nil, or until accepting fails.
func (s *server) serve() error {
	var errs [4]error
	var all sync.WaitGroup
	all.Go(func() { errs[0] = s.grpc.Serve(s.grpcListener) })
	all.Go(func() { errs[1] = s.grpc.Serve(s.inMemory) })
	all.Go(func() { errs[2] = s.http.Serve(s.httpListener) })
	all.Go(func() {
		if errs[3] = s.mux.Serve(); !errors.Is(errs[3], net.ErrClosed) {
			// The mux has closed the routes, so nobody needs the connection in memory any more.
			s.inMemory.Close()
		}
	})
	all.Wait()
	for i, err := range errs {
		if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
			errs[i] = nil
		}
	}
	return cmp.Or(errs[3], errs[0], errs[1], errs[2])
}

// shutdown stops accepting and waits until all running requests are answered. If ctx ends first, it cuts them off and
// returns the context's error.
func (s *server) shutdown(ctx context.Context) error {
	// The order matters. First the mux accepts no new connections. Then the HTTP server waits for its REST requests, after
	// which the gateway's connection is idle. The gRPC server comes last, and waits only for its own clients.
	muxErr := s.mux.Shutdown(ctx)
	httpErr := s.http.Shutdown(ctx)
	if httpErr != nil {
		s.http.Close()
	}
	s.gateway.Close()
	cutOff := context.AfterFunc(ctx, s.grpc.Stop)
	s.grpc.GracefulStop()
	if !cutOff() {
		return ctx.Err()
	}
	return cmp.Or(muxErr, httpErr)
}
