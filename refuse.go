package oneport

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/clienthello"
	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/http1"
	"github.com/oneport-go/oneport/internal/lobby"
	refusing "github.com/oneport-go/oneport/internal/refusal"
)

// RefuseReason says why a connection was closed before a server had it.
type RefuseReason uint8

const (
	_ RefuseReason = iota
	// ReasonNoRoute means that no route took the connection.
	ReasonNoRoute
	// ReasonTimeout means that the client did not send enough for a decision within [Limits.DecideTimeout], or did not
	// complete the TLS handshake within [Limits.HandshakeTimeout].
	ReasonTimeout
	// ReasonIdle means that a client with a working HTTP/2 connection made no request within [Limits.IdleTimeout].
	ReasonIdle
	// ReasonTooLong means that the first [Limits.MaxPreviewBytes] were not enough for a decision.
	ReasonTooLong
	// ReasonProtocolError means that no route took the connection because the client violated its own protocol or
	// exceeded a limit on what it may send, such as [Limits.MaxFramesBeforeHeaders].
	ReasonProtocolError
	// ReasonTooMany means that the connection was evicted as the oldest one, because [Limits.MaxUndecided] or
	// [Limits.MaxUndecidedBytes] was exceeded or the process had no file descriptors left.
	ReasonTooMany
	// ReasonQueueFull means that the server of the route did not accept fast enough: see [Limits.QueueLength].
	ReasonQueueFull
	// ReasonRouteClosed means that the listener of the route was closed.
	ReasonRouteClosed
	// ReasonShutdown means that the mux was stopped before the connection had a route.
	ReasonShutdown
	// ReasonPanic means that a matcher, the hook OnMatch or a callback of the TLS configuration panicked.
	ReasonPanic
	// ReasonClientClosed means that the client closed the connection, or the connection failed, before a server had it.
	ReasonClientClosed
	// ReasonHandshake means that the TLS handshake failed, for instance because client and server have no ALPN protocol
	// in common, or one of them rejected the other's certificate.
	ReasonHandshake
	// ReasonReadError means that reading from the connection failed although neither the client nor the network had ended
	// it and no deadline had passed. A listener that expects a PROXY header fails so if the header is missing or
	// malformed.
	ReasonReadError

	reasons // how many there are

	reasonAbuse = reasons // for the log of connections that a server had
)

// String returns the reason in one or two lower-case words, such as "queue full", for logs and metrics.
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
	case ReasonClientClosed:
		return "client closed"
	case ReasonHandshake:
		return "handshake"
	case ReasonReadError:
		return "read error"
	}
	return fmt.Sprintf("RefuseReason(%d)", uint8(r))
}

// section is the section of docs/troubleshooting.md about the reason.
func (r RefuseReason) section() string { return "refused-" + strings.ReplaceAll(r.String(), " ", "-") }

// A refusal is why and how a connection is refused.
type refusal struct {
	reason   RefuseReason
	err      error    // what happened, for the operator
	language Protocol // the one to answer in
	mute     bool     // there is nobody to answer, or no language to do it in
	answered bool     // nothing is left to write: TLS has sent an alert, or the client gets no answer
	early    bool     // early SETTINGS were sent
	seen     int      // bytes of the client

	// What the answer says in place of the defaults for the reason.
	status  int           // of HTTP
	header  string        // additional field lines, in HTTP/1
	code    http2.ErrCode // of GOAWAY, if goAway is set
	goAway  bool
	text    string           // the sentence for the client, if not the default for the reason
	request refusing.Request // of HTTP/2, to be answered
	alert   uint8            // of TLS
	noBody  bool             // the answer of HTTP/1 has no content, since the request was HEAD (RFC 9110, Section 9.3.2)
}

func (c *pending) refusal(reason RefuseReason, err error) *refusal {
	r := &refusal{reason: reason, err: err, language: c.language, early: c.early, seen: c.seen, request: c.request}
	if c.decision == nil {
		return r // it was in the queue of a route
	}
	if c.phase != lobby.Switching && !c.upgraded {
		r.request = c.preview.answerable()
	}
	r.seen = max(r.seen, len(c.preview.data))
	r.mute = r.seen == 0 && c.phase != lobby.Switching
	return r
}

func (c *pending) timeout() *refusal {
	limits := &c.mux.limits
	switch {
	case c.phase == lobby.Handshaking:
		return c.refusal(ReasonTimeout,
			fmt.Errorf("the TLS handshake did not complete within %v (Limits.HandshakeTimeout)", limits.HandshakeTimeout))
	case c.opening.Idle():
		return c.refusal(ReasonIdle,
			fmt.Errorf("the client made no request within %v (Limits.IdleTimeout)", limits.IdleTimeout))
	case c.seen == 0:
		return c.refusal(ReasonTimeout,
			fmt.Errorf("the client sent nothing within %v (Limits.DecideTimeout)", limits.DecideTimeout))
	}
	return c.refusal(ReasonTimeout,
		fmt.Errorf("no route could decide on the %d bytes that the client sent within %v (Limits.DecideTimeout)",
			c.seen, limits.DecideTimeout))
}

