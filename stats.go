package oneport

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/oneport-go/oneport/internal/lobby"
)

// Stats are the counters of a [Mux] or a [Server]. Accepted is the sum of Matched, Refused, Undecided and Queued,
// except for connections that are just moving from one to the next.
type Stats struct {
	Accepted uint64                  // connections accepted from the listener
	Matched  uint64                  // connections that a server has accepted
	Refused  map[RefuseReason]uint64 // connections closed before a server had them; only reasons that occurred

	// RefusedByRoute has those of Refused that a route had taken, by the name of the route: also that of a TLSMux, whose
	// handshakes can fail, or of a RequestMux. It has only routes and reasons that occurred.
	RefusedByRoute map[string]map[RefuseReason]uint64

	// Current numbers of connections.
	Undecided int // without a route, or waiting for room in the queue of one
	Queued    int // in the queues of the routes
	Refusing  int // among Refused: those that are still being answered
	Passing   int // among Matched: those whose requests are dispatched and have all gone to one server
	Shared    int // among Matched: those whose requests are dispatched and have gone to several servers

	Split uint64 // connections that have become Shared since the start

	ALPN             map[string]uint64 // completed TLS handshakes by negotiated protocol; "" for none
	HTTP2WithoutALPN uint64            // connections with HTTP/2 inside TLS without ALPN
	Upgraded         uint64            // connections upgraded to HTTP/2 by Upgrade: h2c
	EarlySettings    uint64            // connections that were sent an early SETTINGS frame
	AcceptErrors     uint64            // temporary errors of Accept
	Abused           uint64            // connections closed for exceeding a limit after a server had them

	Routes []RouteStats // in the order of the routes; those of a TLSMux or a RequestMux take its place
}

// RouteStats are the counters of one route.
type RouteStats struct {
	Name    string // unique in its Mux
	Matched uint64 // connections that the server has accepted
	Queued  int    // connections in the queue of the route now

	// Requests counts the requests that went to the route's server where requests are dispatched; otherwise it is 0.
	// Each [RequestMux] has one more entry behind its routes, with its own name and "/none": its Requests are those that
	// no route took, its Refused those that were reset because their server could not take them.
	Requests uint64
	Refused  uint64
}

func (s *Stats) init() {
	if s.Refused == nil {
		s.Refused, s.ALPN = make(map[RefuseReason]uint64), make(map[string]uint64)
		s.RefusedByRoute = make(map[string]map[RefuseReason]uint64)
	}
}

// add adds the counts of another Mux of the same Server.
func (s *Stats) add(t Stats) {
	s.Accepted += t.Accepted
	s.Matched += t.Matched
	s.Undecided += t.Undecided
	s.Queued += t.Queued
	s.Refusing += t.Refusing
	s.Passing += t.Passing
	s.Split += t.Split
	s.Shared += t.Shared
	s.HTTP2WithoutALPN += t.HTTP2WithoutALPN
	s.Upgraded += t.Upgraded
	s.EarlySettings += t.EarlySettings
	s.AcceptErrors += t.AcceptErrors
	s.Abused += t.Abused
	for reason, n := range t.Refused {
		s.Refused[reason] += n
	}
	for route, refused := range t.RefusedByRoute {
		for reason, n := range refused {
			s.addRefused(route, reason, n)
		}
	}
	for protocol, n := range t.ALPN {
		s.ALPN[protocol] += n
	}
	for _, r := range t.Routes {
		i := slices.IndexFunc(s.Routes, func(have RouteStats) bool { return have.Name == r.Name })
		if i < 0 {
			s.Routes = append(s.Routes, r)
			continue
		}
		have := &s.Routes[i]
		have.Matched += r.Matched
		have.Queued += r.Queued
		have.Requests += r.Requests
		have.Refused += r.Refused
	}
}

// addRefused adds n connections to those that a route had taken.
func (s *Stats) addRefused(route string, reason RefuseReason, n uint64) {
	if s.RefusedByRoute[route] == nil {
		s.RefusedByRoute[route] = make(map[RefuseReason]uint64)
	}
	s.RefusedByRoute[route][reason] += n
}

// Stats returns the current counters. It may be called at any time, also after Serve has returned.
func (m *Mux) Stats() Stats {
	s := Stats{
		Accepted:         m.counters.accepted.Load(),
		Refused:          make(map[RefuseReason]uint64),
		RefusedByRoute:   make(map[string]map[RefuseReason]uint64),
		ALPN:             m.counters.alpnCounts(),
		HTTP2WithoutALPN: m.counters.withoutALPN.Load(),
		Upgraded:         m.counters.upgraded.Load(),
		EarlySettings:    m.counters.earlySettings.Load(),
		AcceptErrors:     m.counters.acceptErrors.Load(),
		Abused:           m.counters.abused.Load(),
		Matched:          m.counters.dispatched.Load(),
	}
	for reason, n := range m.counters.refused.counts {
		s.Refused[reason] += n
	}
	for rt := range m.allRoutes {
		for reason, n := range rt.refused.counts {
			s.Refused[reason] += n
			s.addRefused(rt.name, reason, n)
		}
		switch {
		case rt.tls != nil:
			// counted inside
		case rt.requests != nil:
			now, total := rt.requests.engine.Shared()
			s.Shared += now
			s.Split += total
			s.Routes = append(s.Routes, rt.requests.stats()...)
		default:
			r := RouteStats{Name: rt.name, Matched: rt.matched.Load(), Queued: rt.queue.Len()}
			s.Matched += r.Matched
			s.Routes = append(s.Routes, r)
		}
	}
	for phase, n := range m.lobby.Counts() {
		switch p := lobby.Phase(phase); {
		case p.Undecided():
			s.Undecided += n
		case p == lobby.Queued:
			s.Queued = n
		case p == lobby.Dispatched:
			s.Passing = max(0, n-s.Shared)
		case p == lobby.Refusing:
			s.Refusing = n
		}
	}
	return s
}

type counters struct {
	accepted      atomic.Uint64
	dispatched    atomic.Uint64
	withoutALPN   atomic.Uint64
	upgraded      atomic.Uint64
	earlySettings atomic.Uint64
	acceptErrors  atomic.Uint64
	abused        atomic.Uint64
	refused       refusals // before a route had taken them

	mu   sync.Mutex
	alpn map[string]uint64 // how many connections inside TLS have negotiated which protocol
}

// refusals counts refused connections by reason.
type refusals [reasons]atomic.Uint64

// counts yields the reasons that occurred.
func (r *refusals) counts(yield func(RefuseReason, uint64) bool) {
	for i := range r {
		if n := r[i].Load(); n > 0 && !yield(RefuseReason(i), n) {
			return
		}
	}
}

// negotiated counts a TLS handshake.
func (c *counters) negotiated(protocol string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alpn == nil {
		c.alpn = make(map[string]uint64)
	}
	c.alpn[protocol]++
}

func (c *counters) alpnCounts() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.alpn)
}
