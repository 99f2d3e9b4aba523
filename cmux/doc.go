// Package cmux is a drop-in replacement for github.com/soheilhy/cmux v0.1.5, made of
// [github.com/oneport-go/oneport]. It has the same exported names with the same types. A program, or a program whose
// dependency imports cmux, takes it with two lines in its go.mod and no change in its code; see
// docs/migrating-from-cmux.md of oneport, which also lists every difference in behaviour.
//
//	m := cmux.New(l)
//	grpcL := m.Match(cmux.HTTP2HeaderField("content-type", "application/grpc"))
//	httpL := m.Match(cmux.HTTP1Fast(), cmux.HTTP2())
//	otherL := m.Match(cmux.Any())
//	...
//	err := m.Serve()
//
// What it adds to cmux: gRPC clients, which wait for the server's SETTINGS before they send a request, do not hang;
// net/http's HTTP/2 works beside them; grpc-go gets the connection that was accepted; a client that says nothing delays
// neither the other matchers nor the end of Serve; and what a client can make it hold in memory is bounded.
//
// New programs should use package oneport itself, which has more to offer.
package cmux
