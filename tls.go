package oneport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/clienthello"
	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/http1"
)

// DefaultHandshakeTimeout is what a zero [TLSRoute.HandshakeTimeout] stands for.
const DefaultHandshakeTimeout = 10 * time.Second

// The ALPN names of HTTP (RFC 9113, 3.2; RFC 7301, 6).
const (
	alpnHTTP2 = "h2"
	alpnHTTP1 = "http/1.1"
)

// A TLSRoute is a route of a [Mux] on which the mux terminates TLS. What is inside is decided again, by the routes of the
// [Secure] that it makes.
type TLSRoute struct {
	// Name stands for the route in logs, hooks and [Stats] where a connection ends before it has a route inside. If it is
	// empty, the matchers' names are used.
	Name string

	// Matchers say which connections the route takes. None means TLS(): all that start a TLS handshake.
	Matchers []Matcher

	// Config is that of the server's side: certificates by server name, client certificates, versions. It must not be
	// changed afterwards. If its NextProtos are empty, the protocols to offer by ALPN (RFC 7301) are those that the routes
	// inside can take: "h2" first, then "http/1.1", then what [ALPN] matchers name. This holds for what GetConfigForClient
	// returns as well.
	Config *tls.Config

	// HandshakeTimeout is the time that a client has for the handshake, after which DecideTimeout begins anew for what is
	// inside. Zero means 10 seconds.
	HandshakeTimeout time.Duration

	// HTTP1Only are server names, or patterns as for [ServerName], to whose clients only "http/1.1" is offered: for those
	// whose HTTP/2 is broken, on either side.
	HTTP1Only []string

	// RedirectHTTP has a client that speaks HTTP/1 without TLS, and finds no route, redirected to the same address by https
	// (308 Permanent Redirect) in place of the answer 400.
	RedirectHTTP bool
}

// Secure has the routes for what is inside TLS, which its [Mux] terminates. Its connections go to the first of its routes
// whose matchers take them, as those of a Mux do, with the same matchers, limits and hooks.
//
// Where the protocol that ALPN has negotiated is all that the route depends on, the server gets the *tls.Conn itself. Where
// the bytes had to be looked at as well, it gets a [TLSConn], or a [Conn] if it is net/http's and the protocol HTTP/2: see
// [ConfigureHTTP].
type Secure struct {
	mux      *Mux
	settings TLSRoute
	routes   atomic.Pointer[[]*route]
	configs  atomic.Pointer[tlsConfigs]
}

// tlsConfigs are the configurations for the routes that there are.
type tlsConfigs struct {
	routes          *[]*route
	offered         []string
	base, http1Only *tls.Config
}

// TLS adds a route that takes the connections which start a TLS handshake, and which one of the matchers matches if there
// are any, and terminates TLS on them. It is [Mux.TLSRoute] with the config and the matchers alone.
func (m *Mux) TLS(config *tls.Config, matchers ...Matcher) *Secure {
	return m.TLSRoute(TLSRoute{Config: config, Matchers: matchers})
}

// TLSRoute adds a route on which TLS is terminated. Its place among the routes of the mux is that of the call.
func (m *Mux) TLSRoute(r TLSRoute) *Secure {
	if len(r.Matchers) == 0 {
		r.Matchers = []Matcher{TLS()}
	}
	s := &Secure{mux: m, settings: r}
	s.settings.HTTP1Only = slices.Clone(r.HTTP1Only)
	s.routes.Store(new([]*route))
	m.addTo(&m.routes, &route{
		mux:      m,
		name:     routeName(r.Name, r.Matchers),
		matchers: slices.Clone(r.Matchers),
		closed:   make(chan struct{}),
		secure:   s,
	})
	return s
}

// Match adds a route for the connections inside TLS that one of the matchers matches. See [Mux.Match].
func (s *Secure) Match(matchers ...Matcher) net.Listener {
	return s.Route(Route{Matchers: matchers})
}

// Route is [Secure.Match] with settings for the route.
func (s *Secure) Route(r Route) net.Listener {
	rt := newRoute(s.mux, r)
	s.mux.addTo(&s.routes, rt)
	return rt
}

// check reports what makes it impossible to terminate TLS.
func (s *Secure) check() error {
	c := s.settings.Config
	switch {
	case c == nil:
		return errors.New("oneport: a TLSRoute has no Config")
	case len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil:
		return errors.New("oneport: the Config of a TLSRoute has no certificate: set Certificates, GetCertificate or GetConfigForClient")
	case len(*s.routes.Load()) == 0:
		return errors.New("oneport: there is a TLSRoute without a route inside: call Match on what TLS or TLSRoute returned")
	}
	return nil
}

