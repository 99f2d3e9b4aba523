package oneport

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/oneport-go/oneport/internal/h2"
)

// clientPreface is what an HTTP/2 client sends before its first request.
const clientPreface = h2.Preface + settingsFrame

// requestFrame is a request without content for a path.
func requestFrame(stream uint32, path string) string {
	block := append([]byte{0x82, 0x86, 0x04, byte(len(path))}, path...)
	return string(h2.AppendHeaders(nil, stream, true, nil, block, h2.DefaultMaxFrameSize))
}

// A statsPort is a mux with a route of each kind, whose servers accept when they are told.
type statsPort struct {
	t      *testing.T
	root   *pipeListener
	mux    *Mux
	routes map[string]net.Listener
}

func newStatsPort(t *testing.T) *statsPort {
	p := &statsPort{t: t, root: newPipeListener(), routes: make(map[string]net.Listener)}
	p.mux = newMux(p.root)
	p.mux.ControlBurst, p.mux.ControlRate = 1, 1
	p.routes["http1"] = p.mux.Route(Route{Name: "http1", Matchers: []Matcher{HTTP1()}})
	q := p.mux.RequestsRoute(Route{Name: "h2", Upgrade: true})
	p.routes["a"] = q.Route(Route{Name: "a", Matchers: []Matcher{Path("/a")}})
	p.routes["b"] = q.Route(Route{Name: "b", Matchers: []Matcher{Path("/b")}})
	inside := p.mux.TLS(serverTLS())
	p.routes["tls/http1"] = inside.Route(Route{Name: "http1", Matchers: []Matcher{HTTP1()}})
	p.routes["tls/a"] = inside.Requests().Route(Route{Name: "a", Matchers: []Matcher{Path("/a")}})
	serve(t, p.mux)
	return p
}

// send has a new client send something. What it gets is thrown away.
func (p *statsPort) send(s string) net.Conn {
	c := dial(p.t, p.root)
	go io.Copy(io.Discard, c)
	write(p.t, c, []byte(s))
	synctest.Wait()
	return c
}

// sendTLS is send inside TLS.
func (p *statsPort) sendTLS(s string, alpn ...string) net.Conn {
	config := clientTLS(alpn...)
	config.InsecureSkipVerify = true // by the clock of the test no certificate is valid yet
	c := tls.Client(dial(p.t, p.root), config)
	if err := c.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	go io.Copy(io.Discard, c)
	go c.Write([]byte(s)) // which the server reads, if ALPN says enough
	synctest.Wait()
	return c
}

// accept has the server of a route accept, and read.
func (p *statsPort) accept(route string) net.Conn {
	c := accept(p.t, p.routes[route])
	go io.Copy(io.Discard, c)
	synctest.Wait()
	return c
}

