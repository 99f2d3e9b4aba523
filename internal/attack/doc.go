// Package attack has tests that attack a [oneport.Server] with known attacks on HTTP/2 servers: rapid reset
// (CVE-2023-44487), CONTINUATION floods (CVE-2024-27316), MadeYouReset (CVE-2025-8671), HPACK bombs and floods of
// frames. They use connections that pass through to one server, and connections that gRPC and HTTP share. The same
// attacks on grpc-go and net/http alone set the bounds: no more work for the handlers, and at most 1.5 times the memory
// of both servers together, by the resident size of the server's process.
//
// [oneport.Server]: https://pkg.go.dev/github.com/oneport-go/oneport#Server
package attack
