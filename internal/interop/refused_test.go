package interop

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/metadata"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/testenv"
)

// TestRefused checks what a client says when it is refused, by TLS or because of it.
func TestRefused(t *testing.T) {
	t.Parallel()
	open := refusing(t, func(p *port) { p.secure(t, serverTLS()) })
	mutual := refusing(t, func(p *port) { p.secure(t, mutualTLS()) })
	acme := refusing(t, func(p *port) { p.TLS(serverTLS()).Match(oneport.ALPN("acme-tls/1")) })
	// Where ALPN decides, a server gets what follows whether it is that or not.
	methods := refusing(t, func(p *port) { p.TLS(serverTLS()).Match(oneport.HTTP1("GET", "POST")) })
	cert, key := certFiles(t, thePKI().stranger)
	stranger := []string{"--cert", cert, "--key", key}
	const tlsOnly = "This port takes TLS only. Use https."
	for _, tt := range []struct {
		name string
		port *port
		says func(t *testing.T, addr string) string
		want string
		why  oneport.RefuseReason
	}{
		{"no protocol in common/curl", acme, curlSays(), "alert no application protocol", oneport.ReasonHandshake},
		{"no protocol in common/openssl", acme, opensslSays("", "-alpn", "h2"), "SSL alert number 120", oneport.ReasonHandshake},
		{"no protocol in common/Go", acme, goSays(clientTLS("h2")), "tls: no application protocol", oneport.ReasonHandshake},

		{"no certificate/curl", mutual, curlSays(), "alert certificate required", oneport.ReasonHandshake},
		{"no certificate/curl, TLS 1.2", mutual, curlSays("--tls-max", "1.2"), "alert handshake failure", oneport.ReasonHandshake},
		{"no certificate/openssl", mutual, opensslSays("GET / HTTP/1.1\r\n\r\n"), "SSL alert number 116", oneport.ReasonHandshake},
		{"no certificate/Go", mutual, goSays(clientTLS("h2")), "tls: certificate required", oneport.ReasonHandshake},
		{"stranger's certificate/curl", mutual, curlSays(stranger...), "alert unknown ca", oneport.ReasonHandshake},
		{"stranger's certificate/openssl", mutual, opensslSays("GET / HTTP/1.1\r\n\r\n", "-cert", cert, "-key", key), "SSL alert number 48", oneport.ReasonHandshake},
		{"stranger's certificate/Go", mutual, func(t *testing.T, addr string) string {
			config := clientTLS("h2")
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &thePKI().stranger, nil }
			return goSays(config)(t, addr)
		}, "tls: unknown certificate authority", oneport.ReasonHandshake},

		{"HTTP1 without TLS/curl", open, bareSays("curl", "--no-progress-meter", "--noproxy", "*", "--write-out", "%{http_code}"), tlsOnly + "\n400", oneport.ReasonNoRoute},
		{"HTTP2 without TLS/nghttp", open, bareSays("nghttp", "--verbose"), "error_code=INADEQUATE_SECURITY(0x0c), opaque_data(36)=[" + tlsOnly + "]", oneport.ReasonNoRoute},
		{"gRPC without TLS/grpc-go", open, grpcSays, "code = Unavailable", oneport.ReasonNoRoute},

		{"HTTP1 where h2 was negotiated/openssl", open, opensslSays("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "-alpn", "h2"),
			"This connection negotiated HTTP/2, but the request is HTTP/1.", oneport.ReasonProtocolError},
		{"HTTP2 where http1.1 was negotiated/openssl", methods, opensslSays(http2.ClientPreface, "-alpn", "http/1.1"),
			"This connection negotiated HTTP/1.1.", oneport.ReasonProtocolError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.says(t, tt.port.addr); !strings.Contains(got, tt.want) {
				t.Errorf("the client said %q, want %q in it", got, tt.want)
			}
			tt.port.wantRefused(t, tt.why)
		})
	}
}

// refusing starts a port at which refusals are expected.
func refusing(t *testing.T, routes func(*port)) *port {
	p := newPort(t)
	p.expectRefusals()
	routes(p)
	p.start(t)
	return p
}

