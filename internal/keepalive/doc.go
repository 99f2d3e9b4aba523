// Package keepalive has tests of the timers and PINGs of servers and clients. They compare a server alone, a connection
// that passes through a [oneport.Server], and a connection that gRPC and HTTP share, in cleartext and over TLS. Time is
// that of testing/synctest, so hours take no time.
//
// [oneport.Server]: https://pkg.go.dev/github.com/oneport-go/oneport#Server
package keepalive