// TestStatsCounts does one thing each, and checks all counts.
func TestStatsCounts(t *testing.T) {
	t.Parallel()
	routes := func(change map[string]RouteStats) []RouteStats {
		var list []RouteStats
		for _, name := range []string{"http1", "h2/a", "h2/b", "h2/none", "tls/http1", "tls/requests/a", "tls/requests/none"} {
			r := change[name]
			r.Name = name
			list = append(list, r)
		}
		return list
	}
	// Every row is the change that it makes to the counts of an idle mux with 1 accepted connection.
	for _, tt := range []struct {
		name   string
		do     func(p *statsPort)
		want   Stats
		routes map[string]RouteStats
	}{
		{"says nothing", func(p *statsPort) { p.send("") }, Stats{Undecided: 1}, nil},
		{"says a part", func(p *statsPort) { p.send("GET / HT") }, Stats{Undecided: 1}, nil},
		{"waits for SETTINGS", func(p *statsPort) { p.send(clientPreface) }, Stats{Undecided: 1, EarlySettings: 1}, nil},
		{"is queued", func(p *statsPort) { p.send("GET / HTTP/1.1\r\n\r\n") },
			Stats{Queued: 1}, map[string]RouteStats{"http1": {Queued: 1}}},
		{"is accepted", func(p *statsPort) { p.send("GET / HTTP/1.1\r\n\r\n"); p.accept("http1") },
			Stats{Matched: 1}, map[string]RouteStats{"http1": {Matched: 1}}},
		{"is refused", func(p *statsPort) { p.send("\x00\x00\x00"); time.Sleep(time.Minute) },
			Stats{Refused: map[RefuseReason]uint64{ReasonNoRoute: 1}}, nil},
		{"times out", func(p *statsPort) { p.send(""); time.Sleep(time.Minute) },
			Stats{Refused: map[RefuseReason]uint64{ReasonTimeout: 1}}, nil},
		{"goes", func(p *statsPort) { p.send("").Close(); synctest.Wait() },
			Stats{Refused: map[RefuseReason]uint64{ReasonClientClosed: 1}}, nil},
		{"passes", func(p *statsPort) { p.send(clientPreface + requestFrame(1, "/a")); p.accept("a") },
			Stats{Matched: 1, Passing: 1}, map[string]RouteStats{"h2/a": {Matched: 1, Requests: 1}}},
		{"has passed", func(p *statsPort) {
			c := p.send(clientPreface + requestFrame(1, "/a") + requestFrame(3, "/a"))
			server := p.accept("a")
			c.Close()
			server.Close()
			synctest.Wait()
		}, Stats{Matched: 1}, map[string]RouteStats{"h2/a": {Matched: 1, Requests: 2}}},
		{"passes late", func(p *statsPort) {
			c := p.send(clientPreface)
			write(p.t, c, []byte(ackFrame+requestFrame(1, "/a")))
			p.accept("a")
		}, Stats{Matched: 1, Passing: 1, EarlySettings: 1}, map[string]RouteStats{"h2/a": {Matched: 1, Requests: 1}}},
		{"is shared", func(p *statsPort) {
			c := p.send(clientPreface + requestFrame(1, "/a"))
			p.accept("a")
			write(p.t, c, []byte(requestFrame(3, "/b")))
			p.accept("b")
		}, Stats{Matched: 1, Shared: 1, Split: 1}, map[string]RouteStats{"h2/a": {Matched: 1, Requests: 1}, "h2/b": {Matched: 1, Requests: 1}}},
		{"asks for nothing that there is", func(p *statsPort) { p.send(clientPreface + requestFrame(1, "/c")) },
			Stats{Undecided: 1}, map[string]RouteStats{"h2/none": {Requests: 1}}},
		{"negotiates h2", func(p *statsPort) { p.sendTLS(clientPreface+requestFrame(1, "/a"), "h2"); p.accept("tls/a") },
			Stats{Matched: 1, Passing: 1, ALPN: map[string]uint64{"h2": 1}},
			map[string]RouteStats{"tls/requests/a": {Matched: 1, Requests: 1}}},
		{"speaks HTTP/2 without ALPN", func(p *statsPort) { p.sendTLS(clientPreface + requestFrame(1, "/a")); p.accept("tls/a") },
			Stats{Matched: 1, Passing: 1, ALPN: map[string]uint64{"": 1}, HTTP2WithoutALPN: 1},
			map[string]RouteStats{"tls/requests/a": {Matched: 1, Requests: 1}}},
		{"negotiates http/1.1", func(p *statsPort) { p.sendTLS("GET / HTTP/1.1\r\n\r\n", "http/1.1"); p.accept("tls/http1") },
			Stats{Matched: 1, ALPN: map[string]uint64{"http/1.1": 1}}, map[string]RouteStats{"tls/http1": {Matched: 1}}},
		{"fails in the handshake", func(p *statsPort) { p.send("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"); time.Sleep(time.Minute) },
			Stats{Refused: map[RefuseReason]uint64{ReasonHandshake: 1},
				RefusedByRoute: map[string]map[RefuseReason]uint64{"tls": {ReasonHandshake: 1}}}, nil},
		{"is refused by its route", func(p *statsPort) { p.send("GET / HTTP/1.1\r\n\r\n"); p.routes["http1"].Close() },
			Stats{Refused: map[RefuseReason]uint64{ReasonRouteClosed: 1},
				RefusedByRoute: map[string]map[RefuseReason]uint64{"http1": {ReasonRouteClosed: 1}}}, nil},
		{"is refused by its server", func(p *statsPort) {
			p.send(clientPreface + requestFrame(1, "/a"))
			time.Sleep(time.Minute)
		}, Stats{Refused: map[RefuseReason]uint64{ReasonQueueFull: 1},
			RefusedByRoute: map[string]map[RefuseReason]uint64{"h2": {ReasonQueueFull: 1}}},
			map[string]RouteStats{"h2/a": {Requests: 1}}},
		{"errors of Accept", func(p *statsPort) {
			p.send("")
			p.root.errs <- acceptError(syscall.ECONNABORTED)
			synctest.Wait()
		}, Stats{Undecided: 1, AcceptErrors: 1}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newStatsPort(t)
				tt.do(p)
				synctest.Wait()
				want := tt.want
				want.Accepted = 1
				want.Routes = routes(tt.routes)
				got := p.mux.Stats()
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Error(diff)
				}
				if sum := got.Matched + refusedCount(got) + uint64(got.Undecided+got.Queued); sum != got.Accepted {
					t.Errorf("%d connections were accepted, and there are %d", got.Accepted, sum)
				}
			})
		})
	}
}

