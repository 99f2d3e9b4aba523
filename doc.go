// Package oneport serves gRPC, HTTP/2 in the clear, HTTP/1, TLS and anything else with a recognisable start on one port.
//
//	                 +-----------+    GRPC()     +-------------+
//	clients -------> |  oneport  | ------------> | grpc.Server |
//	of any protocol  |    Mux    |    HTTP1(),   +-------------+
//	                 |           |    HTTP2()    +-------------+
//	                 |           | ------------> | http.Server |
//	                 +-----------+               +-------------+
//
// A [Mux] wraps a [net.Listener]. It looks at the first bytes of each connection and hands it to the first route whose
// [Matcher] takes it. Each route is a [net.Listener] of its own:
//
//	l, err := net.Listen("tcp", ":8080")
//	...
//	mux := oneport.New(l)
//	grpcL := mux.Match(oneport.GRPC())
//	httpL := mux.Match(oneport.HTTP1(), oneport.HTTP2())
//	go grpcServer.Serve(grpcL)
//	go httpServer.Serve(httpL)
//	err = mux.Serve()
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
// # Limits
//
// Everything that a client can make the mux hold is bounded, with defaults for the open internet: the fields of [Mux] say
// how. A connection that finds no route is refused in its own language (a status line of HTTP/1, SETTINGS and GOAWAY of
// HTTP/2, an alert of TLS), counted ([Mux.Stats]), reported ([Mux.OnRefuse]) and logged ([Mux.Logger]).
//
// A decision is for the whole of a connection. Where a proxy sends requests of several kinds over one HTTP/2 connection,
// all of them reach the server that the first one was for.
package oneport
