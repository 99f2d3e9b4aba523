// Quickstart is a tour of what one port can serve: gRPC, REST over HTTP/1.1 and HTTP/2, and a web page, with and
// without TLS. The example hello is shorter, and a better start for a program.
//
// With -demo it also connects to itself as many kinds of clients, and prints what happens to each.
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

	"github.com/oneport-go/oneport"
)

// shutdownTimeout is how long a shutdown waits for running requests.
const shutdownTimeout = 10 * time.Second

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `usage: quickstart [-addr address] [-client-out file]
       quickstart [-addr address] -cert file -key file [-client-ca file]
       quickstart [-addr address] -demo`

// run is main with an exit status.
func run(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {} // an error is one sentence
	addr := fs.String("addr", "127.0.0.1:8080", "serve on this `address`; with -demo the default is a free port")
	demo := fs.Bool("demo", false, "serve, call the server as clients of many kinds, show what came of it, and end")
	var files tlsFiles
	fs.StringVar(&files.cert, "cert", "", "`file` with the server's certificate, in PEM; without it one is made in memory")
	fs.StringVar(&files.key, "key", "", "`file` with the key of the certificate")
	fs.StringVar(&files.clientCA, "client-ca", "", "`file` with the authorities whose client certificates are accepted")
	fs.StringVar(&files.clientOut, "client-out", "",
		"`file` to write a client certificate of the authority in memory to, with all that a client needs beside it")
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fs.SetOutput(stdout)
		fmt.Fprintln(stdout, usage)
		fs.PrintDefaults()
		return 0
	}
	if err != nil {
		return 2 // the FlagSet has said why
	}
	switch err := files.check(); {
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "unexpected argument: %s\n", fs.Arg(0))
		return 2
	case *demo && files != tlsFiles{}:
		fmt.Fprintln(stderr, "-demo makes certificates of its own: leave out -cert, -key, -client-ca and -client-out")
		return 2
	case err != nil:
		fmt.Fprintln(stderr, err)
		return 2
	}
	if *demo && !isSet(fs, "addr") {
		*addr = "127.0.0.1:0"
	}

	l, err := oneport.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintf(stderr, "cannot serve on %s, choose another address with -addr: %v\n", *addr, err)
		return 1
	}
	if *demo {
		err = runDemo(l, stdout)
	} else {
		err = runServer(l, files, stdout, stderr)
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

// runServer serves on l until a signal arrives.
func runServer(l net.Listener, files tlsFiles, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := files.config(l.Addr())
	if err != nil {
		l.Close()
		return fmt.Errorf("certificates: %w", err)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	s := newServer(config, log, observers{
		judged: func(remote net.Addr, v verdict) { logVerdict(log, remote, v) },
		dispatched: func(remote net.Addr, server string, earlySettings bool) {
			log.LogAttrs(ctx, slog.LevelInfo, "dispatched", slog.Any("remote", remote),
				slog.String("server", server), slog.Bool("early_settings", earlySettings))
		},
	})
	served := make(chan error, 1)
	go func() { served <- s.serve(l) }()
	printCommands(stdout, reachable(l.Addr()), files.clientOut)

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop() // from here on a signal ends the process at once
	log.Info("shutting down: waiting for running requests; another signal ends it at once", "at_most", shutdownTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := s.shutdown(ctx); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	return <-served
}

func logVerdict(log *slog.Logger, remote net.Addr, v verdict) {
	attrs := []slog.Attr{
		slog.Any("remote", remote),
		slog.String("protocol", v.Protocol),
		slog.String("route", v.Route),
		slog.Bool("tls", v.TLS),
		slog.String("alpn", v.ALPN),
		slog.Bool("upgraded", v.Upgraded),
		slog.Bool("early_settings", v.EarlySettings),
	}
	what := "matched"
	if v.Refused != "" {
		what, attrs = "refused", append(attrs, slog.String("reason", v.Refused))
	}
	log.LogAttrs(context.Background(), slog.LevelInfo, what, attrs...)
}

func printCommands(w io.Writer, addr, clientFile string) {
	fmt.Fprintf(w, "A tour of what one port can serve, on http://%s/ and https://%[1]s/ (Ctrl-C ends it).\n", addr)
	for _, g := range commands(addr, clientFile) {
		fmt.Fprintf(w, "\n%s:\n", g.Title)
		for _, c := range g.Commands {
			fmt.Fprintf(w, "\n# %s\n%s\n", c.Does, c.Line)
		}
	}
	fmt.Fprintln(w)
}

// reachable returns an address at which clients on this machine reach the listener, also if it listens on all
// addresses.
func reachable(addr net.Addr) string {
	a := addr.(*net.TCPAddr)
	if a.IP.IsUnspecified() {
		return fmt.Sprintf("localhost:%d", a.Port)
	}
	return a.String()
}
