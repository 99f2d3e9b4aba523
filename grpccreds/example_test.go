package grpccreds_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

// whoCalls is an interceptor that knows its clients by their certificates.
func whoCalls(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if t, ok := p.AuthInfo.(credentials.TLSInfo); ok && t.SPIFFEID != nil {
			log.Printf("%s calls %s", t.SPIFFEID, info.FullMethod)
		}
	}
	return handler(ctx, req)
}

// TLS is done by the listener, below the mux, and the gRPC server sees the clients' certificates.
func Example() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{
		// Certificates and ClientCAs go here.
		ClientAuth: tls.RequireAndVerifyClientCert,
		NextProtos: []string{"h2", "http/1.1"},
	}
	mux := oneport.New(tls.NewListener(l, config))
	route := mux.Match(oneport.GRPC())

	server := grpc.NewServer(
		grpc.Creds(grpccreds.Credentials{RequireTLS: true}),
		grpc.UnaryInterceptor(whoCalls),
	)
	go server.Serve(route)
	go mux.Serve()

	mux.Shutdown(context.Background())
	server.GracefulStop()
	fmt.Println("stopped")
	// Output: stopped
}
