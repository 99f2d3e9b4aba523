package oneport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// TestHandOver checks that over sockets the server gets the connection that was accepted, itself, with every byte once
// and in order, wherever the client's first flight is split, and that early SETTINGS are sent just where they are due:
// behind the preface and before a request.
func TestHandOver(t *testing.T) {
	t.Parallel()
	readsHundred := ReadMatcher(func(r io.Reader) bool {
		_, err := io.ReadFull(r, make([]byte, 100))
		return err == nil
	})
	for _, network := range []string{"tcp", "unix"} {
		for _, tt := range []struct {
			captures string
			matcher  Matcher
		}{
			{"curl-http1.1", Header("User-Agent", "curl/7.88.1")},
			{"curl-http1.1", Not(Header("no-such", ""))},
			{"curl-h2c-prior.1", Header(":path", "/hello")},
			{"curl-h2c-prior.1", readsHundred},
			{"nghttp-h2c-prior.1", Header(":path", "/hello")},
			{"node-http2.1", Header(":method", "GET")},
			{"grpc-go.1 grpc-go.2", GRPC()},
			{"grpc-js.1 grpc-js.2", GRPC()},
			{"openssl-tls13.1", TLS()},
		} {
			t.Run(fmt.Sprintf("%s/%s/%v", network, tt.captures, tt.matcher), func(t *testing.T) {
				t.Parallel()
				var flight []byte
				for name := range strings.FieldsSeq(tt.captures) {
					flight = append(flight, capture(t, name)...)
				}
				needed, verdict := decidesAt(t, tt.matcher, flight)
				if verdict != Yes {
					t.Fatalf("%v says %v", tt.matcher, verdict)
				}
				begun := requestBegins(flight)
				root := record(listen(t, network))
				m := newMux(root)
				matched := make(chan Matched, 1)
				m.OnMatch = func(i Matched) { matched <- i }
				matcher, seen := looks(tt.matcher)
				route := m.Route(Route{Matchers: []Matcher{matcher}, SettingsACK: ACKKeep})
				serve(t, m)
				for split := range len(flight) + 1 {
					client := dial(t, root)
					write(t, client, flight[:split])
					for n := -1; n < split; {
						n = <-seen
					}
					write(t, client, flight[split:])
					server := accept(t, route)
					if accepted := <-root.conns; server != accepted {
						t.Fatalf("split %d: the server got %T %p, accepted was %T %p", split, server, server, accepted, accepted)
					}
					wantEarly := bytes.HasPrefix(flight, []byte(http2.ClientPreface)) && split >= len(http2.ClientPreface) &&
						split < min(needed, begun)
					if info := <-matched; info.EarlySettings != wantEarly {
						t.Fatalf("split %d: early SETTINGS sent: %v, want %v", split, info.EarlySettings, wantEarly)
					}
					if wantEarly {
						early := make([]byte, 15)
						if _, err := io.ReadFull(client, early); err != nil || string(early) != "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x01" {
							t.Fatalf("split %d: the early frame is %x, %v", split, early, err)
						}
					}
					got := make([]byte, len(flight)+1)
					if n, err := io.ReadFull(server, got[:len(flight)]); err != nil || !bytes.Equal(got[:n], flight) {
						t.Fatalf("split %d: the server read %q, %v", split, got[:n], err)
					}
					client.Close()
					if n, err := server.Read(got); n != 0 || err != io.EOF {
						t.Fatalf("split %d: after the end the server read %q, %v", split, got[:n], err)
					}
					server.Close()
					for len(seen) > 0 {
						<-seen
					}
				}
			})
		}
	}
}

// TestReplay is TestHandOver where the bytes have to be taken out of the connection. The acknowledgement of early
// SETTINGS is dropped wherever it is split.
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		captures string
		matcher  Matcher
		ack      string // what is missing from what the server reads
	}{
		{"curl-http1.1", Header("User-Agent", "curl/7.88.1"), ""},
		{"curl-h2c-prior.1 curl-h2c-prior.2", Header(":path", "/hello"), "\x00\x00\x00\x04\x01\x00\x00\x00\x00"},
		{"grpc-go.1 grpc-go.2", GRPC(), "\x00\x00\x00\x04\x01\x00\x00\x00\x00"},
		{"openssl-tls13.1", TLS(), ""},
	} {
		t.Run(tt.captures, func(t *testing.T) {
			t.Parallel()
			var flight []byte
			for name := range strings.FieldsSeq(tt.captures) {
				flight = append(flight, capture(t, name)...)
			}
			for split := range len(flight) + 1 {
				synctest.Test(t, func(t *testing.T) {
					root := newPipeListener()
					m := newMux(root)
					var info Matched
					m.OnMatch = func(i Matched) { info = i }
					route := m.Match(tt.matcher)
					serve(t, m)
					client := dial(t, root)
					go io.Copy(io.Discard, client)
					go func() {
						client.Write(flight[:split])
						synctest.Wait()
						client.Write(flight[split:])
					}()
					server := accept(t, route)
					want := string(flight)
					if info.EarlySettings {
						want = strings.Replace(want, tt.ack, "", 1)
					}
					server.SetReadDeadline(time.Now().Add(time.Second)) // by when the client has said all
					if got, err := io.ReadAll(server); !errors.Is(err, os.ErrDeadlineExceeded) || string(got) != want {
						t.Fatalf("split %d: the server read\n%q, %v, want\n%q", split, got, err, want)
					}
				})
			}
		})
	}
}

// TestMatchWhileServing adds a route to a mux that is serving.
func TestMatchWhileServing(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	first := m.Match(HTTP1("GET"))
	serve(t, m)
	write(t, dial(t, root), []byte("GET / HTTP/1.1\r\n"))
	accept(t, first)
	second := m.Match(HTTP1("PUT"))
	write(t, dial(t, root), []byte("PUT / HTTP/1.1\r\n"))
	accept(t, second)
	m.Close()
	if _, err := m.Match(Any()).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a route of a closed mux returned %v", err)
	}
}

// TestHundredRoutes checks that the first route that matches takes the connection, by the order of the routes alone.
func TestHundredRoutes(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	var routes []net.Listener
	for i := range 100 {
		routes = append(routes, m.Match(Host(fmt.Sprintf("h%d.example.com", i/2))))
	}
	serve(t, m)
	for _, i := range []int{0, 49, 25} {
		write(t, dial(t, root), fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: h%d.example.com\r\n\r\n", i))
		accept(t, routes[2*i])
	}
}
