// Package dispatch sends each request of an HTTP/2 connection to the server that it is for. Each server sees an HTTP/2
// connection of its own with only its requests on it.
//
// oneport.RequestMux is built on it. The package knows nothing of matchers: it is given a function that decides by a
// header list. It begins where the opening of a connection ends ([Opened]), and an [Owner] bounds, counts and ends
// connections. docs/requests.md explains how it works, with the names that are used here.
//
// A connection is in one of two modes:
//
//   - passing, while one server has all streams. Its Read reads from the client's connection and its Write writes to it;
//     frames pass unchanged, and what the next mode has to know is recorded (start.go, pass.go, streams.go). What a
//     server writes first goes out with what follows it (withhold.go), or not at all (settings.go).
//   - splitting, from the first stream on that is not for this server. One goroutine reads frames (split.go,
//     fromclient.go), and one takes what the servers have written, and writes (fromserver.go, download.go); header blocks
//     are encoded anew on both sides (headers.go), and flow control is accounted for on both (upload.go, download.go).
//     What only this mode needs is there only then (splitConn, splitServer).
//
// A server's side of a connection is a [Conn] (server.go, write.go, ready.go). Connections end by a fault, with their
// last server (end.go), or since they are drained (drain.go).
package dispatch
