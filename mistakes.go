package oneport

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// check returns an error for a configuration that cannot work.
func (m *Mux) check() error {
	if m.root == (noListener{}) {
		return errors.New("oneport: New was called without a listener: create one with net.Listen or oneport.Listen")
	}
	for rt := range m.allRoutes {
		if err := checkMatchers(rt.name, rt.matchers); err != nil {
			return err
		}
		switch {
		case rt.tls != nil:
			if err := rt.tls.check(); err != nil {
				return err
			}
		case rt.requests != nil:
			routes := *rt.requests.routes.Load()
			if len(routes) == 0 {
				return errors.New("oneport: a RequestMux has no routes: call its Match before Serve")
			}
			for _, r := range routes {
				if err := checkMatchers(r.name, r.matchers); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// checkMatchers returns an error for matchers of a route that cannot work.
func checkMatchers(name string, matchers []Matcher) error {
	switch {
	case len(matchers) == 0:
		return fmt.Errorf("oneport: route %q has no matchers and would take nothing: add one, such as Any(), which takes everything", name)
	case slices.ContainsFunc(matchers, isBroken):
		return fmt.Errorf("oneport: a matcher of route %q is nil", name)
	}
	return nil
}

// isBroken reports whether calling m would panic.
func isBroken(m Matcher) bool {
	switch m := m.(type) {
	case nil:
		return true
	case *builtin:
		return m == nil || m.broken
	case MatcherFunc:
		return m == nil
	case *readerMatcher:
		return m == nil || m.f == nil
	}
	return false
}

// covered returns the protocols for which one of the matchers takes every client.
func covered(matchers []Matcher) (l languages) {
	for _, m := range matchers {
		if b, ok := m.(*builtin); ok && b != nil {
			l |= b.covers
		}
	}
	return l
}

// warnOfRoutes logs which routes cannot be reached, because the routes before them take everything.
func (m *Mux) warnOfRoutes() {
	m.warnOf(*m.routes.Load(), false)
	for rt := range m.allRoutes {
		switch {
		case rt.tls != nil:
			m.warnOf(*rt.tls.routes.Load(), true)
		case rt.requests != nil:
			above := languages(0)
			for _, r := range *rt.requests.routes.Load() {
				m.warnUnreachable(r.name, above&speaksHTTP2 != 0)
				above |= covered(r.matchers)
			}
		}
	}
}

func (m *Mux) warnOf(routes []*route, inTLS bool) {
	above := languages(0)
	for _, rt := range routes {
		t := takenByAny(rt.matchers)
		l := t.bare
		if inTLS {
			l = t.inTLS
		}
		m.warnUnreachable(rt.name, l != 0 && l&^above == 0 && !(rt.upgrade && above&speaksHTTP1 == 0))
		above |= covered(rt.matchers)
	}
}

func (m *Mux) warnUnreachable(name string, unreachable bool) {
	if unreachable {
		m.log(slog.LevelWarn, "oneport: no connection can reach a route, "+
			"because the routes before it take everything that it could: "+
			"add specific routes, such as GRPC() or Path(...), before general ones, such as HTTP2() or Any()",
			slog.String("route", name), slog.Any("local", m.Addr()))
	}
}

// warnOfUpgrade logs once that a HEAD or OPTIONS request has upgraded a connection on a route for whole connections,
// although gRPC calls, which may follow on the connection, have a route of their own.
func (m *Mux) warnOfUpgrade(rt *route, p *Preview) {
	if rt.requests != nil {
		return // each call goes where it belongs
	}
	isGRPC := func(m Matcher) bool {
		b, ok := m.(*builtin)
		return ok && b.name == "GRPC"
	}
	saysNothing := slices.ContainsFunc(p.upgradeRequest.Fields(), func(f hpack.HeaderField) bool {
		return f.Name == ":method" && (f.Value == http.MethodHead || f.Value == http.MethodOptions)
	})
	if !saysNothing || !slices.ContainsFunc(*m.routes.Load(), func(other *route) bool {
		return other != rt && slices.ContainsFunc(other.matchers, isGRPC)
	}) {
		return
	}
	m.upgrades.Do(func() {
		m.log(slog.LevelWarn, "oneport: a HEAD or OPTIONS request upgraded a connection to h2c, "+
			"and gRPC calls on it will go to the same server: "+
			"dispatch its requests with Mux.RequestsRoute, or use a Server",
			slog.String("route", rt.name), slog.Any("local", m.Addr()))
	})
}

// acceptPatience is how long the first connection for a route waits until it is logged that nobody accepts.
const acceptPatience = 3 * time.Second

// awaitServer checks later whether a server has begun to accept from the route.
func (rt *route) awaitServer() {
	rt.mux.awaitServer(rt.name, func() int {
		if rt.accepting.Load() || rt.isClosed() {
			return 0
		}
		return rt.queue.Len()
	})
}

// awaitServer is the same for a route for requests.
func (rt *requestRoute) awaitServer(m *Mux) {
	m.awaitServer(rt.name, func() int {
		if rt.Accepting() || rt.IsClosed() {
			return 0
		}
		return rt.Stats().Queued
	})
}

// awaitServer logs that connections wait for a route from which nobody accepts, if after some time there are any.
func (m *Mux) awaitServer(route string, waiting func() int) {
	time.AfterFunc(acceptPatience, func() {
		if n := waiting(); n > 0 {
			m.log(slog.LevelWarn, "oneport: connections wait for a route, but nobody accepts from its listener: "+
				"call Serve of its server with the listener that Match or Route returned",
				slog.String("route", route), slog.Int("connections", n), slog.Any("local", m.Addr()))
		}
	})
}

// A route is reported if none of so many accepted connections has reached it in this time.
const (
	reachConns = 10_000
	reachTime  = 10 * time.Minute
)

// A reach knows which routes no connection has reached so far.
type reach struct {
	mu     sync.Mutex
	routes map[string]*unreached // by name
	exempt map[string]bool       // names of routes that may well get no connections
}

type unreached struct {
	since    time.Time
	accepted uint64 // connections, at that time
	reported bool
}

// servers yields the routes that lead to servers: their names, whether a connection or a request has reached them, and
// whether they are closed.
func (m *Mux) servers(yield func(name string, reached, closed bool)) {
	for rt := range m.allRoutes {
		switch {
		case rt.tls != nil:
			// its routes come next
		case rt.requests != nil:
			for _, r := range *rt.requests.routes.Load() {
				s := r.Stats()
				yield(r.name, s.Accepted+s.Requests > 0 || s.Queued > 0, r.IsClosed())
			}
		default:
			yield(rt.name, rt.matched.Load() > 0 || rt.queue.Len() > 0, rt.isClosed())
		}
	}
}

// warnOfUnreached logs once for each route that no connection has reached it, when there were many. It is called with
// the number of connections before the first, and at every reachConns-th.
func (m *Mux) warnOfUnreached(accepted uint64) {
	now := time.Now()
	r := &m.reach
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.routes == nil {
		r.routes = make(map[string]*unreached)
	}
	m.servers(func(name string, reached, closed bool) {
		u := r.routes[name]
		switch {
		case reached, closed, r.exempt[name]:
			delete(r.routes, name)
		case u == nil:
			r.routes[name] = &unreached{since: now, accepted: accepted}
		case !u.reported && now.Sub(u.since) >= reachTime:
			u.reported = true
			m.log(slog.LevelInfo, "oneport: no connection has reached a route: "+
				"check its matchers, and whether an earlier route takes its connections",
				slog.String("route", name), slog.Any("local", m.Addr()), slog.Time("since", u.since),
				slog.Uint64("connections", accepted-u.accepted), help(sectionReach))
		}
	})
}

// exemptNew exempts the routes that add adds: a Server has routes for everything that clients may do.
func (m *Mux) exemptNew(add func()) {
	names := make(map[string]bool)
	m.servers(func(name string, _, _ bool) { names[name] = true })
	add()
	m.reach.exempt = make(map[string]bool)
	m.servers(func(name string, _, _ bool) { m.reach.exempt[name] = !names[name] })
}

// noListener stands for a listener where there is none.
type noListener struct{}

func (noListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (noListener) Close() error              { return nil }
func (noListener) Addr() net.Addr            { return &net.TCPAddr{} }