// wantRefused checks that there was a refusal for the reason, or is about to be: a client can know of it first, by the
// alert that crypto/tls sends.
func (p *port) wantRefused(t *testing.T, why oneport.RefuseReason) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	patient := true
	defer time.AfterFunc(10*time.Second, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		patient = false
		p.another.Broadcast()
	}).Stop()
	for patient {
		if slices.ContainsFunc(p.refused, func(r oneport.Refused) bool { return r.Reason == why }) {
			return
		}
		p.another.Wait()
	}
	t.Errorf("nothing was refused for the reason %v", why)
}

// says runs a program that may fail and returns all that it prints.
func says(t *testing.T, stdin string, argv ...string) string {
	t.Helper()
	testenv.Program(t, argv[0])
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Errorf("%s: %v", argv, err)
	}
	return string(out)
}

func curlSays(options ...string) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string {
		return says(t, "", append(curlTLS(t, options...), "https://"+addr+"/")...)
	}
}

// bareSays has a program send a request without TLS.
func bareSays(argv ...string) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string {
		return says(t, "", append(slices.Clone(argv), "http://"+addr+"/")...)
	}
}

// opensslSays has openssl send something and print what comes until the end of the connection.
func opensslSays(sends string, options ...string) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string {
		argv := []string{"openssl", "s_client", "-connect", addr, "-CAfile", caFile(t), "-ign_eof"}
		return says(t, sends, append(argv, options...)...)
	}
}

// goSays connects and reads, since with TLS 1.3 a client's side of the handshake is over before the server's.
func goSays(config *tls.Config) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string {
		c, err := tls.Dial("tcp", addr, config)
		if err == nil {
			defer c.Close()
			_, err = io.ReadAll(c)
		}
		if err == nil {
			return "nothing"
		}
		return err.Error()
	}
}

func grpcSays(t *testing.T, addr string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := tryHealth(ctx, dialGRPC(t, addr), ""); err != nil {
		return err.Error()
	}
	return "nothing"
}

// TestRedirected has curl follow a redirect to https on the same port.
func TestRedirected(t *testing.T) {
	t.Parallel()
	addr := startServer(t, &oneport.Server{Handler: answer("net/http"), TLSConfig: serverTLS(), RequireTLS: true, RedirectHTTP: true})
	testenv.Program(t, "curl")
	got := output(t, "curl", "--no-progress-meter", "--fail", "--noproxy", "*", "--location", "--insecure", "http://"+addr+"/path?query")
	if want := `net/http by HTTP/2.0 over TLS, ALPN "h2"`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRefusedGRPC checks that a client of gRPC is told in a status why it is refused, and shows it.
func TestRefusedGRPC(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		route func(*port) net.Listener
		token int // bytes
		want  string
		why   oneport.RefuseReason
	}{
		{"no route", func(p *port) net.Listener { return p.Match(oneport.Path("/other/")) }, 0,
			`code = Unimplemented desc = No server on this port takes this request.`, oneport.ReasonNoRoute},
		{"too large", func(p *port) net.Listener { return p.Match(oneport.Header("other", "")) }, 2 << 20,
			`code = ResourceExhausted desc = The head of the request is too long.`, oneport.ReasonTooLong},
		{"server has stopped", func(p *port) net.Listener {
			l := p.Match(oneport.GRPC())
			l.Close()
			return l
		}, 0,
			`code = Unavailable`, oneport.ReasonRouteClosed},
		{"queue full", func(p *port) net.Listener {
			p.Limits.QueueLength, p.QueuePolicy = 1, oneport.QueueRefuse
			return p.Match(oneport.GRPC())
		}, 0, `code = Unavailable desc = The server is overloaded. Try again later.`, oneport.ReasonQueueFull},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var l net.Listener
			p := refusing(t, func(p *port) { l = tt.route(p) })
			defer l.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if tt.why == oneport.ReasonQueueFull {
				go tryHealth(ctx, dialGRPC(t, p.addr), "") // has the one place
				for p.Stats().Queued == 0 && ctx.Err() == nil {
					runtime.Gosched()
				}
			}
			ctx = metadata.AppendToOutgoingContext(ctx, "token", strings.Repeat("t", tt.token))
			if err := tryHealth(ctx, dialGRPC(t, p.addr), ""); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the client said %v, want %q", err, tt.want)
			}
			p.wantRefused(t, tt.why)
		})
	}
}
