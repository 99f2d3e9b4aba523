// Oneport diagnoses ports that several protocols share.
//
//	oneport probe 127.0.0.1:8080
//
// connects to a port in every way that HTTP and gRPC clients do. For each way that fails, it prints the cause, the
// errors that clients report, and what to do. See README.md beside this file.
//
// The command is part of the root module, so that it runs from a checkout. To keep that module small, it imports only
// golang.org/x/net for frames, golang.org/x/term for the terminal, github.com/pires/go-proxyproto for PROXY headers,
// and the wire format of protocol buffers.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit statuses.
const (
	exitOK          = 0
	exitFails       = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitInterrupted = 130 // as shells have it
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal ends the probe, which then prints what it knows; a second one ends the program.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `usage: oneport <command>

commands:
  probe    try every way into a port, and say what fails and why

Run oneport <command> -h for its flags.
`

// run is main with an exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		io.WriteString(stderr, usage)
		return exitUsage
	}
	switch args[0] {
	case "probe":
		return runProbe(ctx, args[1:], stdout, stderr)
	case "help", "-h", "-help", "--help":
		io.WriteString(stdout, usage)
		return exitOK
	}
	fmt.Fprintf(stderr, "oneport: unknown command %q\n%s", args[0], usage)
	return exitUsage
}
