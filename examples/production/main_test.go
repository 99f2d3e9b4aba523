package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport/internal/certs"
	"github.com/oneport-go/oneport/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServe(t *testing.T) {
	t.Parallel()
	var log exampletest.Log
	l := exampletest.Listen(t)
	stop := exampletest.Run(t, func(ctx context.Context) error {
		return run(ctx, l, config{drain: time.Minute}, slog.New(slog.NewJSONHandler(&log, nil)))
	})
	addr := l.Addr().String()
	cc := exampletest.GRPC(t, addr)
	exampletest.CheckHealth(t, cc)
	exampletest.CheckServices(t, cc, "grpc.health.v1.Health")
	for _, tt := range []struct{ path, want string }{
		{"/hello/World", "Hello, World, over HTTP/1.1\n"},
		{"/livez", "alive\n"},
		{"/readyz", "ready\n"},
	} {
		if status, got := exampletest.Get(t, exampletest.HTTP(t, false), "http://"+addr+tt.path); status != 200 || got != tt.want {
			t.Errorf("%s: %d, %q, want %q", tt.path, status, got, tt.want)
		}
	}
	stop()
	for line := range strings.Lines(log.Await(t, `"msg":"shut down: all requests are answered"`)) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

// TestEnd ends a server with a running request, and with a client that watches its health.
func TestEnd(t *testing.T) {
	t.Parallel()
	var log exampletest.Log
	entered, release := make(chan struct{}), make(chan struct{})
	s := newServer(slog.New(slog.NewJSONHandler(&log, nil)), func(_ *grpc.Server, rest *http.ServeMux) {
		register(nil, rest)
		rest.HandleFunc("GET /slow", func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-release
			io.WriteString(w, "done")
		})
	})
	noticed, second := make(chan time.Time), make(chan time.Time)
	s.after = func(d time.Duration) <-chan time.Time {
		if d == time.Hour {
			return noticed
		}
		return second
	}
	l := exampletest.Listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	addr := l.Addr().String()

	watch, err := healthpb.NewHealthClient(exampletest.GRPC(t, addr)).Watch(t.Context(), new(healthpb.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	wantHealth := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if res, err := watch.Recv(); err != nil || res.Status != want {
			t.Errorf("health: %v, %v, want %v", res, err, want)
		}
	}
	wantHealth(healthpb.HealthCheckResponse_SERVING)
	slow := make(chan string, 1)
	c := exampletest.HTTP(t, false)
	go func() {
		res, err := c.Get("http://" + addr + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		slow <- string(b)
	}()
	<-entered

	ended := make(chan error, 1)
	go func() { ended <- s.end(time.Hour, time.Hour) }()
	wantHealth(healthpb.HealthCheckResponse_NOT_SERVING)
	log.Await(t, `"msg":"not ready: waiting for load balancers to notice","notice":"1h0m0s"`)
	// New clients are still served, on new connections.
	for path, want := range map[string]int{"/readyz": 503, "/livez": 200, "/hello/World": 200} {
		if status, content := exampletest.Get(t, exampletest.HTTP(t, true), "http://"+addr+path); status != want {
			t.Errorf("%s while load balancers have not noticed: %d, %q, want %d", path, status, content, want)
		}
	}

	noticed <- time.Time{}
	if res, err := watch.Recv(); err == nil {
		t.Errorf("a client still watches the health: %v", res)
	}
	second <- time.Time{} // which the loop takes when it has written its first line
	second <- time.Time{}
	if text := log.Await(t, `"running":{"GET /slow":1}`); strings.Contains(text, "shut down") {
		t.Errorf("the end has not waited:\n%s", text)
	}
	close(release)
	if got := <-slow; got != "done" {
		t.Errorf("the running request: %s", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-served
}

// TestCutOff ends a server whose request takes too long.
func TestCutOff(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	s := newServer(slog.New(slog.DiscardHandler), func(_ *grpc.Server, rest *http.ServeMux) {
		rest.HandleFunc("GET /slow", func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		})
	})
	l := exampletest.Listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	slow := make(chan error, 1)
	c := exampletest.HTTP(t, false)
	go func() {
		res, err := c.Get("http://" + l.Addr().String() + "/slow")
		if err == nil {
			res.Body.Close()
		}
		slow <- err
	}()
	<-entered
	if err := s.end(0, 0); err == nil || !strings.Contains(err.Error(), "cut off running requests: map[GET /slow:1]") {
		t.Errorf("got %v, want what was cut off", err)
	}
	if err := <-slow; err == nil {
		t.Error("the request that takes too long was answered")
	}
	<-served
}

// writeCertificate writes a certificate for a name to the files.
func writeCertificate(t *testing.T, a *certs.Authority, name, certFile, keyFile string) {
	t.Helper()
	cert, err := a.Server(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		keyFile:  {Type: "PRIVATE KEY", Bytes: key},
		certFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	reload := make(chan os.Signal)
	c := config{certFile: filepath.Join(dir, "tls.crt"), keyFile: filepath.Join(dir, "tls.key"), drain: time.Minute, reload: reload}
	a, err := certs.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, a, "old.example", c.certFile, c.keyFile)
	var log exampletest.Log
	l := exampletest.Listen(t)
	exampletest.Run(t, func(ctx context.Context) error {
		return run(ctx, l, c, slog.New(slog.NewJSONHandler(&log, nil)))
	})
	addr := l.Addr().String()
	open, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: a.Pool(), ServerName: "old.example", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()

	// A certificate without its key, and then with it.
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, a, "new.example", c.certFile, c.keyFile)
	newKey, err := os.ReadFile(c.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key    []byte
		logged string
		name   string
	}{
		{key, "the old certificate stays in use", "old.example"},
		{newKey, "new certificate", "new.example"},
	} {
		if err := os.WriteFile(c.keyFile, tt.key, 0o600); err != nil {
			t.Fatal(err)
		}
		reload <- os.Interrupt
		log.Await(t, `"msg":"`+tt.logged+`"`)
		config := &tls.Config{RootCAs: a.Pool(), ServerName: tt.name, NextProtos: []string{"h2"}}
		conn, err := tls.Dial("tcp", addr, config)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{tt.name}, conn.ConnectionState().PeerCertificates[0].DNSNames); d != "" {
			t.Errorf("names (-want +got):\n%s", d)
		}
		conn.Close()
		exampletest.CheckHealth(t, exampletest.GRPC(t, addr, grpc.WithTransportCredentials(credentials.NewTLS(config))))
	}
	if _, err := io.WriteString(open, "GET /livez HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(open); err != nil || !strings.HasSuffix(string(b), "alive\n") {
		t.Errorf("a connection that is older than the certificate: %q, %v", b, err)
	}
}
