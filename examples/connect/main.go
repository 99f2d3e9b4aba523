// Connect serves services of grpc-go and of connect-go on one port. Clients can call both with the gRPC, gRPC-Web and
// Connect protocols: connect-go speaks all three, and vanguard translates for grpc-go, which speaks only gRPC.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"connectrpc.com/vanguard/vanguardgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/examples/connect/greeterpb"
	"github.com/oneport-go/oneport/examples/connect/greeterpb/greeterpbconnect"
	"github.com/oneport-go/oneport/grpccreds"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "serve on this `address`")
	flag.Parse()
	l, err := oneport.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Serving on %s (Ctrl-C ends it). Try:\n", l.Addr())
	for _, service := range []string{greeterpbconnect.NativeGreeterName, greeterpbconnect.ConnectGreeterName} {
		fmt.Printf("\ncurl -H 'Connect-Protocol-Version: 1' --json '{\"name\":\"World\"}' http://%s/%s/SayHello\n", l.Addr(), service)
		fmt.Printf("grpcurl -plaintext -d '{\"name\":\"World\"}' %s %s/SayHello\n", l.Addr(), service)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := serve(ctx, l); err != nil {
		log.Fatal(err)
	}
}

// serve serves on l until ctx ends.
func serve(ctx context.Context, l net.Listener) error {
	rpc := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	greeterpb.RegisterNativeGreeterServer(rpc, native{})
	healthpb.RegisterHealthServer(rpc, health.NewServer())
	reflectionpb.RegisterServerReflectionServer(rpc, reflection.NewServerV1(reflection.ServerOptions{Services: services{rpc}}))
	transcoder, err := vanguardgrpc.NewTranscoder(rpc)
	if err != nil {
		l.Close()
		return err
	}
	handler := http.NewServeMux()
	handler.Handle(greeterpbconnect.NewConnectGreeterHandler(viaConnect{}))
	handler.Handle("/", transcoder)

	s := &oneport.Server{
		GRPC:    rpc,
		Handler: handler,
		// Calls by the gRPC protocol go to GRPC, except those of the handler's own services. Calls by other protocols go
		// to the handler anyway.
		HTTPServices: []string{greeterpbconnect.ConnectGreeterName},
	}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		log.Print("shutting down: waiting at most 10 seconds for running calls")
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stopped <- s.Shutdown(ctx)
	})
	if err := s.Serve(l); !errors.Is(err, oneport.ErrClosed) {
		return err
	}
	return <-stopped
}

// services are those of grpc-go and of connect-go, for server reflection to list.
type services struct{ *grpc.Server }

func (s services) GetServiceInfo() map[string]grpc.ServiceInfo {
	all := s.Server.GetServiceInfo()
	all[greeterpbconnect.ConnectGreeterName] = grpc.ServiceInfo{}
	return all
}
