package proxyload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
	"github.com/oneport-go/oneport/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A listener counts the connections that ended while they were watched.
type listener struct {
	net.Listener
	watching        atomic.Bool
	accepted, ended atomic.Int32
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.accepted.Add(1)
	return &conn{TCPConn: c.(*net.TCPConn), l: l}, nil
}

type conn struct {
	*net.TCPConn
	l    *listener
	once sync.Once
}

func (c *conn) Close() error {
	if c.l.watching.Load() {
		c.once.Do(func() { c.l.ended.Add(1) })
	}
	return c.TCPConn.Close()
}

// A backend is the server behind the proxy.
type backend struct {
	*oneport.Server
	*listener
	waiting atomic.Int32 // requests that wait for their clients to give up
}

func newBackend(t *testing.T) *backend {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{listener: &listener{Listener: l}}
	rpc := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if req.(*healthpb.HealthCheckRequest).Service == "wait" {
				b.waiting.Add(1)
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return next(ctx, req)
		}))
	healthpb.RegisterHealthServer(rpc, health.NewServer())
	b.Server = &oneport.Server{GRPC: rpc, Logger: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				b.waiting.Add(1)
				<-r.Context().Done()
				return
			}
			io.WriteString(w, "ok")
		}),
		Hooks: oneport.Hooks{OnAbuse: func(a oneport.Abused) { t.Errorf("a connection was ended: %v", a.Err) }},
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(b.listener) }()
	t.Cleanup(func() {
		b.Close()
		if err := <-served; !errors.Is(err, oneport.ErrClosed) {
			t.Error(err)
		}
	})
	return b
}

// reverseProxy is the one of net/http, over h2c.
func reverseProxy(t *testing.T, backend string) (addr string) {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: backend})
	proxy.Transport, proxy.ErrorLog = tr, log.New(io.Discard, "", 0)
	proxy.FlushInterval = -1
	s := httptest.NewUnstartedServer(proxy)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(func() {
		s.Close()
		tr.CloseIdleConnections()
	})
	return s.Listener.Addr().String()
}

// run runs a program with a configuration that has it listen on an address, until the end of the test.
func run(t *testing.T, program, config string, args func(file string) []string) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args(file)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", program, &stderr)
		}
	})
}

// freeAddr returns an address that nobody listens on.
func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func haproxy(t *testing.T, backend string) (addr string) {
	program := testenv.Program(t, "haproxy")
	addr = freeAddr(t)
	run(t, program, fmt.Sprintf(`
global
	maxconn 2000
defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
	option abortonclose
	http-reuse always
	# Where a request is cancelled before HAProxy has sent it on a new connection, HAProxy resets its stream without having
	# opened it, which is a connection error (RFC 9113, Section 5.1), and the other requests there have to be tried again.
	retry-on all-retryable-errors
	retries 10
frontend front
	bind %s proto h2
	default_backend back
frontend web
	bind %s
	default_backend back
backend back
	server s %s proto h2
`, addr, webAddr(addr), backend), func(file string) []string { return []string{"-db", "-f", file} })
	return addr
}

// webAddr is where HAProxy takes HTTP/1: the same host, another address of it.
func webAddr(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return "127.0.0.2:" + port
}

