package h2spec

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/dispatch"
	"github.com/oneport-go/oneport/streams"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestStreams compares net/http behind per-stream dispatch with net/http alone: with one server, whose connections pass
// through; with two that take requests in turn; and with one whose connections do not pass through.
func TestStreams(t *testing.T) {
	alone := listen(t)
	serve(t, alone, nil)
	// Some cases go by the first SETTINGS frame alone, so the early one has net/http's own contents here.
	early := firstSettings(t, alone.Addr())

	one := streams.New(listen(t))
	one.EarlySettings = early
	two := streams.New(listen(t))
	two.EarlySettings = early
	var n atomic.Uint64
	turn := oneport.MatcherFunc(func(*oneport.Preview) oneport.Verdict {
		if n.Add(1)%2 == 0 {
			return oneport.Match
		}
		return oneport.NoMatch
	})
	targets := []target{
		{name: "without dispatch", addr: alone.Addr()},
		{name: "without dispatch, once more,", addr: alone.Addr()},
		{name: "with one server", addr: serveStreams(t, one, oneport.Any())},
		{name: "with two servers", addr: serveStreams(t, two, turn, oneport.Any())},
		{name: "without passing through", addr: serveSplit(t, early)},
	}
	all := cases()
	var wg sync.WaitGroup
	for i := range targets {
		wg.Go(func() { targets[i].results = runAll(all, targets[i]) })
	}
	wg.Wait()
	compareAll(t, all, targets)
	if s := one.Stats(); s.Shared > s.Conns/4 {
		t.Errorf("with one server, %d of %d connections do not pass through", s.Shared, s.Conns)
	}
	if s := two.Stats(); s.Shared == 0 {
		t.Error("with two servers, no connection is shared")
	}
}

// serveStreams puts net/http behind m, with a server for each of the matchers. It returns the address.
func serveStreams(t *testing.T, m *streams.Mux, matchers ...oneport.Matcher) net.Addr {
	m.Logger = slog.New(slog.DiscardHandler)
	var addr net.Addr
	for _, matcher := range matchers {
		l := m.Match(matcher)
		addr = l.Addr()
		serve(t, l, nil)
	}
	done := make(chan error, 1)
	go func() { done <- m.Serve() }()
	t.Cleanup(func() {
		m.Close()
		<-done
	})
	return addr
}

// serveSplit puts net/http behind a dispatcher that has no connection pass through.
func serveSplit(t *testing.T, early []xhttp2.Setting) net.Addr {
	l := listen(t)
	d := &dispatch.Dispatcher{
		Decide:        func(net.Conn, []hpack.HeaderField) int { return 0 },
		EarlySettings: early,
		Logger:        slog.New(slog.DiscardHandler),
		AlwaysSplit:   true,
		Limits:        dispatch.DefaultLimits(),
	}
	serve(t, d.Target(l.Addr(), 1024), nil)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.Handle(c)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		d.Close()
	})
	return l.Addr()
}
