package oneport

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/oneport-go/oneport/grpccreds"
)

// countingGRPC is a GRPCServer that only accepts, and says when it is told to stop.
type countingGRPC struct {
	conns    chan net.Conn
	graceful chan struct{}
	stopped  chan struct{}
	err      error // what Serve returns at once, if not nil

	mu        sync.Mutex
	listeners []net.Listener
}

func newCountingGRPC() *countingGRPC {
	return &countingGRPC{conns: make(chan net.Conn, 10), graceful: make(chan struct{}), stopped: make(chan struct{})}
}

func (g *countingGRPC) Serve(l net.Listener) error {
	if g.err != nil {
		return g.err
	}
	g.mu.Lock()
	g.listeners = append(g.listeners, l)
	g.mu.Unlock()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		g.conns <- c
	}
}

// GracefulStop closes the listeners and waits for Stop, as for a stream that does not end.
func (g *countingGRPC) GracefulStop() {
	g.closeListeners()
	close(g.graceful)
	<-g.stopped
}

func (g *countingGRPC) Stop() {
	select {
	case <-g.stopped:
	default:
		close(g.stopped)
	}
	g.closeListeners()
}

func (g *countingGRPC) closeListeners() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.listeners {
		l.Close()
	}
}

// startServer has s serve on a free port.
func startServer(t *testing.T, s *Server) net.Listener {
	t.Helper()
	configure := s.Configure
	s.Configure = func(m *Mux) {
		m.Logger = quiet
		if configure != nil {
			configure(m)
		}
	}
	l := listen(t, "tcp")
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return l
}

