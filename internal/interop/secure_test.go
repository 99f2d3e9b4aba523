package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
	"github.com/oneport-go/oneport/internal/testenv"
)

// TestSecure has clients of all kinds meet gRPC and HTTP over TLS.
func TestSecure(t *testing.T) {
	for _, server := range []struct {
		name  string
		start func(*testing.T) (addr string)
	}{
		{"Mux.TLS", func(t *testing.T) string {
			p := newPort(t)
			p.secure(t, serverTLS())
			p.start(t)
			t.Cleanup(func() {
				// Those of Go; openssl may not be installed.
				if n := p.Stats().HTTP2WithoutALPN; n < 2 {
					t.Errorf("%d connections were HTTP/2 without ALPN, want 2 at least", n)
				}
			})
			return p.addr
		}},
		{"Server", func(t *testing.T) string {
			g := newGRPC(grpc.Creds(grpccreds.Credentials{}), grpc.UnaryInterceptor(tellPeer))
			return startServer(t, &oneport.Server{GRPC: g, Handler: answer("net/http"), TLSConfig: serverTLS()})
		}},
	} {
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			addr := server.start(t)
			for _, client := range []struct {
				name string
				get  func(t *testing.T, addr string) string
				want string
			}{
				{"curl with h2", curl("--http2"), `net/http by HTTP/2.0 over TLS, ALPN "h2"`},
				{"curl with http1.1", curl("--http1.1"), `net/http by HTTP/1.1 over TLS, ALPN "http/1.1"`},
				{"curl without ALPN", curl("--no-alpn"), `net/http by HTTP/1.1 over TLS, ALPN ""`},
				{"openssl with h2", opensslHTTP2("-alpn", "h2"), `net/http by HTTP/2.0 over TLS, ALPN "h2"`},
				{"openssl with http1.1", opensslHTTP1("-alpn", "http/1.1"), `net/http by HTTP/1.1 over TLS, ALPN "http/1.1"`},
				{"openssl without ALPN, HTTP1", opensslHTTP1(), `net/http by HTTP/1.1 over TLS, ALPN ""`},
				{"openssl without ALPN, HTTP2", opensslHTTP2(), `net/http by HTTP/2.0 over TLS, ALPN ""`},
				{"nghttp", getNghttp, `net/http by HTTP/2.0 over TLS, ALPN "h2"`},
				{"Node", getNode, `net/http by HTTP/2.0 over TLS, ALPN "h2"`},
				{"Go without ALPN", bareHTTP2, `net/http by HTTP/2.0 over TLS, ALPN ""`},
				{"Go without ALPN, gRPC", bareGRPC, ""},
				{"grpc-go", secureGRPCGo, `grpc-go over TLS, ALPN "h2"`},
				{"grpc-js", secureGRPCJS, ""},
			} {
				t.Run(client.name, func(t *testing.T) {
					t.Parallel()
					if got := client.get(t, addr); got != client.want {
						t.Errorf("got %q, want %q", got, client.want)
					}
				})
			}
		})
	}
}

// curlTLS is curl with options, for a URL by https.
func curlTLS(t *testing.T, options ...string) []string {
	testenv.Program(t, "curl")
	return append([]string{"curl", "--no-progress-meter", "--noproxy", "*", "--cacert", caFile(t)}, options...)
}

func curl(options ...string) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string {
		return output(t, append(curlTLS(t, options...), "--fail", "https://"+addr+"/")...)
	}
}

func getNghttp(t *testing.T, addr string) string {
	testenv.Program(t, "nghttp")
	return output(t, "nghttp", "--no-verify-peer", "https://"+addr+"/") // which has no option for an authority
}

func getNode(t *testing.T, addr string) string {
	testenv.Program(t, "node")
	return output(t, "node", "testdata/node/get.mjs", "--ca", caFile(t), "https://"+addr+"/")
}

// opensslHTTP1 sends a request of HTTP/1.1 with openssl, which knows nothing of HTTP.
func opensslHTTP1(options ...string) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string {
		c := dialOpenSSL(t, addr, options...)
		go io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+addr+"\r\nConnection: close\r\n\r\n")
		status, content := readHTTP1(t, c)
		if status != http.StatusOK {
			t.Errorf("status %d", status)
		}
		return content
	}
}

// opensslHTTP2 sends ten requests of HTTP/2 with openssl.
func opensslHTTP2(options ...string) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string { return tenRequests(t, dialOpenSSL(t, addr, options...), addr) }
}

// bareHTTP2 sends ten requests of HTTP/2 over TLS without ALPN, as clients do that are made to speak HTTP/2 and nothing
// else.
func bareHTTP2(t *testing.T, addr string) string {
	return tenRequests(t, dialTLS(t, addr, clientTLS()), addr)
}

