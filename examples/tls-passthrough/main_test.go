package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/oneport-go/oneport/internal/certs"
	"github.com/oneport-go/oneport/internal/exampletest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

// start serves until the test ends, and returns what a client needs to know.
func start(t *testing.T) (addr string, pool *x509.CertPool) {
	t.Helper()
	authority, err := certs.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	webCert, err := authority.Server(webName)
	if err != nil {
		t.Fatal(err)
	}
	grpcCert, err := authority.Server(grpcName)
	if err != nil {
		t.Fatal(err)
	}
	l := exampletest.Listen(t)
	exampletest.Run(t, func(ctx context.Context) error { return run(ctx, l, webCert, grpcCert) })
	return l.Addr().String(), authority.Pool()
}

func TestWeb(t *testing.T) {
	t.Parallel()
	addr, pool := start(t)
	for _, version := range []struct {
		name string
		set  func(*http.Protocols, bool)
	}{{"HTTP/1.1", (*http.Protocols).SetHTTP1}, {"HTTP/2.0", (*http.Protocols).SetHTTP2}} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: webName}, Protocols: new(http.Protocols)}
		version.set(tr.Protocols, true)
		resp, err := (&http.Client{Transport: tr}).Get("https://" + addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		tr.CloseIdleConnections()
		if want := version.name + " for " + webName + " over TLS 1.3\n"; string(content) != want {
			t.Errorf("got %q, want %q", content, want)
		}
		if d := cmp.Diff([]string{webName}, resp.TLS.PeerCertificates[0].DNSNames); d != "" {
			t.Errorf("certificate (-want +got):\n%s", d)
		}
	}
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	addr, pool := start(t)
	creds := credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: grpcName})
	cc, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	var p peer.Peer
	r, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.Peer(&p))
	if err != nil {
		t.Fatal(err)
	}
	if r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("got %v", r)
	}
	exampletest.CheckServices(t, cc, "grpc.health.v1.Health")
	if d := cmp.Diff([]string{grpcName}, p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].DNSNames); d != "" {
		t.Errorf("certificate (-want +got):\n%s", d)
	}
}

func TestOtherNames(t *testing.T) {
	t.Parallel()
	addr, pool := start(t)
	for _, name := range []string{"other.localhost", "a." + webName, ""} {
		config := &tls.Config{RootCAs: pool, ServerName: name}
		if name == "" {
			config.ServerName = "127.0.0.1" // which clients do not send (RFC 6066, Section 3)
		}
		c, err := tls.Dial("tcp", addr, config)
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "handshake failure") {
			t.Errorf("%q: got %v, want the alert handshake_failure", name, err)
		}
	}
}
