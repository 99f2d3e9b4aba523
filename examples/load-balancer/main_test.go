package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pires/go-proxyproto"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A port is a server that serves.
type port struct {
	*server
	addr string
	mux  *oneport.Mux
	log  *warnings
}

// start serves on loopback until the end of the test, behind the load balancers if there are any.
func start(t *testing.T, balancers []string, setUp func(*server)) *port {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &port{addr: l.Addr().String(), log: new(warnings)}
	if balancers != nil {
		if l, err = behind(l, balancers); err != nil {
			t.Fatal(err)
		}
		// What holds the server up must fail the test, and not just make it take longer.
		l.(listener).Listener.(*proxyproto.Listener).ReadHeaderTimeout = time.Hour
	}
	cert, err := selfSigned("localhost")
	if err != nil {
		t.Fatal(err)
	}
	p.server = newServer(cert)
	if setUp != nil {
		setUp(p.server)
	}
	configure := p.Configure
	configured := make(chan *oneport.Mux, 1)
	p.Configure = func(m *oneport.Mux) {
		m.DecideTimeout = time.Hour
		m.Logger = slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
		if configure != nil {
			configure(m)
		}
		configured <- m
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	p.mux = <-configured
	t.Cleanup(func() {
		p.Close()
		if err := <-served; !errors.Is(err, oneport.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return p
}

// warnings are the records above level Debug.
type warnings struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *warnings) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *warnings) wantNone(t *testing.T) {
	t.Helper()
	w.wantOnly(t, "")
}

// wantOnly checks that only refusals for one reason are logged, and such if there is a reason.
func (w *warnings) wantOnly(t *testing.T, reason string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	logged := strings.TrimSpace(w.b.String())
	if logged == "" && reason == "" {
		return
	}
	for line := range strings.Lines(logged) {
		if reason == "" || !strings.Contains(line, fmt.Sprintf("reason=%q", reason)) {
			t.Errorf("logged: %s", line)
		}
	}
	if logged == "" {
		t.Errorf("nothing was logged for %q", reason)
	}
}

// A dialer opens the connections of a client, and sends a header on them as a load balancer does.
type dialer struct {
	addr, header string

	mu    sync.Mutex
	local string // the address of the last one
}

func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.local = c.LocalAddr().String()
	d.mu.Unlock()
	if _, err := io.WriteString(c, d.header); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// last returns the client's own address of the last connection.
func (d *dialer) last() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.local
}

// An asker asks the server for the address that it knows the client by.
type asker struct {
	name string
	ask  func(*testing.T, *dialer) string
}

var (
	http1     = asker{"HTTP/1.1", httpAsker("http", false)}
	http2     = asker{"HTTP/2", httpAsker("http", true)}
	https1    = asker{"HTTP/1.1 over TLS", httpAsker("https", false)}
	https2    = asker{"HTTP/2 over TLS", httpAsker("https", true)}
	clearGRPC = asker{"gRPC", grpcAsker(insecure.NewCredentials())}
	tlsGRPC   = asker{"gRPC over TLS", grpcAsker(credentials.NewTLS(clientTLS))}
	askers    = []asker{http1, http2, https1, https2, clearGRPC, tlsGRPC}
)

// clientTLS trusts everybody: who the server is, is not what this is about.
var clientTLS = &tls.Config{InsecureSkipVerify: true}

func httpClient(d *dialer, http2 bool) *http.Client {
	tr := &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dial(ctx) },
		TLSClientConfig: clientTLS.Clone(),
		Protocols:       new(http.Protocols),
	}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetHTTP2(http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// get returns the status and the content.
func get(c *http.Client, url string) (int, string, error) {
	res, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, strings.TrimSpace(string(b)), err
}

func httpAsker(scheme string, http2 bool) func(*testing.T, *dialer) string {
	return func(t *testing.T, d *dialer) string {
		t.Helper()
		c := httpClient(d, http2)
		defer c.CloseIdleConnections()
		status, content, err := get(c, scheme+"://"+d.addr+"/whoami")
		if err != nil || status != http.StatusOK {
			t.Fatalf("%d %s, %v", status, content, err)
		}
		return content
	}
}

func grpcClient(t *testing.T, d *dialer, creds credentials.TransportCredentials) healthpb.HealthClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:"+d.addr, grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.dial(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return healthpb.NewHealthClient(cc)
}

