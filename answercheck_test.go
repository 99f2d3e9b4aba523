package oneport

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/oneport-go/oneport/internal/h2"
)

// checkWarning checks that it is logged once that a server does not speak HTTP/2, with its answer; or, if the answer is
// "", that nothing is.
func checkWarning(t *testing.T, book *logBook, answer string) {
	t.Helper()
	got := book.String()
	if answer == "" {
		if got != "" {
			t.Errorf("logged, in place of nothing:\n%s", got)
		}
		return
	}
	said := strings.Count(got, "answer="+answer) + strings.Count(got, `answer="`+answer)
	if strings.Count(got, "does not speak HTTP/2, but its clients do") != 1 || said != 1 {
		t.Errorf("logged, in place of %s once:\n%s", answer, got)
	}
}

// anHTTPServer returns a function that serves with a server of net/http until the end of the test.
func anHTTPServer(prepare func(*http.Server), serve func(*http.Server, net.Listener) error) func(*testing.T, net.Listener) {
	return func(t *testing.T, l net.Listener) {
		s := &http.Server{Handler: http.NotFoundHandler(), TLSConfig: serverTLS(), ErrorLog: log.New(io.Discard, "", 0)}
		prepare(s)
		go serve(s, l)
		t.Cleanup(func() { s.Close() })
	}
}

func unprepared(*http.Server) {}

func serveTLS(s *http.Server, l net.Listener) error { return s.ServeTLS(l, "", "") }

// aGRPCServer is anHTTPServer for a server of grpc-go.
func aGRPCServer(options ...grpc.ServerOption) func(*testing.T, net.Listener) {
	return func(t *testing.T, l net.Listener) {
		s := grpc.NewServer(options...)
		go s.Serve(l)
		t.Cleanup(s.Stop)
	}
}

// TestServerOfHTTP1 checks, with the servers that people have, that it is logged once if the server of a route does not
// speak HTTP/2 to clients that do, and that nothing is logged of one which does.
func TestServerOfHTTP1(t *testing.T) {
	t.Parallel()
	reading := Prefix(h2.Preface)
	for _, tt := range []struct {
		name   string
		inTLS  Matcher // of the route, or nil for one without TLS
		serve  func(*testing.T, net.Listener)
		answer string // "" for HTTP/2
	}{
		{"net/http without ConfigureHTTP", nil, anHTTPServer(unprepared, (*http.Server).Serve), "HTTP/1"},
		{"the same inside TLS", reading, anHTTPServer(unprepared, (*http.Server).Serve), "HTTP/1"},
		{"a default handler", nil, anHTTPServer(func(s *http.Server) { s.Handler = nil }, (*http.Server).Serve), "HTTP/1"},
		{"Protocols without h2c", nil, anHTTPServer(func(s *http.Server) {
			s.Protocols = new(http.Protocols)
			s.Protocols.SetHTTP1(true)
		}, (*http.Server).Serve), "HTTP/1"},
		{"net/http with ConfigureHTTP", nil, anHTTPServer(ConfigureHTTP, (*http.Server).Serve), ""},
		{"the same inside TLS", reading, anHTTPServer(ConfigureHTTP, (*http.Server).Serve), ""},
		{"ServeTLS", nil, anHTTPServer(unprepared, serveTLS), "none"},
		{"ServeTLS inside TLS", reading, anHTTPServer(unprepared, serveTLS), "none"},
		{"gRPC with TLS inside TLS", reading, aGRPCServer(grpc.Creds(credentials.NewTLS(serverTLS()))), "none"},
		{"gRPC with TLS where ALPN decides", HTTP2(), aGRPCServer(grpc.Creds(credentials.NewTLS(serverTLS()))), "none"},
		{"gRPC inside TLS", reading, aGRPCServer(), ""},
		{"gRPC where ALPN decides", HTTP2(), aGRPCServer(), ""},
		{"net/http where ALPN decides", HTTP2(), anHTTPServer(func(s *http.Server) { s.TLSConfig = nil }, (*http.Server).Serve), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			book := logTo(m)
			if tt.inTLS != nil {
				tt.serve(t, m.TLS(serverTLS()).Match(tt.inTLS))
			} else {
				tt.serve(t, m.Match(HTTP2()))
			}
			serve(t, m)
			for range 3 {
				var client net.Conn
				if tt.inTLS != nil {
					client = dialTLS(t, root, clientTLS("h2"))
				} else {
					client = dial(t, root)
				}
				client.SetDeadline(time.Now().Add(10 * time.Second))
				write(t, client, []byte(h2.Preface+settingsFrame))
				b := make([]byte, len(settingsFrame))
				_, err := io.ReadFull(client, b)
				switch speaksHTTP2 := err == nil && b[frameTypeAt] == settingsFrame[frameTypeAt]; {
				case speaksHTTP2 != (tt.answer == ""):
					t.Errorf("the client got %q, %v", b, err)
				case err != nil && errors.Is(err, net.ErrClosed):
					t.Error(err)
				}
				client.Close()
			}
			checkWarning(t, book, tt.answer)
		})
	}
}

