package oneport

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// TestTimeout checks that DecideTimeout begins at Accept, whatever a client sends, and that the client gets an answer
// in its own protocol.
func TestTimeout(t *testing.T) {
	t.Parallel()
	ping := "\x00\x00\x08\x06\x00\x00\x00\x00\x00 a ping "
	for _, tt := range []struct {
		name  string
		first string
		more  string // sent every second after that
		want  string // in the answer
	}{
		{name: "silent"},
		{name: "unknown", first: "\x00\x01"},
		{name: "HTTP/1, a byte a second", first: "G", more: "E", want: "HTTP/1.1 408 Request Timeout\r\n"},
		{name: "HTTP/2 without frames", first: http2.ClientPreface, want: "\x00\x00\x06\x04\x00"},
		{name: "HTTP/2, a PING a second", first: http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00", more: ping, want: "did not arrive in time"},
		{name: "TLS", first: "\x16\x03\x01\x02\x00\x01\x00", want: "\x15\x03\x03\x00\x02\x02\x50"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				var refused Refused
				m.OnRefuse = func(r Refused) { refused = r }
				m.Match(Header("x", "y"), All(TLS(), Prefix(strings.Repeat("x", 100))), Prefix("\x00\x01\x02"), ReadMatcher(func(r io.Reader) bool {
					_, err := io.Copy(io.Discard, r)
					return err != nil
				}))
				serve(t, m)
				client := dial(t, root)
				start := time.Now()
				var writing sync.WaitGroup
				defer writing.Wait()
				writing.Go(func() {
					_, err := io.WriteString(client, tt.first)
					for err == nil {
						time.Sleep(time.Second)
						_, err = io.WriteString(client, tt.more)
					}
				})
				answer, _ := io.ReadAll(client)
				if got := time.Since(start); got != DefaultDecideTimeout {
					t.Errorf("the connection ended after %v, want %v", got, DefaultDecideTimeout)
				}
				if (tt.want == "") != (len(answer) == 0) || !strings.Contains(string(answer), tt.want) {
					t.Errorf("the answer is %q, want %q", answer, tt.want)
				}
				synctest.Wait()
				if refused.Reason != ReasonTimeout || refused.Waited != DefaultDecideTimeout || !strings.Contains(fmt.Sprint(refused.Err), "Limits.DecideTimeout") {
					t.Errorf("refused with %+v", refused)
				}
			})
		})
	}
}

// TestIdle checks that an HTTP/2 client that has acknowledged the early SETTINGS is given the time of an idle
// connection for its first request, and that one that floods the connection is not.
func TestIdle(t *testing.T) {
	t.Parallel()
	first, second := string(capture(t, "grpc-go.1")), string(capture(t, "grpc-go.2"))
	for _, tt := range []struct {
		name   string
		idle   time.Duration
		sends  string
		want   time.Duration
		reason RefuseReason
	}{
		{"acknowledges", 0, first + ackFrame, DefaultIdleTimeout, ReasonIdle},
		{"acknowledges, with a limit", time.Minute, first + ackFrame, time.Minute, ReasonIdle},
		{"acknowledges, with a limit below DecideTimeout", time.Second, first + ackFrame, DefaultDecideTimeout, ReasonIdle},
		{"does not acknowledge", 0, first, DefaultDecideTimeout, ReasonTimeout},
		{"floods", 0, first + ackFrame + strings.Repeat("\x00\x00\x08\x06\x00\x00\x00\x00\x00 a ping ", 100), 0, ReasonProtocolError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				m.IdleTimeout = tt.idle
				refused := watchRefusals(m)
				m.Match(GRPC())
				serve(t, m)
				client := dial(t, root)
				start := time.Now()
				go io.WriteString(client, tt.sends)
				io.ReadAll(client)
				if r := <-refused; r.Reason != tt.reason || time.Since(start) != tt.want {
					t.Errorf("refused for %v after %v, want %v after %v", r.Reason, time.Since(start), tt.reason, tt.want)
				}
			})
		})
	}
	t.Run("makes a request in time", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			root := newPipeListener()
			m := newMux(root)
			route := m.Match(GRPC())
			serve(t, m)
			client := dial(t, root)
			go io.Copy(io.Discard, client)
			write(t, client, []byte(first+second[:9])) // which is the acknowledgement
			time.Sleep(DefaultIdleTimeout - time.Second)
			go func() {
				for _, b := range []byte(second[9:]) {
					client.Write([]byte{b})
				}
			}()
			want := first + second[9:]
			got := make([]byte, len(want))
			if _, err := io.ReadFull(accept(t, route), got); err != nil || string(got) != want {
				t.Errorf("the server read %q, %v", got, err)
			}
		})
	})
}