// TestServer serves gRPC, in its first bytes, and HTTP in all ways that there are.
func TestServer(t *testing.T) {
	t.Parallel()
	g := newCountingGRPC()
	l := startServer(t, &Server{GRPC: g, Handler: protoHandler, TLSConfig: serverTLS(), Upgrade: true})
	http1 := func(p *http.Protocols) { p.SetHTTP1(true) }
	for _, tt := range []struct{ name, got, want string }{
		{"HTTP/1", get(t, httpClient(t, nil, http1), "http://"+l.Addr().String()), "HTTP/1.1 in cleartext"},
		{"h2c", get(t, httpClient(t, nil, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }), "http://"+l.Addr().String()),
			"HTTP/2.0 in cleartext"},
		{"https, h2", get(t, httpClient(t, clientTLS(), func(p *http.Protocols) { p.SetHTTP2(true) }), "https://"+l.Addr().String()),
			"HTTP/2.0, TLS 1.3 for example.com, h2, client none"},
		{"https", get(t, httpClient(t, clientTLS("http/1.1"), http1), "https://"+l.Addr().String()),
			"HTTP/1.1, TLS 1.3 for example.com, http/1.1, client none"},
		{"https, HTTP/2 without ALPN", get(t, http2Client(t, clientTLS()), "https://"+l.Addr().String()),
			"HTTP/2.0, TLS 1.3 for example.com, , client none"},
		{"upgrade", upgradeConn(t, l, "GET", "/", "").answer(t, 1), "HTTP/2.0 in cleartext"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
	for _, secure := range []bool{false, true} {
		client := dial(t, l)
		if secure {
			client = dialTLS(t, l, clientTLS("h2"))
		}
		write(t, client, append(capture(t, "grpc-go.1"), capture(t, "grpc-go.2")...))
		c := <-g.conns
		if _, ok := c.(interface{ ConnectionState() tls.ConnectionState }); ok != secure {
			t.Errorf("TLS %v: gRPC got a %T", secure, c)
		}
		c.Close()
	}
}

// TestServerRequireTLS checks what becomes of requests without it.
func TestServerRequireTLS(t *testing.T) {
	t.Parallel()
	l := startServer(t, &Server{Handler: protoHandler, TLSConfig: serverTLS(), RequireTLS: true, RedirectHTTP: true})
	client := dial(t, l)
	io.WriteString(client, "GET /x HTTP/1.1\r\nHost: example.com\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil || resp.Header.Get("Location") != "https://example.com/x" {
		t.Errorf("answered %v, %v", resp, err)
	}
	if got := get(t, httpClient(t, clientTLS(), func(p *http.Protocols) { p.SetHTTP2(true) }), "https://"+l.Addr().String()); !strings.HasPrefix(got, "HTTP/2.0, TLS") {
		t.Error(got)
	}
}

// TestListenAndServeTLS has the certificate in files, and the default of serving TLS alone.
func TestListenAndServeTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(pki.server.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pki.server.Certificate[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addr := make(chan net.Addr, 1)
	s := &Server{Addr: "127.0.0.1:0", Handler: protoHandler, Configure: func(m *Mux) {
		m.Logger = quiet
		addr <- m.root.Addr()
	}}
	done := make(chan error, 1)
	go func() { done <- s.ListenAndServeTLS(certFile, keyFile) }()
	a := (<-addr).String()
	client := httpClient(t, clientTLS(), func(p *http.Protocols) { p.SetHTTP2(true) })
	if got := get(t, client, "https://"+a); got != "HTTP/2.0, TLS 1.3 for example.com, h2, client none" {
		t.Error(got)
	}
	resp, err := http.Get("http://" + a)
	if err != nil || resp.StatusCode != 400 {
		t.Errorf("without TLS: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := s.ListenAndServeTLS(certFile, filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with a missing file: %v", err)
	}
}

// TestServerCheck names the configurations that cannot work.
func TestServerCheck(t *testing.T) {
	t.Parallel()
	only1 := new(http.Protocols)
	only1.SetHTTP1(true)
	secure := grpc.NewServer(grpc.Creds(credentials.NewTLS(serverTLS())))
	defer secure.Stop()
	h := protoHandler
	for _, tt := range []struct {
		s    *Server
		want string
	}{
		{&Server{}, "nothing to serve"},
		{&Server{Handler: h, HTTP: &http.Server{Handler: h}}, "two handlers"},
		{&Server{Handler: h, RequireTLS: true}, "no TLSConfig"},
		{&Server{Handler: h, TLSConfig: serverTLS(), RedirectHTTP: true}, "RedirectHTTP without RequireTLS"},
		{&Server{Handler: h, TLSConfig: serverTLS(), RequireTLS: true, Upgrade: true}, "Upgrade"},
		{&Server{Handler: h, TLSConfig: new(tls.Config)}, "no certificate"},
		{&Server{HTTP: &http.Server{Protocols: only1}}, "HTTP/2 is routed to"},
		{&Server{HTTP: &http.Server{TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}}, "HTTP/2 is routed to"},
		{&Server{GRPC: secure, TLSConfig: serverTLS()}, "TLS credentials"},
	} {
		for _, serve := range []func() error{
			func() error { return tt.s.Serve(listen(t, "tcp")) },
			func() error { tt.s.Addr = "127.0.0.1:0"; return tt.s.ListenAndServe() },
		} {
			// One that is taken for right is not served for ever.
			served := time.AfterFunc(10*time.Second, func() { tt.s.Close() })
			err := serve()
			served.Stop()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		}
	}
}

// TestHasTLSCredentials fails where a new version of grpc-go keeps the credentials of a server in another way: then
// Server.GRPC with TLS credentials is no longer reported before the first connection, and holdsTLSCredentials has to
// learn the new way.
func TestHasTLSCredentials(t *testing.T) {
	t.Parallel()
	cert := pki.server
	fromTLS := grpc.Creds(credentials.NewTLS(serverTLS()))
	for _, tt := range []struct {
		name   string
		option grpc.ServerOption
		want   bool
	}{
		{"NewTLS", fromTLS, true},
		{"NewServerTLSFromCert", grpc.Creds(credentials.NewServerTLSFromCert(&cert)), true},
		{"none", grpc.EmptyServerOption{}, false},
		{"nil", grpc.Creds(nil), false},
		{"insecure", grpc.Creds(insecure.NewCredentials()), false},
		{"grpccreds", grpc.Creds(grpccreds.Credentials{}), false},
	} {
		s := grpc.NewServer(tt.option)
		defer s.Stop()
		if got := hasTLSCredentials(s); got != tt.want {
			t.Errorf("grpc.Server with credentials %s, grpc-go %s: got %v, want %v", tt.name, grpc.Version, got, tt.want)
		}
		if got := hasTLSCredentials(struct{ *grpc.Server }{s}); got != tt.want {
			t.Errorf("the same embedded: got %v, want %v", got, tt.want)
		}
	}
	if hasTLSCredentials(struct{ *grpc.Server }{}) {
		t.Error("a nil server has credentials")
	}

	// What a server has for other purposes is nobody's business.
	s := grpc.NewServer()
	defer s.Stop()
	if hasTLSCredentials(struct {
		*countingGRPC
		upstream credentials.TransportCredentials
		backend  *grpc.Server
	}{newCountingGRPC(), credentials.NewTLS(serverTLS()), grpc.NewServer(fromTLS)}) {
		t.Error("credentials and servers that are not served count")
	}
}

// TestServerShutdown checks the order of things: requests that are under way are answered, those of gRPC until the time
// is up.
func TestServerShutdown(t *testing.T) {
	t.Parallel()
	g := newCountingGRPC()
	entered, release := make(chan struct{}), make(chan struct{})
	s := &Server{GRPC: g, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		io.WriteString(w, "done")
	}), Configure: func(m *Mux) { m.Logger = quiet }}
	l := listen(t, "tcp")
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	answer := make(chan string, 1)
	client := httpClient(t, nil, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	go func() { answer <- get(t, client, "http://"+l.Addr().String()) }()
	<-entered
	dial(t, l) // a silent client, which must not hold up anything

	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(ctx) }()
	<-g.graceful // the mux is done by then
	if err := <-served; !errors.Is(err, ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("answered %q", got)
	}
	select {
	case <-g.stopped:
		t.Error("gRPC was stopped before the time was up")
	default:
	}
	cancel()
	if err := <-stopped; err != context.Canceled {
		t.Errorf("Shutdown returned %v", err)
	}
	if err := s.Serve(listen(t, "tcp")); !errors.Is(err, ErrClosed) {
		t.Errorf("Serve after Shutdown returned %v", err)
	}
}

