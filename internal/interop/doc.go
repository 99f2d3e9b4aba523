// Package interop holds tests in which real clients meet a mux with real servers behind it: curl, nghttp, openssl,
// Node's HTTP/2 client, Java's, grpc-js, grpc-go, and clients of RFC 9218 that send their first HEADERS late; in
// cleartext, by an upgrade to h2c, and over TLS.
//
// A test whose client is not there is skipped, or fails where the environment variable ONEPORT_REQUIRE_CLIENTS is 1.
// Before the tests of grpc-js come
//
//	npm ci --prefix internal/interop/testdata/node
package interop
