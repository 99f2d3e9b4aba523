// Rawframes serves HTTP/2 frame by frame, on a port that it shares with an HTTP/1 server of net/http.
//
// It shows what an HTTP/2 server has to do that reads and writes frames itself with http2.Framer, in as little code as
// possible. README.md lists what such a server has to get right, and where the code does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/oneport-go/oneport"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "serve on this `address`")
	flag.Parse()
	l, err := oneport.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("Serving on http://%s/ (Ctrl-C ends it). Try:\n\n", l.Addr())
	fmt.Printf("curl --http2-prior-knowledge http://%s/\n", l.Addr())
	fmt.Printf("curl --http2-prior-knowledge --data-binary @/bin/sh http://%s/echo | wc -c\n", l.Addr())
	fmt.Printf("nghttp -nv http://%s/large\n", l.Addr())

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on a signal ends the process at once
	if err := run(ctx, l); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// shutdownTimeout is how long a shutdown waits for running requests.
const shutdownTimeout = 10 * time.Second

// run serves until ctx ends.
func run(ctx context.Context, l net.Listener) error {
	mux := oneport.New(l)
	framesL := mux.Match(oneport.HTTP2())
	webL := mux.Match(oneport.HTTP1())

	frames := newServer(slog.Default())
	web := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "HTTP/1 works here too. Try curl --http2-prior-knowledge.\n")
		}),
		ReadHeaderTimeout: 5 * time.Second,
	}
	go frames.serve(framesL)
	go web.Serve(webL)
	served := make(chan error, 1)
	go func() { served <- mux.Serve() }()

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	fmt.Printf("Shutting down: waiting at most %v for open streams and running requests.\n", shutdownTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	return errors.Join(mux.Shutdown(ctx), frames.shutdown(ctx), web.Shutdown(ctx))
}
