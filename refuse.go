package oneport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/clienthello"
	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/http1"
)

// RefuseReason says why a connection was closed before a server had it.
type RefuseReason uint8

const (
	_ RefuseReason = iota
	// ReasonNoRoute: no matcher matched.
	ReasonNoRoute
	// ReasonTimeout: the client had not sent within [Mux.DecideTimeout] what the decision depends on.
	ReasonTimeout
	// ReasonIdle: the client, whose HTTP/2 connection was ready, made no request within [Mux.IdleTimeout].
	ReasonIdle
	// ReasonTooLong: [Mux.MaxPreviewBytes] of the client's bytes did not suffice for a decision.
	ReasonTooLong
	// ReasonProtocolError: no matcher matched, because what the client sent breaks the rules or the bounds of its own
	// protocol.
	ReasonProtocolError
	// ReasonTooMany: there were more than [Mux.MaxUndecided] connections without a route, and this had waited longest, or
	// the process had no files left.
	ReasonTooMany
	// ReasonQueueFull: the server of the route does not accept fast enough.
	ReasonQueueFull
	// ReasonRouteClosed: the listener of the route is closed.
	ReasonRouteClosed
	// ReasonShutdown: the mux was stopped before the connection had a route.
	ReasonShutdown
	// ReasonPanic: a matcher or a hook panicked.
	ReasonPanic
	// ReasonGone: the client closed the connection, or it broke, before it had a route.
	ReasonGone
	// ReasonHandshake: the TLS handshake failed, for instance because the client and the server have no ALPN protocol in
	// common, or the certificate of one of them did not satisfy the other.
	ReasonHandshake

	reasons // how many there are
)

// String returns a word or two for logs and metrics.
func (r RefuseReason) String() string {
	switch r {
	case ReasonNoRoute:
		return "no route"
	case ReasonTimeout:
		return "timeout"
	case ReasonIdle:
		return "idle"
	case ReasonTooLong:
		return "too long"
	case ReasonProtocolError:
		return "protocol error"
	case ReasonTooMany:
		return "too many"
	case ReasonQueueFull:
		return "queue full"
	case ReasonRouteClosed:
		return "route closed"
	case ReasonShutdown:
		return "shutdown"
	case ReasonPanic:
		return "panic"
	case ReasonGone:
		return "gone"
	case ReasonHandshake:
		return "handshake"
	}
	return fmt.Sprintf("RefuseReason(%d)", uint8(r))
}

// A refusal is why and how a connection is refused.
type refusal struct {
	raw      net.Conn // as it was accepted
	tls      *tls.ConnectionState
	reason   RefuseReason
	err      error
	language Protocol // the one to answer in
	mute     bool     // there is nobody to answer, or no language to do it in
	said     bool     // the answer is given already: a TLS alert
	early    bool     // early SETTINGS were sent
	accepted time.Time

	// What the answer says where it is not what the reason says in general.
	status int           // of HTTP/1
	header string        // lines that it has more
	code   http2.ErrCode // of HTTP/2, if goAway is set
	goAway bool
	text   string // what the client is told, if not what goes for the reason
	stream uint32 // the last stream that the server will not take again, of HTTP/2
	alert  uint8  // of TLS
	noBody bool   // the answer of HTTP/1 has no content, since the request was HEAD (RFC 9110, 9.3.2)
}

func (u *undecided) refusal(reason RefuseReason, err error) *refusal {
	return &refusal{
		raw:      u.raw,
		tls:      u.preview.secured,
		reason:   reason,
		err:      err,
		language: u.language,
		mute:     len(u.preview.data) == 0 && u.seen == 0 && !u.preview.upgrading,
		early:    u.early,
		accepted: u.accepted,
	}
}

func (u *undecided) timeout() *refusal {
	if u.handshaking != nil {
		return u.refusal(ReasonTimeout, fmt.Errorf("the TLS handshake was not complete in %v (TLSRoute.HandshakeTimeout)", u.limit()))
	}
	if u.idle() {
		return u.refusal(ReasonIdle, fmt.Errorf("the client made no request in %v (Mux.IdleTimeout)", u.mux.idleTimeout()))
	}
	what := "sent nothing"
	if u.seen > 0 {
		what = fmt.Sprintf("sent %d bytes, on which no route could decide,", u.seen)
	}
	return u.refusal(ReasonTimeout, fmt.Errorf("the client %s in %v (Mux.DecideTimeout)", what, u.mux.decideTimeout()))
}

func (u *undecided) tooLong() *refusal {
	u.language = u.preview.language()
	return u.refusal(ReasonTooLong,
		fmt.Errorf("no route could decide on the first %d bytes (Mux.MaxPreviewBytes)", len(u.preview.data)))
}

