// Package h2spec holds a test: what h2spec, the conformance suite for HTTP/2 servers, says of net/http behind a mux is
// what it says of net/http alone, in cleartext and over TLS. It is a module of its own so that the suite is no
// dependency of oneport.
package h2spec
