package streams

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/dispatch"
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
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	oneport.ConfigureHTTP(s)
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

// call makes a gRPC call with c, as a proxy would. A Watch is left open, and returned.
func call(t testing.TB, c *http.Client, method string) io.ReadCloser {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://x/grpc.health.v1.Health/"+method, bytes.NewReader(make([]byte, 5)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("content-type", "application/grpc")
	req.Header.Set("te", "trailers")
	res, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	b := make([]byte, 7) // a message with status SERVING
	if _, err := io.ReadFull(res.Body, b); err != nil || !bytes.Equal(b, []byte{0, 0, 0, 0, 2, 8, 1}) {
		t.Fatalf("%s: %x, %v, %v", method, b, err, res.Header)
	}
	if method == "Watch" {
		return res.Body
	}
	defer res.Body.Close()
	if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil || res.Trailer.Get("grpc-status") != "0" {
		t.Fatalf("%s: %x, %v, trailer %v", method, rest, err, res.Trailer)
	}
	return nil
}

// get makes a REST request and returns the answer's content.
func get(t testing.TB, c *http.Client, url string) string {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %s, %q, %v", url, res.Status, b, err)
	}
	return string(b)
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

// A server that drains has new requests come over new connections, and ends no request, its own or another's.
func TestDrain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		drain func(t *testing.T, g *grpc.Server, h *http.Server)
		after func(t *testing.T, c *http.Client)
	}{
		{"grpc.Server.GracefulStop", func(t *testing.T, g *grpc.Server, h *http.Server) {
			done := make(chan struct{})
			go func() { g.GracefulStop(); close(done) }()
			t.Cleanup(func() { <-done })
		}, func(t *testing.T, c *http.Client) {
			if got := get(t, c, "http://x/small"); got != "small" {
				t.Errorf("REST: %q", got)
			}
		}},
		{"http.Server.Shutdown", func(t *testing.T, g *grpc.Server, h *http.Server) {
			done := make(chan error)
			go func() { done <- h.Shutdown(context.Background()) }()
			t.Cleanup(func() {
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		}, func(t *testing.T, c *http.Client) { call(t, c, "Check") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := listen(t)
			m := New(l)
			g := serveGRPC(t, m.Match(oneport.GRPC()))
			more := make(chan struct{})
			h := serveHTTP(t, m.Match(oneport.Any()), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/small" {
					io.WriteString(w, "small")
					return
				}
				w.WriteHeader(200)
				http.NewResponseController(w).Flush()
				<-more
				io.WriteString(w, "more")
			}))
			serve(t, m)
			c := client(t, l)
			watch := call(t, c, "Watch")
			res, err := c.Get("http://x/slow")
			if err != nil {
				t.Fatal(err)
			}
			if s := m.Stats(); s.Conns != 1 || s.Shared != 1 {
				t.Fatalf("%+v", s)
			}
			tt.drain(t, g, h)
			tt.after(t, c)
			close(more)
			if b, err := io.ReadAll(res.Body); string(b) != "more" || err != nil {
				t.Errorf("the REST request that was under way: %q, %v", b, err)
			}
			res.Body.Close()
			watch.Close()
		})
	}
}

// The age of a connection ends for all servers what one wants ended, without a request lost.
func TestMaxConnectionAge(t *testing.T) {
	l := listen(t)
	m := New(l)
	g := grpc.NewServer(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 30 * time.Millisecond}))
	healthpb.RegisterHealthServer(g, health.NewServer())
	go g.Serve(m.Match(oneport.GRPC()))
	t.Cleanup(g.Stop)
	serveHTTP(t, m.Match(oneport.Any()), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "small") }))
	serve(t, m)
	c := client(t, l)
	for m.Stats().Shared < 5 {
		call(t, c, "Check")
		if got := get(t, c, "http://x/"); got != "small" {
			t.Fatalf("REST: %q", got)
		}
	}
}

func TestTLS(t *testing.T) {
	ts := httptest.NewUnstartedServer(nil) // for its certificate
	ts.EnableHTTP2 = true
	ts.StartTLS()
	defer ts.Close()
	config := ts.TLS.Clone()
	config.NextProtos = []string{"h2"}
	l := listen(t)
	m := New(tls.NewListener(l, config))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			http.Error(w, "no TLS", 500)
			return
		}
		fmt.Fprint(w, r.TLS.NegotiatedProtocol, " ", r.TLS.HandshakeComplete, " ", r.RemoteAddr, " ", r.Proto)
	})
	serveHTTP(t, m.Match(oneport.Path("/a")), h)
	serveHTTP(t, m.Match(oneport.Path("/b")), h)
	serve(t, m)
	var local net.Addr
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, l.Addr().String())
			if err == nil {
				local = c.LocalAddr()
			}
			return c, err
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
	}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	for _, path := range []string{"/a", "/b", "/a"} {
		got := get(t, c, "https://x"+path)
		if want := fmt.Sprint("h2 true ", local, " HTTP/2.0"); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if s := m.Stats(); s.Conns != 1 || s.Shared != 1 {
		t.Errorf("%+v", s)
	}
}

