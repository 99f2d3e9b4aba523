package oneport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/oneport-go/oneport/internal/dispatch"
)

// serveGRPC runs a gRPC server on l until the end of the test.
func serveGRPC(t testing.TB, l net.Listener, options ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(options...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return s
}

// serveHTTP runs net/http on l until the end of the test.
func serveHTTP(t testing.TB, l net.Listener, h http.HandlerFunc) *http.Server {
	s := &http.Server{Handler: h}
	ConfigureHTTP(s)
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return s
}

// h2cClient returns a client that makes all its requests over one HTTP/2 connection to l.
func h2cClient(t *testing.T, l net.Listener) *http.Client {
	client := httpClient(t, nil, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	client.Timeout = 0
	tr := client.Transport.(*http.Transport)
	tr.MaxConnsPerHost = 1
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	return client
}

// call makes a gRPC call as a proxy would. A Watch is left open, and returned.
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

// post sends content and returns what comes back, with the status.
func post(t testing.TB, c *http.Client, url string, content []byte) (status int, got []byte) {
	t.Helper()
	res, err := c.Post(url, "text/plain", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, got
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("x-proto", r.Proto)
	io.Copy(w, r.Body)
}

// check makes a gRPC call with a real client, which waits for SETTINGS.
func check(t *testing.T, l net.Listener) {
	t.Helper()
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
}

// TestRequestsAlone serves connections with requests for one server each.
func TestRequestsAlone(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	m := newMux(l)
	requests := m.Requests()
	serveGRPC(t, requests.Match(GRPC()))
	serveHTTP(t, requests.Match(Any()), echo)
	serve(t, m)
	check(t, l)
	c := h2cClient(t, l)
	for _, n := range []int{0, 10, 1 << 20} {
		content := bytes.Repeat([]byte("x"), n)
		if status, got := post(t, c, "http://x/", content); status != 200 || !bytes.Equal(got, content) {
			t.Fatalf("%d, %d bytes; want %d", status, len(got), n)
		}
	}
	if s := m.Stats(); s.Matched != 2 || s.Split != 0 {
		t.Errorf("%+v", s)
	}
}

// TestRequestsShared serves one connection whose requests are for two servers, or none.
func TestRequestsShared(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	m := newMux(l)
	requests := m.Requests()
	serveHTTP(t, requests.Match(Path("/a")), echo)
	serveHTTP(t, requests.Match(Path("/b")), echo)
	serve(t, m)
	c := h2cClient(t, l)
	for i := range 10 {
		for _, n := range []int{0, 10, 1 << 20} {
			content := bytes.Repeat([]byte("x"), n)
			status, got := post(t, c, fmt.Sprintf("http://x/%c", 'a'+i%3), content)
			if i%3 == 2 && status != 404 || i%3 < 2 && (status != 200 || !bytes.Equal(got, content)) {
				t.Fatalf("request %d: %d, %d bytes; want %d", i, status, len(got), n)
			}
		}
	}
	if s := m.Stats(); s.Matched != 1 || s.Shared != 1 || s.Split != 1 {
		t.Errorf("%+v", s)
	}
}

// TestRequestsDrain checks that new requests for a server that drains arrive on new connections, and that no running
// request fails.
func TestRequestsDrain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		drain func(g *grpc.Server, h *http.Server) error
		after func(t *testing.T, c *http.Client)
	}{
		{"grpc.Server.GracefulStop", func(g *grpc.Server, h *http.Server) error {
			g.GracefulStop()
			return nil
		}, func(t *testing.T, c *http.Client) {
			if got := get(t, c, "http://x/small"); got != "small" {
				t.Errorf("REST: %q", got)
			}
		}},
		{"http.Server.Shutdown", func(g *grpc.Server, h *http.Server) error {
			return h.Shutdown(context.Background())
		}, func(t *testing.T, c *http.Client) { call(t, c, "Check") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := listen(t, "tcp")
			m := newMux(l)
			requests := m.Requests()
			g := serveGRPC(t, requests.Match(GRPC()))
			more := make(chan struct{})
			h := serveHTTP(t, requests.Match(Any()), func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/small" {
					io.WriteString(w, "small")
					return
				}
				w.WriteHeader(200)
				http.NewResponseController(w).Flush()
				<-more
				io.WriteString(w, "more")
			})
			serve(t, m)
			c := h2cClient(t, l)
			watch := call(t, c, "Watch")
			res, err := c.Get("http://x/slow")
			if err != nil {
				t.Fatal(err)
			}
			if s := m.Stats(); s.Matched != 1 || s.Shared != 1 {
				t.Fatalf("%+v", s)
			}
			drained := make(chan error, 1)
			go func() { drained <- tt.drain(g, h) }()
			tt.after(t, c)
			close(more)
			if b, err := io.ReadAll(res.Body); string(b) != "more" || err != nil {
				t.Errorf("the REST request that was under way: %q, %v", b, err)
			}
			res.Body.Close()
			watch.Close()
			if err := <-drained; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRequestsMaxConnectionAge checks that a connection that one server ends, for its age, ends for all without losing
// a request.
func TestRequestsMaxConnectionAge(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	m := newMux(l)
	requests := m.Requests()
	serveGRPC(t, requests.Match(GRPC()), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 30 * time.Millisecond}))
	serveHTTP(t, requests.Match(Any()), func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "small") })
	serve(t, m)
	c := h2cClient(t, l)
	for m.Stats().Split < 5 {
		call(t, c, "Check")
		if got := get(t, c, "http://x/"); got != "small" {
			t.Fatalf("REST: %q", got)
		}
	}
}

