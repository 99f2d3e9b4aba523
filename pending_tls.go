package oneport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/h2open"
	"github.com/oneport-go/oneport/internal/http1"
	"github.com/oneport-go/oneport/internal/lobby"
)

// handshake terminates TLS on the connection, for the routes of s. From then on c is about what is inside.
func (c *pending) handshake(s *TLSMux) *refusal {
	below := c.conn
	if taken := c.source.Taken(); len(taken) > 0 {
		below = newConn(c.conn, changes{replay: taken})
	}
	c.endReaders()
	c.seen = len(c.preview.data)
	c.preview.data = nil
	c.source.Enter(below)
	if refused := c.enter(lobby.Handshaking); refused != nil {
		return refused
	}
	c.tlsMux, c.since, c.language = s, time.Now(), ProtocolTLS
	if refused := c.arm(c.since); refused != nil {
		return refused
	}
	conn := tls.Server(below, s.handshakeConfig())
	if err := conn.Handshake(); err != nil {
		return c.handshakeFailed(err)
	}

	state := conn.ConnectionState()
	c.mux.counters.negotiated(state.NegotiatedProtocol)
	c.mu.Lock()
	c.conn = conn // on which deadlines are set from now on
	c.mu.Unlock()
	c.tls, c.since = &state, time.Now()
	c.search = search{routes: *s.routes.Load()}
	c.enterAbove(conn)
	c.language = ProtocolUnknown
	return c.enter(lobby.Opening)
}

// enterAbove continues with a connection on top of the previous one. Nothing has been read from it.
func (c *pending) enterAbove(conn net.Conn) {
	c.conn = conn
	c.source.Enter(conn)
	c.preview.enter(conn, c.tls)
	c.opening = h2open.Opening{Parser: &c.preview.h2}
	c.seen, c.waiting, c.requests = 0, false, nil
}

// recordTime is how long the mux waits for the rest of a TLS record before it sends early SETTINGS: longer than the
// time between the segments of one flight.
const recordTime = 5 * time.Millisecond

// takeReceived reads from TLS what the client has already sent, and reports whether there was anything. One read
// returns one record, and clients split the frames of their first flight over several: only when no record is left is
// it known that the request has not arrived, and that early SETTINGS are due.
func (c *pending) takeReceived() bool {
	limit := c.mux.limits.MaxPreviewBytes
	before := len(c.source.Taken())
	taken := before
	c.deadlines = true
	for more := true; more && taken < limit; {
		// With a deadline in the past, crypto/tls returns what it has already read. An error is returned again later.
		if c.raw.SetReadDeadline(aLongTimeAgo) != nil {
			break
		}
		c.source.ReadOnce(limit)
		if taken == len(c.source.Taken()) && c.source.Queued() {
			c.raw.SetReadDeadline(time.Now().Add(recordTime))
			c.source.ReadOnce(limit)
		}
		more = len(c.source.Taken()) > taken
		taken = len(c.source.Taken())
	}
	return taken > before
}

// handshakeFailed refuses a connection on which the handshake has failed. crypto/tls has then sent an alert, if it
// could.
func (c *pending) handshakeFailed(err error) *refusal {
	if re, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		switch start := re.RecordHeader[:]; {
		case http1.MethodPrefix(start, http1.Methods):
			c.language = ProtocolHTTP1
			return c.plainHTTP()
		case strings.HasPrefix(h2.Preface, string(start)):
			c.language = ProtocolHTTP2
			return c.plainHTTP()
		}
	}
	var r *refusal
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if r = c.timeout(); c.interrupted() != lobby.None {
			r = c.interruption()
		}
	} else if transportFailed(err) {
		r = c.failed(err).refused
	} else {
		r = c.refusal(ReasonHandshake, fmt.Errorf("the TLS handshake failed: %w", err))
	}
	// crypto/tls has sent its alert, and after an error of the connection nothing more can be sent.
	r.answered = true
	return r
}

// transportFailed reports whether an error of a handshake is one of the connection below.
func transportFailed(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op == "read" || op.Op == "write" // TLS's own are a "local error" or a "remote error"
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe)
}

