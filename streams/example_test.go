package streams_test

import (
	"log"
	"net"
	"net/http"

	"google.golang.org/grpc"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
	"github.com/oneport-go/oneport/streams"
)

// gRPC and REST behind a proxy that sends both over the same HTTP/2 connections, and HTTP/1 for those who ask directly.
func Example() {
	l, err := net.Listen("tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	mux := oneport.New(l)
	http1 := mux.Match(oneport.HTTP1())
	http2 := streams.New(mux.Match(oneport.HTTP2()))

	grpcServer := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	go grpcServer.Serve(http2.Match(oneport.GRPC()))

	httpServer := &http.Server{Protocols: new(http.Protocols)}
	httpServer.Protocols.SetHTTP1(true)
	httpServer.Protocols.SetUnencryptedHTTP2(true)
	go httpServer.Serve(http1)
	go httpServer.Serve(http2.Match(oneport.Any()))

	go http2.Serve()
	log.Fatal(mux.Serve())
}
