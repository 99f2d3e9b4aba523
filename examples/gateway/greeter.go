package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/oneport-go/oneport/examples/gateway/greeterpb"
)

// greeter implements the service. REST requests reach it as gRPC calls of the gateway.
type greeter struct {
	greeterpb.UnimplementedGreeterServer
	pause func() <-chan time.Time // between two greetings
}

func (greeter) SayHello(_ context.Context, req *greeterpb.SayHelloRequest) (*greeterpb.SayHelloResponse, error) {
	if req.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "name whom to greet")
	}
	return &greeterpb.SayHelloResponse{Message: "Hello, " + req.GetName()}, nil
}

func (g greeter) KeepGreeting(req *greeterpb.KeepGreetingRequest, stream grpc.ServerStreamingServer[greeterpb.SayHelloResponse]) error {
	if n := req.GetTimes(); n < 1 || n > 100 {
		return status.Error(codes.InvalidArgument, "times is to be from 1 to 100")
	}
	for i := range req.GetTimes() {
		if i > 0 {
			select {
			case <-g.pause():
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}
		if err := stream.Send(&greeterpb.SayHelloResponse{Message: "Hello, " + req.GetName()}); err != nil {
			return err
		}
	}
	return nil
}