// TestRequestsInsideTLS checks what servers know of the client's connection.
func TestRequestsInsideTLS(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	m := newMux(l)
	requests := m.TLS(serverTLS()).Requests()
	h := func(w http.ResponseWriter, r *http.Request) {
		protoHandler(w, r)
		fmt.Fprint(w, ", ", r.RemoteAddr)
	}
	serveHTTP(t, requests.Match(Path("/a")), h)
	serveHTTP(t, requests.Match(Path("/b")), h)
	other := requests.Match(Path("/c"))
	serve(t, m)
	var local net.Addr
	client := httpClient(t, nil, func(p *http.Protocols) { p.SetHTTP2(true) })
	client.Transport.(*http.Transport).DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := (&tls.Dialer{Config: clientTLS("h2")}).DialContext(ctx, "tcp", l.Addr().String())
		if err == nil {
			local = c.LocalAddr()
		}
		return c, err
	}
	for _, path := range []string{"/a", "/b", "/a"} {
		got := get(t, client, "https://x"+path)
		if want := fmt.Sprint("HTTP/2.0, TLS 1.3 for example.com, h2, client none, ", local); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if s := m.Stats(); s.Matched != 1 || s.Shared != 1 {
		t.Errorf("%+v", s)
	}

	// Other servers than net/http's find the state in the usual way.
	raw := dialTLS(t, l, clientTLS("h2"))
	write(t, raw, []byte(http2.ClientPreface))
	fr := http2.NewFramer(raw, raw)
	fr.WriteSettings()
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte("\x83\x86\x04\x02/c")})
	state, ok := accept(t, other).(interface{ ConnectionState() tls.ConnectionState })
	if !ok || state.ConnectionState().NegotiatedProtocol != "h2" {
		t.Error("the server got a connection without the state of its TLS")
	}
}

// TestRequestsBesideRoutes has other routes above and beside, and a strict client.
func TestRequestsBesideRoutes(t *testing.T) {
	t.Parallel()
	for name, above := range map[string][]Matcher{
		"none above":             nil,
		"one above, for a field": {Header("x-other", "yes")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listen(t, "tcp")
			m := newMux(l)
			if above != nil {
				m.Match(above...)
			}
			requests := m.Requests()
			serveHTTP(t, m.Match(HTTP1()), echo)
			serveGRPC(t, requests.Match(GRPC()))
			serveHTTP(t, requests.Match(Any()), echo)
			serve(t, m)
			check(t, l)
			c := h2cClient(t, l)
			for range 3 {
				call(t, c, "Check")
				get(t, c, "http://x/")
			}
			http1 := httpClient(t, nil, func(p *http.Protocols) { p.SetHTTP1(true) })
			res, err := http1.Get("http://" + l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got := res.Header.Get("x-proto"); got != "HTTP/1.1" {
				t.Errorf("HTTP/1 was served as %q", got)
			}
		})
	}
}

