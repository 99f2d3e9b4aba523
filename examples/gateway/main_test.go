package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/oneport-go/oneport/examples/gateway/greeterpb"
	"github.com/oneport-go/oneport/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves until shutdown is called or the test ends. After the first greeting the server waits for pause to be
// closed.
func start(t *testing.T, pause chan time.Time) (s *server, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err = newServer(l, greeter{pause: func() <-chan time.Time { return pause }})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

func grpcClient(t *testing.T, addr string) greeterpb.GreeterClient {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return greeterpb.NewGreeterClient(cc)
}

func httpClient(t *testing.T, http2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	_, addr := start(t, nil)
	exampletest.CheckServices(t, exampletest.GRPC(t, addr), greeterpb.Greeter_ServiceDesc.ServiceName)
	client := grpcClient(t, addr)
	res, err := client.SayHello(t.Context(), &greeterpb.SayHelloRequest{Name: "World"})
	if err != nil || res.GetMessage() != "Hello, World" {
		t.Errorf("%v, %v", res, err)
	}
	if _, err := client.SayHello(t.Context(), &greeterpb.SayHelloRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}

func TestREST(t *testing.T) {
	t.Parallel()
	_, addr := start(t, nil)
	for _, tt := range []struct {
		method, path, content string
		status                int
		want                  map[string]any
	}{
		{"GET", "/v1/hello/World", "", 200, map[string]any{"message": "Hello, World"}},
		{"GET", "/v1/hello/J%C3%BCrgen", "", 200, map[string]any{"message": "Hello, Jürgen"}},
		{"POST", "/v1/hello", `{"name":"World"}`, 200, map[string]any{"message": "Hello, World"}},
		{"GET", "/v1/hello/World/again?times=1", "", 200, map[string]any{"result": map[string]any{"message": "Hello, World"}}},
		{"POST", "/v1/hello", `{}`, 400, map[string]any{"code": 3.0, "message": "name whom to greet", "details": []any{}}},
		{"GET", "/other", "", 404, map[string]any{"code": 5.0, "message": "Not Found", "details": []any{}}},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(proto+" "+tt.method+" "+tt.path, func(t *testing.T) {
				t.Parallel()
				req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+addr+tt.path, strings.NewReader(tt.content))
				if err != nil {
					t.Fatal(err)
				}
				res, err := httpClient(t, proto == "HTTP/2.0").Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				var got map[string]any
				if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
					t.Fatal(err)
				}
				if res.StatusCode != tt.status || res.Proto != proto {
					t.Errorf("%s by %s, want %d by %s", res.Status, res.Proto, tt.status, proto)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestShutdownWaits stops the server while a stream is running, by REST and by gRPC.
func TestShutdownWaits(t *testing.T) {
	t.Parallel()
	pause := make(chan time.Time)
	s, addr := start(t, pause)

	byGRPC, err := grpcClient(t, addr).KeepGreeting(t.Context(), &greeterpb.KeepGreetingRequest{Name: "gRPC", Times: 2})
	if err != nil {
		t.Fatal(err)
	}
	res, err := httpClient(t, false).Get("http://" + addr + "/v1/hello/REST/again?times=2")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	byREST := bufio.NewScanner(res.Body)
	nextOf := map[string]func() string{
		"gRPC": func() string {
			m, err := byGRPC.Recv()
			if err != nil {
				return err.Error()
			}
			return m.GetMessage()
		},
		"REST": func() string {
			switch {
			case byREST.Scan():
				return byREST.Text()
			case byREST.Err() != nil:
				return byREST.Err().Error()
			}
			return "EOF"
		},
	}
	want := map[string]string{"gRPC": "Hello, gRPC", "REST": `{"result":{"message":"Hello, REST"}}`}
	for name, next := range nextOf {
		if got := next(); got != want[name] {
			t.Errorf("%s: %s", name, got)
		}
	}
	shut := make(chan error, 1)
	go func() { shut <- s.shutdown(context.Background()) }()
	for { // until the listener is closed, which comes first
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		c.Close()
	}
	select {
	case err := <-shut:
		t.Fatalf("the server has stopped, with the error %v, while requests were running", err)
	default:
	}
	close(pause)
	for name, next := range nextOf {
		if got := next(); got != want[name] {
			t.Errorf("%s, while the server stops: %s", name, got)
		}
		if got := next(); got != "EOF" {
			t.Errorf("%s, at the end: %s", name, got)
		}
	}
	if err := <-shut; err != nil {
		t.Error(err)
	}
}

// TestShutdownCutsOff stops a server whose client would take longer.
func TestShutdownCutsOff(t *testing.T) {
	t.Parallel()
	s, addr := start(t, nil)
	stream, err := grpcClient(t, addr).KeepGreeting(t.Context(), &greeterpb.KeepGreetingRequest{Name: "World", Times: 100})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
}