// TestServerStopsAlone checks that a server that is stopped by itself leaves the other at work, and that one that fails
// does not.
func TestServerStopsAlone(t *testing.T) {
	t.Parallel()
	g := newCountingGRPC()
	l := startServer(t, &Server{GRPC: g, Handler: protoHandler})
	client := httpClient(t, nil, func(p *http.Protocols) { p.SetHTTP1(true) })
	get(t, client, "http://"+l.Addr().String())
	g.Stop()
	if got := get(t, client, "http://"+l.Addr().String()); got != "HTTP/1.1 in cleartext" {
		t.Error(got)
	}

	failing := newCountingGRPC()
	failing.err = errors.New("oops")
	s := &Server{GRPC: failing, Handler: protoHandler, Configure: func(m *Mux) { m.Logger = quiet }}
	if err := s.Serve(listen(t, "tcp")); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("Serve returned %v", err)
	}
	s.Close()
}

// TestServerOnSeveralListeners shuts down all of them.
func TestServerOnSeveralListeners(t *testing.T) {
	t.Parallel()
	s := &Server{Handler: protoHandler, HTTP: new(http.Server)}
	one, two := startServer(t, s), listen(t, "tcp")
	done := make(chan error, 1)
	go func() { done <- s.Serve(two) }()
	client := httpClient(t, nil, func(p *http.Protocols) { p.SetHTTP1(true) })
	for _, l := range []net.Listener{one, two} {
		get(t, client, "http://"+l.Addr().String())
	}
	client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestServerConfigure adds a route of another protocol, and a hook.
func TestServerConfigure(t *testing.T) {
	t.Parallel()
	matched := make(chan Matched, 1)
	routes := make(chan net.Listener, 1)
	l := startServer(t, &Server{Handler: protoHandler, Configure: func(m *Mux) {
		m.OnMatch = func(i Matched) { matched <- i }
		routes <- m.Match(SSH())
	}})
	ssh := <-routes
	write(t, dial(t, l), []byte("SSH-2.0-x\r\n"))
	accept(t, ssh)
	if i := <-matched; i.Protocol != ProtocolSSH {
		t.Errorf("matched %+v", i)
	}
}

// TestOnDispatch is told which servers the requests of a connection go to.
func TestOnDispatch(t *testing.T) {
	t.Parallel()
	dispatched := make(chan Dispatched, 10)
	g := newCountingGRPC()
	l := startServer(t, &Server{GRPC: g, Handler: protoHandler, Hooks: Hooks{OnDispatch: func(d Dispatched) {
		dispatched <- d
		panic("is no reason to end the connection")
	}}})
	client := dial(t, l)
	write(t, client, capture(t, "grpc-go.1"))
	early := make([]byte, 15)
	if _, err := io.ReadFull(client, early); err != nil {
		t.Fatal(err)
	}
	write(t, client, capture(t, "grpc-go.2"))
	d := <-dispatched
	if d.Route != "http2/grpc" || !d.EarlySettings || d.Conn.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("got %+v", d)
	}
	(<-g.conns).Close()

	c := httpClient(t, nil, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	get(t, c, "http://"+l.Addr().String())
	if d := <-dispatched; d.Route != "http2/http" {
		t.Errorf("got %+v", d)
	}
}

// TestServerTLSRecords sends the first flight in several TLS records, all of which are there when the server looks.
func TestServerTLSRecords(t *testing.T) {
	t.Parallel()
	dispatched := make(chan Dispatched, 1)
	g := newCountingGRPC()
	l := startServer(t, &Server{GRPC: g, Handler: protoHandler, TLSConfig: serverTLS(), Hooks: Hooks{OnDispatch: func(d Dispatched) { dispatched <- d }}})
	conn := &corkedConn{Conn: dial(t, l)}
	config := clientTLS("h2")
	config.VerifyConnection = func(tls.ConnectionState) error {
		conn.corked = true
		return nil
	}
	client := tls.Client(conn, config)
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	flight := capture(t, "grpc-go.1")
	write(t, client, flight)
	write(t, client, capture(t, "grpc-go.2"))
	conn.corked = false
	write(t, conn, conn.held.Bytes())
	if d := <-dispatched; d.EarlySettings || d.Route != "tls/http2/grpc" {
		t.Errorf("got %+v", d)
	}
	(<-g.conns).Close()
}

// TestRequireHost checks which requests are answered 421.
func TestRequireHost(t *testing.T) {
	t.Parallel()
	h := RequireHost(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }),
		"a.example", "*.b.example", "[::1]:80")
	for host, want := range map[string]int{
		"a.example": 204, "A.example:8443": 204, "x.b.example": 204, "[::1]:80": 204,
		"b.example": 421, "xa.example": 421, "[::1]:81": 421, "": 421, "a.example.": 421,
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%q: %d, want %d", host, w.Code, want)
		}
	}
}

// TestServerIdle checks that connections of a load balancer that keeps them for ten minutes are still there when it
// uses them.
func TestServerIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := &Server{Handler: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler)}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		c := dial(t, l)
		in := bufio.NewReader(c)
		for range 3 {
			write(t, c, []byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"))
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			time.Sleep(600 * time.Second)
		}
		time.Sleep(20 * time.Second)
		if n, err := in.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after 620 seconds: %d bytes, %v, want %v", n, err, io.EOF)
		}
		s.Close()
		<-served
	})
}
