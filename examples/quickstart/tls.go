package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
)

// tlsFiles are the names of the files that have to do with TLS. Without any the certificates are made in memory.
type tlsFiles struct {
	cert, key string // the server's certificate
	clientCA  string // the authorities of the clients' certificates
	clientOut string // for a client's certificate to be written to
}

// check reports what does not go together.
func (f tlsFiles) check() error {
	switch {
	case (f.cert == "") != (f.key == ""):
		return errors.New("-cert and -key go together")
	case f.cert == "" && f.clientCA != "":
		return errors.New("-client-ca goes with -cert and -key: the certificates made in memory have an authority of their own")
	case f.cert != "" && f.clientOut != "":
		return errors.New("-client-out does not go with -cert and -key: it takes the authority that is made in memory")
	}
	return nil
}

// config returns the server's side of TLS for a server at the address.
func (f tlsFiles) config(addr net.Addr) (*tls.Config, error) {
	if f.cert != "" {
		return f.load()
	}
	ca, config, err := makeCertificates(addr)
	if err == nil && f.clientOut != "" {
		err = writeClient(ca, f.clientOut)
	}
	return config, err
}

// load is config with the user's certificates.
func (f tlsFiles) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	if f.clientCA == "" {
		return config, nil
	}
	authorities, err := os.ReadFile(f.clientCA)
	if err != nil {
		return nil, err
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("no certificate in %s", f.clientCA)
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config, nil
}

// makeCertificates makes, in memory, an authority and a certificate for a server at the address. Clients need no
// certificate, but if they show one it has to be the authority's.
func makeCertificates(addr net.Addr) (*authority, *tls.Config, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, nil, err
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if ip := addr.(*net.TCPAddr).IP; !ip.IsUnspecified() && !ip.IsLoopback() {
		hosts = append(hosts, ip.String())
	}
	cert, err := ca.server(hosts...)
	if err != nil {
		return nil, nil, err
	}
	return ca, &tls.Config{
		Certificates: []tls.Certificate{cert},
		ClientCAs:    ca.pool(),
		ClientAuth:   tls.VerifyClientCertIfGiven,
	}, nil
}

// clientName is the client for whom writeClient makes a certificate.
const clientName = "quickstart-client"

// writeClient makes a certificate for a client and writes it to a file, with all that the client needs beside it.
func writeClient(ca *authority, file string) error {
	cert, err := ca.client(clientName)
	if err != nil {
		return err
	}
	return writePEM(cert, file)
}

// writePEM writes a certificate to a file with its key and its chain, up to the authority.
func writePEM(cert tls.Certificate, file string) error {
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, der := range cert.Certificate {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return os.WriteFile(file, b, 0o600)
}
