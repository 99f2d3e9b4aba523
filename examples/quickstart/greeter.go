package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

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
	TLS      bool   `json:"tls"`
	Client   string `json:"client,omitempty"` // who the client's certificate says it is
}

// greet answers a request over the given protocol. Without TLS the connection state is nil.
func (greeter) greet(name, protocol string, state *tls.ConnectionState) greeting {
	return greeting{Message: "Hello, " + name, Protocol: protocol, TLS: state != nil, Client: identity(state)}
}

// SayHello answers a gRPC call.
func (g greeter) SayHello(ctx context.Context, r *greeterpb.SayHelloRequest) (*greeterpb.SayHelloResponse, error) {
	var state *tls.ConnectionState
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			state = &info.State
		}
	}
	hello := g.greet(r.GetName(), "gRPC", state)
	return &greeterpb.SayHelloResponse{
		Message:  hello.Message,
		Protocol: hello.Protocol,
		Tls:      hello.TLS,
		Client:   hello.Client,
	}, nil
}

// ServeHTTP answers GET /v1/hello/{name}.
func (g greeter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	// This fails only if the client is gone.
	_ = json.NewEncoder(w).Encode(g.greet(r.PathValue("name"), r.Proto, r.TLS))
}

// identity returns the name in the client's verified certificate: a URI, such as a SPIFFE ID, or else the common name.
// Without such a certificate it is empty.
func identity(state *tls.ConnectionState) string {
	if state == nil || len(state.VerifiedChains) == 0 {
		return ""
	}
	cert := state.VerifiedChains[0][0]
	if len(cert.URIs) > 0 {
		return cert.URIs[0].String()
	}
	return cert.Subject.CommonName
}
