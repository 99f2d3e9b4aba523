// Package etcd holds a test: an embedded etcd, which imports github.com/soheilhy/cmux, serves gRPC and HTTP on its
// client port with the replacement of that. It is a module of its own so that etcd is no dependency of oneport. The
// same test runs with the original cmux: go test -modfile=original.mod.
package etcd
