package interop

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc/credentials"

	"github.com/oneport-go/oneport/internal/certs"
)

// spiffeID is that of the client's certificate.
const spiffeID = "spiffe://example.org/alice"

// pki is what the two ends of TLS have.
type pki struct {
	authority        *certs.Authority
	server           tls.Certificate
	client, stranger tls.Certificate // the server knows nothing of the stranger's authority
}

var thePKI = sync.OnceValue(func() *pki {
	var p pki
	var other *certs.Authority
	for _, step := range []func() error{
		func() (err error) { p.authority, err = certs.NewAuthority(); return },
		func() (err error) { p.server, err = p.authority.Server("127.0.0.1", "grpc.test", "localhost"); return },
		func() (err error) { p.client, err = p.authority.Client("alice", spiffeID); return },
		func() (err error) { other, err = certs.NewAuthority(); return },
		func() (err error) { p.stranger, err = other.Client("mallory"); return },
	} {
		if err := step(); err != nil {
			panic(err)
		}
	}
	return &p
})

func serverTLS() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{thePKI().server}} }

// mutualTLS is serverTLS for clients with a certificate only.
func mutualTLS() *tls.Config {
	c := serverTLS()
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, thePKI().authority.Pool()
	return c
}

func clientTLS(alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: thePKI().authority.Pool(), NextProtos: alpn}
}

func clientCreds(certificates ...tls.Certificate) credentials.TransportCredentials {
	c := clientTLS()
	c.Certificates = certificates
	return credentials.NewTLS(c)
}

// caFile returns the name of a file with the authority's certificate.
func caFile(t *testing.T) string { return tempFile(t, thePKI().authority.PEM()) }

// certFiles returns the names of files with a certificate and its key.
func certFiles(t *testing.T, c tls.Certificate) (cert, key string) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tempFile(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})),
		tempFile(t, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func tempFile(t *testing.T, content []byte) string {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
