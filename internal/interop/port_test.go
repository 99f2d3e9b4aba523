package interop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

// A port is a mux with servers behind it.
type port struct {
	*oneport.Mux
	addr string
	root *recorder // the listener below the mux

	mu      sync.Mutex
	matches []oneport.Matched
	refused []oneport.Refused // if the test expects any
	another sync.Cond         // signals that there is another one
}

func newPort(t *testing.T) *port {
	l := listen(t)
	p := &port{root: &recorder{Listener: l}, addr: l.Addr().String()}
	p.Mux = oneport.New(p.root)
	p.another.L = &p.mu
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
	return route(t, p.Route(oneport.Route{Name: name, Matchers: matchers}), serve)
}

// secure has the mux terminate TLS, and adds routes for gRPC and HTTP inside.
func (p *port) secure(t *testing.T, config *tls.Config) {
	s := p.TLS(config)
	route(t, s.Route(oneport.Route{Name: "grpc", Matchers: []oneport.Matcher{oneport.GRPC()}}), serveGRPC)
	route(t, s.Route(oneport.Route{Name: "http", Matchers: []oneport.Matcher{oneport.HTTP1(), oneport.HTTP2()}}), serveNetHTTP)
}

// upgrading adds routes for gRPC and HTTP that take upgrades to h2c.
func (p *port) upgrading(t *testing.T) {
	route(t, p.Route(oneport.Route{Name: "grpc", Matchers: []oneport.Matcher{oneport.GRPC()}, Upgrade: true}), serveGRPC)
	route(t, p.Route(oneport.Route{Name: "http", Matchers: []oneport.Matcher{oneport.HTTP1(), oneport.HTTP2()}, Upgrade: true}), serveNetHTTP)
}

// route has a server accept from a route's listener.
func route(t *testing.T, l net.Listener, serve func(*testing.T, net.Listener)) *recorder {
	r := &recorder{Listener: l}
	serve(t, r)
	return r
}

// expectRefusals keeps refusals in place of failing the test.
func (p *port) expectRefusals() {
	p.OnRefuse = func(r oneport.Refused) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.refused = append(p.refused, r)
		p.another.Broadcast()
	}
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

// forgetMatches forgets what connections have found a route.
func (p *port) forgetMatches() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.matches = nil
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
func serveGRPC(t *testing.T, l net.Listener) {
	serveGRPCWith(t, l, grpc.Creds(grpccreds.Credentials{}), grpc.UnaryInterceptor(tellPeer))
}

// tellPeer tells a client who it is.
func tellPeer(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	p, _ := peer.FromContext(ctx)
	who := "grpc-go"
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		who += describe(&info.State)
		if info.SPIFFEID != nil {
			who += ", SPIFFE ID " + info.SPIFFEID.String()
		}
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs("who", who)); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// describe says what a server sees of TLS.
func describe(state *tls.ConnectionState) string {
	if state == nil {
		return ""
	}
	s := fmt.Sprintf(" over TLS, ALPN %q", state.NegotiatedProtocol)
	if len(state.PeerCertificates) > 0 {
		s += ", client " + state.PeerCertificates[0].Subject.CommonName
	}
	return s
}

func serveGRPCWith(t *testing.T, l net.Listener, opts ...grpc.ServerOption) {
	srv := newGRPC(opts...)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, grpc.ErrServerStopped) { // it may not have begun
			t.Errorf("grpc: %v", err)
		}
	})
}

// serveNetHTTP runs net/http with HTTP/1 and HTTP/2 on l until the end of the test.
func serveNetHTTP(t *testing.T, l net.Listener) {
	srv := &http.Server{Handler: answer("net/http")}
	oneport.ConfigureHTTP(srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-done; err != http.ErrServerClosed && !errors.Is(err, net.ErrClosed) {
			t.Errorf("net/http: %v", err)
		}
	})
}

// answer is a handler that says who serves, by which protocol the request came, and what its content was.
func answer(server string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(w, "%s by %s%s", server, r.Proto, describe(r.TLS))
		if len(content) > 0 {
			fmt.Fprintf(w, ", got %s", content)
		}
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