func refusedCount(s Stats) (n uint64) {
	for _, k := range s.Refused {
		n += k
	}
	return n
}

// TestStatsUpgraded counts an upgraded connection.
func TestStatsUpgraded(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	m := newMux(l)
	serveHTTP(t, m.Route(Route{Matchers: []Matcher{HTTP2()}, Upgrade: true}), echo)
	serve(t, m)
	upgradeConn(t, l, "GET", "/", "").answer(t, 1)
	if s := m.Stats(); s.Upgraded != 1 || s.Matched != 1 {
		t.Errorf("%+v", s)
	}
}

// TestStatsAbused counts a connection that is ended for going over a limit.
func TestStatsAbused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newStatsPort(t)
		c := p.send(clientPreface + requestFrame(1, "/a"))
		p.accept("a")
		go c.Write([]byte(strings.Repeat(pingFrame, 10)))
		time.Sleep(time.Minute)
		if s := p.mux.Stats(); s.Abused != 1 || s.Matched != 1 || s.Passing+s.Shared+s.Refusing != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestUniqueRouteNames gives routes of all kinds the same name, or none.
func TestUniqueRouteNames(t *testing.T) {
	t.Parallel()
	m := newMux(newPipeListener())
	m.Route(Route{Name: "x", Matchers: []Matcher{HTTP1()}})
	m.Route(Route{Name: "x#2", Matchers: []Matcher{HTTP1()}})
	m.Route(Route{Name: "x", Matchers: []Matcher{HTTP1()}})
	m.Match(HTTP1(), SSH())
	m.Match(HTTP1(), SSH())
	for range 2 {
		inside := m.TLS(serverTLS())
		inside.Route(Route{Name: "x", Matchers: []Matcher{HTTP1()}})
		for range 2 {
			inside.Requests().Route(Route{Name: "x", Matchers: []Matcher{Any()}})
		}
		q := m.RequestsRoute(Route{Name: "x"})
		q.Route(Route{Name: "y", Matchers: []Matcher{Any()}})
		q.Route(Route{Name: "none", Matchers: []Matcher{Any()}})
	}
	var names []string
	for _, r := range m.Stats().Routes {
		names = append(names, r.Name)
	}
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	if unique := slices.Compact(slices.Clone(sorted)); len(unique) != len(names) {
		t.Errorf("not all names are unique: %q", sorted)
	}
	for _, want := range []string{"x", "x#2", "x#3", "HTTP1() or SSH()", "HTTP1() or SSH()#2", "tls/x", "tls#2/x", "tls/requests/x", "x#4/none", "x#4/none#2"} {
		if !slices.Contains(names, want) {
			t.Errorf("no route has the name %q: %q", want, names)
		}
	}
}