// answerable returns what it takes to answer the HTTP/2 request whose field section has begun, if there is one and the
// connection is not broken.
func (p *Preview) answerable() refusing.Request {
	if p.h2.State() == h2.Error && !p.h2.TooLarge() {
		return refusing.Request{}
	}
	r := refusing.Request{Stream: p.h2.StreamID(), Ended: p.h2.EndStream(), Window: h2.DefaultWindow}
	r.GRPC, r.NoBody = kindOf(p.h2.Fields())
	for _, s := range p.h2.Settings() {
		if s.ID == http2.SettingInitialWindowSize {
			r.Window = int64(s.Val)
		}
	}
	return r
}

// kindOf reports whether an HTTP/2 request is a gRPC call, and whether its response has no content.
func kindOf(fields []hpack.HeaderField) (grpc, head bool) {
	for _, f := range fields {
		switch f.Name {
		case "content-type":
			grpc = grpc || isGRPC(fieldValue{str: f.Value})
		case ":method":
			head = f.Value == http.MethodHead
		}
	}
	return grpc, head
}

func (c *pending) tooLong() *refusal {
	c.language = c.preview.language()
	return c.refusal(ReasonTooLong,
		fmt.Errorf("no route could decide on the first %d bytes (Limits.MaxPreviewBytes)", len(c.preview.data)))
}

func (c *pending) clientClosed(err error) *refusal {
	r := c.refusal(ReasonClientClosed, fmt.Errorf("the connection was closed before it had a server: %w", err))
	r.mute = true
	return r
}

// interruption is the refusal for which c was interrupted.
func (c *pending) interruption() *refusal {
	return c.refusal(interruptionOf(c.mux.lobby.Interrupted(&c.Entry)))
}

func interruptionOf(cause lobby.Cause) (RefuseReason, error) {
	if cause == lobby.Crowded {
		return ReasonTooMany, errors.New("evicted as the oldest connection without a server " +
			"(Limits.MaxUndecided or MaxUndecidedBytes reached, or no file descriptors left)")
	}
	return ReasonShutdown, errors.New("the mux was stopped before the connection had a server")
}

// turnedAway refuses an HTTP/2 client that has made no request, without an answer.
func (c *pending) turnedAway() *refusal {
	r := c.refusal(ReasonNoRoute, errors.New("no route matched; the client speaks HTTP/2 and made no request"))
	switch s := &c.search; {
	case c.requests != nil, s.next < len(s.routes) && s.routes[s.next].isClosed():
		r = c.refusal(ReasonRouteClosed, errRouteClosed)
	case c.tls == nil && c.mux.tlsOnly(speaksHTTP2):
		r = c.plainHTTP()
	}
	r.mute, r.answered = false, true
	return r
}

// unmatched refuses a connection that no route can take.
func (c *pending) unmatched() *refusal {
	p := &c.preview
	if len(p.data) == 0 && p.end == eof {
		return c.clientClosed(io.EOF)
	}
	c.language = p.language()
	if p.end == eof && p.incomplete() {
		return c.refusal(ReasonClientClosed,
			fmt.Errorf("the client stopped sending after %d bytes, before a route matched", len(p.data)))
	}
	r := c.refusal(ReasonNoRoute,
		fmt.Errorf("no route matched; the first bytes are %s: %.32q", describe(c.language), p.data))
	switch c.language {
	case ProtocolHTTP1:
		if p.secured == nil && c.mux.tlsOnly(speaksHTTP1) {
			r = c.plainHTTP()
		}
		method, ok := p.http1.Method()
		r.noBody = ok && string(method.Of(p.data)) == http.MethodHead
		if p.parseHTTP1() == http1.Invalid {
			r.reason, r.status = ReasonProtocolError, p.http1.Err().Status
			r.err = fmt.Errorf("malformed HTTP/1 request: %s", p.http1.Err().Reason)
		}
	case ProtocolHTTP2:
		if p.secured == nil && c.mux.tlsOnly(speaksHTTP2) {
			r = c.plainHTTP()
		}
		if p.parseHTTP2() == h2.Error {
			r.reason, r.err = ReasonProtocolError, p.h2.Err()
			r.goAway, r.code, r.text = true, p.h2.Err().Code, p.h2.Err().Reason
		}
		if p.h2.TooLarge() {
			r.reason, r.goAway, r.text = ReasonTooLong, false, ""
			r.err = errors.New("the header list of the first request is too large (Limits.MaxHeaderListBytes)")
		}
		r.request = p.answerable()
	case ProtocolTLS:
		if p.parseTLS() == clienthello.Invalid {
			r.reason, r.alert = ReasonProtocolError, p.tls.Err().Alert
			r.err = fmt.Errorf("malformed TLS ClientHello: %s", p.tls.Err().Reason)
		} else if p.malformedTLS() {
			r.reason, r.alert = ReasonProtocolError, refusing.AlertUnexpectedMessage // as crypto/tls says
			r.err = fmt.Errorf("the first TLS record is not a ClientHello: %.32q", p.data)
		}
	}
	return r
}