// TestDeadlineCleared checks that a connection has no deadline once it is decided.
func TestDeadlineCleared(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			root := listen(t, network)
			m := newMux(root)
			m.DecideTimeout = 200 * time.Millisecond
			matcher, seen := looks(HTTP1())
			route := m.Match(matcher)
			serve(t, m)
			client := dial(t, root)
			write(t, client, []byte("GET / "))
			for <-seen < len("GET / ") {
			}
			write(t, client, []byte("HTTP/1.1\r\n"))
			server := accept(t, route)
			buf := make([]byte, 100)
			if n, err := server.Read(buf); string(buf[:n]) != "GET / HTTP/1.1\r\n" {
				t.Fatalf("the server read %q, %v", buf[:n], err)
			}
			time.AfterFunc(2*m.DecideTimeout, func() { client.Write([]byte("Host: a\r\n")) })
			if n, err := server.Read(buf); string(buf[:n]) != "Host: a\r\n" {
				t.Fatalf("long after the decision the server read %q, %v", buf[:n], err)
			}
		})
	}
}

// TestEndAfterPart checks that the end of the client's stream behind bytes that do not suffice is noticed, and that the
// connection goes to whoever takes what there is.
func TestEndAfterPart(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/together=%v", network, together), func(t *testing.T) {
				t.Parallel()
				root := record(listen(t, network))
				m := newMux(root)
				matcher, seen := looks(HTTP1())
				http1 := m.Match(matcher)
				rest := m.Match(Any())
				serve(t, m)
				client := dial(t, root)
				write(t, client, []byte("GE"))
				if !together {
					for <-seen < 2 {
					}
				}
				client.(interface{ CloseWrite() error }).CloseWrite()
				server := accept(t, rest)
				if want := <-root.conns; server != want {
					t.Errorf("the server got %T, not what was accepted", server)
				}
				if got, err := io.ReadAll(server); string(got) != "GE" || err != nil {
					t.Errorf("the server read %q, %v", got, err)
				}
				http1.Close()
			})
		}
	}
}

// TestGone checks how clients are reported that close their connection before it has a route.
func TestGone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sends, answer string
		reason        RefuseReason
	}{
		{"", "", ReasonClientClosed},
		{"GE", "HTTP/1.1 400 Bad Request\r\n", ReasonClientClosed},
		{"GET / HTTP/1.1\r\nHost", "HTTP/1.1 400 Bad Request\r\n", ReasonClientClosed},
		{"PRI * HTTP", "\x00\x00\x00\x04", ReasonClientClosed},
		{"\x16\x03\x01", "\x15\x03\x03", ReasonClientClosed},
		{"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n", ReasonNoRoute},
		{"\x00", "", ReasonNoRoute},
	} {
		t.Run(tt.sends, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			refused := watchRefusals(m)
			m.Match(Header("a", "b"), All(TLS(), Prefix("\x16\x03\x01\x02\x03")))
			serve(t, m)
			client := dial(t, root)
			write(t, client, []byte(tt.sends))
			client.(interface{ CloseWrite() error }).CloseWrite() // goes, but for the answer
			answer, err := io.ReadAll(client)
			if err != nil || !strings.HasPrefix(string(answer), tt.answer) || tt.answer == "" && len(answer) > 0 {
				t.Errorf("the client got %q, %v, want %q", answer, err, tt.answer)
			}
			if r := <-refused; r.Reason != tt.reason {
				t.Errorf("refused for %v, want %v: %v", r.Reason, tt.reason, r.Err)
			}
		})
	}
}

// slowWriter is a connection on which writing takes its time.
type slowWriter struct {
	net.Conn
	before func()
}

func (c slowWriter) Write(p []byte) (int, error) {
	c.before()
	return c.Conn.Write(p)
}

type slowWriterListener struct {
	*pipeListener
	before func()
}

func (l slowWriterListener) Accept() (net.Conn, error) {
	c, err := l.pipeListener.Accept()
	if err != nil {
		return nil, err
	}
	return slowWriter{c, l.before}, nil
}

// TestTimeUpWhileWriting ends the time, or the mux, while the early SETTINGS are being written.
func TestTimeUpWhileWriting(t *testing.T) {
	t.Parallel()
	for want, end := range map[RefuseReason]func(*Mux){
		ReasonTimeout:  func(*Mux) { time.Sleep(2 * DefaultDecideTimeout) },
		ReasonShutdown: func(m *Mux) { go m.Shutdown(context.Background()); synctest.Wait() },
		ReasonTooMany:  func(m *Mux) { m.lobby.EvictOldest() },
	} {
		t.Run(want.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var m *Mux
				var once sync.Once
				root := slowWriterListener{newPipeListener(), func() { once.Do(func() { end(m) }) }}
				m = newMux(root)
				refused := watchRefusals(m)
				m.Match(GRPC())
				serve(t, m)
				client := dial(t, root.pipeListener)
				write(t, client, capture(t, "grpc-go.1"))
				if answer, err := io.ReadAll(client); err != nil || !bytes.Contains(answer, []byte("\x07\x00\x00\x00\x00\x00")) {
					t.Errorf("the client got %q, %v, want GOAWAY", answer, err)
				}
				if r := <-refused; r.Reason != want {
					t.Errorf("refused for %v, want %v: %v", r.Reason, want, r.Err)
				}
			})
		})
	}
}
