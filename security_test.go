package oneport

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// serveAs serves HTTP on l until the end of the test, and answers with who serves and what the request is for.
func serveAs(t *testing.T, l net.Listener, name string) {
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s has %s of %s", name, r.URL.Path, r.Host)
	})}
	ConfigureHTTP(server)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
}

// TestRoutesAreNoAccessControl shows how a client gets to a server with a request for which there is another route: by
// the second request on a connection, and by naming one host to TLS and another to HTTP; and what does not get it
// there.
func TestRoutesAreNoAccessControl(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	m := newMux(l)
	serveAs(t, m.Match(Path("/admin")), "admin")
	serveAs(t, m.Match(HTTP1(), HTTP2()), "public")
	secure := m.TLS(serverTLS())
	serveAs(t, secure.Match(ServerName("legacy.example.com")), "legacy")
	serveAs(t, secure.Match(HTTP1(), HTTP2()), "example")
	serve(t, m)

	inClear := func(t *testing.T) net.Conn { return dial(t, l) }
	inTLS := func(t *testing.T) net.Conn { return dialTLS(t, l, clientTLS("http/1.1")) }
	for _, tt := range []struct {
		name  string
		dial  func(*testing.T) net.Conn
		sends []string
		want  string // the last answer
	}{
		{"as it is meant", inClear, []string{"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"}, "admin has /admin of a"},
		{"second request", inClear, []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"}, "public has /admin of a"},
		{"percent-encoding", inClear, []string{"GET /%61dmin HTTP/1.1\r\nHost: a\r\n\r\n"}, "admin has /admin of a"},
		{"dot segments", inClear, []string{"GET /x/../admin HTTP/1.1\r\nHost: a\r\n\r\n"}, "public has /x/../admin of a"},
		{"another host than TLS's", inTLS, []string{"GET / HTTP/1.1\r\nHost: legacy.example.com\r\n\r\n"}, "example has / of legacy.example.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client := tt.dial(t)
			client.SetDeadline(time.Now().Add(10 * time.Second))
			r := bufio.NewReader(client)
			var answer []byte
			for _, request := range tt.sends {
				write(t, client, []byte(request))
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				if answer, err = io.ReadAll(resp.Body); err != nil {
					t.Fatal(err)
				}
			}
			if string(answer) != tt.want {
				t.Errorf("got %q, want %q", answer, tt.want)
			}
		})
	}
	t.Run("second request, HTTP/2", func(t *testing.T) {
		t.Parallel()
		client := httpClient(t, nil, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
		get(t, client, "http://"+l.Addr().String()+"/")
		if got, want := get(t, client, "http://"+l.Addr().String()+"/admin"), "public has /admin of "+l.Addr().String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestErrorIsOneLine checks that a client cannot put lines of its own into logs.
func TestErrorIsOneLine(t *testing.T) {
	t.Parallel()
	for _, sends := range []string{
		"\x00\nlevel=ERROR\x1b[31m",
		"GET /\x1b[31m\nlevel=ERROR HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\x1b[31m\r\nlevel=ERROR\r\n\r\n",
		string(headerFlight(":method", "GET\nlevel=ERROR", ":path", "/\x1b[31m")),
	} {
		root := listen(t, "tcp")
		m := newMux(root)
		refused := watchRefusals(m)
		m.Match(Header("No", "route"))
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte(sends))
		if r := <-refused; strings.ContainsFunc(r.Err.Error(), func(r rune) bool { return r < ' ' }) {
			t.Errorf("the error is %q", r.Err)
		}
	}
}

// TestAnswerIsNotRead checks that a refused client that does not read its answer is not waited for any longer than one
// that does.
func TestAnswerIsNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.Match(Prefix("x"))
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte("GET / HTTP/1.1\r\n\r\n"))
		synctest.Wait()
		if n := m.Stats().Refusing; n != 1 {
			t.Errorf("%d connections are being refused, want 1", n)
		}
		time.Sleep(lingerTime)
		synctest.Wait()
		if n := m.Stats().Refusing; n != 0 {
			t.Errorf("after %v, %d connections are being refused", lingerTime, n)
		}
	})
}

// TestHandshakesAreBounded checks that clients in a TLS handshake count as undecided, so that no more are in one at
// once than MaxUndecided permits, and the longest waiting makes room.
func TestHandshakesAreBounded(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	m.MaxUndecided = 2
	refused := watchRefusals(m)
	begun := make(chan struct{})
	config := serverTLS()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		begun <- struct{}{}
		return nil, nil
	}
	m.HandshakeTimeout = time.Hour
	route := m.TLS(config).Match(HTTP1())
	serve(t, m)
	var clients []net.Conn
	for i := range 4 { // they do not answer the server's part of the handshake
		client := dial(t, root)
		write(t, client, capture(t, "openssl-tls13.1"))
		<-begun
		clients = append(clients, client)
		if i < m.MaxUndecided {
			continue
		}
		r, client := <-refused, clients[i-m.MaxUndecided]
		if r.Reason != ReasonTooMany || r.Conn.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("%v was refused for %v, want the oldest, %v", r.Conn.RemoteAddr(), r.Reason, client.LocalAddr())
		}
	}
	if n := m.Stats().Undecided; n != 2 {
		t.Errorf("%d connections are undecided, want 2", n)
	}
	go func() { <-begun }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	good := tls.Client(dial(t, root), clientTLS("http/1.1"))
	if err := good.HandshakeContext(ctx); err != nil {
		t.Fatal(err)
	}
	write(t, good, []byte("GET / HTTP/1.1\r\n\r\n"))
	accept(t, route)
}
