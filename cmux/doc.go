// Package cmux is a drop-in replacement for github.com/soheilhy/cmux v0.1.5, built on [github.com/oneport-go/oneport].
// It has the same exported names with the same types. A program that imports cmux, directly or through a dependency,
// switches with two replace lines in its go.mod and no code changes. docs/migrating-from-cmux.md of oneport shows them,
// and lists every difference in behavior.
//
//	m := cmux.New(l)
//	grpcL := m.Match(cmux.HTTP2HeaderField("content-type", "application/grpc"))
//	httpL := m.Match(cmux.HTTP1Fast(), cmux.HTTP2())
//	otherL := m.Match(cmux.Any())
//	...
//	err := m.Serve()
//
// The replacement fixes faults of cmux: gRPC clients that wait for the server's SETTINGS do not hang; HTTP/2 with
// net/http works beside them; grpc-go gets the accepted connection; a silent client delays neither other matchers nor
// the end of Serve; and the memory that a client can make the multiplexer hold is bounded.
//
// New programs should use package oneport itself.
package cmux
