// Package proxyload holds tests in which thousands of impatient clients of a reverse proxy, which give up long before
// they are answered, share its connections to a [oneport.Server] with patient ones. The proxies are net/http's
// ReverseProxy, HAProxy and nginx.
//
// A test whose proxy is not installed is skipped, or fails where the environment variable ONEPORT_REQUIRE_CLIENTS is 1.
// ONEPORT_PROXYLOAD is how many impatient requests there are, 3,000 by default.
//
// [oneport.Server]: https://pkg.go.dev/github.com/oneport-go/oneport#Server
package proxyload