// TestRequestsServeErrors checks the errors of Serve for configurations that cannot work.
func TestRequestsServeErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		configure func(*Mux)
		want      string
	}{
		{"without a route for requests", func(m *Mux) { m.Requests() }, "a RequestMux has no routes"},
		{"the same inside TLS", func(m *Mux) { m.TLS(serverTLS()).Requests() }, "a RequestMux has no routes"},
		{"impossible SETTINGS", func(m *Mux) {
			m.Requests().Match(Any())
			m.EarlySettings = []Setting{{ID: uint16(http2.SettingEnablePush), Value: 7}}
		}, "EarlySettings"},
	} {
		m := newMux(listen(t, "tcp"))
		tt.configure(m)
		if err := m.Serve(); err == nil || errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestRequestsUnmatched(t *testing.T) {
	t.Parallel()
	for policy, want := range map[UnmatchedPolicy]string{UnmatchedNotFound: "404", UnmatchedRefuse: "REFUSED_STREAM"} {
		l := listen(t, "tcp")
		m := newMux(l)
		requests := m.Requests()
		requests.Unmatched = policy
		requests.Match(Path("/a"))
		serve(t, m)
		c := h2cClient(t, l)
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

// TestRequestsRoutes checks which routes are added when, and what closed ones do.
func TestRequestsRoutes(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	m := newMux(l)
	requests := m.Requests()
	first := requests.Match(Path("/a"))
	serveHTTP(t, first, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "first") })
	serve(t, m)
	if got := get(t, h2cClient(t, l), "http://x/a"); got != "first" {
		t.Errorf("got %q", got)
	}
	serveHTTP(t, requests.Match(Path("/a", "/b")), func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "second") })
	if got := get(t, h2cClient(t, l), "http://x/b"); got != "second" {
		t.Errorf("a route that was added later: got %q", got)
	}
	first.Close()
	if c, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed route: %v, %v", c, err)
	}
	if got := get(t, h2cClient(t, l), "http://x/b"); got != "second" {
		t.Errorf("with another route closed: got %q", got)
	}
	if a, ok := first.Addr().(*net.TCPAddr); !ok || a.String() != l.Addr().String() {
		t.Errorf("the route's address is %v, want %v", first.Addr(), l.Addr())
	}
}

// TestRequestsShutdown checks that Shutdown waits for requests that were made, and Close for nothing.
func TestRequestsShutdown(t *testing.T) {
	t.Parallel()
	for _, graceful := range []bool{true, false} {
		l := listen(t, "tcp")
		m := newMux(l)
		requests := m.Requests()
		begun, more := make(chan struct{}), make(chan struct{})
		serveHTTP(t, requests.Match(Any()), func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
			close(begun)
			select {
			case <-more:
				io.WriteString(w, "more")
			case <-r.Context().Done():
			}
		})
		serve(t, m)
		res, err := h2cClient(t, l).Get("http://x/")
		if err != nil {
			t.Fatal(err)
		}
		<-begun
		done := make(chan error, 1)
		if graceful {
			go func() { done <- m.Shutdown(t.Context()) }()
			<-m.stop
			select {
			case err := <-done:
				t.Errorf("Shutdown returned %v while a request was being answered", err)
			default:
			}
			close(more)
		} else {
			done <- m.Close()
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if ok := string(got) == "more" && err == nil; ok != graceful {
			t.Errorf("graceful %v: the response is %q, %v", graceful, got, err)
		}
		if err := <-done; err != nil {
			t.Errorf("graceful %v: %v", graceful, err)
		}
	}
}

