// Package interop has tests with real clients, and a mux with real servers behind it. The clients are curl, nghttp,
// openssl, Node's HTTP/2 client, Java's, grpc-js, grpc-go, and clients of RFC 9218 that send their first HEADERS late,
// in cleartext, by an upgrade to h2c, and over TLS.
//
// A test whose client is not installed is skipped, or fails if the environment variable ONEPORT_REQUIRE_CLIENTS is 1.
// The tests of grpc-js need
//
//	npm ci --prefix internal/interop/testdata/node
package interop