func describe(p Protocol) string {
	if p == ProtocolUnknown {
		return "in an unknown protocol"
	}
	return p.String()
}

// answer returns the refusal in the client's language. For an unknown language it is empty.
func (r *refusal) answer(now time.Time) []byte {
	switch {
	case r.answered:
		return nil
	case r.language == ProtocolHTTP1:
		return refusing.HTTP1{
			Status:   r.statusHTTP(),
			Header:   r.header,
			Sentence: r.sentence(),
			NoBody:   r.noBody,
		}.Append(nil, now)
	case r.language == ProtocolHTTP2:
		return refusing.HTTP2{
			Started:  r.early,
			Request:  r.request,
			Status:   r.statusHTTP(),
			GRPC:     r.codeGRPC(),
			Code:     r.codeHTTP2(),
			Sentence: r.sentence(),
		}.Append(nil)
	case r.language == ProtocolTLS:
		return r.alertTLS()
	}
	return nil
}

// sentence returns the reason in a sentence for the client.
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
		return "The request did not arrive in time."
	case ReasonTooLong:
		return "The head of the request is too long."
	case ReasonProtocolError:
		return "The request is malformed."
	case ReasonClientClosed:
		return "The request is incomplete."
	case ReasonTooMany, ReasonQueueFull:
		return "The server is overloaded. Try again later."
	case ReasonRouteClosed, ReasonShutdown:
		return "The server is shutting down. Try again later."
	}
	return "Internal error."
}

// statusHTTP is the status of a response.
func (r *refusal) statusHTTP() int {
	if r.status != 0 {
		return r.status
	}
	switch r.reason {
	case ReasonNoRoute:
		return http.StatusNotFound
	case ReasonTimeout:
		return http.StatusRequestTimeout
	case ReasonTooLong:
		return http.StatusRequestHeaderFieldsTooLarge
	case ReasonProtocolError, ReasonClientClosed:
		return http.StatusBadRequest
	case ReasonTooMany, ReasonQueueFull, ReasonRouteClosed, ReasonShutdown:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// codeGRPC is the code of a response to a gRPC call.
func (r *refusal) codeGRPC() uint32 {
	switch r.reason {
	case ReasonNoRoute:
		return refusing.GRPCUnimplemented
	case ReasonTooLong:
		return refusing.GRPCResourceExhausted
	case ReasonTimeout, ReasonTooMany, ReasonQueueFull, ReasonRouteClosed, ReasonShutdown:
		return refusing.GRPCUnavailable
	}
	return refusing.GRPCInternal
}

// codeHTTP2 is the error code of GOAWAY.
func (r *refusal) codeHTTP2() http2.ErrCode {
	switch {
	case r.goAway:
		return r.code
	case r.request.Stream != 0:
		return http2.ErrCodeNo // the response says why
	}
	switch r.reason {
	case ReasonNoRoute, ReasonTooMany, ReasonQueueFull:
		return http2.ErrCodeRefusedStream
	case ReasonTimeout, ReasonIdle, ReasonRouteClosed, ReasonShutdown, ReasonClientClosed:
		return http2.ErrCodeNo
	case ReasonTooLong:
		return http2.ErrCodeEnhanceYourCalm
	case ReasonProtocolError:
		return http2.ErrCodeProtocol
	}
	return http2.ErrCodeInternal
}

// alertTLS returns an alert for a client whose ClientHello no route has taken.
func (r *refusal) alertTLS() []byte {
	switch {
	case r.alert != 0:
		return refusing.AppendAlert(nil, r.alert)
	case r.reason == ReasonNoRoute:
		return refusing.AppendAlert(nil, refusing.AlertHandshakeFailure)
	case r.reason == ReasonShutdown, r.reason == ReasonRouteClosed:
		return refusing.AppendCloseNotify(nil) // the server is not at fault
	}
	return refusing.AppendAlert(nil, refusing.AlertInternalError)
}

// refuse counts, reports and answers a refused connection, and closes it. It takes as long as the client needs to read
// the answer, within bounds. Then the connection has left the registry.
func (m *Mux) refuse(c *pending, rt *route, r *refusal) {
	defer m.lobby.Leave(&c.Entry)
	m.lobby.Refuse(&c.Entry)
	c.raw.SetReadDeadline(time.Now().Add(lingerTime)) // see decide: it may have to be read who the client is
	m.reportRefused(c.raw, c.tls, c.accepted, rt, r)
	if d := c.decision; d != nil { // what was read, and what was made of it, is not kept while the client reads its answer
		c.decision = nil
		d.recycle()
	}
	if r.mute {
		c.conn.Close()
		return
	}
	buf := m.buffers.Get()
	defer m.buffers.Put(buf)
	refusing.Send(c.conn, r.answer(time.Now()), *buf)
}

const lingerTime = refusing.LingerTime
