package h2spec

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/alarm"
	"github.com/oneport-go/oneport/internal/dispatch"
	"github.com/oneport-go/oneport/internal/testkit"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestStreams compares net/http behind routing by request with net/http alone: with one server, whose connections pass
// through; with two that take requests in turn; and with one whose connections do not pass through.
func TestStreams(t *testing.T) {
	alone := listen(t)
	serve(t, alone, nil)
	// Some cases go by the first SETTINGS frame alone, so the early one has net/http's own contents here.
	early := firstSettings(t, alone.Addr())

	one := oneport.New(listen(t))
	one.EarlySettings = settings(early)
	two := oneport.New(listen(t))
	two.EarlySettings = settings(early)
	var n atomic.Uint64
	turn := oneport.MatcherFunc(func(*oneport.Preview) oneport.Verdict {
		if n.Add(1)%2 == 0 {
			return oneport.Yes
		}
		return oneport.No
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
	if s := one.Stats(); s.Split > s.Accepted/4 {
		t.Errorf("with one server, %d of %d connections do not pass through", s.Split, s.Accepted)
	}
	if s := two.Stats(); s.Split == 0 {
		t.Error("with two servers, no connection is shared")
	}
}

// serveStreams puts net/http behind m, with a server for each of the matchers. It returns the address.
func serveStreams(t *testing.T, m *oneport.Mux, matchers ...oneport.Matcher) net.Addr {
	m.Logger = slog.New(slog.DiscardHandler)
	var addr net.Addr
	requests := m.Requests()
	for _, matcher := range matchers {
		l := requests.Match(matcher)
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
		Alarms:        new(alarm.Clock),
		AlwaysSplit:   true,
		Limits:        dispatch.DefaultLimits(),
	}
	target := d.Target("", l.Addr())
	serve(t, target, nil)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go startSplit(d, c)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		target.Close()
	})
	return l.Addr()
}

// startSplit has the requests of a connection dispatched.
func startSplit(d *dispatch.Dispatcher, c net.Conn) {
	o, err := testkit.OpenHTTP2(c, d.EarlySettings, d.Limits.MaxHeaderListBytes)
	if err != nil {
		testkit.Linger(c)
		return
	}
	d.Start(dispatch.Opened{
		Conn: c, Received: o.Received, StreamID: o.StreamID, Fields: o.Fields, Block: o.Block, Decoder: o.Decoder, Settings: o.Settings,
		SettingsEnd: o.SettingsEnd, Early: o.Early, Acknowledged: o.Acknowledged, Answered: o.Answered,
	}, owner{})
}

// owner leaves the connection alone.
type owner struct{}

func (owner) Started(dispatch.Client, bool) {}
func (owner) Joined(int)                    {}
func (owner) Accepted()                     {}
func (owner) Linger(c net.Conn)             { testkit.Linger(c) }
func (owner) Ended(error)                   {}

// settings are those of x/net/http2 as a Mux takes them.
func settings(list []xhttp2.Setting) []oneport.Setting {
	if list == nil {
		return nil
	}
	early := []oneport.Setting{}
	for _, s := range list {
		early = append(early, oneport.Setting{ID: uint16(s.ID), Value: s.Val})
	}
	return early
}