func tenRequests(t *testing.T, conn net.Conn, addr string) (answer string) {
	c, err := newStrict(conn)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		got, err := c.get(addr)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if i > 0 && got != answer {
			t.Fatalf("request %d: got %q, before %q", i, got, answer)
		}
		answer = got
	}
	return answer
}

// bareGRPC makes ten calls like bareHTTP2.
func bareGRPC(t *testing.T, addr string) string {
	c, err := newStrict(dialTLS(t, addr, clientTLS()))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := c.check(addr); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	return ""
}

func secureGRPCGo(t *testing.T, addr string) string {
	conn := dialGRPCWith(t, addr, clientCreds())
	who := checkHealth(t, conn)
	watchHealth(t, conn)
	return who
}

func secureGRPCJS(t *testing.T, addr string) string {
	callGRPCJSWith(t, "--ca", caFile(t), addr)
	return ""
}

func dialTLS(t *testing.T, addr string, config *tls.Config) *tls.Conn {
	c, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// opensslConn is a connection that openssl makes.
type opensslConn struct {
	net.Conn // for methods that nobody calls
	io.Reader
	io.WriteCloser
}

func (c opensslConn) Read(p []byte) (int, error)  { return c.Reader.Read(p) }
func (c opensslConn) Write(p []byte) (int, error) { return c.WriteCloser.Write(p) }
func (c opensslConn) Close() error                { return c.WriteCloser.Close() }
func (c opensslConn) SetDeadline(time.Time) error { return nil } // the program is ended in time

func dialOpenSSL(t *testing.T, addr string, options ...string) net.Conn {
	testenv.Program(t, "openssl")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	argv := []string{"s_client", "-connect", addr, "-CAfile", caFile(t), "-verify_return_error", "-verify_quiet", "-quiet"}
	cmd := exec.CommandContext(ctx, "openssl", append(argv, options...)...)
	in, err := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(err, outErr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
	})
	return opensslConn{Reader: out, WriteCloser: in}
}

// newGRPC makes a grpc-go server with the health service.
func newGRPC(opts ...grpc.ServerOption) *grpc.Server {
	srv := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(srv, health.NewServer())
	return srv
}

