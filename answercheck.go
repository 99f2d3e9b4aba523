package oneport

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// An answerCheck looks at the first bytes that a server writes to an HTTP/2 client. A server that does not speak HTTP/2
// there, or begins TLS although the mux has terminated it, reports no reason: net/http answers the preface as if it
// were an HTTP/1 request, grpc-go and crypto/tls close the connection. A nil answerCheck checks nothing.
type answerCheck struct {
	rt   *route
	over atomic.Bool // the server has answered

	mu     sync.Mutex
	answer []byte // its first bytes
	read   bool   // it has read what the client sent
	ended  bool   // it has seen an end of the client's stream
}

// frameTypeAt is where the type is in the header of a frame (RFC 9113, Section 4.1).
const frameTypeAt = 3

// maxChecked is how many connections of a route are looked at. One that does not end early tells.
const maxChecked = 8

// checkAnswer reports whether to look at what the server writes to a client. A connection that the server would
// otherwise get as it is stays so, but for servers that do not need it: net/http without TLS, and grpc-go inside TLS.
func (rt *route) checkAnswer(c *pending, ch *changes) bool {
	if c.protocol != ProtocolHTTP2 || rt.answered.Load() {
		return false
	}
	check := !ch.none()
	switch c.conn.(type) {
	case *net.TCPConn:
		check = rt.netHTTP.Load()
	case *tls.Conn:
		check = check || rt.grpc.Load()
	default:
		check = check || rt.netHTTP.Load()
	}
	return check && rt.checked.Add(1) <= maxChecked
}

// noteRead records the result of a Read of the server.
func (a *answerCheck) noteRead(n int, err error) {
	if a == nil || a.over.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.read = a.read || n > 0
	a.ended = a.ended || err != nil
}

// noteWrite records what the server writes.
func (a *answerCheck) noteWrite(b []byte) {
	if a == nil || a.over.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = append(a.answer, b[:min(len(b), 16)]...)
	if len(a.answer) <= frameTypeAt || a.over.Swap(true) {
		return
	}
	if http2.FrameType(a.answer[frameTypeAt]) == http2.FrameSettings { // as RFC 9113, Section 3.4 has it
		a.rt.answered.Store(true)
		return
	}
	switch {
	case bytes.HasPrefix(a.answer, []byte("HTTP")):
		a.rt.warnOfAnswer("HTTP/1", "if it is an http.Server, call ConfigureHTTP before its Serve, "+
			"or SetUnencryptedHTTP2(true) on its Protocols; otherwise remove HTTP2() from the route")
	case bytes.HasPrefix(a.answer, []byte{21, 3}), bytes.HasPrefix(a.answer, []byte{22, 3}): // records of TLS: alert, handshake
		a.rt.warnOfAnswer("TLS", withoutTLS)
	default:
		a.rt.warnOfAnswer(fmt.Sprintf("%.16q", a.answer), "remove HTTP2() and Any() from the route")
	}
}

// noteClose records that the server closes the connection. If the server has read what the client sent and answers
// nothing, and neither the client nor a shutdown has ended the connection, the server does not speak HTTP/2 there.
func (a *answerCheck) noteClose() {
	if a == nil || a.over.Swap(true) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.read && !a.ended && len(a.answer) == 0 && !a.rt.isClosed() && !a.rt.mux.isStopping() {
		a.rt.warnOfAnswer("none, the connection was closed", withoutTLS)
	}
}

const withoutTLS = "if the server does TLS itself (ServeTLS, TLS credentials), make it serve without TLS, " +
	"since the connections of this route are cleartext or already decrypted (package grpccreds fills in AuthInfo), " +
	"or give it a route with TLS() or ServerName(...)"

// warnOfAnswer logs once that the server of the route has answered an HTTP/2 client in another protocol.
func (rt *route) warnOfAnswer(answer, fix string) {
	if rt.answered.Swap(true) {
		return
	}
	rt.mux.log(slog.LevelWarn, "oneport: the server of a route does not speak HTTP/2, but its clients do",
		slog.String("route", rt.name), slog.Any("local", rt.Addr()), slog.String("answer", answer), slog.String("fix", fix),
		help(sectionAnswer))
}
