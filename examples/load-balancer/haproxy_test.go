package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/testenv"
)

// haproxy runs HAProxy in front of a port until the end of the test, and returns its address. In the configuration
// LISTEN stands for what is bound, and SERVER for the address of the port.
func haproxy(t *testing.T, config string, p *port) string {
	t.Helper()
	program := testenv.Program(t, "haproxy")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // HAProxy has a copy, on which it is ready before it has even begun
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const inherited = "fd@3" // the first of ExtraFiles
	config = strings.NewReplacer("LISTEN", inherited, "SERVER", p.addr).Replace(`
		global
			nbthread 1
		defaults
			timeout connect 10s
			timeout client  1m
			timeout server  1m
	`+config) + "\n"
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-db", "-f", file)
	cmd.ExtraFiles = []*os.File{f}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy: %s", &out)
		}
	})
	return l.Addr().String()
}

// TestHAProxyTCP has HAProxy pass connections on as they are, behind a header.
func TestHAProxyTCP(t *testing.T) {
	t.Parallel()
	for _, send := range []string{"send-proxy", "send-proxy-v2"} {
		t.Run(send, func(t *testing.T) {
			t.Parallel()
			var early atomic.Int32
			p := start(t, []string{"127.0.0.1"}, func(s *server) {
				s.OnDispatch = func(d oneport.Dispatched) {
					if d.EarlySettings {
						early.Add(1)
					}
				}
			})
			addr := haproxy(t, `
				listen port
					mode tcp
					bind LISTEN
					server oneport SERVER `+send+`
			`, p)
			for _, a := range askers {
				d := &dialer{addr: addr}
				if got, want := a.ask(t, d), d.last(); got != want {
					t.Errorf("%s: the server says %s, want %s", a.name, got, want)
				}
			}
			// gRPC's clients have waited for them, without TLS and inside TLS.
			if refused := p.mux.Stats().Refused; early.Load() < 2 || len(refused) > 0 {
				t.Errorf("early SETTINGS were sent to %d connections, want 2 at least; refused: %v", early.Load(), refused)
			}
			p.log.wantNone(t)
		})
	}
}

// TestHAProxyChecks has HAProxy look whether the server is there. (Its checks without a header and without a request
// reset the connection before the system has it ready, so the server does not see them.)
func TestHAProxyChecks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, check string
		served      bool // the check is a request
	}{
		{"that it connects", "", false},
		{"that it is ready", "option httpchk GET /ready", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const checks = 3
			refused, matched := make(chan oneport.Refused, checks), make(chan oneport.Matched, checks)
			p := start(t, []string{"127.0.0.1"}, func(s *server) {
				s.Configure = func(m *oneport.Mux) {
					m.OnRefuse = func(r oneport.Refused) { offer(refused, r) }
					m.OnMatch = func(m oneport.Matched) { offer(matched, m) }
				}
			})
			addr := haproxy(t, `
				listen port
					mode tcp
					bind LISTEN
					`+tt.check+`
					server oneport SERVER send-proxy-v2 check inter 10ms
			`, p)
			for range checks {
				select {
				case <-matched:
					if !tt.served {
						t.Error("a check that only connects has reached a server")
					}
				case r := <-refused:
					if tt.served || r.Reason != oneport.ReasonClientClosed {
						t.Errorf("a check was refused for %v, %v", r.Reason, r.Err)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("there was no check")
				}
			}
			http1.ask(t, &dialer{addr: addr}) // the server is up
		})
	}
}

// offer sends v if there is room.
func offer[T any](to chan<- T, v T) {
	select {
	case to <- v:
	default:
	}
}

// TestHAProxyHTTP has HAProxy take the requests apart, and send those of each kind over connections of their own.
func TestHAProxyHTTP(t *testing.T) {
	t.Parallel()
	p := start(t, []string{"127.0.0.1"}, nil)
	addr := haproxy(t, `
		frontend port
			mode http
			bind LISTEN
			use_backend grpc if { req.hdr(content-type) -m beg application/grpc }
			default_backend rest
		backend grpc
			mode http
			server oneport SERVER proto h2 send-proxy-v2
		backend rest
			mode http
			server oneport SERVER send-proxy-v2
	`, p)
	for range 2 {
		for _, a := range []asker{http1, http2, clearGRPC} {
			d := &dialer{addr: addr}
			if got, want := a.ask(t, d), d.last(); got != want {
				t.Errorf("%s: the server says %s, want %s", a.name, got, want)
			}
		}
	}
	p.log.wantNone(t)
}

