// Release makes a release of the modules of this repository, which all have the same version. RELEASING.md explains the
// steps.
//
//	go run -C internal/release . api              compare the exported API with that of the last release
//	go run -C internal/release . prepare VERSION  require VERSION in all modules, and give it a section in CHANGELOG.md
//	go run -C internal/release . tag VERSION      check the commit, and tag it for each module that is released
//
// It changes the work tree and adds tags. It commits and pushes nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

const usage = "usage: release api | prepare VERSION | tag VERSION"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	root, err := output(ctx, ".", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	r := &repo{root: strings.TrimSpace(root), today: time.Now(), stdout: stdout}
	switch {
	case len(args) == 1 && args[0] == "api":
		return r.compareAll(ctx)
	case len(args) == 2 && args[0] == "prepare":
		return r.prepare(ctx, args[1])
	case len(args) == 2 && args[0] == "tag":
		return r.tag(ctx, args[1])
	}
	return errors.New(usage)
}

// A repo is a work tree.
type repo struct {
	root   string
	today  time.Time
	stdout io.Writer
}

// git runs git in the work tree and returns what it prints.
func (r *repo) git(ctx context.Context, args ...string) (string, error) {
	return output(ctx, r.root, "git", args...)
}

// output runs a command in a folder and returns what it prints on standard output.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", cmd, err, out, stderr.String())
	}
	return string(out), nil
}
