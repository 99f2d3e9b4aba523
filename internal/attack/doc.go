// Package attack holds tests that attack a [oneport.Server] with what HTTP/2 servers have fallen to: rapid reset
// (CVE-2023-44487), CONTINUATION floods (CVE-2024-27316), MadeYouReset (CVE-2025-8671), HPACK bombs and floods of
// frames; on connections that pass through to one server, and on those that gRPC and HTTP share. The same attacks on
// grpc-go and net/http alone say what they may cost: no more work for the handlers, and at most 1.5 times the memory of
// both servers together, by the resident size of a process of the server's own.
//
// [oneport.Server]: https://pkg.go.dev/github.com/oneport-go/oneport#Server
package attack