// config returns the configuration for a handshake.
func (s *Secure) config() *tls.Config {
	routes := s.routes.Load()
	if c := s.configs.Load(); c != nil && c.routes == routes {
		return c.base
	}
	c := &tlsConfigs{routes: routes, offered: offeredProtocols(*routes)}
	c.base = s.settings.Config.Clone()
	if len(c.base.NextProtos) == 0 {
		c.base.NextProtos = c.offered
	}
	c.http1Only = c.base.Clone()
	c.http1Only.NextProtos = []string{alpnHTTP1}
	if len(s.settings.HTTP1Only) > 0 || s.settings.Config.GetConfigForClient != nil {
		c.base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return s.configFor(c, hello) }
	}
	s.configs.Store(c)
	return c.base
}

// configFor is what GetConfigForClient of the configuration does. The keys of session tickets stay those of the base.
func (s *Secure) configFor(c *tlsConfigs, hello *tls.ClientHelloInfo) (*tls.Config, error) {
	pinned := slices.ContainsFunc(s.settings.HTTP1Only, func(pattern string) bool {
		return clienthello.MatchServerName(pattern, hello.ServerName)
	})
	var own *tls.Config
	if f := s.settings.Config.GetConfigForClient; f != nil {
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

// handshake terminates TLS on the connection, for the routes of s. From then on u is about what is inside.
func (u *undecided) handshake(s *Secure) *refusal {
	m := u.mux
	below := u.conn
	if len(u.consumed) > 0 {
		below = newConn(u.conn, changes{replay: u.consumed})
	}
	u.endReaders()
	u.seen = len(u.preview.data)
	u.preview.data = nil
	u.peeker.release()
	u.onSocket, u.peeking, u.consumed = u.peeking, false, nil
	u.handshaking, u.since, u.language = s, time.Now(), ProtocolTLS
	if refused := u.arm(); refused != nil {
		return refused
	}
	conn := tls.Server(below, s.config())
	if err := conn.Handshake(); err != nil {
		return u.handshakeFailed(err)
	}

	state := conn.ConnectionState()
	m.mu.Lock()
	u.conn = conn
	if m.alpn == nil {
		m.alpn = make(map[string]uint64)
	}
	m.alpn[state.NegotiatedProtocol]++
	m.mu.Unlock()
	u.handshaking, u.since = nil, time.Now()
	u.routes, u.next, u.seen, u.language = *s.routes.Load(), 0, 0, ProtocolUnknown
	u.preview.enterTLS(conn, &state)
	return nil
}

// recordTime is how long the rest of a TLS record, of which the beginning has come, is waited for before early SETTINGS are
// sent: longer than the segments of one flight are apart.
const recordTime = 5 * time.Millisecond

// takeReceived takes out of TLS what the client has sent already, and reports whether there was any. One read takes one
// record, and clients put the frames of their first flight into several: only when none is left is it known that the
// request is not there, and early SETTINGS are due.
func (u *undecided) takeReceived() bool {
	limit := u.mux.maxPreviewBytes()
	before := len(u.consumed)
	for read := -1; read != len(u.consumed) && len(u.consumed) < limit; {
		read = len(u.consumed)
		// Without time to wait crypto/tls gives what it has read already and not looked at. An error comes up again.
		if u.raw.SetReadDeadline(aLongTimeAgo) != nil {
			break
		}
		u.readOnce(limit)
		if read == len(u.consumed) && u.onSocket && u.peeker.queued() {
			u.raw.SetReadDeadline(time.Now().Add(recordTime))
			u.readOnce(limit)
		}
	}
	return len(u.consumed) > before
}

// handshakeFailed refuses a connection on which the handshake has failed. If TLS had anything to say about it, that is
// said.
func (u *undecided) handshakeFailed(err error) *refusal {
	if re, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		switch start := re.RecordHeader[:]; {
		case http1.MethodPrefix(start, http1.Methods):
			u.language = ProtocolHTTP1
			return u.plainHTTP()
		case strings.HasPrefix(h2.Preface, string(start)):
			u.language = ProtocolHTTP2
			return u.plainHTTP()
		}
	}
	var r *refusal
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if r = u.timeout(); u.wasInterrupted() {
			r = u.interruption()
		}
	} else if transportFailed(err) {
		_, r = u.failed(err)
	} else {
		r = u.refusal(ReasonHandshake, fmt.Errorf("the TLS handshake failed: %w", err))
	}
	// What there was to say in an alert crypto/tls has said, and after an error of the connection it says nothing more.
	r.said = true
	return r
}

