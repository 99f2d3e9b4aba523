package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/oneport-go/oneport/examples/quickstart/greeterpb"
)

// greeter greets gRPC and HTTP clients alike.
type greeter struct {
	greeterpb.UnimplementedGreeterServer
}

// A greeting is the answer to both.
type greeting struct {
	Message  string `json:"message"`
	Protocol string `json:"protocol"`
}

func (greeter) greet(name, protocol string) greeting {
	return greeting{Message: "Hello, " + name, Protocol: protocol}
}

// SayHello answers a gRPC call.
func (g greeter) SayHello(_ context.Context, r *greeterpb.SayHelloRequest) (*greeterpb.SayHelloResponse, error) {
	hello := g.greet(r.GetName(), "gRPC")
	return &greeterpb.SayHelloResponse{Message: hello.Message, Protocol: hello.Protocol}, nil
}

// ServeHTTP answers GET /v1/hello/{name}.
func (g greeter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	// It fails only where the client has gone.
	_ = json.NewEncoder(w).Encode(g.greet(r.PathValue("name"), r.Proto))
}
