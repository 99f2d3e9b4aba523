// Package h2spec tests that h2spec, the conformance suite for HTTP/2 servers, reports the same for net/http behind a
// mux as for net/http alone, in cleartext and over TLS. It is a module of its own so that oneport does not depend on
// the suite.
package h2spec
