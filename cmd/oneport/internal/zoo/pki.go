package zoo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oneport-go/oneport/internal/certs"
)

// A PKI is an authority and the certificates that servers and clients have in tests.
type PKI struct {
	*certs.Authority
	Server, Client, Expired, OtherName, SelfSigned tls.Certificate
}

// NewPKI makes one.
func NewPKI(t testing.TB) *PKI {
	t.Helper()
	must := func(c tls.Certificate, err error) tls.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	authority, err := certs.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	p := &PKI{Authority: authority}
	p.Server = must(authority.Server("127.0.0.1", "localhost"))
	p.OtherName = must(authority.Server("other.example"))
	p.Client = must(authority.Client("client"))
	now := time.Now()
	p.SelfSigned = must(selfSigned(now.Add(-time.Hour), now.Add(time.Hour)))
	// The authority signs for now only.
	p.Expired = must(selfSigned(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)))
	return p
}

func selfSigned(from, until time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "zoo"}, NotBefore: from, NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// Config is a server's, with a certificate and what ALPN chooses from.
func (p *PKI) Config(cert tls.Certificate, alpn ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: alpn}
}

// CAFile writes the authority's certificate to a file.
func (p *PKI) CAFile(t testing.TB) string { return write(t, "ca.pem", p.PEM()) }

// CertFile writes a certificate, its chain and its key to a file.
func CertFile(t testing.TB, c tls.Certificate) string {
	t.Helper()
	var out []byte
	for _, der := range c.Certificate {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cert.pem", append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...))
}

func write(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
