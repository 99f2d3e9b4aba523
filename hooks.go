package oneport

import (
	"cmp"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"
)

// Hooks report what happens to connections. A nil hook is not called. Hooks may be called by several goroutines at
// once. They should return quickly, and may call only LocalAddr and RemoteAddr of the connections that they get. A
// panic in OnMatch refuses the connection with [ReasonPanic]; a panic in another hook is logged and has no other
// effect.
//
// The values that hooks get implement [slog.LogValuer]: slog.Any("conn", matched) logs them field by field.
type Hooks struct {
	// OnMatch is called for each connection that has found its route, before the server gets it. Where requests are
	// dispatched, it is called when the first request has arrived. OnRefuse may still follow, if the route is closed or
	// its queue stays full.
	OnMatch func(Matched)

	// OnRefuse is called for each connection that is closed without having reached a server, before the client is
	// answered.
	OnRefuse func(Refused)

	// OnDispatch is called for an HTTP/2 connection whose requests are dispatched ([Mux.Requests], [Server]), once for
	// each server that takes part: when the first request for the server is on its way, before the server gets its side
	// of the connection. It is not called for a server whose queue is full.
	OnDispatch func(Dispatched)

	// OnAbuse is called for an HTTP/2 connection whose requests are dispatched ([Mux.Requests], [Server]), when it is
	// closed because the client exceeded one of the [Limits] after a server had accepted the connection.
	OnAbuse func(Abused)
}

// Matched describes a connection that has found its route. See [Hooks.OnMatch].
type Matched struct {
	Conn          net.Conn             // as it was accepted
	TLS           *tls.ConnectionState // the state of TLS if the mux has terminated it, otherwise nil
	Route         string               // the name of the route
	Protocol      Protocol
	Upgraded      bool          // upgraded to HTTP/2 by Upgrade: h2c
	EarlySettings bool          // an early SETTINGS frame was sent
	Waited        time.Duration // time since the connection was accepted
}

// LogValue returns the fields as a group: remote, local, route, protocol, tls (if there is any), upgraded,
// early_settings and waited.
func (m Matched) LogValue() slog.Value {
	return slog.GroupValue(append(connAttrs(m.Conn, m.TLS, m.Route, m.Protocol),
		slog.Bool("upgraded", m.Upgraded), slog.Bool("early_settings", m.EarlySettings), slog.Duration("waited", m.Waited))...)
}

// Refused describes a connection that is closed without having reached a server. See [Hooks.OnRefuse].
type Refused struct {
	Conn          net.Conn             // as it was accepted
	TLS           *tls.ConnectionState // the state of TLS if the mux has terminated it, otherwise nil
	Route         string               // the name of the route that had taken the connection, if any
	Protocol      Protocol
	EarlySettings bool // an early SETTINGS frame was sent
	Reason        RefuseReason
	Err           error         // why, in a sentence that names the client
	Seen          int           // number of bytes from the client that the matchers have seen
	Waited        time.Duration // time since the connection was accepted
}

// LogValue returns the fields as a group: remote, local, route, protocol, tls (if there is any), reason, err, bytes,
// early_settings and waited.
func (r Refused) LogValue() slog.Value {
	return slog.GroupValue(append(connAttrs(r.Conn, r.TLS, r.Route, r.Protocol),
		slog.String("reason", r.Reason.String()), slog.Any("err", cmp.Or(errors.Unwrap(r.Err), r.Err)),
		slog.Int("bytes", r.Seen), slog.Bool("early_settings", r.EarlySettings), slog.Duration("waited", r.Waited))...)
}

// Dispatched describes an HTTP/2 connection whose requests are dispatched, and the route of a server that begins to
// take part in it. See [Hooks.OnDispatch].
type Dispatched struct {
	Conn          net.Conn             // as it was accepted
	TLS           *tls.ConnectionState // the state of TLS if the mux has terminated it, otherwise nil
	Route         string               // the name of the route that leads to the server
	EarlySettings bool                 // an early SETTINGS frame was sent
}

// LogValue returns the fields as a group: remote, local, route, protocol, tls (if there is any) and early_settings.
func (d Dispatched) LogValue() slog.Value {
	return slog.GroupValue(append(connAttrs(d.Conn, d.TLS, d.Route, ProtocolHTTP2),
		slog.Bool("early_settings", d.EarlySettings))...)
}

// Abused describes an HTTP/2 connection that was closed because the client exceeded a limit while its requests were
// dispatched. See [Hooks.OnAbuse].
type Abused struct {
	Conn  net.Conn             // as it was accepted
	TLS   *tls.ConnectionState // the state of TLS if the mux has terminated it, otherwise nil
	Route string               // the name of the [RequestMux]
	Err   error                // what the client did, in a sentence
}

// LogValue returns the fields as a group: remote, local, route, protocol, tls (if there is any) and err.
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
