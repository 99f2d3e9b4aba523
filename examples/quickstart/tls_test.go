package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// callers are those that can say who they are.
var callers = map[string]caller{
	"gRPC":     callGRPC(mutualTLS, "World"),
	"HTTP/2.0": callREST(mutualTLS, "World", (*http.Protocols).SetHTTP2),
	"HTTP/1.1": callREST(mutualTLS, "World", (*http.Protocols).SetHTTP1),
}

// readClient reads what a client needs from the file of writeClient.
func readClient(t *testing.T, file string) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	cert, err := tls.X509KeyPair(b, b)
	if err != nil || !pool.AppendCertsFromPEM(b) {
		t.Fatalf("not the file of a client: %v\n%s", err, b)
	}
	return pool, cert
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	l := listen(t)
	ca, config, err := makeCertificates(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	startOn(t, l, config)
	const id = "spiffe://trust.example/workload"
	other, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		signer *authority
		uris   []string
		want   string
		fails  bool
	}{
		{name: "common name", signer: ca, want: "alice"},
		{name: "SPIFFE ID", signer: ca, uris: []string{id}, want: id},
		{name: "another authority", signer: other, fails: true},
	} {
		cert, err := tt.signer.client("alice", tt.uris...)
		if err != nil {
			t.Fatal(err)
		}
		for protocol, call := range callers {
			t.Run(tt.name+" "+protocol, func(t *testing.T) {
				config := &tls.Config{RootCAs: ca.pool()}
				// As a client that does not look whether the server accepts its authority.
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
				got, err := call(t.Context(), &target{addr: l.Addr().String(), tls: config})
				if tt.fails {
					if err == nil {
						t.Errorf("answered %v", got)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(greeting{Message: "Hello, World", Protocol: protocol, TLS: true, Client: tt.want}, got); d != "" {
					t.Errorf("answer (-want +got):\n%s", d)
				}
			})
		}
	}
}

// TestClientOut has a client use what -client-out writes.
func TestClientOut(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "client.pem")
	p := startProgram(t, "-client-out", file)
	pool, cert := readClient(t, file)
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: the file has a key in it", info.Mode(), err)
	}
	got, err := callers["HTTP/2.0"](t.Context(), &target{addr: p.addr, tls: &tls.Config{RootCAs: pool}, cert: cert})
	if err != nil || got.Client != clientName {
		t.Errorf("answered %+v, %v", got, err)
	}
	p.awaitLog(t, "protocol=HTTP/2 route=http2 tls=true alpn=h2 upgraded=false early_settings=")
}

// TestOwnCertificates serves with files of the user's.
func TestOwnCertificates(t *testing.T) {
	t.Parallel()
	l := listen(t)
	ca, serverConfig, err := makeCertificates(l.Addr())
	l.Close()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := tlsFiles{cert: filepath.Join(dir, "server.pem"), key: filepath.Join(dir, "server.pem"), clientCA: filepath.Join(dir, "ca.pem")}
	if err := writePEM(serverConfig.Certificates[0], files.cert); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.clientCA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, err := ca.client("alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, withCA := range []bool{true, false} {
		want, args := "alice", []string{"-cert", files.cert, "-key", files.key, "-client-ca", files.clientCA}
		if !withCA {
			want, args = "", args[:4] // and nobody is asked for a certificate
		}
		p := startProgram(t, args...)
		got, err := callers["gRPC"](t.Context(), &target{addr: p.addr, tls: &tls.Config{RootCAs: ca.pool()}, cert: cert})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(greeting{Message: "Hello, World", Protocol: "gRPC", TLS: true, Client: want}, got); d != "" {
			t.Errorf("client authority %v, answer (-want +got):\n%s", withCA, d)
		}
	}
}

func TestBadClientCA(t *testing.T) {
	t.Parallel()
	l := listen(t)
	defer l.Close()
	_, config, err := makeCertificates(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "server.pem")
	if err := writePEM(config.Certificates[0], file); err != nil {
		t.Fatal(err)
	}
	files := tlsFiles{cert: file, key: file, clientCA: os.DevNull}
	if _, err := files.config(l.Addr()); err == nil || !strings.Contains(err.Error(), "no certificate in ") {
		t.Errorf("got %v, want that there is no certificate", err)
	}
}
