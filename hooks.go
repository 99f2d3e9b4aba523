package oneport

import (
	"cmp"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"
)

// Hooks tell a program what becomes of connections. A hook that is nil is not called. All may be called by several
// goroutines at once, should return quickly, and may call only LocalAddr and RemoteAddr of the connections that they are
// given. A hook that panics costs the connection that it was called for.
//
// The values that hooks are given are [slog.LogValuer]: slog.Any("conn", matched) logs them field by field.
type Hooks struct {
	// OnMatch is called for each connection that has found its route, before its server gets it, or, where requests are
	// dispatched, when its first request has come. OnRefuse can still follow, if the route is closed or its queue stays
	// full.
	OnMatch func(Matched)

	// OnRefuse is called for each connection that is closed without having reached a server, before it is answered.
	OnRefuse func(Refused)

	// OnDispatch is called for each HTTP/2 connection whose requests are dispatched ([Mux.Requests], [Server]) when its
	// first request is on its way to a server, and again when the first request for another server is.
	OnDispatch func(Dispatched)

	// OnAbuse is called for each HTTP/2 connection whose requests are dispatched that is ended because the client went over
	// one of the [Limits], after a server had it.
	OnAbuse func(Abused)
}

// Matched describes a connection that has found its route.
type Matched struct {
	Conn          net.Conn             // as it was accepted
	TLS           *tls.ConnectionState // of the TLS that the mux has terminated, with the protocol of ALPN; nil without
	Route         string               // the route's name
	Protocol      Protocol
	Upgraded      bool          // by Upgrade: h2c
	EarlySettings bool          // an early SETTINGS frame was sent: the request was not there when the mux looked
	Waited        time.Duration // since the connection was accepted
}

// LogValue returns the fields as a group.
func (m Matched) LogValue() slog.Value {
	return slog.GroupValue(append(connAttrs(m.Conn, m.TLS, m.Route, m.Protocol),
		slog.Bool("upgraded", m.Upgraded), slog.Bool("early_settings", m.EarlySettings), slog.Duration("waited", m.Waited))...)
}

// Refused describes a connection that is closed without having reached a server.
type Refused struct {
	Conn          net.Conn             // as it was accepted
	TLS           *tls.ConnectionState // of the TLS that the mux has terminated; nil without
	Route         string               // the name of the route that it had found, if any
	Protocol      Protocol
	EarlySettings bool // an early SETTINGS frame was sent
	Reason        RefuseReason
	Err           error         // what happened, in a sentence
	Seen          int           // how many bytes of the client the decision has looked at
	Waited        time.Duration // since the connection was accepted
}

// LogValue returns the fields as a group.
func (r Refused) LogValue() slog.Value {
	return slog.GroupValue(append(connAttrs(r.Conn, r.TLS, r.Route, r.Protocol),
		slog.String("reason", r.Reason.String()), slog.Any("err", cmp.Or(errors.Unwrap(r.Err), r.Err)), slog.Int("bytes", r.Seen),
		slog.Bool("early_settings", r.EarlySettings), slog.Duration("waited", r.Waited))...)
}

// Dispatched describes an HTTP/2 connection whose requests are dispatched, and a server that takes part from now on.
type Dispatched struct {
	Conn          net.Conn             // as it was accepted
	TLS           *tls.ConnectionState // of the TLS that the mux has terminated; nil without
	Route         string               // the name of the route that leads to the server
	EarlySettings bool                 // an early SETTINGS frame was sent: the first request was not there when the mux looked
}

// LogValue returns the fields as a group.
func (d Dispatched) LogValue() slog.Value {
	return slog.GroupValue(append(connAttrs(d.Conn, d.TLS, d.Route, ProtocolHTTP2),
		slog.Bool("early_settings", d.EarlySettings))...)
}

// Abused describes an HTTP/2 connection whose requests are dispatched that is ended for going over a limit.
type Abused struct {
	Conn  net.Conn             // as it was accepted
	TLS   *tls.ConnectionState // of the TLS that the mux has terminated; nil without
	Route string               // the name of the [RequestMux]
	Err   error                // what the client has done, in a sentence
}

// LogValue returns the fields as a group.
func (a Abused) LogValue() slog.Value {
	return slog.GroupValue(append(connAttrs(a.Conn, a.TLS, a.Route, ProtocolHTTP2), slog.Any("err", a.Err))...)
}

// connAttrs are what every record about a connection says.
func connAttrs(c net.Conn, state *tls.ConnectionState, route string, protocol Protocol) []slog.Attr {
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.Any("remote", c.RemoteAddr()), slog.Any("local", c.LocalAddr()),
		slog.String("route", route), slog.String("protocol", protocol.String()))
	if state != nil {
		attrs = append(attrs, slog.Group("tls", slog.String("version", tls.VersionName(state.Version)),
			slog.String("server_name", state.ServerName), slog.String("alpn", state.NegotiatedProtocol)))
	}
	return attrs
}
