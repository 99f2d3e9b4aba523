package cmux_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/soheilhy/cmux"
)

// TestLargeRequests checks that requests are served whose fields are longer than what cmux, and this package once,
// would look at: in the clear, with TLS below the multiplexer, and with TLS on a route to another multiplexer.
func TestLargeRequests(t *testing.T) {
	example := httptest.NewUnstartedServer(nil)
	example.StartTLS()
	example.Close() // only its certificate is needed
	config := &tls.Config{Certificates: example.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	roots := x509.NewCertPool()
	roots.AddCert(example.Certificate())

	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	// run serves on l by a multiplexer until the end of the test.
	run := func(t *testing.T, l net.Listener, addRoutes func(cmux.CMux)) {
		m := cmux.New(l)
		addRoutes(m)
		done := make(chan error)
		go func() { done <- m.Serve() }()
		t.Cleanup(func() {
			l.Close()
			<-done
		})
	}
	for _, way := range []struct {
		name   string
		scheme string
		run    func(t *testing.T, l net.Listener, addRoutes func(cmux.CMux))
	}{
		{"in the clear", "http", run},
		{"TLS below", "https", func(t *testing.T, l net.Listener, addRoutes func(cmux.CMux)) {
			run(t, tls.NewListener(l, config), addRoutes)
		}},
		{"TLS on a route", "https", func(t *testing.T, l net.Listener, addRoutes func(cmux.CMux)) {
			run(t, l, func(m cmux.CMux) {
				run(t, tls.NewListener(m.Match(cmux.TLS()), config), addRoutes)
			})
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			way.run(t, l, func(m cmux.CMux) {
				serve := func(name string, l net.Listener) {
					s := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						fmt.Fprint(w, name, " ", r.Proto, " ", len(r.Header.Get("Cookie")))
					})}
					go s.Serve(l)
					t.Cleanup(func() { s.Close() })
				}
				serve("grpc", m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc")))
				serve("http2", m.Match(cmux.HTTP2()))
				serve("http1", m.Match(cmux.HTTP1Fast()))
			})

			for _, size := range []int{24 << 10, 80 << 10} {
				for _, tt := range []struct {
					http1             bool
					contentType, want string
				}{
					{true, "text/plain", "http1 HTTP/1.1"},
					{false, "text/plain", "http2 HTTP/2.0"},
					{false, "application/grpc", "grpc HTTP/2.0"},
				} {
					transport := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{RootCAs: roots}}
					transport.Protocols.SetHTTP1(tt.http1)
					transport.Protocols.SetHTTP2(!tt.http1 && way.scheme == "https")
					transport.Protocols.SetUnencryptedHTTP2(!tt.http1 && way.scheme == "http")
					req, _ := http.NewRequest(http.MethodGet, way.scheme+"://"+l.Addr().String(), nil)
					req.Header = http.Header{"Content-Type": {tt.contentType}, "Cookie": {strings.Repeat("c", size)}}
					want := fmt.Sprint(tt.want, " ", size)
					resp, err := transport.RoundTrip(req)
					if err != nil {
						t.Fatalf("%s: %v", want, err)
					}
					got, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if string(got) != want || err != nil {
						t.Errorf("%q, %v, want %q", got, err, want)
					}
					transport.CloseIdleConnections()
				}
			}
		})
	}
}