// TestRequestsShutdownTimeout checks that no client outlives Shutdown's context.
func TestRequestsShutdownTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		requests := m.Requests()
		serveHTTP(t, requests.Match(Any()), func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		serve(t, m)
		client := dial(t, root)
		ended := make(chan struct{})
		go func() { io.Copy(io.Discard, client); close(ended) }()
		write(t, client, []byte(http2.ClientPreface+settingsFrame+getFrame))
		synctest.Wait()
		if s := m.Stats(); s.Passing != 1 {
			t.Fatalf("%+v", s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		if err := m.Shutdown(ctx); err != context.DeadlineExceeded || time.Since(start) != 5*time.Second {
			t.Errorf("Shutdown returned %v after %v", err, time.Since(start))
		}
		<-ended
		synctest.Wait()
		if s := m.Stats(); s.Passing != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestRequestsDefaults holds the defaults of the limits to those of the dispatcher.
func TestRequestsDefaults(t *testing.T) {
	t.Parallel()
	m := newMux(listen(t, "tcp"))
	requests := m.Requests()
	requests.Match(Any())
	if err := m.begin(); err != nil {
		t.Fatal(err)
	}
	defer m.lobby.Done()
	defer m.Close()
	if got, want := requests.engine.Limits, dispatch.DefaultLimits(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestSettingsBeforeRequest has a client that sets something again right in front of its first request. That makes the
// engine take the connection apart before it has looked at the request, of which it knows from the mux.
func TestSettingsBeforeRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		serveHTTP(t, m.Requests().Match(Any()), func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte(http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
		fr := http2.NewFramer(client, client)
		for _, flags := range []http2.Flags{0, http2.FlagSettingsAck} {
			if f, err := fr.ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings || f.Header().Flags != flags {
				t.Fatalf("the client got %v, %v, want SETTINGS", f, err)
			}
			if flags == 0 {
				fr.WriteSettingsAck()
			}
		}
		go io.WriteString(client, "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x02"+ // INITIAL_WINDOW_SIZE 2
			"\x00\x00\x0a\x01\x05\x00\x00\x00\x01\x82\x86\x41\x01a\x44\x03/xy") // GET http://a/xy
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch f := f.(type) {
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				t.Fatalf("the client got %v", f)
			case *http2.DataFrame:
				if string(f.Data()) != "/x" {
					t.Errorf("the client got %q, want %q", f.Data(), "/x")
				}
				return
			}
		}
	})
}

// TestMatchersAsked checks that a matcher of a user is asked about each request, even if it equals the one before, and
// wherever the matcher is: it can depend on more than the request. This one takes every second request.
func TestMatchersAsked(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		matchers func(second Matcher) [][]Matcher
		want     string
	}{
		{"alone", func(m Matcher) [][]Matcher { return [][]Matcher{{m}, {Any()}} }, "01010101"},
		{"behind one that does not take it", func(m Matcher) [][]Matcher { return [][]Matcher{{GRPC(), m}, {Any()}} }, "01010101"},
		{"in another", func(m Matcher) [][]Matcher { return [][]Matcher{{All(Any(), m)}, {Any()}} }, "01010101"},
		{"in a route below", func(m Matcher) [][]Matcher { return [][]Matcher{{GRPC()}, {m}, {Any()}} }, "12121212"},
		{"below the route that takes it", func(m Matcher) [][]Matcher { return [][]Matcher{{Any()}, {m}} }, "00000000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			requests := m.Requests()
			asked := 0
			second := MatcherFunc(func(p *Preview) Verdict {
				if asked++; asked%2 == 0 {
					return No
				}
				return Yes
			})
			for i, matchers := range test.matchers(second) {
				serveHTTP(t, requests.Match(matchers...), func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, i) })
			}
			serve(t, m)
			client := h2cClient(t, root)
			var got strings.Builder
			for range len(test.want) {
				res, err := client.Get("http://x/")
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(&got, res.Body)
				res.Body.Close()
			}
			if got.String() != test.want {
				t.Errorf("the requests went to %s, want %s", &got, test.want)
			}
		})
	}
}
