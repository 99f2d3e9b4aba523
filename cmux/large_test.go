package cmux_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/soheilhy/cmux"
)

// TestLargeRequests checks that requests are served whose fields are longer than what cmux, and this package once, would
// look at.
func TestLargeRequests(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := cmux.New(l)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	serve := func(name string, l net.Listener) *http.Server {
		s := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, name, " ", r.Proto)
		})}
		go s.Serve(l)
		return s
	}
	defer serve("grpc", m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc"))).Close()
	defer serve("http2", m.Match(cmux.HTTP2())).Close()
	defer serve("http1", m.Match(cmux.HTTP1Fast())).Close()
	done := make(chan error)
	go func() { done <- m.Serve() }()
	defer func() {
		l.Close()
		<-done
	}()

	for _, size := range []int{24 << 10, 80 << 10} {
		for _, tt := range []struct {
			http1             bool
			contentType, want string
		}{
			{true, "text/plain", "http1 HTTP/1.1"},
			{false, "text/plain", "http2 HTTP/2.0"},
			{false, "application/grpc", "grpc HTTP/2.0"},
		} {
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetHTTP1(tt.http1)
			transport.Protocols.SetUnencryptedHTTP2(!tt.http1)
			req, _ := http.NewRequest(http.MethodGet, "http://"+l.Addr().String(), nil)
			req.Header = http.Header{"Content-Type": {tt.contentType}, "Cookie": {strings.Repeat("c", size)}}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", tt.want, size, err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(got) != tt.want || err != nil {
				t.Errorf("%d bytes: %q, %v, want %q", size, got, err, tt.want)
			}
			transport.CloseIdleConnections()
		}
	}
}
