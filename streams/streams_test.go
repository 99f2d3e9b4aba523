package streams

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(serverVariable); kind != "" {
		benchServer(kind)
		return
	}
	goleak.VerifyTestMain(m)
}

// listen returns a listener on a free port.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs m until the end of the test, and checks how Serve ends.
func serve(t testing.TB, m *Mux) {
	t.Helper()
	if m.Logger == nil {
		m.Logger = slog.New(slog.DiscardHandler)
	}
	done := make(chan error, 1)
	go func() { done <- m.Serve() }()
	t.Cleanup(func() {
		m.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve returned %v, want ErrClosed", err)
		}
	})
}

// serveGRPC runs a gRPC server on l until the end of the test.
func serveGRPC(t testing.TB, l net.Listener) *grpc.Server {
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return s
}

// serveHTTP runs net/http on l until the end of the test.
func serveHTTP(t testing.TB, l net.Listener, h http.Handler) *http.Server {
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return s
}

// client returns a client that makes all its requests over one connection.
func client(t testing.TB, l net.Listener) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
		},
		Protocols:       new(http.Protocols),
		MaxConnsPerHost: 1,
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("x-proto", r.Proto)
	io.Copy(w, r.Body)
}

func TestAlone(t *testing.T) {
	l := listen(t)
	m := New(l)
	serveGRPC(t, m.Match(oneport.GRPC()))
	serveHTTP(t, m.Match(oneport.Any()), http.HandlerFunc(echo))
	serve(t, m)

	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 3 {
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	c := client(t, l)
	for _, n := range []int{0, 10, 1 << 20} {
		body := bytes.Repeat([]byte("x"), n)
		res, err := c.Post("http://x/", "text/plain", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes, %v; want %d", len(got), err, n)
		}
	}
	if s := m.Stats(); s.Conns != 2 || s.Shared != 0 {
		t.Errorf("%+v", s)
	}
}

func TestShared(t *testing.T) {
	l := listen(t)
	m := New(l)
	serveHTTP(t, m.Match(oneport.Path("/a")), http.HandlerFunc(echo))
	serveHTTP(t, m.Match(oneport.Path("/b")), http.HandlerFunc(echo))
	serve(t, m)
	c := client(t, l)
	for i := range 10 {
		for _, n := range []int{0, 10, 1 << 20} {
			body := bytes.Repeat([]byte("x"), n)
			res, err := c.Post(fmt.Sprintf("http://x/%c", 'a'+i%3), "text/plain", bytes.NewReader(body))
			if err != nil {
				t.Fatal(i, n, err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if i%3 == 2 {
				if res.StatusCode != 404 {
					t.Error(res.Status)
				}
			} else if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%d bytes, %v; want %d", len(got), err, n)
			}
		}
	}
	if s := m.Stats(); s.Conns != 1 || s.Shared != 1 {
		t.Errorf("%+v", s)
	}
}
