// TLS-passthrough routes TLS connections by server name to two servers that do their own TLS, net/http and grpc-go. The
// mux has no certificate and decrypts nothing.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
)

// The names that clients ask for. Those below localhost need no DNS.
const (
	webName  = "web.localhost"
	grpcName = "grpc.localhost"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8443", "serve on this `address`")
	flag.Parse()
	if err := serve(*addr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve listens and serves until a signal comes.
func serve(addr string) error {
	webCert, err := selfSigned(webName)
	if err != nil {
		return err
	}
	grpcCert, err := selfSigned(grpcName)
	if err != nil {
		return err
	}
	l, err := oneport.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("Serving on %s (Ctrl-C ends it). Try:\n\n", l.Addr())
	fmt.Printf("curl -k --connect-to ::%s https://%s/\n", l.Addr(), webName)
	fmt.Printf("grpcurl -insecure -servername %s %s list\n\n", grpcName, l.Addr())

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on a signal ends the process at once
	return run(ctx, l, webCert, grpcCert)
}

// shutdownTimeout is what running requests have to come to an end.
const shutdownTimeout = 10 * time.Second

// run serves on l until ctx ends.
func run(ctx context.Context, l net.Listener, webCert, grpcCert tls.Certificate) error {
	mux := oneport.New(l)
	webL := mux.Match(oneport.ServerName(webName))
	grpcL := mux.Match(oneport.ServerName(grpcName))

	web := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s for %s over %s\n", r.Proto, r.TLS.ServerName, tls.VersionName(r.TLS.Version))
		}),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{webCert}},
		ReadHeaderTimeout: 5 * time.Second,
	}
	rpc := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{grpcCert}})))
	healthpb.RegisterHealthServer(rpc, health.NewServer())
	reflection.Register(rpc)

	go web.ServeTLS(webL, "", "")
	go rpc.Serve(grpcL)
	served := make(chan error, 1)
	go func() { served <- mux.Serve() }()

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	fmt.Printf("Shutting down: waiting at most %v for running requests.\n", shutdownTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, rpc.Stop)() // cuts off what is left then
	err := mux.Shutdown(ctx)
	rpc.GracefulStop()
	return errors.Join(err, web.Shutdown(ctx))
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
