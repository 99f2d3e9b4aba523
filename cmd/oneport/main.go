// Oneport looks into ports that several protocols share.
//
//	oneport probe 127.0.0.1:8080
//
// tries every way into a port that clients of HTTP and gRPC have, and says for each that fails why, what clients say
// about it, and what helps. See README.md beside this file.
//
// It is a package of the root module, so that it runs from a checkout without further ado, and imports nothing that
// weighs: golang.org/x/net for frames, golang.org/x/term for the terminal, github.com/pires/go-proxyproto for PROXY
// headers, and of protocol buffers only the wire format. Flags are those of the standard library, as in the other
// programs here.
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

oneport <command> -h says more.
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
	fmt.Fprintf(stderr, "oneport: there is no command %q\n%s", args[0], usage)
	return exitUsage
}