func (u *undecided) gone(err error) *refusal {
	r := u.refusal(ReasonGone, fmt.Errorf("the connection ended before it had a route: %w", err))
	r.mute = true
	return r
}

// interruption is the refusal for which u was interrupted. The caller holds mux.mu, or knows that u was.
func (u *undecided) interruption() *refusal {
	if u.interrupted == ReasonTooMany {
		return u.refusal(ReasonTooMany,
			errors.New("too many connections were without a route (Mux.MaxUndecided, or no files left), and this one for longest"))
	}
	return u.refusal(ReasonShutdown, errors.New("the mux was stopped before the connection had a route"))
}

// unmatched refuses a connection that no route can take any more.
func (u *undecided) unmatched() *refusal {
	p := &u.preview
	if len(p.data) == 0 && p.ended {
		return u.gone(io.EOF)
	}
	u.language = p.language()
	if p.ended && p.incomplete() {
		return u.refusal(ReasonGone, fmt.Errorf("the client stopped sending after %d bytes, before it had a route", len(p.data)))
	}
	r := u.refusal(ReasonNoRoute, fmt.Errorf("no route takes it; its first bytes are %s: %.32q", describe(u.language), p.data))
	switch u.language {
	case ProtocolHTTP1:
		if p.secured == nil && u.mux.tlsOnly(speaksHTTP1) {
			r = u.plainHTTP()
		}
		method, ok := p.http1.Method()
		r.noBody = ok && string(method.Of(p.data)) == http.MethodHead
		if p.parseHTTP1() == http1.Invalid {
			r.reason, r.status = ReasonProtocolError, p.http1.Err().Status
			r.err = fmt.Errorf("malformed HTTP/1 request: %s", p.http1.Err().Reason)
		}
	case ProtocolHTTP2:
		if p.secured == nil && u.mux.tlsOnly(speaksHTTP2) {
			r = u.plainHTTP()
		}
		switch p.parseHTTP2() {
		case h2.Complete:
			r.stream = p.h2.StreamID()
		case h2.Error:
			r.reason, r.err = ReasonProtocolError, p.h2.Err()
			r.goAway, r.code, r.text = true, p.h2.Err().Code, p.h2.Err().Reason
		}
	case ProtocolTLS:
		if p.parseTLS() == clienthello.Invalid {
			r.reason, r.alert = ReasonProtocolError, p.tls.Err().Alert
			r.err = fmt.Errorf("malformed TLS ClientHello: %s", p.tls.Err().Reason)
		}
	}
	return r
}

func describe(p Protocol) string {
	if p == ProtocolUnknown {
		return "of an unknown protocol"
	}
	return p.String()
}

// refuse counts, reports and answers a refused connection, and closes it. It takes as long as the client needs to read
// the answer, within bounds.
func (m *Mux) refuse(c net.Conn, rt *route, r *refusal) {
	now := time.Now()
	m.counters.refused[r.reason].Add(1)
	name := ""
	if rt != nil {
		name = rt.name
	}
	c.SetReadDeadline(now.Add(lingerTime)) // see decide: it may have to be read who the client is
	r.err = fmt.Errorf("oneport: refused %v on %v: %w", c.RemoteAddr(), c.LocalAddr(), r.err)
	alpn := ""
	if r.tls != nil {
		alpn = r.tls.NegotiatedProtocol
	}
	if m.OnRefuse != nil {
		m.callOnRefuse(Refused{
			Conn:          r.raw,
			TLS:           r.tls,
			Route:         name,
			Protocol:      r.language,
			EarlySettings: r.early,
			Reason:        r.reason,
			Err:           r.err,
			Waited:        now.Sub(r.accepted),
		})
	}
	level := slog.LevelWarn
	switch r.reason {
	case ReasonGone, ReasonIdle, ReasonShutdown:
		level = slog.LevelDebug
	case ReasonTimeout:
		if r.mute {
			level = slog.LevelDebug
		}
	}
	if m.OnRefuse != nil {
		level = slog.LevelDebug
	}
	if skipped, ok := m.refusals.allow(r.reason, now); ok {
		m.log(level, r.err.Error(), slog.String("reason", r.reason.String()), slog.String("route", name),
			slog.String("alpn", alpn), slog.Int("not_logged", skipped))
	}
	if r.mute {
		c.Close()
		return
	}
	var answer []byte
	if !r.said {
		answer = r.answer(now)
	}
	m.sendOff(c, answer)
}

func (m *Mux) callOnRefuse(r Refused) {
	defer func() {
		if v := recover(); v != nil {
			m.logPanic("the hook OnRefuse", r.Conn, v)
		}
	}()
	m.OnRefuse(r)
}

