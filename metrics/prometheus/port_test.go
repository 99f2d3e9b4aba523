package oneportprom_test

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// A port is a listener in memory, with the registry for what serves on it.
type port struct {
	registry *prometheus.Registry
	conns    chan net.Conn
	errs     chan error
	closed   chan struct{}
	once     sync.Once
}

func newPort() *port {
	return &port{
		registry: prometheus.NewPedanticRegistry(),
		conns:    make(chan net.Conn),
		errs:     make(chan error),
		closed:   make(chan struct{}),
	}
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.errs:
		return nil, err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *port) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func (p *port) dialContext(context.Context, string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := p.dialContext(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// send has a new client send something, and discard what it gets.
func (p *port) send(t *testing.T, s string) net.Conn {
	t.Helper()
	c := p.dial(t)
	go io.Copy(io.Discard, c)
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return c
}

// want compares what is exported with lines, in any order. Comments, values of 0 and buckets are left out.
func (p *port) want(t *testing.T, lines string) {
	t.Helper()
	synctest.Wait()
	got := slices.DeleteFunc(exposition(t, p.registry), func(line string) bool {
		return strings.HasSuffix(line, " 0") || strings.Contains(line, "_bucket{")
	})
	want := strings.Split(strings.TrimSpace(lines), "\n")
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Error(diff)
	}
}

// exposition returns the lines that Prometheus gets, without comments.
func exposition(t *testing.T, registry prometheus.Gatherer) []string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	return slices.DeleteFunc(strings.Split(text.String(), "\n"), func(line string) bool {
		return line == "" || strings.HasPrefix(line, "#")
	})
}
