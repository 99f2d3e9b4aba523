package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
	"github.com/oneport-go/oneport/cmd/oneport/internal/zoo"
)

// TestUsage checks the exit status and what is said where the arguments are at fault, or ask for help.
func TestUsage(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.pem")
	notPEM := filepath.Join(t.TempDir(), "not.pem")
	if err := os.WriteFile(notPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   string
		exit   int
		stdout string
		stderr string
	}{
		{args: "", exit: exitUsage, stderr: "usage: oneport"},
		{args: "help", exit: exitOK, stdout: "usage: oneport"},
		{args: "prob", exit: exitUsage, stderr: `unknown command "prob"`},
		{args: "probe -h", exit: exitOK, stdout: "exit status: 0"},
		{args: "probe -list", exit: exitOK, stdout: "h2-strict"},
		{args: "probe", exit: exitUsage, stderr: "one target is required"},
		{args: "probe a:1 b:1", exit: exitUsage, stderr: "one target is required"},
		{args: "probe -nonsense a:1", exit: exitUsage, stderr: "-nonsense"},
		{args: "probe localhost", exit: exitUsage, stderr: "neither host:port nor a URL"},
		{args: "probe ftp://localhost", exit: exitUsage, stderr: "neither http nor https"},
		{args: "probe http://:80", exit: exitUsage, stderr: "names no host"},
		{args: "probe unix:", exit: exitUsage, stderr: "path of a socket"},
		{args: "probe -timeout 0 a:1", exit: exitUsage, stderr: "must be positive"},
		{args: "probe -idle -1s a:1", exit: exitUsage, stderr: "must not be negative"},
		{args: "probe -from-proxy v3 a:1", exit: exitUsage, stderr: "must be v1 or v2"},
		{args: "probe -color pink a:1", exit: exitUsage, stderr: "auto, always or never"},
		{args: "probe -path x a:1", exit: exitUsage, stderr: "must begin with /"},
		{args: "probe -host a\tb a:1", exit: exitUsage, stderr: "control character"},
		{args: "probe -key k a:1", exit: exitUsage, stderr: "-key requires -cert"},
		{args: "probe -cert " + missing + " a:1", exit: exitUsage, stderr: "missing.pem"},
		{args: "probe -ca " + missing + " a:1", exit: exitUsage, stderr: "missing.pem"},
		{args: "probe -ca " + notPEM + " a:1", exit: exitUsage, stderr: "no certificate in PEM"},
		{args: "probe -only gprc a:1", exit: exitUsage, stderr: `no way in called "gprc"`},
		{args: "probe unix:" + missing, exit: exitUnreachable, stderr: "cannot connect"},
	} {
		t.Run(test.args, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			args := strings.Split(test.args, " ")
			if test.args == "" {
				args = nil
			}
			if exit := run(t.Context(), args, &stdout, &stderr); exit != test.exit {
				t.Errorf("exit status %d, want %d", exit, test.exit)
			}
			if !strings.Contains(stdout.String(), test.stdout) || test.stdout == "" && stdout.Len() > 0 {
				t.Errorf("it writes %q, want %q", &stdout, test.stdout)
			}
			if !strings.Contains(stderr.String(), test.stderr) || test.stderr == "" && stderr.Len() > 0 {
				t.Errorf("it complains %q, want %q", &stderr, test.stderr)
			}
		})
	}
}

// TestInterrupt interrupts the probe of a port that says nothing: it prints what it knows at once.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan struct{}, 100)
	addr := zoo.Each(t, func(c net.Conn) {
		b := make([]byte, 1024)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			select {
			case heard <- struct{}{}:
			default:
			}
		}
	})
	go func() {
		<-heard
		cancel()
	}()
	var stdout, stderr bytes.Buffer
	began := time.Now()
	if exit := run(ctx, []string{"probe", "-timeout", "1m", addr}, &stdout, &stderr); exit != exitInterrupted {
		t.Errorf("exit status %d, want %d", exit, exitInterrupted)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if !strings.Contains(stdout.String(), "Interrupted: the results so far.") {
		t.Errorf("it writes\n%s", &stdout)
	}
}

// TestColor checks when there are colors.
func TestColor(t *testing.T) {
	t.Parallel()
	addr := zoo.HTTP1(t)
	for color, want := range map[string]bool{"auto": false, "always": true, "never": false} {
		var stdout, stderr bytes.Buffer
		run(t.Context(), []string{"probe", "-color", color, "-only", "http1", addr}, &stdout, &stderr)
		if got := strings.Contains(stdout.String(), "\x1b["); got != want {
			t.Errorf("-color %s: colors %t, want %t", color, got, want)
		}
	}
}

// TestResolve probes by a name that does not exist.
func TestResolve(t *testing.T) {
	t.Parallel()
	addr := zoo.H2C(t)
	host, port, _ := net.SplitHostPort(addr)
	for _, resolve := range []string{addr, host} {
		report, err := probe.Run(t.Context(), probe.Options{
			Target:  probe.Target{Network: "tcp", Address: net.JoinHostPort("name.invalid", port)},
			Resolve: resolve, Only: []string{"http1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if r := report.Get("http1"); report.Address != addr || r.Verdict != probe.Works {
			t.Errorf("%s: %s at %s", resolve, r.Verdict, report.Address)
		}
	}
	_, err := probe.Run(t.Context(), probe.Options{Target: probe.Target{Network: "tcp", Address: "name.invalid:1"}})
	if !errors.Is(err, probe.ErrUnreachable) {
		t.Errorf("without -resolve: %v", err)
	}
}

// TestMaxConns counts the connections that the probe has open at once, and in all.
func TestMaxConns(t *testing.T) {
	t.Parallel()
	open, most, all := make(chan int, 1), 0, 0
	open <- 0
	addr := zoo.Each(t, func(c net.Conn) {
		n := <-open + 1
		most, all = max(most, n), all+1
		open <- n
		defer func() { open <- <-open - 1 }()
		c.Read(make([]byte, 1))
		c.Read(make([]byte, 1<<16))
	})
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"probe", "-timeout", "600ms", addr}, &stdout, &stderr)
	<-open
	// The server may see a connection closed after the next one is made.
	if most > 2*probe.MaxConns || all > 40 {
		t.Errorf("%d connections at once, %d in all", most, all)
	}
}
