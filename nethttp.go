package oneport

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/oneport-go/oneport/internal/netconn"
)

// ConfigureHTTP prepares an HTTP server for the HTTP/2 connections of a [Mux]: those without TLS, and those inside TLS
// whose first bytes the mux had to read. Call it before Serve, once for each server. [Server] calls it itself.
//
// If Protocols is nil, ConfigureHTTP sets it to HTTP/1, HTTP/2 and unencrypted HTTP/2. If Protocols is not nil, it is
// left alone and must include unencrypted HTTP/2 (SetUnencryptedHTTP2); otherwise net/http does not serve these
// connections as HTTP/2.
//
// net/http serves HTTP/2 only on a *tls.Conn that has negotiated it, or on a connection that does not look encrypted.
// The mux therefore hands over HTTP/2 inside TLS as a connection without a ConnectionState method, and ConfigureHTTP
// wraps ConnContext and Handler to fill in [http.Request.TLS].
func ConfigureHTTP(s *http.Server) {
	if s.Protocols == nil {
		s.Protocols = new(http.Protocols)
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetHTTP2(true)
		s.Protocols.SetUnencryptedHTTP2(true)
	}
	if s.Protocols.HTTP2() && !s.Protocols.UnencryptedHTTP2() {
		slog.Warn("oneport: the http.Server accepts HTTP/2 only over TLS, but gets it from a Mux in cleartext or decrypted: " +
			"call Protocols.SetUnencryptedHTTP2(true), or leave Protocols nil")
	}
	connContext := s.ConnContext
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if state, ok := netconn.HiddenState(c); ok {
			ctx = context.WithValue(ctx, tlsStateKey{}, &state)
		}
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		return ctx
	}
	handler := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(tlsStateKey{}).(*tls.ConnectionState); ok && r.TLS == nil {
			r.TLS = state
		}
		if handler == nil {
			http.DefaultServeMux.ServeHTTP(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

type tlsStateKey struct{}

// RequireHost returns a handler that calls h for requests to one of the hosts, and answers all others with 421
// Misdirected Request (RFC 9110, Section 15.5.20). Browsers then try again on another connection. The hosts are
// patterns as for [Host].
//
// Use it for a server whose route takes whole connections by [Host] or [ServerName]. A client may reuse a connection
// for another host if the certificate is valid for that host too (RFC 9113, Section 9.1.1), and the server gets those
// requests as well.
func RequireHost(h http.Handler, hosts ...string) http.Handler {
	patterns := hostPatterns(hosts)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := strings.ToLower(r.Host)
		if !slices.ContainsFunc(patterns, func(p hostPattern) bool { return p.matches(host, withoutPort(host)) }) {
			http.Error(w, "This connection is for another host.", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}
