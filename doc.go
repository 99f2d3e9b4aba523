// Package oneport serves gRPC, HTTP/2 in the clear, HTTP/1, TLS and anything else with a recognisable start on one port.
//
//	                 +-----------+    GRPC()     +-------------+
//	clients -------> |  oneport  | ------------> | grpc.Server |
//	of any protocol  |    Mux    |    HTTP1(),   +-------------+
//	                 |           |    HTTP2()    +-------------+
//	                 |           | ------------> | http.Server |
//	                 +-----------+               +-------------+
//
// A [Server] is all that in a few lines, in the clear and over TLS:
//
//	s := &oneport.Server{Addr: ":8080", GRPC: grpcServer, Handler: handler, TLSConfig: config}
//	err := s.ListenAndServe()
//
// A [Mux] is for everything else. It wraps a [net.Listener], looks at the first bytes of each connection, and hands it to
// the first route whose [Matcher] takes it. Each route is a [net.Listener] of its own:
//
//	l, err := net.Listen("tcp", ":8080")
//	...
//	mux := oneport.New(l)
//	grpcL := mux.Match(oneport.GRPC())
//	httpL := mux.Match(oneport.HTTP1(), oneport.HTTP2())
//	oneport.ConfigureHTTP(httpServer)
//	go grpcServer.Serve(grpcL)
//	go httpServer.Serve(httpL)
//	err = mux.Serve()
//
// # Where to find what
//
//   - [Mux], [Route]: routes, limits, hooks, [Mux.Stats]; [Mux.Shutdown]
//   - [GRPC], [HTTP1], [HTTP2], [Header], [Host], [Path], [TLS], [ServerName], [Prefix], [Silence] and others: matchers;
//     [MatcherFunc], [ReadMatcher]: functions of your own, which see a [Preview]
//   - [Mux.TLS], [TLSRoute], [Secure]: TLS that ends on the port
//   - [Listen], [ListenConfig]: listeners for many new connections
//   - package streams: requests of one HTTP/2 connection, each to the server it is for
//   - package grpccreds: a gRPC server's view of the TLS below, and less memory for its idle connections
//
// # What the server gets
//
// On TCP and Unix sockets the mux looks without taking anything out (recv(2) with MSG_PEEK), and the server gets the
// connection that Accept returned, itself. Only where the stream has to be changed, or cannot be looked at in this way,
// does it get a [TCPConn] or a [Conn], which replays what was read.
//
// # Early SETTINGS
//
// The HTTP/2 clients of gRPC send the preface and their SETTINGS frame and then wait for the server's before they send a
// request. A route that depends on the request's header fields would wait for them for ever. So when the preface is there
// and no header block, and a route still depends on it, the mux sends one SETTINGS frame at once, and takes the client's
// acknowledgement of it out of what the server reads. See [DefaultEarlySettings] and [Route].
//
// # TLS
//
// A route with [TLS], [ServerName], [ALPN] or [TLSVersion] passes a TLS connection on to a server that does its own TLS,
// by what the ClientHello says. [Mux.TLS] terminates TLS instead, offers by ALPN what its routes can take, and decides
// again inside, by ALPN alone where that is enough:
//
//	secure := mux.TLS(config)
//	grpcL := secure.Match(oneport.GRPC())
//	httpL := secure.Match(oneport.HTTP1(), oneport.HTTP2())
//
// What the handshake has found out, with the client's certificate, is in [http.Request.TLS], in the AuthInfo of gRPC's
// peers with package grpccreds, and in [Preview.TLS], [Matched] and [Refused].
//
// # Limits
//
// Everything that a client can make the mux hold is bounded, with defaults for the open internet: the fields of [Mux] say
// how. A connection that finds no route is refused in its own language (a status line of HTTP/1; SETTINGS and GOAWAY of
// HTTP/2, if it has asked for something; an alert of TLS), counted ([Mux.Stats]), reported ([Mux.OnRefuse]) and logged
// ([Mux.Logger]).
//
// A decision of a Mux is for the whole of a connection. Where a proxy sends requests of several kinds over one HTTP/2
// connection, all of them reach the server that the first one was for; [Server] and package streams dispatch each of them.
package oneport
