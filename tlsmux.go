package oneport

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync/atomic"

	"github.com/oneport-go/oneport/internal/clienthello"
)

// The ALPN names of HTTP (RFC 9113, Section 3.2; RFC 7301, Section 6).
const (
	alpnHTTP2 = "h2"
	alpnHTTP1 = "http/1.1"
)

// A TLSMux routes the connections inside TLS that its [Mux] terminates. Create one with [Mux.TLS]. Its routes have the
// same matchers, limits and hooks as those of the Mux.
//
// The server of a route gets the *tls.Conn if the route depends only on the protocol that ALPN has negotiated. If the
// mux also had to read bytes inside TLS, the server gets a [TLSConn]. An [http.Server] gets HTTP/2 on a [Conn] in that
// case: see [ConfigureHTTP]. The first connections of grpc-go are always a TLSConn, so that the mux can check whether
// it speaks HTTP/2 there.
//
// Set the fields before [Mux.Serve] is called. The methods may be called by several goroutines at once.
type TLSMux struct {
	// HTTP1Only lists server names, or patterns as for [ServerName], for which only "http/1.1" is offered by ALPN. It
	// is a remedy for clients or servers whose HTTP/2 is broken.
	HTTP1Only []string

	// RedirectHTTP redirects an HTTP/1 client that does not use TLS, and for which there is no route, to the same
	// address with https (308 Permanent Redirect). Without RedirectHTTP such a client is answered 400.
	RedirectHTTP bool

	mux     *Mux
	route   *route // that leads here
	config  *tls.Config
	routes  atomic.Pointer[[]*route]
	configs atomic.Pointer[tlsConfigs]
}

// tlsConfigs are the configurations for the routes that there are.
type tlsConfigs struct {
	routes          *[]*route
	offered         []string
	base, http1Only *tls.Config
}

// TLS adds a route that terminates TLS, and returns the TLSMux for the routes inside TLS. The route takes the TLS
// connections whose ClientHello at least one of the matchers accepts; without matchers it takes all. Like the routes of
// [Mux.Match] it is tried in the order of the calls.
//
// The config is a server configuration, as for [tls.Server], and must not be changed afterwards. If NextProtos is
// empty, ALPN (RFC 7301) offers what the routes inside TLS can take: "h2", then "http/1.1", then the protocols named by
// [ALPN] matchers. The same holds for a configuration that GetConfigForClient returns. [Limits.HandshakeTimeout] bounds
// the handshake.
func (m *Mux) TLS(config *tls.Config, matchers ...Matcher) *TLSMux {
	return m.TLSRoute(Route{Matchers: matchers}, config)
}

// TLSRoute adds a route that terminates TLS as [Mux.TLS] does, with settings. Its default name is "tls". Upgrade and
// SettingsACK have no effect.
func (m *Mux) TLSRoute(r Route, config *tls.Config) *TLSMux {
	if len(r.Matchers) == 0 {
		r.Matchers = []Matcher{TLS()}
	}
	s := &TLSMux{mux: m, config: config}
	s.routes.Store(new([]*route))
	s.route = newRoute(m, "", Route{Name: cmp.Or(r.Name, "tls"), Matchers: r.Matchers})
	s.route.tls = s
	m.addTo(&m.routes, s.route)
	return s
}

// Match adds a route for the connections inside TLS that at least one of the matchers accepts, and returns the listener
// for the route's server. See [Mux.Match].
func (s *TLSMux) Match(matchers ...Matcher) net.Listener {
	return s.Route(Route{Matchers: matchers})
}

// Route adds a route as [TLSMux.Match] does, with settings. Upgrade has no effect, since there is no upgrade to h2c
// inside TLS (RFC 7540, Section 3.3).
func (s *TLSMux) Route(r Route) net.Listener {
	rt := newRoute(s.mux, s.route.name+"/", r)
	s.mux.addTo(&s.routes, rt)
	return rt
}

// Requests adds a route for HTTP/2 connections inside TLS whose requests are dispatched one by one. See [Mux.Requests].
func (s *TLSMux) Requests(matchers ...Matcher) *RequestMux {
	return newRequestMux(s.mux, s.route.name+"/", &s.routes, Route{Matchers: matchers})
}

// RequestsRoute adds a route as [TLSMux.Requests] does, with settings. Its default name is "requests". Upgrade and
// SettingsACK have no effect.
func (s *TLSMux) RequestsRoute(r Route) *RequestMux {
	return newRequestMux(s.mux, s.route.name+"/", &s.routes, r)
}

// check reports what makes it impossible to terminate TLS.
func (s *TLSMux) check() error {
	c := s.config
	switch {
	case c == nil:
		return errors.New("oneport: the config of Mux.TLS is nil")
	case len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil:
		return errors.New("oneport: the config of Mux.TLS has no certificate: set Certificates, GetCertificate or GetConfigForClient")
	case len(*s.routes.Load()) == 0:
		return errors.New("oneport: a TLSMux has no routes: call its Match or Requests before Serve")
	}
	return nil
}

// handshakeConfig returns the configuration for a handshake.
func (s *TLSMux) handshakeConfig() *tls.Config {
	routes := s.routes.Load()
	if c := s.configs.Load(); c != nil && c.routes == routes {
		return c.base
	}
	c := &tlsConfigs{routes: routes, offered: offeredProtocols(*routes)}
	c.base = s.config.Clone()
	if len(c.base.NextProtos) == 0 {
		c.base.NextProtos = c.offered
	}
	if c.base.WrapSession == nil && c.base.UnwrapSession == nil {
		// The keys of session tickets are those of the config that the user has, and may change.
		c.base.WrapSession, c.base.UnwrapSession = s.config.EncryptTicket, s.config.DecryptTicket
	}
	c.http1Only = c.base.Clone()
	c.http1Only.NextProtos = []string{alpnHTTP1}
	if len(s.HTTP1Only) > 0 || s.config.GetConfigForClient != nil {
		c.base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return s.configFor(c, hello) }
	}
	s.configs.Store(c)
	return c.base
}

// configFor is what GetConfigForClient of the configuration does. The keys of session tickets stay those of the base.
func (s *TLSMux) configFor(c *tlsConfigs, hello *tls.ClientHelloInfo) (*tls.Config, error) {
	pinned := slices.ContainsFunc(s.HTTP1Only, func(pattern string) bool {
		return clienthello.MatchServerName(pattern, hello.ServerName)
	})
	var own *tls.Config
	if f := s.config.GetConfigForClient; f != nil {
		var err error
		if own, err = f(hello); err != nil {
			return nil, err
		}
	}
	switch {
	case own == nil && pinned:
		return c.http1Only, nil
	case own == nil:
		return nil, nil
	case pinned:
		own = own.Clone()
		own.NextProtos = c.http1Only.NextProtos
	case len(own.NextProtos) == 0:
		own = own.Clone()
		own.NextProtos = c.offered
	}
	return own, nil
}

// offeredProtocols returns the ALPN names for what the routes can take.
func offeredProtocols(routes []*route) []string {
	var spoken languages
	var others, names []string
	for _, rt := range routes {
		t := takenByAny(rt.matchers)
		spoken |= t.inTLS
		others = append(others, t.alpn...)
	}
	if spoken&speaksHTTP2 != 0 {
		names = append(names, alpnHTTP2)
	}
	if spoken&speaksHTTP1 != 0 {
		names = append(names, alpnHTTP1)
	}
	for _, name := range others {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
