// Package streaminterop holds a test: gRPC's interoperability cases pass through routing by request while REST requests
// go over the same connection. It is a module of its own because of what the cases depend on.
package streaminterop
