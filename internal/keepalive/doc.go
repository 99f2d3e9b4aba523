// Package keepalive holds tests that compare what the timers and the PINGs of servers and clients come to with a server
// alone, behind a [oneport.Server] to which a connection passes through, and on a connection that gRPC and HTTP share;
// in the clear and over TLS. Time is that of testing/synctest, so that hours take no time.
//
// [oneport.Server]: https://pkg.go.dev/github.com/oneport-go/oneport#Server
package keepalive
