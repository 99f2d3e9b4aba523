package certs

import (
	"crypto/tls"
	"net"
	"testing"
)

// TestHandshake has both ends of a connection satisfied with each other.
func TestHandshake(t *testing.T) {
	t.Parallel()
	a, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	server, err := a.Server("localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	client, err := a.Client("alice", "spiffe://example.org/alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1"} {
		c, s := net.Pipe()
		defer c.Close()
		defer s.Close()
		tc := tls.Client(c, &tls.Config{ServerName: name, RootCAs: a.Pool(), Certificates: []tls.Certificate{client}})
		go tc.Handshake()
		ts := tls.Server(s, &tls.Config{
			Certificates: []tls.Certificate{server}, ClientCAs: a.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
		})
		if err := ts.Handshake(); err != nil {
			t.Fatalf("for %s: %v", name, err)
		}
		leaf := ts.ConnectionState().PeerCertificates[0]
		if leaf.Subject.CommonName != "alice" || len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://example.org/alice" {
			t.Errorf("the client is %v, %v", leaf.Subject, leaf.URIs)
		}
	}
	if _, err := a.Server(); err == nil {
		t.Error("a server's certificate without a host")
	}
}