// transportFailed reports whether an error of a handshake is one of the connection below.
func transportFailed(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op == "read" || op.Op == "write" // TLS's own are a "local error" or a "remote error"
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe)
}

// contradicted refuses a client inside TLS that speaks another language than what ALPN has negotiated, in the language it
// speaks if that is one of HTTP's, and HTTP/2 over a version of TLS that it must not use (RFC 9113, 9.2).
func (u *undecided) contradicted() *refusal {
	p := &u.preview
	if p.secured == nil || len(p.data) == 0 {
		return nil
	}
	switch alpn := p.alpn(); {
	case alpn == alpnHTTP2 && p.startsHTTP1() == Match:
		u.language = ProtocolHTTP1
		r := u.refusal(ReasonProtocolError, errors.New("the client speaks HTTP/1 where ALPN has negotiated h2"))
		r.status, r.text = http.StatusBadRequest, "This connection has negotiated HTTP/2, and the request is HTTP/1."
		return r
	case alpn == alpnHTTP2 && p.showHTTP2(min(len(p.data), len(h2.Preface))) == h2.NotHTTP2 && p.parseHTTP1() == http1.Invalid:
		u.language = ProtocolHTTP2
		r := u.refusal(ReasonProtocolError, fmt.Errorf("the client's first bytes are no preface where ALPN has negotiated h2: %.32q", p.data))
		r.goAway, r.code, r.text = true, http2.ErrCodeProtocol, "The preface of HTTP/2 is missing." // RFC 9113, 3.4
		return r
	case alpn == alpnHTTP1 && p.startsHTTP2() == Match:
		u.language = ProtocolHTTP2
		r := u.refusal(ReasonProtocolError, errors.New("the client speaks HTTP/2 where ALPN has negotiated http/1.1"))
		r.goAway, r.code, r.text = true, http2.ErrCodeHTTP11Required, "This connection has negotiated HTTP/1.1."
		return r
	case p.secured.Version < tls.VersionTLS12 && p.startsHTTP2() == Match:
		u.language = ProtocolHTTP2
		r := u.refusal(ReasonProtocolError, errors.New("the client speaks HTTP/2 over "+tls.VersionName(p.secured.Version)))
		r.goAway, r.code, r.text = true, http2.ErrCodeInadequateSecurity, "HTTP/2 takes TLS 1.2 or later."
		return r
	}
	return nil
}

// plainHTTP refuses a client that speaks HTTP without TLS, where all that could take it is inside TLS.
func (u *undecided) plainHTTP() *refusal {
	r := u.refusal(ReasonNoRoute, fmt.Errorf("the client speaks %v without TLS, and all routes for that are inside TLS", u.language))
	r.mute = false
	r.status, r.text = http.StatusBadRequest, "This port takes TLS only. Use https."
	r.goAway, r.code = true, http2.ErrCodeInadequateSecurity
	if u.handshaking != nil || u.language != ProtocolHTTP1 || !u.mux.redirects() {
		return r
	}
	if to := httpsURL(&u.preview); to != "" {
		r.status, r.header, r.text = http.StatusPermanentRedirect, "Location: "+to+"\r\n", "Use "+to
		r.err = fmt.Errorf("the client speaks HTTP/1 without TLS, and was redirected to %s", to)
	}
	return r
}

// httpsURL returns what the request is for, by https, or "" if the request does not say.
func httpsURL(p *Preview) string {
	req, verdict := p.Request()
	if verdict != Match || req.Host == "" || strings.ContainsAny(req.Host, " \t\"<>\\^`{|}/?#@") {
		return "" // no host by the grammar of RFC 3986, 3.2.2
	}
	to := "https://" + req.Host + "/"
	if strings.HasPrefix(req.Path, "/") {
		to = "https://" + req.Host + req.Path
	}
	if _, query, ok := strings.Cut(req.Target, "?"); ok {
		to += "?" + query
	}
	return to
}

// awaitsRedirect reports whether a client that no route takes has yet to send the head by which it can be redirected.
func (u *undecided) awaitsRedirect() bool {
	p := &u.preview
	return p.secured == nil && len(p.data) > 0 && !p.full && !p.ended &&
		p.parseHTTP1() == http1.Incomplete && u.mux.redirects() && u.mux.tlsOnly(speaksHTTP1)
}
