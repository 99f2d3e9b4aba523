package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

// TestServer has clients of all kinds at work at once, and then shuts the server down while it has requests of all of
// them: each is answered.
func TestServer(t *testing.T) {
	t.Parallel()
	const each = 50 // requests of each kind, before the server stops
	const held = 5  // and while it does

	entered, release := make(chan struct{}), make(chan struct{})
	hold := func() {
		entered <- struct{}{}
		<-release
	}
	var stopping sync.WaitGroup // until both servers know that they are to stop
	stopping.Add(2)

	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			hold()
		}
		answer("net/http").ServeHTTP(w, r)
	})}
	web.RegisterOnShutdown(stopping.Done)
	rpc := newGRPC(grpc.Creds(grpccreds.Credentials{}), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if req.(*healthpb.HealthCheckRequest).Service == "hold" {
				hold()
				req = new(healthpb.HealthCheckRequest)
			}
			return handler(ctx, req)
		}))
	server := &oneport.Server{
		GRPC:      &watchedGRPC{rpc, stopping.Done},
		HTTP:      web,
		TLSConfig: serverTLS(),
		Upgrade:   true,
		Configure: func(m *oneport.Mux) {
			m.Logger = slog.New(slog.DiscardHandler)
			m.OnRefuse = func(r oneport.Refused) {
				// A transport may have opened a connection that it had no use for.
				if r.Reason != oneport.ReasonClientClosed && r.Reason != oneport.ReasonShutdown {
					t.Error(r.Err)
				}
			}
		},
	}
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	addr := l.Addr().String()

	kinds := []struct {
		name string
		do   func(held bool) error
	}{
		{"gRPC", grpcRequests(t, addr, insecure.NewCredentials())},
		{"gRPC over TLS", grpcRequests(t, addr, clientCreds())},
		{"HTTP/1.1", httpRequests(t, "http://"+addr, "net/http by HTTP/1.1", (*http.Protocols).SetHTTP1)},
		{"HTTP/1.1 over TLS", httpRequests(t, "https://"+addr, `net/http by HTTP/1.1 over TLS, ALPN ""`, (*http.Protocols).SetHTTP1)},
		{"HTTP/2", httpRequests(t, "http://"+addr, "net/http by HTTP/2.0", (*http.Protocols).SetUnencryptedHTTP2)},
		{"HTTP/2 over TLS", httpRequests(t, "https://"+addr, `net/http by HTTP/2.0 over TLS, ALPN "h2"`, (*http.Protocols).SetHTTP2)},
		{"upgrade", func(held bool) error {
			c, got, err := dialUpgrade(addr, "GET", pathFor(held), "")
			if err == nil {
				c.Close()
			}
			return wantAnswer(got, err, "net/http by HTTP/2.0")
		}},
	}
	var requests sync.WaitGroup
	all := func(n int, held bool) {
		for _, kind := range kinds {
			for range n {
				requests.Go(func() {
					if err := kind.do(held); err != nil {
						t.Errorf("%s: %v", kind.name, err)
					}
				})
			}
		}
	}
	all(each, false)
	requests.Wait()
	all(held, true)
	for range held * len(kinds) {
		select {
		case <-entered:
		case <-time.After(10 * time.Second):
			t.Fatal("not all requests have reached their servers")
		}
	}

	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(context.Background()) }()
	stopping.Wait()
	select {
	case err := <-stopped:
		t.Errorf("Shutdown returned %v before the requests were answered", err)
	default:
	}
	close(release)
	requests.Wait()
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-served; !errors.Is(err, oneport.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	if _, err := http.Get("http://" + addr); err == nil {
		t.Error("the port is still open")
	}
}

// watchedGRPC tells when it is told to stop.
type watchedGRPC struct {
	*grpc.Server
	stopping func()
}

func (g *watchedGRPC) GracefulStop() {
	g.stopping()
	g.Server.GracefulStop()
}

func pathFor(held bool) string {
	if held {
		return "/hold"
	}
	return "/"
}

func wantAnswer(got string, err error, want string) error {
	if err == nil && got != want {
		err = fmt.Errorf("got %q, want %q", got, want)
	}
	return err
}

func grpcRequests(t *testing.T, addr string, creds credentials.TransportCredentials) func(bool) error {
	conn := dialGRPCWith(t, addr, creds)
	return func(held bool) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return tryHealth(ctx, conn, strings.TrimPrefix(pathFor(held), "/"))
	}
}

func httpRequests(t *testing.T, url, want string, protocol func(*http.Protocols, bool)) func(bool) error {
	transport := &http.Transport{TLSClientConfig: clientTLS(), Protocols: new(http.Protocols)}
	protocol(transport.Protocols, true)
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	return func(held bool) error {
		resp, err := client.Get(url + pathFor(held))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return wantAnswer(string(b), err, want)
	}
}

// TestHTTPServices checks that calls of gRPC services which the handler answers reach it, beside grpc-go's, on one
// connection and with each request by itself.
func TestHTTPServices(t *testing.T) {
	t.Parallel()
	// The handler speaks the gRPC protocol, as those of connect-go do: one empty message, and the status in a trailer.
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Served-By", "handler of "+r.URL.Path)
		w.Write(make([]byte, 5))
		w.Header().Set("Grpc-Status", "0")
	})
	for _, perConnection := range []bool{false, true} {
		addr := startServer(t, &oneport.Server{
			GRPC: newGRPC(), Handler: handler, HTTPServices: []string{"connect.v1.Service"}, PerConnection: perConnection,
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		client := dialGRPC(t, addr)
		var header metadata.MD
		err := client.Invoke(ctx, "/connect.v1.Service/Do", new(healthpb.HealthCheckRequest), new(healthpb.HealthCheckResponse), grpc.Header(&header))
		if got := header.Get("served-by"); err != nil || len(got) != 1 || got[0] != "handler of /connect.v1.Service/Do" {
			t.Errorf("PerConnection %t: %v, served by %q", perConnection, err, got)
		}
		if perConnection {
			client = dialGRPC(t, addr)
		}
		if err := tryHealth(ctx, client, ""); err != nil {
			t.Errorf("PerConnection %t: grpc-go's service: %v", perConnection, err)
		}
	}
}