// Other servers find the state in the usual way.
func TestConnectionState(t *testing.T) {
	ts := httptest.NewUnstartedServer(nil) // for its certificate
	ts.StartTLS()
	defer ts.Close()
	config := ts.TLS.Clone()
	config.NextProtos = []string{"h2"}
	l := listen(t)
	m := New(tls.NewListener(l, config))
	route := m.Match(oneport.Any())
	serve(t, m)
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, http2.ClientPreface)
	fr := http2.NewFramer(c, c)
	fr.WriteSettings()
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0x84}})
	sc, err := route.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer sc.Close()
	state, ok := sc.(interface{ ConnectionState() tls.ConnectionState })
	if !ok || state.ConnectionState().NegotiatedProtocol != "h2" {
		t.Errorf("a %T without the state", sc)
	}
}

// Behind a route of a mux, with a strict client, which gets early SETTINGS from one or the other.
func TestBehindMux(t *testing.T) {
	for _, tt := range []struct {
		name  string
		above []oneport.Matcher // a route above that wants the header block
	}{
		{"HTTP2", nil},
		{"HTTP2 below Header", []oneport.Matcher{oneport.Header("x-other", "yes")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := listen(t)
			mux := oneport.New(l)
			mux.Logger = slog.New(slog.DiscardHandler)
			if tt.above != nil {
				mux.Match(tt.above...)
			}
			m := New(mux.Match(oneport.HTTP2()))
			serveHTTP(t, mux.Match(oneport.HTTP1()), http.HandlerFunc(echo))
			serveGRPC(t, m.Match(oneport.GRPC()))
			serveHTTP(t, m.Match(oneport.Any()), http.HandlerFunc(echo))
			serve(t, m)
			done := make(chan struct{})
			go func() { mux.Serve(); close(done) }()
			t.Cleanup(func() { mux.Close(); <-done })

			conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
			c := client(t, l)
			for range 3 {
				call(t, c, "Check")
				get(t, c, "http://x/")
			}
			res, err := http.Get("http://" + l.Addr().String())
			if err != nil || res.Header.Get("x-proto") != "HTTP/1.1" {
				t.Errorf("HTTP/1: %v, %v", res, err)
			} else {
				res.Body.Close()
			}
			http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		})
	}
}

func TestServeErrors(t *testing.T) {
	l := listen(t)
	m := New(l)
	if err := m.Serve(); err == nil || errors.Is(err, ErrClosed) {
		t.Errorf("without a route: %v", err)
	}
	m.Match(oneport.Any())
	m.EarlySettings = []http2.Setting{{ID: http2.SettingEnablePush, Val: 7}}
	if err := m.Serve(); err == nil || errors.Is(err, ErrClosed) {
		t.Errorf("with impossible SETTINGS: %v", err)
	}
	m.EarlySettings = nil
	done := make(chan error)
	go func() { done <- m.Serve() }()
	l.Close() // from outside
	if err := <-done; !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the listener was closed: %v", err)
	}
	if err := m.Serve(); !errors.Is(err, ErrClosed) {
		t.Errorf("after that: %v", err)
	}
	if err := m.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// failing is a listener whose Accept returns the errors that it is given.
type failing struct {
	errs chan error
	once sync.Once
	done chan struct{}
}

func (l *failing) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *failing) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *failing) Addr() net.Addr { return &net.TCPAddr{} }

func TestAcceptErrorsThatPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &failing{errs: make(chan error), done: make(chan struct{})}
		var logged bytes.Buffer
		m := New(l)
		m.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		m.Match(oneport.Any())
		serve(t, m)
		start := time.Now()
		for range 4 {
			l.errs <- &net.OpError{Op: "accept", Err: syscall.ECONNABORTED}
		}
		synctest.Wait()
		if got, want := time.Since(start), (5+10+20)*time.Millisecond; got != want {
			t.Errorf("waited %v, want %v", got, want)
		}
		if got := m.Stats().AcceptErrors; got != 4 {
			t.Errorf("Stats counts %d errors", got)
		}
		if got := strings.Count(logged.String(), "trying again"); got != 4 {
			t.Errorf("it has logged %s", &logged)
		}
	})
}

func TestUnmatched(t *testing.T) {
	for policy, want := range map[UnmatchedPolicy]string{NotFound: "404", RefuseStream: "REFUSED_STREAM"} {
		l := listen(t)
		m := New(l)
		m.Unmatched = policy
		m.Match(oneport.Path("/a"))
		serve(t, m)
		c := client(t, l)
		req, _ := http.NewRequest("POST", "http://x/b", struct{ io.Reader }{strings.NewReader("once")}) // not to be repeated
		res, err := c.Do(req)
		got := fmt.Sprint(err)
		if err == nil {
			got = res.Status
			res.Body.Close()
		}
		if !strings.Contains(got, want) {
			t.Errorf("policy %d: %s", policy, got)
		}
	}
}

// TestDefaults holds the defaults here to those that oneport.Server has.
func TestDefaults(t *testing.T) {
	t.Parallel()
	want := dispatch.DefaultLimits()
	got := dispatch.Limits{
		OpenTimeout: DefaultOpenTimeout, IdleTimeout: DefaultIdleTimeout,
		MaxStreams: DefaultMaxStreams, MaxHeaderListBytes: DefaultMaxHeaderListBytes, MaxContinuations: DefaultMaxContinuations,
		MaxBuffered: DefaultMaxBuffered,
		ResetBurst:  DefaultResetBurst, ResetRate: DefaultResetRate, ControlBurst: DefaultControlBurst, ControlRate: DefaultControlRate,
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