// TestHAProxyMixing shows what becomes of requests of both kinds over one connection to the port: each is answered by
// its own server. With PerConnection the server of the first gets them all, and answers those of the other kind that
// they are not for it.
func TestHAProxyMixing(t *testing.T) {
	t.Parallel()
	const config = `
		listen port
			mode http
			bind LISTEN
			http-reuse always
			server oneport SERVER proto h2
	`
	askREST := func(t *testing.T, addr string) string {
		c := httpClient(&dialer{addr: addr}, true)
		defer c.CloseIdleConnections()
		code, _, err := get(c, "http://"+addr+"/whoami")
		if err != nil {
			t.Fatal(err)
		}
		return http.StatusText(code)
	}
	askGRPC := func(t *testing.T, addr string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := grpcClient(t, &dialer{addr: addr}, insecure.NewCredentials()).Check(ctx, new(healthpb.HealthCheckRequest))
		return status.Code(err).String()
	}
	for _, tt := range []struct {
		name          string
		perConnection bool
		first, second func(*testing.T, string) string
		want          string
	}{
		{"gRPC first", false, askGRPC, askREST, fmt.Sprint(codes.OK, ", ", http.StatusText(http.StatusOK))},
		{"REST first", false, askREST, askGRPC, fmt.Sprint(http.StatusText(http.StatusOK), ", ", codes.OK)},
		{"gRPC first, per connection", true, askGRPC, askREST, fmt.Sprint(codes.OK, ", ", http.StatusText(http.StatusUnsupportedMediaType))},
		{"REST first, per connection", true, askREST, askGRPC, fmt.Sprint(http.StatusText(http.StatusOK), ", ", codes.Unimplemented)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, nil, func(s *server) { s.PerConnection = tt.perConnection })
			addr := haproxy(t, config, p)
			if got := tt.first(t, addr) + ", " + tt.second(t, addr); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if s := p.mux.Stats(); s.Accepted != 1 {
				t.Errorf("HAProxy opened %d connections, want 1", s.Accepted)
			}
		})
	}
}

// TestHAProxyUpgrade has a client ask for h2c through a proxy that has rules for requests. HAProxy passes that on, and
// the client is past its rules once the server agrees; so either of them has to be told not to.
func TestHAProxyUpgrade(t *testing.T) {
	t.Parallel()
	const upgrade = "GET /whoami HTTP/1.1\r\nHost: a\r\n" +
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
	for _, tt := range []struct {
		name, rule string
		upgrade    bool
		want       int
	}{
		{"nobody is told", "", true, http.StatusSwitchingProtocols},
		{"the server is told", "", false, http.StatusOK},
		{"the proxy is told", "http-request del-header Upgrade if { req.hdr(Upgrade) -m sub -i h2c }", true, http.StatusOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, []string{"127.0.0.1"}, func(s *server) { s.Upgrade = tt.upgrade })
			addr := haproxy(t, `
				listen port
					mode http
					bind LISTEN
					http-request deny if { path /ready }
					`+tt.rule+`
					server oneport SERVER send-proxy-v2
			`, p)
			request := func(head string) (status int, r *bufio.Reader, c net.Conn) {
				c, err := (&dialer{addr: addr, header: head}).dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				r = bufio.NewReader(c)
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				return res.StatusCode, r, c
			}
			if got, _, _ := request("GET /ready HTTP/1.1\r\nHost: a\r\n\r\n"); got != http.StatusForbidden {
				t.Errorf("the forbidden request was answered %d", got)
			}
			got, r, c := request(upgrade)
			if got != tt.want {
				t.Errorf("the request to upgrade was answered %d, want %d", got, tt.want)
			}
			if got != http.StatusSwitchingProtocols {
				return
			}
			// GET /ready on stream 3, where the upgraded request has stream 1.
			flight := h2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" +
				"\x00\x00\x0d\x01\x05\x00\x00\x00\x03" + "\x82\x86\x41\x01a\x04\x06/ready"
			if _, err := io.WriteString(c, flight); err != nil {
				t.Fatal(err)
			}
			frames := h2.NewFramer(io.Discard, r)
			frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			for {
				f, err := frames.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if f, ok := f.(*h2.MetaHeadersFrame); ok && f.StreamID == 3 {
					if got := f.PseudoValue("status"); got != "200" {
						t.Errorf("past the rules, the forbidden request was answered %s", got)
					}
					return
				}
			}
		})
	}
}