// The bounds on what a refused client is granted to read its answer.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// sendOff writes the answer and closes the connection so that the client can read it. Closing a socket with unread
// bytes, or one to which more come, sends a RST that makes the client's system discard what it has not read yet
// (RFC 9112, 9.6). So it closes the writing side only, and takes what the client still sends until that closes too.
func (m *Mux) sendOff(c net.Conn, answer []byte) {
	defer c.Close()
	cw, ok := c.(closeWriter)
	if err := c.SetDeadline(time.Now().Add(lingerTime)); err != nil {
		return
	}
	if len(answer) > 0 {
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
	if !ok || cw.CloseWrite() != nil {
		return
	}
	buf := m.buffers.get()
	defer m.buffers.put(buf)
	for total := 0; total < lingerBytes; {
		n, err := c.Read(*buf)
		if err != nil {
			return
		}
		total += n
	}
}

// answer is the refusal in the client's language. For a language that is not known it is empty.
func (r *refusal) answer(now time.Time) []byte {
	switch r.language {
	case ProtocolHTTP1:
		return r.answerHTTP1(now)
	case ProtocolHTTP2:
		return r.answerHTTP2()
	case ProtocolTLS:
		return r.answerTLS()
	}
	return nil
}

// sentence is the reason as a client is told it.
func (r *refusal) sentence() string {
	if r.text != "" {
		return r.text
	}
	switch r.reason {
	case ReasonNoRoute:
		return "No server on this port takes this request."
	case ReasonIdle:
		return "The connection was idle. Connect again for the next request."
	case ReasonTimeout:
		return "The request did not come in time."
	case ReasonTooLong:
		return "The head of the request is too long."
	case ReasonProtocolError:
		return "The request is malformed."
	case ReasonGone:
		return "The request is incomplete."
	case ReasonTooMany, ReasonQueueFull:
		return "The server is overloaded. Try again later."
	case ReasonRouteClosed, ReasonShutdown:
		return "The server is shutting down. Try again later."
	}
	return "Internal error."
}

// answerHTTP1 is a response of RFC 9112, 4.
func (r *refusal) answerHTTP1(now time.Time) []byte {
	status := r.status
	if status == 0 {
		switch r.reason {
		case ReasonNoRoute:
			status = http.StatusNotFound
		case ReasonTimeout:
			status = http.StatusRequestTimeout
		case ReasonTooLong:
			status = http.StatusRequestHeaderFieldsTooLarge
		case ReasonProtocolError, ReasonGone:
			status = http.StatusBadRequest
		case ReasonTooMany, ReasonQueueFull, ReasonRouteClosed, ReasonShutdown:
			status = http.StatusServiceUnavailable
		default:
			status = http.StatusInternalServerError
		}
	}
	content := r.sentence() + "\n"
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	b = fmt.Appendf(b, "Date: %s\r\n", now.UTC().Format(http.TimeFormat)) // RFC 9110, 6.6.1
	b = fmt.Appendf(b, "%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
		r.header, len(content))
	if r.noBody {
		return b
	}
	return append(b, content...)
}

// answerHTTP2 is SETTINGS, which have to be a server's first frame (RFC 9113, 3.4), and GOAWAY (6.8). A client may try
// a stream above the last one that GOAWAY names again on another connection, which helps where the reason passes.
func (r *refusal) answerHTTP2() []byte {
	code := r.code
	if !r.goAway {
		switch r.reason {
		case ReasonNoRoute, ReasonTooMany, ReasonQueueFull:
			code = http2.ErrCodeRefusedStream
		case ReasonTimeout, ReasonIdle, ReasonRouteClosed, ReasonShutdown, ReasonGone:
			code = http2.ErrCodeNo
		case ReasonTooLong:
			code = http2.ErrCodeEnhanceYourCalm
		case ReasonProtocolError:
			code = http2.ErrCodeProtocol
		default:
			code = http2.ErrCodeInternal
		}
	}
	var b []byte
	if !r.early {
		b = h2.AppendSettings(b)
	}
	return h2.AppendGoAway(b, r.stream, code, r.sentence())
}

// The alerts of RFC 8446, 6.2.
const (
	alertHandshakeFailure = 40
	alertInternalError    = 80
)

// answerTLS is a fatal alert in a plaintext record (RFC 8446, 5.1 and 6).
func (r *refusal) answerTLS() []byte {
	alert := r.alert
	if alert == 0 {
		alert = alertInternalError
		if r.reason == ReasonNoRoute {
			alert = alertHandshakeFailure
		}
	}
	return []byte{21, 3, 3, 0, 2, 2, alert}
}
