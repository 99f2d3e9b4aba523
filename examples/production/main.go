// Production serves gRPC and HTTP on one port as a service in production does: with a shutdown that loses no request,
// certificates that are replaced without a restart, timeouts, and logs in JSON.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/oneport-go/oneport"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "serve on this `address`")
	var c config
	flag.StringVar(&c.certFile, "cert", "", "`file` with the certificate, in PEM; without it the port has no TLS")
	flag.StringVar(&c.keyFile, "key", "", "`file` with the key of the certificate")
	flag.DurationVar(&c.notice, "notice", 5*time.Second, "how long load balancers take to notice that /readyz fails")
	flag.DurationVar(&c.drain, "drain", 20*time.Second, "how long running requests may take to end after that")
	flag.Parse()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	slog.SetDefault(log)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	c.reload = hangUp

	l, err := oneport.Listen("tcp", *addr)
	if err == nil {
		err = run(ctx, l, c, log)
	}
	if err != nil {
		log.Error("the program failed", "err", err)
		os.Exit(1)
	}
}

type config struct {
	certFile, keyFile string
	reload            <-chan os.Signal // asks for the certificate to be read again
	notice, drain     time.Duration
}

// run serves on l until ctx ends, and shuts down.
func run(ctx context.Context, l net.Listener, c config, log *slog.Logger) error {
	s := newServer(log, register)
	if c.certFile != "" {
		cert := &certificate{certFile: c.certFile, keyFile: c.keyFile}
		if err := cert.load(); err != nil {
			l.Close()
			return err
		}
		s.useTLS(cert)
		every := time.NewTicker(time.Minute)
		defer every.Stop()
		watching, stop := context.WithCancel(context.Background())
		defer stop()
		go cert.watch(watching, c.reload, every.C, log)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	log.Info("serving", "addr", l.Addr().String(), "tls", c.certFile != "")

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	err := s.end(c.notice, c.drain)
	if err := <-served; !errors.Is(err, oneport.ErrClosed) {
		return err
	}
	return err
}

// register adds what the service does. Replace it by your own.
func register(_ *grpc.Server, rest *http.ServeMux) {
	rest.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello, %s, over %s\n", r.PathValue("name"), r.Proto)
	})
}