func grpcAsker(creds credentials.TransportCredentials) func(*testing.T, *dialer) string {
	return func(t *testing.T, d *dialer) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var header metadata.MD
		res, err := grpcClient(t, d, creds).Check(ctx, new(healthpb.HealthCheckRequest), grpc.Header(&header))
		if err != nil || res.Status != healthpb.HealthCheckResponse_SERVING {
			t.Fatalf("%v, %v", res, err)
		}
		return strings.Join(header.Get(clientKey), ", ")
	}
}

// The headers of the PROXY protocol's specification, 2.1 and 2.2, for a client at port 51234 of a documentation
// address.
const (
	v1TCP4    = "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n"
	v1TCP6    = "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n"
	v1Unknown = "PROXY UNKNOWN\r\n"
	v2        = "\r\n\r\n\x00\r\nQUIT\n"
	v2TCP4    = v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xc8\x22\x01\xbb"
	v2TCP6    = v2 + "\x21\x21\x00\x24\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xc8\x22\x01\xbb"
	v2TLV   = v2 + "\x21\x11\x00\x14\xc0\x00\x02\x07\xc6\x33\x64\x01\xc8\x22\x01\xbb" + "\x04\x00\x05nothi" // PP2_TYPE_NOOP
	v2Local = v2 + "\x20\x00\x00\x00"
)

// TestClientAddress checks that servers know the client by the address in the header, whatever it speaks.
func TestClientAddress(t *testing.T) {
	t.Parallel()
	p := start(t, []string{"127.0.0.0/8"}, nil)
	for _, tt := range []struct {
		name, header string
		want         string // "" for that of the load balancer's own end
	}{
		{"v1 TCP4", v1TCP4, "192.0.2.7:51234"},
		{"v1 TCP6", v1TCP6, "[2001:db8::7]:51234"},
		{"v1 UNKNOWN", v1Unknown, ""},
		{"v2 TCP4", v2TCP4, "192.0.2.7:51234"},
		{"v2 TCP6", v2TCP6, "[2001:db8::7]:51234"},
		{"v2 with a TLV", v2TLV, "192.0.2.7:51234"},
		{"v2 LOCAL", v2Local, ""},
	} {
		for _, a := range askers {
			t.Run(tt.name+", "+a.name, func(t *testing.T) {
				t.Parallel()
				d := &dialer{addr: p.addr, header: tt.header}
				got := a.ask(t, d)
				want := tt.want
				if want == "" {
					want = d.last()
				}
				if got != want {
					t.Errorf("the server says %s, want %s", got, want)
				}
			})
		}
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	p := start(t, []string{"127.0.0.1"}, nil)
	d := &dialer{addr: p.addr, header: v2TCP4}
	cc := exampletest.GRPC(t, "passthrough:"+p.addr,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.dial(ctx) }))
	exampletest.CheckServices(t, cc, "grpc.health.v1.Health")
}

// TestHeaderInPieces has each byte come by itself. A header of version 1 has to come in one piece, which its
// specification permits.
func TestHeaderInPieces(t *testing.T) {
	t.Parallel()
	p := start(t, []string{"127.0.0.1"}, nil)
	c, err := (&dialer{addr: p.addr}).dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, b := range []byte(v2TLV + "GET /whoami HTTP/1.0\r\n\r\n") {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if answer, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(answer), "\r\n\r\n192.0.2.7:51234\n") {
		t.Errorf("%q, %v", answer, err)
	}
}