// TestDispatchedToHTTP1 is TestServerOfHTTP1 for servers to which requests are dispatched.
func TestDispatchedToHTTP1(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		serve func(*testing.T, net.Listener)
		err   string // "" for HTTP/2
	}{
		{"net/http without ConfigureHTTP", anHTTPServer(unprepared, (*http.Server).Serve), `the first frame is not SETTINGS, but \"HTTP/1.1 `},
		{"net/http with ConfigureHTTP", anHTTPServer(ConfigureHTTP, (*http.Server).Serve), ""},
		{"ServeTLS", anHTTPServer(unprepared, serveTLS), "closed the connection without SETTINGS"},
		{"gRPC with TLS", aGRPCServer(grpc.Creds(credentials.NewTLS(serverTLS()))), "closed the connection without SETTINGS"},
		{"gRPC", aGRPCServer(), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			book := logTo(m)
			tt.serve(t, m.Requests().Route(Route{Name: "server", Matchers: []Matcher{Any()}}))
			serve(t, m)
			client := dial(t, root)
			client.SetDeadline(time.Now().Add(10 * time.Second))
			write(t, client, []byte(h2.Preface+settingsFrame+getFrame))
			_, err := io.ReadFull(client, make([]byte, len(settingsFrame)))
			client.Close()
			got := book.String()
			if tt.err == "" {
				if err != nil || got != "" {
					t.Errorf("%v; logged:\n%s", err, got)
				}
				return
			}
			if strings.Count(got, "a server has violated HTTP/2") != 1 || !strings.Contains(got, tt.err) || !strings.Contains(got, "route=requests/server ") {
				t.Errorf("%v; logged, in place of %s:\n%s", err, tt.err, got)
			}
		})
	}
}

// TestAnswers checks which first words of a server to clients of HTTP/2 are reported.
func TestAnswers(t *testing.T) {
	t.Parallel()
	says := func(parts ...string) func(net.Conn, func()) {
		return func(server net.Conn, _ func()) {
			for _, s := range parts {
				io.WriteString(server, s)
			}
		}
	}
	reads := func(server net.Conn) { io.ReadFull(server, make([]byte, len(h2.Preface))) }
	for _, tt := range []struct {
		name   string
		does   func(server net.Conn, leave func()) // and then closes the connection
		answer string                              // "" for nothing to report
	}{
		{"SETTINGS", says(settingsFrame), ""},
		{"SETTINGS in bytes", says(strings.Split(settingsFrame, "")...), ""},
		{"HTTP/1 in bytes", says(strings.Split("HTTP/1.1 400 Bad Request\r\n\r\n", "")...), "HTTP/1"},
		{"an alert", says("\x15\x03\x01\x00\x02\x02\x46"), "TLS"},
		{"another protocol", says("SSH-2.0-Go\r\n"), `\"SSH-2.0-Go`},
		{"reads and closes", func(server net.Conn, _ func()) { reads(server) }, "none"},
		{"closes without a look", func(net.Conn, func()) {}, ""},
		{"writes too little to tell", says("HT"), ""},
		{"the client leaves", func(server net.Conn, leave func()) {
			leave()
			io.Copy(io.Discard, server)
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				book := logTo(m)
				route := m.Match(HTTP2())
				serve(t, m)
				for range 2 {
					client := dial(t, root)
					go func() {
						io.WriteString(client, h2.Preface+settingsFrame)
						io.Copy(io.Discard, client)
					}()
					server := accept(t, route)
					tt.does(server, func() { client.Close() })
					server.Close()
				}
				checkWarning(t, book, tt.answer)
			})
		})
	}
}

// TestAnswerUnchecked checks which connections are handed over as they are: those of other servers than net/http, and
// all others once it is known that the server speaks HTTP/2.
func TestAnswerUnchecked(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	got := make(chan net.Conn, 1)
	s := &http.Server{ConnState: func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			got <- c
		}
	}}
	ConfigureHTTP(s)
	go s.Serve(m.Match(HTTP2()))
	defer s.Close()
	other := m.Match(HTTP1())
	serve(t, m)

	for i := range 3 {
		client := dial(t, root)
		write(t, client, []byte(h2.Preface+settingsFrame))
		if _, err := io.ReadFull(client, make([]byte, len(settingsFrame))); err != nil {
			t.Fatal(err)
		}
		if _, changed := (<-got).(*Conn); changed != (i == 0) {
			t.Errorf("connection %d is changed: %t", i, changed)
		}
	}
	client := dial(t, root)
	write(t, client, []byte("GET / HTTP/1.1\r\n\r\n"))
	if _, changed := accept(t, other).(*Conn); changed {
		t.Error("a connection of HTTP/1 is changed")
	}
}
