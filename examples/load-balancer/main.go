// Load-balancer serves gRPC and REST, with and without TLS, on one port behind a TCP load balancer that announces
// client addresses with the PROXY protocol.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/oneport-go/oneport"
)

// shutdownTimeout is how long a shutdown waits for running requests.
const shutdownTimeout = 10 * time.Second

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "serve on this `address`")
	trust := flag.String("trust", "127.0.0.1,::1", "the load balancers' `addresses`, such as 192.0.2.1,10.0.0.0/8")
	drain := flag.Duration("drain", 5*time.Second, "how long the load balancers take to notice that health checks fail")
	flag.Parse()
	if err := run(*addr, strings.Split(*trust, ","), *drain); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr string, balancers []string, drain time.Duration) error {
	cert, err := selfSigned("localhost")
	if err != nil {
		return err
	}
	s := newServer(cert)
	l, err := oneport.Listen("tcp", addr)
	if err != nil {
		return err
	}
	proxied, err := behind(l, balancers)
	if err != nil {
		l.Close()
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.Serve(proxied) }()
	fmt.Printf("Serving on %s (Ctrl-C ends it). curl can play the load balancer:\n\n", l.Addr())
	fmt.Printf("curl --haproxy-protocol http://%s/whoami\n", l.Addr())
	fmt.Printf("curl --haproxy-protocol --insecure https://%s/whoami\n\n", l.Addr())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop() // from here on a signal ends the process at once
	fmt.Printf("Health checks fail from now on. Serving for %v more, until the load balancers have noticed.\n", drain)
	s.drain()
	select {
	case err := <-served:
		return err
	case <-time.After(drain):
	}
	fmt.Printf("Shutting down: waiting at most %v for running requests.\n", shutdownTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	<-served
	return nil
}

// selfSigned makes a certificate for this run, which nobody has reason to trust.
func selfSigned(names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{DNSNames: names, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