// TestNotBelieved checks what becomes of those who do not come through a load balancer.
func TestNotBelieved(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, balancer, header string
		logged                 string
	}{
		{"no header", "127.0.0.1", "", "read error"},
		{"from elsewhere", "192.0.2.1", v2TCP4, ""},
		{"from elsewhere without a header", "192.0.2.1", "", ""},
		{"broken header", "127.0.0.1", "PROXY TCP4 192.0.2.7\r\n", "read error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, []string{tt.balancer}, nil)
			d := &dialer{addr: p.addr, header: tt.header}
			c, err := d.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, "GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n") // may fail, if it comes late
			if b, _ := io.ReadAll(c); len(b) > 0 {
				t.Errorf("the client read %q", b)
			}
			p.log.wantOnly(t, tt.logged)
		})
	}
	if _, err := behind(nil, []string{"balancer.example.com"}); err == nil {
		t.Error("a name was taken for an address")
	}
}

// TestHealthChecks has load balancers look whether the port is open, in all ways that they have.
func TestHealthChecks(t *testing.T) {
	t.Parallel()
	p := start(t, []string{"127.0.0.1"}, nil)
	reset := func(c net.Conn) {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	for _, header := range []string{"", v1Unknown, v2Local, v2Local[:7]} {
		for _, then := range []func(net.Conn){
			func(c net.Conn) { c.Close() },
			reset,
			func(c net.Conn) { t.Cleanup(func() { c.Close() }) }, // stays silent
		} {
			c, err := (&dialer{addr: p.addr, header: header}).dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			then(c)
		}
	}
	// A header that breaks off says that the two ends do not agree, and is told.
	want := map[oneport.RefuseReason]uint64{oneport.ReasonClientClosed: 6, oneport.ReasonReadError: 2}
	for began := time.Now(); !maps.Equal(p.mux.Stats().Refused, want); {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("refused %v, want %v", p.mux.Stats().Refused, want)
		}
		if got := http1.ask(t, &dialer{addr: p.addr, header: v2TCP4}); got != "192.0.2.7:51234" {
			t.Errorf("the server says %s", got)
		}
	}
	if err := p.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	p.log.wantOnly(t, "read error")
	want[oneport.ReasonShutdown] = 4
	if diff := cmp.Diff(want, p.mux.Stats().Refused); diff != "" {
		t.Error(diff)
	}
}

// TestDrain checks that before a shutdown the health checks fail and requests do not.
func TestDrain(t *testing.T) {
	t.Parallel()
	p := start(t, []string{"127.0.0.1"}, nil)
	d := &dialer{addr: p.addr, header: v2TCP4}
	h, g := httpClient(d, false), grpcClient(t, d, insecure.NewCredentials())
	defer h.CloseIdleConnections()
	states := func() string {
		ready, _, err := get(h, "http://"+p.addr+"/ready")
		if err != nil {
			t.Error(err)
		}
		served, _, err := get(h, "http://"+p.addr+"/whoami")
		if err != nil {
			t.Error(err)
		}
		res, err := g.Check(t.Context(), new(healthpb.HealthCheckRequest))
		if err != nil {
			t.Error(err)
		}
		return fmt.Sprintf("ready %d, served %d, gRPC %v", ready, served, res.GetStatus())
	}
	if got, want := states(), "ready 200, served 200, gRPC SERVING"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	p.drain()
	if got, want := states(), "ready 503, served 200, gRPC NOT_SERVING"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCloseWrite(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := behind(tcp, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := (&dialer{addr: l.Addr().String(), header: v2TCP4}).dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := server.(conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		t.Errorf("the client read %d bytes, %v", n, err)
	}
	if _, err := io.WriteString(client, "x"); err != nil {
		t.Error(err)
	}
	b := make([]byte, 1)
	if _, err := server.Read(b); err != nil || string(b) != "x" {
		t.Errorf("the server read %q, %v", b, err)
	}
	client, pipe := net.Pipe()
	defer client.Close()
	defer pipe.Close()
	if err := (conn{proxyproto.NewConn(pipe)}).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("on a pipe: %v", err)
	}
}
