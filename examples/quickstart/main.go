// Quickstart serves gRPC, REST over HTTP/1.1 and HTTP/2, and a web page on one port.
//
// With -demo it also calls itself as four kinds of clients, and shows what came of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// shutdownTimeout is what running requests have to come to an end.
const shutdownTimeout = 10 * time.Second

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with an exit status.
func run(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {} // an error is one sentence
	addr := fs.String("addr", "127.0.0.1:8080", "serve on this `address`; with -demo the default is a free port")
	demo := fs.Bool("demo", false, "serve, call the server as four kinds of clients, show what came of it, and end")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(stdout)
		fmt.Fprintln(stdout, "usage: quickstart [-addr address] [-demo]")
		fs.PrintDefaults()
		return 0
	case err != nil:
		return 2
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "unexpected argument: %s\n", fs.Arg(0))
		return 2
	}
	if *demo && !isSet(fs, "addr") {
		*addr = "127.0.0.1:0"
	}

	l, err := net.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintf(stderr, "cannot serve on %s, choose another address with -addr: %v\n", *addr, err)
		return 1
	}
	if *demo {
		err = runDemo(l, stdout)
	} else {
		err = runServer(l, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func isSet(fs *flag.FlagSet, name string) bool {
	set := false
	fs.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// runServer serves until a signal comes.
func runServer(l net.Listener, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(stderr, nil))
	s := newServer(l, log, func(remote net.Addr, v verdict) {
		attrs := []slog.Attr{
			slog.Any("remote", remote),
			slog.String("protocol", v.Protocol),
			slog.String("route", v.Route),
			slog.Bool("early_settings", v.EarlySettings),
		}
		if v.Refused != "" {
			log.LogAttrs(ctx, slog.LevelInfo, "refused", append(attrs, slog.String("reason", v.Refused))...)
			return
		}
		log.LogAttrs(ctx, slog.LevelInfo, "matched", attrs...)
	})
	served := make(chan error, 1)
	go func() { served <- s.serve() }()
	printCommands(stdout, reachable(l.Addr()))

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop() // from here on a signal ends the process at once
	log.Info("shutting down, another signal ends it at once")
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := s.shutdown(ctx); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	return <-served
}

func printCommands(w io.Writer, addr string) {
	fmt.Fprintf(w, "Serving on http://%s/ (Ctrl-C ends it). Try:\n\n", addr)
	for _, c := range commands(addr) {
		fmt.Fprintf(w, "# %s\n%s\n\n", c.Does, c.Line)
	}
}

// reachable is where clients on this machine reach a listener. A listener on all addresses names none.
func reachable(addr net.Addr) string {
	a := addr.(*net.TCPAddr)
	if a.IP.IsUnspecified() {
		return fmt.Sprintf("localhost:%d", a.Port)
	}
	return a.String()
}