// startServer runs s on a free port until the end of the test.
func startServer(t *testing.T, s *oneport.Server) (addr string) {
	configure := s.Configure
	s.Configure = func(m *oneport.Mux) {
		m.Logger = slog.New(slog.DiscardHandler)
		if configure != nil {
			configure(m)
		}
	}
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, oneport.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// TestMutualTLS checks that gRPC and HTTP on one port see the same certificate of a client.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	p.secure(t, mutualTLS())
	p.start(t)
	cert, key := certFiles(t, thePKI().client)
	for _, tt := range []struct {
		name string
		get  func(t *testing.T, addr string) string
		want string
	}{
		{"HTTP1", curl("--http1.1", "--cert", cert, "--key", key), `net/http by HTTP/1.1 over TLS, ALPN "http/1.1", client alice`},
		{"HTTP2", curl("--http2", "--cert", cert, "--key", key), `net/http by HTTP/2.0 over TLS, ALPN "h2", client alice`},
		{"HTTP2 without ALPN", opensslHTTP2("-cert", cert, "-key", key), `net/http by HTTP/2.0 over TLS, ALPN "", client alice`},
		{"TLS 1.2", curl("--tls-max", "1.2", "--cert", cert, "--key", key), `net/http by HTTP/2.0 over TLS, ALPN "h2", client alice`},
		{"gRPC", func(t *testing.T, addr string) string {
			return checkHealth(t, dialGRPCWith(t, addr, clientCreds(thePKI().client)))
		}, `grpc-go over TLS, ALPN "h2", client alice, SPIFFE ID ` + spiffeID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.get(t, p.addr); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestStrictGRPCOverTLS is TestStrictGRPC for TLS that the mux terminates: its clients get their answers only if early
// SETTINGS are sent inside.
func TestStrictGRPCOverTLS(t *testing.T) {
	for _, routes := range []struct {
		name string
		web  []oneport.Matcher
	}{
		{"GRPC", nil},
		{"GRPC above HTTP2", []oneport.Matcher{oneport.HTTP2()}},
	} {
		for _, client := range []struct {
			name string
			call func(t *testing.T, addr string) string
		}{
			{"grpc-go", secureGRPCGo},
			{"grpc-js", secureGRPCJS},
		} {
			t.Run(routes.name+"/"+client.name, func(t *testing.T) {
				t.Parallel()
				p := newPort(t)
				s := p.TLS(serverTLS())
				l := route(t, s.Route(oneport.Route{Name: "grpc", Matchers: []oneport.Matcher{oneport.GRPC()}}), serveGRPC)
				if routes.web != nil {
					route(t, s.Match(routes.web...), serveNetHTTP)
				}
				p.start(t)
				client.call(t, p.addr)
				p.wantMatch(t, "tls/grpc", oneport.ProtocolHTTP2, true)
				if _, ok := l.last().(*oneport.TLSConn); !ok {
					t.Errorf("grpc-go got a %T", l.last())
				}
			})
		}
	}
}

// TestIdleOverTLS is TestIdleGRPC for TLS, and for a client that pings before its first request.
func TestIdleOverTLS(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	p.secure(t, serverTLS())
	p.start(t)
	t.Run("grpc-go", func(t *testing.T) {
		t.Parallel()
		creds := &watchedCreds{clientCreds(), make(chan struct{})}
		conn := dialGRPCWith(t, p.addr, creds)
		conn.Connect()
		select {
		case <-creds.acknowledged:
		case <-time.After(10 * time.Second):
			t.Fatal("the client's SETTINGS were not acknowledged")
		}
		checkHealth(t, conn)
		watchHealth(t, conn)
	})
	for _, client := range []struct {
		name string
		get  func(c *strictClient) error
	}{
		{"keep-alive, net/http", func(c *strictClient) error { _, err := c.get(p.addr); return err }},
		{"keep-alive, grpc-go", func(c *strictClient) error { return c.check(p.addr) }},
	} {
		t.Run(client.name, func(t *testing.T) {
			t.Parallel()
			c, err := newStrict(dialTLS(t, p.addr, clientTLS("h2")))
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := c.ping(); err != nil {
					t.Fatal(err)
				}
				if c.acknowledged != 1 {
					t.Errorf("SETTINGS were acknowledged %d times", c.acknowledged)
				}
			}
			for i := range 10 {
				if err := client.get(c); err != nil {
					t.Fatalf("request %d: %v", i, err)
				}
				if err := c.ping(); err != nil {
					t.Fatalf("PING behind request %d: %v", i, err)
				}
			}
			if c.acknowledged != 1 {
				t.Errorf("SETTINGS were acknowledged %d times", c.acknowledged)
			}
		})
	}
}

// watchedCreds are credentials of a client that tell when an acknowledgement of SETTINGS has come inside TLS.
type watchedCreds struct {
	credentials.TransportCredentials
	acknowledged chan struct{}
}

func (c *watchedCreds) Clone() credentials.TransportCredentials { return c }

func (c *watchedCreds) ClientHandshake(ctx context.Context, authority string, below net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, below)
	if err != nil {
		return nil, nil, err
	}
	return watchACK(conn, c.acknowledged), info, nil
}

// TestFirstFlightOverTLS is TestFirstFlight for TLS, with the frames in one record, and TestLateHeaders.
func TestFirstFlightOverTLS(t *testing.T) {
	for _, client := range []struct {
		name string
		get  func(t *testing.T, addr string) string
	}{
		{"curl", curl("--http2")},
		{"nghttp", getNghttp},
		{"Node", getNode},
	} {
		for _, timing := range []struct {
			name    string
			headers timing
		}{
			{"in the first flight", inFirstFlight},
			{"after SETTINGS", afterSettings},
		} {
			t.Run(client.name+"/"+timing.name, func(t *testing.T) {
				t.Parallel()
				p := newPort(t)
				p.secure(t, serverTLS())
				p.start(t)
				r := newTLSRelay(t, p.addr, timing.headers)
				const want = `net/http by HTTP/2.0 over TLS, ALPN "h2"`
				if got := client.get(t, r.addr); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				r.wantNoProblem(t)
				p.wantMatch(t, "tls/http", oneport.ProtocolHTTP2, timing.headers == afterSettings)
			})
		}
	}
}

// TestPassedOn has grpc-go do its own TLS on connections with a certain server name, as they were accepted.
func TestPassedOn(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	l := p.route(t, "grpc", func(t *testing.T, l net.Listener) {
		serveGRPCWith(t, l, grpc.Creds(credentials.NewTLS(mutualTLS())), grpc.UnaryInterceptor(tellPeer))
	}, oneport.ServerName("grpc.test"))
	p.secure(t, serverTLS())
	p.start(t)

	config := clientTLS()
	config.ServerName, config.Certificates = "grpc.test", []tls.Certificate{thePKI().client}
	want := `grpc-go over TLS, ALPN "h2", client alice, SPIFFE ID ` + spiffeID
	if got := checkHealth(t, dialGRPCWith(t, p.addr, credentials.NewTLS(config))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.wantMatch(t, "grpc", oneport.ProtocolTLS, false)
	p.wantSameConn(t, l)
	if got, want := curl("--http2")(t, p.addr), `net/http by HTTP/2.0 over TLS, ALPN "h2"`; got != want {
		t.Errorf("by another name: got %q, want %q", got, want)
	}
}

// readHTTP1 reads a response of HTTP/1 and returns its content.
func readHTTP1(t *testing.T, r io.Reader) (status int, content string) {
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
