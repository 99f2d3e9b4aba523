package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/oneport-go/oneport/cmd/oneport/internal/diagnose"
	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
	"github.com/oneport-go/oneport/cmd/oneport/internal/render"
)

const probeUsage = `usage: oneport probe [flags] host:port | URL | unix:path

Probe connects to the port in every way that HTTP and gRPC clients do, each on a connection of its own. It prints what
came, what fails and why, and what to do.

exit status: 0 everything that the port offers works, 1 something fails, 2 usage, 3 unreachable, 130 interrupted

flags:
`

// A settings is what the flags say.
type settings struct {
	probe.Options
	json, verbose, list bool
	color               string
	only, skip          string
	cert, key, ca       string
}

func (s *settings) flags(stderr io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet("oneport probe", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {} // an error is one sentence
	fs.BoolVar(&s.verbose, "v", false, "show the frames of each way in, up to where it goes wrong")
	fs.BoolVar(&s.json, "json", false, "write JSON; with -v the frames as well")
	fs.BoolVar(&s.list, "list", false, "list the ways in, for -only and -skip, and exit")
	fs.StringVar(&s.only, "only", "", "try only these ways in or groups, and those that they depend on: comma-separated `names`; they have to work")
	fs.StringVar(&s.skip, "skip", "", "leave these out: comma-separated `names`")
	fs.DurationVar(&s.Timeout, "timeout", 5*time.Second, "time limit of each way in; the whole probe takes at most four times that")
	fs.DurationVar(&s.Idle, "idle", 0, "idle time before a request, in the ways in that test it (default 2s, or 2/5 of -timeout)")
	fs.StringVar(&s.Service, "grpc-service", "", "check the health of the gRPC service with this `name`; gRPC has to work")
	fs.StringVar(&s.Path, "path", "", "`path` of HTTP requests (default that of the URL, or /)")
	fs.StringVar(&s.Host, "host", "", "`name` in Host and :authority (default that of the target)")
	fs.StringVar(&s.SNI, "sni", "", "server `name` in the TLS handshake and in the certificate (default the host)")
	fs.StringVar(&s.cert, "cert", "", "`file` with the client's certificate, in PEM")
	fs.StringVar(&s.key, "key", "", "`file` with its key (default the file of -cert)")
	fs.StringVar(&s.ca, "ca", "", "`file` with the authorities that the probe trusts, in PEM (default the system's)")
	fs.BoolVar(&s.Insecure, "insecure", false, "do not count problems of the certificate as faults")
	fs.StringVar(&s.Resolve, "resolve", "", "connect to this `address` instead, host or host:port; names stay those of the target")
	fs.StringVar(&s.FromProxy, "from-proxy", "", "begin each connection with a PROXY header, as a balancer does: `v1 or v2`")
	fs.StringVar(&s.color, "color", "auto", "`auto, always or never`; auto means on terminals, unless NO_COLOR is set")
	return fs
}

// runProbe is the command probe.
func runProbe(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var s settings
	fs := s.flags(stderr)
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		io.WriteString(stdout, probeUsage)
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return exitOK
	case err != nil:
		return exitUsage // the FlagSet has said why
	}
	if s.list {
		list(stdout)
		return exitOK
	}
	complain := func(err error) int {
		fmt.Fprintf(stderr, "oneport probe: %v\n", err)
		return exitUsage
	}
	if fs.NArg() != 1 {
		return complain(errors.New("one target is required after the flags, host:port or a URL; see -h"))
	}
	var err error
	if s.Target, err = probe.ParseTarget(fs.Arg(0)); err != nil {
		return complain(err)
	}
	if err := s.complete(); err != nil {
		return complain(err)
	}

	progress := newProgress(stderr)
	s.Progress = progress.show
	report, err := probe.Run(ctx, s.Options)
	progress.end()
	switch {
	case errors.Is(err, probe.ErrUnreachable):
		fmt.Fprintf(stderr, "oneport probe: %s: %v\n%s", s.Target, err, unreachableHint(err))
		return exitUnreachable
	case err != nil:
		return complain(err)
	}
	report, findings := diagnose.Diagnose(report)
	if s.json {
		err = render.JSON(stdout, report, findings, s.verbose)
	} else {
		err = render.Text(stdout, report, findings, s.style(stdout))
	}
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "oneport probe: %v\n", err)
		return exitFails
	case diagnose.Failed(report, findings):
		return exitFails
	case report.Interrupted:
		return exitInterrupted
	}
	return exitOK
}

