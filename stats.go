package oneport

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are the counts of a [Mux] at one moment. Every accepted connection is in exactly one of Matched, Refused,
// Undecided and Queued, but for those on the way from one to the next.
type Stats struct {
	Accepted      uint64                  // connections that the listener below has given
	Matched       uint64                  // those that a route's server has accepted
	Refused       map[RefuseReason]uint64 // those that were closed before that; only reasons that occurred
	ALPN          map[string]uint64       // TLS handshakes that the mux has completed, by negotiated protocol, "" for none
	BareHTTP2     uint64                  // connections that have spoken HTTP/2 inside TLS without ALPN
	Undecided     int                     // those without a route at the moment
	Leaving       int                     // those of Refused that are still being answered
	Queued        int                     // those in the routes' queues at the moment
	Upgraded      uint64                  // connections that have become HTTP/2 by Upgrade: h2c
	EarlySettings uint64                  // connections to which early SETTINGS were sent
	AcceptErrors  uint64                  // errors of Accept that were waited out
	Routes        []RouteStats            // in order; in the place of a [TLSRoute] those inside it
}

// RouteStats are the counts of a route.
type RouteStats struct {
	Name    string
	Matched uint64 // connections that the route's server has accepted
	Queued  int    // those in the route's queue at the moment
}

// Stats returns the counts at this moment. It may be called at any time and costs little.
func (m *Mux) Stats() Stats {
	s := Stats{
		Accepted:      m.counters.accepted.Load(),
		Refused:       make(map[RefuseReason]uint64),
		BareHTTP2:     m.counters.bareHTTP2.Load(),
		Upgraded:      m.counters.upgraded.Load(),
		EarlySettings: m.counters.earlySettings.Load(),
		AcceptErrors:  m.counters.acceptErrors.Load(),
	}
	for rt := range m.allRoutes {
		if rt.secure != nil {
			continue // counted inside
		}
		r := RouteStats{Name: rt.name, Matched: rt.matched.Load(), Queued: len(rt.queue)}
		s.Matched += r.Matched
		s.Queued += r.Queued
		s.Routes = append(s.Routes, r)
	}
	for i := range m.counters.refused {
		if n := m.counters.refused[i].Load(); n > 0 {
			s.Refused[RefuseReason(i)] = n
		}
	}
	m.mu.Lock()
	s.Undecided, s.Leaving = m.waiting.n, m.leaving.n
	s.ALPN = maps.Clone(m.alpn)
	m.mu.Unlock()
	return s
}

type counters struct {
	accepted      atomic.Uint64
	bareHTTP2     atomic.Uint64
	upgraded      atomic.Uint64
	earlySettings atomic.Uint64
	acceptErrors  atomic.Uint64
	refused       [reasons]atomic.Uint64
}

// logLimiter lets one record per second and reason through, so that a flood of bad connections is no flood of records.
type logLimiter struct {
	mu      sync.Mutex
	last    [reasons]time.Time
	skipped [reasons]int
}

// allow reports whether to log now, and how many records of the reason were not logged since the last one.
func (l *logLimiter) allow(reason RefuseReason, now time.Time) (skipped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.last[reason]) < time.Second {
		l.skipped[reason]++
		return 0, false
	}
	skipped = l.skipped[reason]
	l.last[reason], l.skipped[reason] = now, 0
	return skipped, true
}
