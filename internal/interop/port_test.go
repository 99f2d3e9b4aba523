package interop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport"
)

// A port is a mux with servers behind it.
type port struct {
	*oneport.Mux
	addr string
	root *recorder // the listener below the mux

	mu      sync.Mutex
	matches []oneport.Matched
}

func newPort(t *testing.T) *port {
	l := listen(t)
	p := &port{root: &recorder{Listener: l}, addr: l.Addr().String()}
	p.Mux = oneport.New(p.root)
	p.Logger = slog.New(slog.DiscardHandler)
	p.OnMatch = func(m oneport.Matched) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.matches = append(p.matches, m)
	}
	p.OnRefuse = func(r oneport.Refused) { t.Error(r.Err) }
	return p
}

// route adds a route and has a server accept from it.
func (p *port) route(t *testing.T, name string, serve func(*testing.T, net.Listener), matchers ...oneport.Matcher) *recorder {
	l := &recorder{Listener: p.Route(oneport.Route{Name: name, Matchers: matchers})}
	serve(t, l)
	return l
}

// start runs the mux until the end of the test.
func (p *port) start(t *testing.T) {
	served := make(chan error, 1)
	go func() { served <- p.Serve() }()
	t.Cleanup(func() {
		if err := p.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, oneport.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}

// wantMatch checks that there was one connection and how it found its route.
func (p *port) wantMatch(t *testing.T, route string, protocol oneport.Protocol, early bool) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.matches) != 1 {
		t.Fatalf("%d connections found a route, want 1", len(p.matches))
	}
	if m := p.matches[0]; m.Route != route || m.Protocol != protocol || m.EarlySettings != early {
		t.Errorf("matched route %q, protocol %v, early SETTINGS %t; want %q, %v, %t",
			m.Route, m.Protocol, m.EarlySettings, route, protocol, early)
	}
	want := uint64(0)
	if early {
		want = 1
	}
	if n := p.Stats().EarlySettings; n != want {
		t.Errorf("Stats().EarlySettings = %d, want %d", n, want)
	}
}

// wantSameConn checks that what the listener of a route returned is what the listener below the mux had returned.
func (p *port) wantSameConn(t *testing.T, route *recorder) {
	t.Helper()
	accepted, handed := p.root.last(), route.last()
	if _, ok := accepted.(*net.TCPConn); !ok || handed != accepted {
		t.Errorf("accepted a %T at %[1]p and handed over a %T at %[2]p, want the same", accepted, handed)
	}
}

// A recorder is a listener that remembers what it returned.
type recorder struct {
	net.Listener
	mu   sync.Mutex
	conn net.Conn
}

func (r *recorder) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err == nil {
		r.mu.Lock()
		r.conn = c
		r.mu.Unlock()
	}
	return c, err
}

// last returns the connection that Accept returned last.
func (r *recorder) last() net.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn
}

// serveGRPC runs grpc-go with the health service on l until the end of the test.
func serveGRPC(t *testing.T, l net.Listener) { serveGRPCWith(t, l) }

func serveGRPCWith(t *testing.T, l net.Listener, opts ...grpc.ServerOption) {
	srv := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(srv, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("grpc: %v", err)
		}
	})
}

// serveNetHTTP runs net/http with HTTP/1 and HTTP/2 on l until the end of the test.
func serveNetHTTP(t *testing.T, l net.Listener) {
	srv := &http.Server{Handler: answer("net/http"), Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-done; err != http.ErrServerClosed && !errors.Is(err, net.ErrClosed) {
			t.Errorf("net/http: %v", err)
		}
	})
}

// answer is a handler that says who serves and by which protocol the request came.
func answer(server string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s by %s", server, r.Proto)
	})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
