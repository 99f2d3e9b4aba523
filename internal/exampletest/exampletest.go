// Package exampletest has helpers for the tests of the examples.
package exampletest

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
)

// timeout bounds what a test waits for.
const timeout = 30 * time.Second

// Listen listens on a free port of the loopback interface.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Run runs an example until stop is called or the test ends, when the example must end without an error. stop does not
// wait for that.
func Run(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the example ended with %v", err)
		}
	})
	return stop
}

// HTTP returns a client that speaks HTTP/2 with prior knowledge, or HTTP/1.1.
func HTTP(t testing.TB, http2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: timeout}
}

// Get returns the status and the content of a page.
func Get(t testing.TB, c *http.Client, url string) (status int, content string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// GRPC returns a client of the gRPC server at a target, without TLS unless an option says otherwise.
func GRPC(t testing.TB, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(target, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// CheckHealth checks that gRPC's health service answers that the server serves.
func CheckHealth(t testing.TB, cc grpc.ClientConnInterface) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	res, err := healthpb.NewHealthClient(cc).Check(ctx, new(healthpb.HealthCheckRequest))
	if err != nil || res.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", res, err)
	}
}

// CheckServices checks that server reflection lists the gRPC services, as "grpcurl list" does.
func CheckServices(t testing.TB, cc grpc.ClientConnInterface, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{ListServices: "*"},
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range res.GetListServicesResponse().GetService() {
		got = append(got, s.GetName())
	}
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("reflection lists %q, want %s among them", got, name)
		}
	}
	stream.CloseSend()
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("the end of reflection: %v", err)
	}
}

// A Log has what an example writes. The zero value is empty.
type Log struct {
	mu      sync.Mutex
	text    strings.Builder
	written chan struct{} // closed by the next Write, if somebody waits for it
}

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.written != nil {
		close(l.written)
		l.written = nil
	}
	return l.text.Write(b)
}

// Await waits until each of the strings has been written, and returns all that has.
func (l *Log) Await(t testing.TB, want ...string) string {
	t.Helper()
	late := time.After(timeout)
	for {
		l.mu.Lock()
		if l.written == nil {
			l.written = make(chan struct{})
		}
		written, text := l.written, l.text.String()
		l.mu.Unlock()
		want = slices.DeleteFunc(want, func(s string) bool { return strings.Contains(text, s) })
		if len(want) == 0 {
			return text
		}
		select {
		case <-written:
		case <-late:
			t.Fatalf("the example has not written %q, but:\n%s", want, text)
		}
	}
}