// complete checks the flags, and reads the files that they name.
func (s *settings) complete() error {
	if s.Timeout <= 0 {
		return fmt.Errorf("-timeout %v: it must be positive", s.Timeout)
	}
	if s.Idle < 0 {
		return fmt.Errorf("-idle %v: it must not be negative", s.Idle)
	}
	if !slices.Contains([]string{"", "v1", "v2"}, s.FromProxy) {
		return fmt.Errorf("-from-proxy %s: it must be v1 or v2", s.FromProxy)
	}
	if !slices.Contains([]string{"auto", "always", "never"}, s.color) {
		return fmt.Errorf("-color %s: it must be auto, always or never", s.color)
	}
	if s.Path != "" && !strings.HasPrefix(s.Path, "/") {
		return fmt.Errorf("-path %s: it must begin with /", s.Path)
	}
	for _, text := range []string{s.Path, s.Host, s.SNI, s.Service} {
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return fmt.Errorf("%q contains a space or a control character", text)
		}
	}
	s.Only, s.Skip = split(s.only), split(s.skip)
	if s.key != "" && s.cert == "" {
		return errors.New("-key requires -cert")
	}
	if s.cert != "" {
		if s.key == "" {
			s.key = s.cert
		}
		cert, err := tls.LoadX509KeyPair(s.cert, s.key)
		if err != nil {
			return fmt.Errorf("the client's certificate: %w", err)
		}
		s.Cert = &cert
	}
	if s.ca != "" {
		pem, err := os.ReadFile(s.ca)
		if err != nil {
			return err
		}
		s.Roots = x509.NewCertPool()
		if !s.Roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s contains no certificate in PEM", s.ca)
		}
	}
	return nil
}

func split(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(s string) bool { return s == "" })
}

func list(w io.Writer) {
	for _, n := range probe.Names() {
		fmt.Fprintf(w, "%-16s %-6s %s\n", n.ID, n.Group, n.Title)
	}
	io.WriteString(w, "\nclear, proxy and tls select a whole group.\n")
}

const nobodyListens = "Nobody listens there. " +
	"Check that the server runs, on this address (127.0.0.1 is neither 0.0.0.0 nor ::1) and port."

// unreachableHint says what errors of connecting mean.
func unreachableHint(err error) string {
	text := err.Error()
	for _, h := range []struct{ part, hint string }{
		{"connection refused", nobodyListens},
		{"actively refused", nobodyListens}, // on Windows
		{"no such host", "This machine's resolver does not know the name."},
		{"i/o timeout", "Nothing answers: a firewall drops packets, or the address is not routed."},
		{"deadline exceeded", "Nothing answers: a firewall drops packets, or the address is not routed."},
		{"no such file", "The socket does not exist."},
	} {
		if strings.Contains(text, h.part) {
			return h.hint + "\n"
		}
	}
	return ""
}

// style is how to write to stdout.
func (s *settings) style(stdout io.Writer) render.Style {
	style := render.Style{Verbose: s.verbose}
	f, ok := stdout.(*os.File)
	if terminal := ok && term.IsTerminal(int(f.Fd())); terminal {
		style.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			style.Width = min(width, 140)
		}
	}
	if s.color != "auto" {
		style.Color = s.color == "always"
	}
	return style
}