// backwards returns the counters that have become smaller.
func backwards(before, after Stats) (list []string) {
	check := func(name string, before, after uint64) {
		if after < before {
			list = append(list, name)
		}
	}
	check("Accepted", before.Accepted, after.Accepted)
	check("Matched", before.Matched, after.Matched)
	check("Split", before.Split, after.Split)
	check("HTTP2WithoutALPN", before.HTTP2WithoutALPN, after.HTTP2WithoutALPN)
	check("Upgraded", before.Upgraded, after.Upgraded)
	check("EarlySettings", before.EarlySettings, after.EarlySettings)
	check("AcceptErrors", before.AcceptErrors, after.AcceptErrors)
	check("Abused", before.Abused, after.Abused)
	for reason, n := range before.Refused {
		check("Refused "+reason.String(), n, after.Refused[reason])
	}
	for route, refused := range before.RefusedByRoute {
		for reason, n := range refused {
			check("Refused "+reason.String()+" by "+route, n, after.RefusedByRoute[route][reason])
		}
	}
	for alpn, n := range before.ALPN {
		check("ALPN "+alpn, n, after.ALPN[alpn])
	}
	for _, r := range before.Routes {
		i := slices.IndexFunc(after.Routes, func(s RouteStats) bool { return s.Name == r.Name })
		if i < 0 {
			list = append(list, "route "+r.Name)
			continue
		}
		check("Matched of "+r.Name, r.Matched, after.Routes[i].Matched)
		check("Requests of "+r.Name, r.Requests, after.Routes[i].Requests)
		check("Refused of "+r.Name, r.Refused, after.Routes[i].Refused)
	}
	return list
}

// TestServerStats serves on two listeners, one of which ends before the other, and checks that the counts add up, that
// no counter goes backwards, and that connections which outlive their listener are counted as long as they are there.
func TestServerStats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		more := make(chan struct{})
		s := &Server{
			GRPC: newCountingGRPC(),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-more:
				case <-r.Context().Done():
				}
			}),
			Logger: quiet,
		}
		var last Stats
		stats := func() Stats {
			t.Helper()
			synctest.Wait()
			now := s.Stats()
			if list := backwards(last, now); list != nil {
				t.Errorf("these went backwards: %q\nfrom %+v\nto %+v", list, last, now)
			}
			if sum := now.Matched + refusedCount(now) + uint64(now.Undecided+now.Queued); sum != now.Accepted {
				t.Errorf("%d connections were accepted, and there are %d: %+v", now.Accepted, sum, now)
			}
			last = now
			return now
		}
		if got := stats(); got.Accepted != 0 {
			t.Errorf("before Serve: %+v", got)
		}
		roots := []*pipeListener{newPipeListener(), newPipeListener()}
		ended := []chan error{make(chan error, 1), make(chan error, 1)}
		var asking []net.Conn
		for i, root := range roots {
			go func() { ended[i] <- s.Serve(root) }()
			for range i + 1 {
				c := dial(t, root)
				go io.Copy(io.Discard, c)
				write(t, c, []byte(clientPreface+requestFrame(1, "/")))
				asking = append(asking, c)
			}
			refused := dial(t, root)
			go io.Copy(io.Discard, refused)
			write(t, refused, []byte("\x00"))
			dial(t, root) // and says nothing
		}
		got := stats()
		if got.Accepted != 7 || got.Passing != 3 || got.Matched != 3 || got.Refused[ReasonNoRoute] != 2 || got.Undecided != 2 {
			t.Errorf("on two listeners: %+v", got)
		}
		i := slices.IndexFunc(got.Routes, func(r RouteStats) bool { return r.Name == "http2/http" })
		if i < 0 || got.Routes[i].Requests != 3 || len(got.Routes) != 4 {
			t.Errorf("routes %+v", got.Routes)
		}
		roots[0].Close()
		stats()
		time.Sleep(2 * time.Second) // for the silent one
		if got := stats(); got.Undecided != 1 || got.Refused[ReasonShutdown] != 1 || got.Passing != 3 {
			t.Errorf("after one was closed: %+v", got)
		}
		asking[0].Close()
		<-ended[0]
		if got := stats(); got.Passing != 2 || got.Matched != 3 {
			t.Errorf("after one has ended: %+v", got)
		}

		stopped := make(chan error, 1)
		go func() { stopped <- s.Shutdown(t.Context()) }()
		time.Sleep(2 * time.Second)
		<-ended[1]
		if got := stats(); got.Undecided != 0 || got.Refused[ReasonShutdown] != 2 || got.Passing != 2 {
			t.Errorf("while requests are being answered: %+v", got)
		}
		close(more)
		s.GRPC.Stop()
		for _, c := range asking[1:] {
			c.Close()
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got := stats(); got.Passing+got.Shared+got.Refusing+got.Undecided != 0 || got.Accepted != 7 || got.Matched != 3 {
			t.Errorf("in the end: %+v", got)
		}
		if len(s.ports) != 0 {
			t.Errorf("the server keeps %d muxes that have ended", len(s.ports))
		}
	})
}

