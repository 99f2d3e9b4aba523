// Benchmarks compares oneport with a plain listener and with other ways to serve gRPC and HTTP on one port, on the
// machine on which it runs. README.md says what is measured and how to read it.
//
//	go run . -quick
//	go run .
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

func main() {
	if contender.IsServer() {
		if err := contender.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	contender.CleanUp()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

// command is the program, but for the server processes that it starts.
func command(ctx context.Context, args []string, out, errOut io.Writer) error {
	o, err := parse(args, errOut)
	if err != nil {
		return err
	}
	switch {
	case o.list:
		return list(o, out)
	case o.report != "":
		return rewrite(o.report, out)
	case o.compare != "":
		return compare(o.compare, o.with, out)
	}
	if o.target.address != "" {
		return measureTarget(ctx, o, out, errOut)
	}
	if o.counts {
		c, err := countAll(ctx, o, errOut)
		if c == nil || err != nil {
			return err
		}
		return writeCounts(c, o, out)
	}
	if o.quick {
		return smoke(ctx, o, out)
	}
	r, err := run(ctx, o, errOut)
	if r == nil {
		return err
	}
	err = errors.Join(write(r, o.out, out), err)
	if o.selfCheck && err == nil {
		err = r.SelfCheck(contender.Table[0].Name, contender.Again.Name, out)
	}
	if o.against != "" && err == nil {
		err = againstRun(r, o.against, out)
	}
	return err
}
