// Package etcd tests that an embedded etcd, which imports github.com/soheilhy/cmux, serves gRPC and HTTP on its client
// port with the replacement. It is a module of its own so that oneport does not depend on etcd. The same test runs with
// the original cmux: go test -modfile=original.mod.
package etcd
