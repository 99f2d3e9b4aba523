package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/oneport-go/oneport/examples/connect/greeterpb"
	"github.com/oneport-go/oneport/examples/connect/greeterpb/greeterpbconnect"
	"github.com/oneport-go/oneport/internal/exampletest"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	goleak.VerifyTestMain(m)
}

func start(t *testing.T) (addr string) {
	l := exampletest.Listen(t)
	exampletest.Run(t, func(ctx context.Context) error { return serve(ctx, l) })
	return l.Addr().String()
}

// TestProtocols calls each service by each protocol.
func TestProtocols(t *testing.T) {
	t.Parallel()
	addr := start(t)
	for _, tt := range []struct {
		name     string
		protocol string
		http2    bool
		opts     []connect.ClientOption
	}{
		{"gRPC", connect.ProtocolGRPC, true, []connect.ClientOption{connect.WithGRPC()}},
		{"gRPC-Web", connect.ProtocolGRPCWeb, false, []connect.ClientOption{connect.WithGRPCWeb()}},
		{"gRPC-Web over HTTP/2", connect.ProtocolGRPCWeb, true, []connect.ClientOption{connect.WithGRPCWeb()}},
		{"Connect", connect.ProtocolConnect, false, nil},
		{"Connect over HTTP/2", connect.ProtocolConnect, true, nil},
		{"Connect in JSON", connect.ProtocolConnect, false, []connect.ClientOption{connect.WithProtoJSON()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := exampletest.HTTP(t, tt.http2)
			hello := func() *connect.Request[greeterpb.SayHelloRequest] {
				return connect.NewRequest(&greeterpb.SayHelloRequest{Name: "World"})
			}
			res, err := greeterpbconnect.NewNativeGreeterClient(c, "http://"+addr, tt.opts...).SayHello(t.Context(), hello())
			if err != nil || res.Msg.GetMessage() != "Hello, World, from grpc-go" {
				t.Errorf("grpc-go: %v, %v", res, err)
			}
			client := greeterpbconnect.NewConnectGreeterClient(c, "http://"+addr, tt.opts...)
			res, err = client.SayHello(t.Context(), hello())
			if err != nil || res.Msg.GetMessage() != "Hello, World, from connect-go by "+tt.protocol {
				t.Errorf("connect-go: %v, %v", res, err)
			}
			stream, err := client.KeepGreeting(t.Context(), connect.NewRequest(&greeterpb.KeepGreetingRequest{Name: "World", Times: 2}))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for stream.Receive() {
				got = append(got, stream.Msg().GetMessage())
			}
			if err := stream.Close(); err != nil || stream.Err() != nil || strings.Join(got, "; ") != "Hello, World, 1; Hello, World, 2" {
				t.Errorf("a stream of connect-go: %q, %v, %v", got, stream.Err(), err)
			}
		})
	}
}

// TestGRPCClient calls the services of both kinds over one connection of grpc-go.
func TestGRPCClient(t *testing.T) {
	t.Parallel()
	cc := exampletest.GRPC(t, start(t))
	exampletest.CheckHealth(t, cc)
	exampletest.CheckServices(t, cc, "grpc.health.v1.Health", greeterpbconnect.NativeGreeterName, greeterpbconnect.ConnectGreeterName)
	req := &greeterpb.SayHelloRequest{Name: "World"}
	res, err := greeterpb.NewNativeGreeterClient(cc).SayHello(t.Context(), req)
	if err != nil || res.GetMessage() != "Hello, World, from grpc-go" {
		t.Errorf("grpc-go: %v, %v", res, err)
	}
	res, err = greeterpb.NewConnectGreeterClient(cc).SayHello(t.Context(), req)
	if err != nil || res.GetMessage() != "Hello, World, from connect-go by grpc" {
		t.Errorf("connect-go: %v, %v", res, err)
	}
}

// TestCurl makes the calls that the program prints.
func TestCurl(t *testing.T) {
	t.Parallel()
	addr := start(t)
	for service, want := range map[string]string{
		greeterpbconnect.NativeGreeterName:  "Hello, World, from grpc-go",
		greeterpbconnect.ConnectGreeterName: "Hello, World, from connect-go by connect",
	} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr+"/"+service+"/SayHello", strings.NewReader(`{"name":"World"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Connect-Protocol-Version", "1")
		res, err := exampletest.HTTP(t, false).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || string(b) != `{"message":"`+want+`"}` {
			t.Errorf("%s: %s, %q, %v", service, res.Status, b, err)
		}
	}
}
