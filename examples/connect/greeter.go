package main

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"github.com/oneport-go/oneport/examples/connect/greeterpb"
)

// native is a service of grpc-go.
type native struct {
	greeterpb.UnimplementedNativeGreeterServer
}

func (native) SayHello(_ context.Context, req *greeterpb.SayHelloRequest) (*greeterpb.SayHelloResponse, error) {
	return &greeterpb.SayHelloResponse{Message: "Hello, " + req.GetName() + ", from grpc-go"}, nil
}

// viaConnect is a service of connect-go.
type viaConnect struct{}

func (viaConnect) SayHello(_ context.Context, req *connect.Request[greeterpb.SayHelloRequest]) (*connect.Response[greeterpb.SayHelloResponse], error) {
	return connect.NewResponse(&greeterpb.SayHelloResponse{
		Message: fmt.Sprintf("Hello, %s, from connect-go by %s", req.Msg.GetName(), req.Peer().Protocol),
	}), nil
}

func (viaConnect) KeepGreeting(_ context.Context, req *connect.Request[greeterpb.KeepGreetingRequest], stream *connect.ServerStream[greeterpb.SayHelloResponse]) error {
	for i := range req.Msg.GetTimes() {
		if err := stream.Send(&greeterpb.SayHelloResponse{Message: fmt.Sprintf("Hello, %s, %d", req.Msg.GetName(), i+1)}); err != nil {
			return err
		}
	}
	return nil
}