// TestServerStatsRefused checks that refusals of all listeners are summed by route, also of one that has ended.
func TestServerStatsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: protoHandler, TLSConfig: serverTLS(), Logger: quiet}
		roots := []*pipeListener{newPipeListener(), newPipeListener()}
		ended := make(chan error, len(roots))
		for _, root := range roots {
			go func() { ended <- s.Serve(root) }()
			for _, rubbish := range []string{"\x00\x00\x00", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"} {
				c := dial(t, root)
				go io.Copy(io.Discard, c)
				write(t, c, []byte(rubbish))
			}
		}
		time.Sleep(time.Minute)
		want := map[string]map[RefuseReason]uint64{"tls": {ReasonHandshake: 2}}
		for _, when := range []string{"on two listeners", "after one has ended", "in the end"} {
			got := s.Stats()
			if diff := cmp.Diff(want, got.RefusedByRoute); diff != "" || refusedCount(got) != 4 {
				t.Errorf("%s: %+v, %s", when, got.Refused, diff)
			}
			switch when {
			case "on two listeners":
				roots[0].Close()
				<-ended
			case "after one has ended":
				s.Close()
				<-ended
			}
		}
	})
}

// TestServerStatsClose checks that what is refused after Serve has returned is counted.
func TestServerStatsClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const silent = 20
		s := &Server{Handler: protoHandler, Logger: quiet}
		root := newPipeListener()
		done := make(chan error, 1)
		go func() { done <- s.Serve(root) }()
		for range silent {
			dial(t, root)
		}
		synctest.Wait()
		s.Close()
		<-done
		synctest.Wait()
		if got := s.Stats(); got.Refused[ReasonShutdown] != silent || got.Accepted != silent {
			t.Errorf("%+v", got)
		}
	})
}

func TestStats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		get := m.Match(HTTP1("GET"))
		m.Route(Route{Name: "other methods", Matchers: []Matcher{HTTP1()}})
		serve(t, m)
		for _, sends := range []string{"GET / HTTP/1.1\r\n", "PUT / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n", "", "\x00"} {
			c := dial(t, root)
			go io.WriteString(c, sends)
			go io.Copy(io.Discard, c)
		}
		accept(t, get)
		synctest.Wait()
		want := Stats{
			Accepted:       5,
			Matched:        1,
			Refused:        map[RefuseReason]uint64{ReasonNoRoute: 1},
			RefusedByRoute: map[string]map[RefuseReason]uint64{},
			Undecided:      1,
			Queued:         2,
			Routes:         []RouteStats{{Name: `HTTP1("GET")`, Matched: 1, Queued: 1}, {Name: "other methods", Queued: 1}},
		}
		if diff := cmp.Diff(want, m.Stats()); diff != "" {
			t.Error(diff)
		}
	})
}