// contradicted refuses a client inside TLS that speaks another protocol than ALPN has negotiated, and a client that
// speaks HTTP/2 over a version of TLS that HTTP/2 must not use (RFC 9113, Section 9.2). The answer is in the protocol
// that the client speaks, if that is HTTP.
func (c *pending) contradicted() *refusal {
	p := &c.preview
	if p.secured == nil || len(p.data) == 0 {
		return nil
	}
	goAway := func(code http2.ErrCode, text string, err error) *refusal {
		c.language = ProtocolHTTP2
		r := c.refusal(ReasonProtocolError, err)
		r.goAway, r.code, r.text = true, code, text
		return r
	}
	switch alpn := p.alpn(); {
	case alpn == alpnHTTP2 && p.startsHTTP1() == Yes:
		c.language = ProtocolHTTP1
		r := c.refusal(ReasonProtocolError, errors.New("ALPN negotiated h2, but the client speaks HTTP/1"))
		r.status, r.text = http.StatusBadRequest, "This connection negotiated HTTP/2, but the request is HTTP/1."
		return r
	case alpn == alpnHTTP2 && p.showHTTP2(min(len(p.data), len(h2.Preface))) == h2.NotHTTP2 &&
		p.parseHTTP1() == http1.Invalid:
		return goAway(http2.ErrCodeProtocol, "The HTTP/2 connection preface is missing.", // RFC 9113, Section 3.4
			fmt.Errorf("ALPN negotiated h2, but the client's first bytes are not the connection preface: %.32q", p.data))
	case alpn == alpnHTTP1 && p.startsHTTP2() == Yes:
		return goAway(http2.ErrCodeHTTP11Required, "This connection negotiated HTTP/1.1.",
			errors.New("ALPN negotiated http/1.1, but the client speaks HTTP/2"))
	case p.secured.Version < tls.VersionTLS12 && p.startsHTTP2() == Yes:
		return goAway(http2.ErrCodeInadequateSecurity, "HTTP/2 requires TLS 1.2 or later.",
			errors.New("the client speaks HTTP/2 over "+tls.VersionName(p.secured.Version)))
	}
	return nil
}

// plainHTTP refuses a client that speaks HTTP without TLS, where all routes that could take it are inside TLS.
func (c *pending) plainHTTP() *refusal {
	r := c.refusal(ReasonNoRoute,
		fmt.Errorf("the client speaks %v without TLS, but all routes for it are inside TLS", c.language))
	r.mute = false
	r.status, r.text = http.StatusBadRequest, "This port takes TLS only. Use https."
	r.goAway, r.code = true, http2.ErrCodeInadequateSecurity
	if c.phase == lobby.Handshaking || c.language != ProtocolHTTP1 || !c.mux.redirects() {
		return r
	}
	if to := httpsURL(&c.preview); to != "" {
		r.status, r.header, r.text = http.StatusPermanentRedirect, "Location: "+to+"\r\n", "Use "+to
		r.err = fmt.Errorf("the client speaks HTTP/1 without TLS, and was redirected to %s", to)
	}
	return r
}

// httpsURL returns the URL of the request with the scheme https, or "" if the request names no host.
func httpsURL(p *Preview) string {
	req, verdict := p.Request()
	if verdict != Yes || req.Host == "" || strings.ContainsAny(req.Host, " \t\"<>\\^`{|}/?#@") {
		return "" // no host by the grammar of RFC 3986, Section 3.2.2
	}
	to := "https://" + req.Host
	if u, err := url.ParseRequestURI(req.Target); err == nil && strings.HasPrefix(u.RequestURI(), "/") {
		return to + u.RequestURI()
	}
	return to + "/"
}

// awaitsRedirect reports whether a client that no route takes can be redirected once its header section is complete.
func (c *pending) awaitsRedirect() bool {
	p := &c.preview
	return p.secured == nil && len(p.data) > 0 && !p.full && p.end != eof &&
		p.parseHTTP1() == http1.Incomplete && c.mux.redirects() && c.mux.tlsOnly(speaksHTTP1)
}