func nginx(t *testing.T, backend string) (addr string) {
	program := testenv.Program(t, "nginx")
	addr = freeAddr(t)
	dir := t.TempDir()
	run(t, program, fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/pid;
error_log /dev/null;
events { worker_connections 2000; }
http {
	access_log off;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	# nginx takes a frame of a cancelled call, on a connection that it uses again, for the end of the next call, so it has
	# to try that again (with grpc-go alone behind it, too): as often as there are servers.
	upstream back { %[2]s keepalive 100; }
	grpc_next_upstream error timeout invalid_header non_idempotent;
	server {
		listen %[3]s http2;
		# Beyond these it closes the client's connection with requests on it.
		keepalive_requests 1000000;
		http2_max_concurrent_streams 10000;
		location / { grpc_pass grpc://back; }
	}
}
`, dir, strings.Repeat("server "+backend+" max_fails=0; ", 20), addr), func(file string) []string { return []string{"-e", "/dev/null", "-p", dir, "-c", file} })
	return addr
}

// impatient is how many impatient requests there are.
func impatient(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("ONEPORT_PROXYLOAD")); err == nil {
		return n
	}
	if testing.Short() {
		return 500
	}
	return 3000
}

func TestImpatientClients(t *testing.T) {
	for _, tt := range []struct {
		name  string
		proxy func(*testing.T, string) string
		http  func(addr string) string // where HTTP/1 is taken, or nil
		keeps bool                     // the proxy ends no connection of its own
		tries int                      // how often a patient client has to try, because of faults of the proxy
	}{
		{"ReverseProxy", reverseProxy, func(addr string) string { return addr }, true, 1},
		{"HAProxy", haproxy, webAddr, false, 1},

		// A connection to a backend has one request at a time, which is cancelled with it. For a frame that comes later,
		// nginx fails the next call there ("upstream sent frame for unknown stream"), which it does not always try again.
		{"nginx", nginx, nil, false, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackend(t)
			addr := tt.proxy(t, b.listener.Addr().String())
			cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			rpc := healthpb.NewHealthClient(cc)
			tr := &http.Transport{MaxIdleConnsPerHost: 100}
			defer tr.CloseIdleConnections()
			client := &http.Client{Transport: tr}

			check := func(ctx context.Context, service string, opts ...grpc.CallOption) error {
				_, err := rpc.Check(ctx, &healthpb.HealthCheckRequest{Service: service}, opts...)
				return err
			}
			get := func(ctx context.Context, path string) error {
				req, err := http.NewRequestWithContext(ctx, "GET", "http://"+tt.http(addr)+path, nil)
				if err != nil {
					return err
				}
				resp, err := client.Do(req)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				io.Copy(io.Discard, resp.Body)
				if resp.StatusCode != http.StatusOK {
					return errors.New(resp.Status)
				}
				return nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := check(ctx, "", grpc.WaitForReady(true)); err != nil {
				t.Fatal(err)
			}
			if tt.http != nil {
				if err := get(ctx, "/"); err != nil {
					t.Fatal(err)
				}
			}
			b.watching.Store(true)

			done := make(chan struct{})
			var patient, others sync.WaitGroup
			var answered atomic.Int32
			for i := range 8 {
				patient.Go(func() {
					for {
						ask := func() error { return check(ctx, "") }
						if tt.http != nil && i%2 == 0 {
							ask = func() error { return get(ctx, "/") }
						}
						err := ask()
						for try := 1; try < tt.tries && status.Code(err) == codes.Unavailable; try++ {
							err = ask()
						}
						if err != nil {
							t.Errorf("a patient client: %v", err)
							return
						}
						answered.Add(1)
						select {
						case <-done:
							return
						default:
						}
					}
				})
			}
			for i := range 50 {
				others.Go(func() {
					for range impatient(t) / 50 {
						ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
						if tt.http != nil && i%2 == 0 {
							get(ctx, "/wait")
						} else {
							check(ctx, "wait")
						}
						cancel()
					}
				})
			}
			others.Wait()
			close(done)
			patient.Wait()
			b.watching.Store(false)
			s := b.Stats()
			if n := b.ended.Load(); tt.keeps && n > 0 || s.Abused > 0 {
				t.Errorf("%d connections have ended, %d of them for abuse", n, s.Abused)
			}
			if b.waiting.Load() == 0 || answered.Load() == 0 {
				t.Errorf("%d impatient requests have come, and %d patient ones were answered", b.waiting.Load(), answered.Load())
			}
			t.Logf("%d connections, %d ended; %d impatient requests have come, %d patient ones were answered",
				b.accepted.Load(), b.ended.Load(), b.waiting.Load(), answered.Load())
		})
	}
}
