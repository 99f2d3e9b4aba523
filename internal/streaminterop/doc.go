// Package streaminterop tests that gRPC's interoperability cases pass where requests are dispatched, while REST
// requests use the same connection. It is a module of its own because of the dependencies of the cases.
package streaminterop
