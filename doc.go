// Package oneport serves gRPC, HTTP/2, HTTP/1, TLS and other protocols on one port.
//
//	                 +-----------+    GRPC()     +-------------+
//	clients -------> |  oneport  | ------------> | grpc.Server |
//	of any protocol  |    Mux    |    HTTP1(),   +-------------+
//	                 |           |    HTTP2()    +-------------+
//	                 |           | ------------> | http.Server |
//	                 +-----------+               +-------------+
//
// A [Server] serves gRPC and HTTP on one port in a few lines, with and without TLS:
//
//	s := &oneport.Server{Addr: ":8080", GRPC: grpcServer, Handler: handler, TLSConfig: config}
//	err := s.ListenAndServe()
//
// A [Mux] serves any set of protocols. It wraps a [net.Listener], peeks at the first bytes of each connection, and
// hands the connection to the first route whose [Matcher] takes it. Each route is a [net.Listener] for its server:
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
// # Overview
//
//   - [Server]: gRPC and HTTP on one port
//   - [Mux], [Route]: routes for whole connections
//   - [Mux.Requests], [RequestMux]: routes for single HTTP/2 requests
//   - [Mux.TLS], [TLSMux]: routes inside TLS that ends at the mux
//   - [GRPC], [HTTP1], [HTTP2], [Header], [Host], [Path], [TLS], [ServerName], [ALPN], [Prefix], [Silence] and others:
//     matchers
//   - [MatcherFunc], [ReadMatcher], [Preview]: matchers of your own
//   - [Limits], [Hooks], [Stats]: bounds on what clients can use, reports on their connections, and counters
//   - [Listen], [ListenConfig]: listeners for many new connections
//   - package grpccreds: TLS state for gRPC handlers, and less memory for idle gRPC connections
//
// # What a server gets
//
// On TCP and Unix sockets on Linux, the mux peeks at the first bytes with recv(2) and MSG_PEEK. It consumes nothing,
// and the server gets the connection that Accept returned. If the mux has to read the first bytes, or to hide part of
// the stream, the server gets a [TCPConn] or a [Conn], which replays what was read. The mux has to read if the
// connection is not a socket (inside TLS, behind the PROXY protocol), on Windows, and on macOS and the BSDs if the
// first bytes do not arrive in one piece.
//
// # Early SETTINGS
//
// The HTTP/2 clients of gRPC send the connection preface and SETTINGS, and then wait for the server's SETTINGS before
// they send a request. If a route depends on the request, the mux would wait for the client, and the client for the
// mux. So when a client has sent the preface without a request, and a route depends on the request, the mux sends one
// SETTINGS frame. It drops the client's acknowledgement of that frame, unless the server ignores unexpected
// acknowledgements. See [Mux.EarlySettings] and [Route.SettingsACK].
//
// # TLS
//
// A route with [TLS], [ServerName], [ALPN] or [TLSVersion] passes a TLS connection through to a server that does its
// own TLS. [Mux.TLS] terminates TLS instead, offers by ALPN what its routes can take, and routes what is inside:
//
//	secure := mux.TLS(config)
//	grpcL := secure.Match(oneport.GRPC())
//	httpL := secure.Match(oneport.HTTP1(), oneport.HTTP2())
//
// The TLS state, with the client's certificate, is in [http.Request.TLS] if the server was prepared with
// [ConfigureHTTP], in AuthInfo if a gRPC server was created with package grpccreds, and in [Preview.TLS], [Matched] and
// [Refused].
//
// # Connections and requests
//
// [Mux.Match] decides once for a connection, by its first request. All other requests on the connection go to the same
// server, even if another route would take them. Clients and proxies that send requests of several kinds over one
// HTTP/2 connection need [Mux.Requests], which dispatches the requests: it routes each of them on its own. A [Server]
// does so by default.
//
// # Limits
//
// [Limits] bound what clients can make a Mux or a Server hold. A connection is undecided until it has a route. A
// connection that no route takes is refused in the client's own protocol: with an HTTP/1 response, with an HTTP/2
// response and GOAWAY, or with a TLS alert. It is counted ([Stats]), reported ([Hooks]) and logged ([Mux.Logger]).
package oneport
