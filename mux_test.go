package oneport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(serverVariable); kind != "" {
		benchServer(kind)
		return
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.DiscardHandler)

// newMux returns a mux over l that logs nothing.
func newMux(l net.Listener) *Mux {
	m := New(l)
	m.Logger = quiet
	return m
}

// serve runs m until the end of the test, and checks how Serve ends.
func serve(t testing.TB, m *Mux) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- m.Serve() }()
	t.Cleanup(func() {
		m.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve returned %v, want ErrClosed", err)
		}
	})
}

// listen returns a listener on a free port or socket, closed at the end of the test.
func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		// Not t.TempDir, whose path can be longer than a socket's may be.
		dir, err := os.MkdirTemp("", "oneport")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		address = filepath.Join(dir, "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects to l and closes the connection at the end of the test.
func dial(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	if p, ok := l.(*pipeListener); ok {
		c, err = p.dial()
	} else {
		c, err = net.Dial(l.Addr().Network(), l.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// accept accepts from l, within the test's patience.
func accept(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t testing.TB, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

// capture returns the bytes that a real client sent.
func capture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/captures/" + name + ".bin")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pipeListener is a listener of in-memory connections, which work with synctest and cannot be peeked.
type pipeListener struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (l *pipeListener) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "pipe", Err: net.ErrClosed}
	}
}

func (l *pipeListener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() { close(l.closed); err = nil })
	return err
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// recorder keeps what a listener accepted.
type recorder struct {
	net.Listener
	conns chan net.Conn
}

func record(l net.Listener) *recorder { return &recorder{l, make(chan net.Conn, 100)} }

func (r *recorder) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err == nil {
		r.conns <- c
	}
	return c, err
}

// looks is a matcher like m that reports how many bytes it was shown.
func looks(m Matcher) (Matcher, <-chan int) {
	seen := make(chan int, 100_000)
	return MatcherFunc(func(p *Preview) Verdict {
		seen <- len(p.Bytes())
		return m.Match(p)
	}), seen
}

// previewOf returns a Preview as a matcher sees it when the client has sent b.
func previewOf(b []byte) *Preview {
	client, server := net.Pipe()
	client.Close()
	server.Close()
	return &Preview{facts: facts{conn: server, data: b}}
}

// decidesAt returns how many bytes of b the matcher needs, and checks that it has not taken its word back after that.
func decidesAt(t testing.TB, m Matcher, b []byte) (n int, v Verdict) {
	t.Helper()
	n, p := -1, previewOf(nil)
	defer p.endReaders()
	for i := range len(b) + 1 {
		p.data = bytes.Clone(b[:i]) // as after each look, the bytes are the same and the memory is not
		switch got := m.Match(p); {
		case n < 0 && got != Undecided:
			n, v = i, got
		case n >= 0 && got != v:
			t.Fatalf("%v said %v after %d bytes and %v after %d", m, v, n, got, i)
		}
	}
	return n, v
}

// requestBegins returns how many bytes of a flight show that a request has begun, if it is one of HTTP/2.
func requestBegins(flight []byte) int {
	var p h2.Parser
	for i := range flight {
		if p.Parse(flight[:i]); p.Requesting() {
			return i
		}
	}
	return 0
}

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

// acceptError is an error of Accept as listeners return it.
func acceptError(err error) error {
	return &net.OpError{Op: "accept", Net: "pipe", Err: err}
}

type temporaryError struct{ error }

func (temporaryError) Temporary() bool { return true }
func (temporaryError) Timeout() bool   { return false }

func TestAcceptErrorsThatPass(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"EMFILE":       acceptError(os.NewSyscallError("accept4", syscall.EMFILE)),
		"ENFILE":       acceptError(os.NewSyscallError("accept4", syscall.ENFILE)),
		"ENOBUFS":      acceptError(os.NewSyscallError("accept4", syscall.ENOBUFS)),
		"ECONNABORTED": acceptError(os.NewSyscallError("accept4", syscall.ECONNABORTED)),
		"timeout":      acceptError(os.ErrDeadlineExceeded),
		"temporary":    temporaryError{errors.New("later")},
		"wrapped":      fmt.Errorf("proxy: %w", acceptError(syscall.ECONNABORTED)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				route := m.Match(Any())
				serve(t, m)
				start := time.Now()
				const times = 20
				for range times {
					root.errs <- err
				}
				dial(t, root)
				accept(t, route)
				// 5, 10, 20, ... 640 ms, then a second each.
				if got, want := time.Since(start), 1275*time.Millisecond+12*time.Second; got != want {
					t.Errorf("waited %v in all, want %v", got, want)
				}
				if got := m.Stats().AcceptErrors; got != times {
					t.Errorf("Stats counts %d errors, want %d", got, times)
				}
				// A connection in between starts the waiting over; and Close does not wait.
				start = time.Now()
				root.errs <- err
				dial(t, root)
				accept(t, route)
				if got := time.Since(start); got != 5*time.Millisecond {
					t.Errorf("waited %v after a success, want 5ms", got)
				}
				root.errs <- err
				m.Close()
			})
		})
	}
}

// TestNoFilesLeft checks that silent clients do not keep others out when the process has no files left.
func TestNoFilesLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.Match(HTTP1())
		serve(t, m)
		silent := dial(t, root)
		synctest.Wait()
		root.errs <- acceptError(syscall.EMFILE)
		if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the silent client got %v, want the end", err)
		}
		synctest.Wait()
		if n := m.Stats().Refused[ReasonTooMany]; n != 1 {
			t.Errorf("%d connections were refused for being too many, want 1", n)
		}
	})
}

func TestServeFails(t *testing.T) {
	t.Parallel()
	unknown := errors.New("something unheard of")
	for _, tt := range []struct {
		name  string
		setUp func(m *Mux, root *pipeListener)
		want  string
		is    error
	}{
		{"no route", func(*Mux, *pipeListener) {}, "no route", nil},
		{"bad early SETTINGS", func(m *Mux, _ *pipeListener) {
			m.Match(Any())
			m.EarlySettings = []Setting{{ID: uint16(http2.SettingEnablePush), Value: 2}}
		}, "EarlySettings", nil},
		{"unknown error", func(m *Mux, root *pipeListener) {
			m.Match(Any())
			go func() { root.errs <- unknown }()
		}, "accepting on pipe: something unheard of", unknown},
		{"listener closed", func(m *Mux, root *pipeListener) {
			m.Match(Any())
			root.Close()
		}, "mux closed", ErrClosed},
		{"Shutdown before", func(m *Mux, root *pipeListener) {
			m.Match(Any())
			m.Shutdown(t.Context())
		}, "mux closed", net.ErrClosed},
		{"Close before", func(m *Mux, root *pipeListener) {
			m.Match(Any())
			m.Close()
		}, "mux closed", ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := newPipeListener()
			m := newMux(root)
			tt.setUp(m, root)
			err := m.Serve()
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Serve returned %v, want %q, which is %v", err, tt.want, tt.is)
			}
		})
	}

	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		root := newPipeListener()
		m := newMux(root)
		route := m.Match(Any())
		serve(t, m)
		dial(t, root)
		accept(t, route) // so the first Serve has begun
		if err := m.Serve(); err == nil || errors.Is(err, ErrClosed) {
			t.Errorf("the second Serve returned %v", err)
		}
		dial(t, root)
		accept(t, route) // and is not disturbed
	})
}

// TestTimeout checks that the time to decide runs from Accept on, whatever a client sends, and that its end is told in
// the client's language.
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
		{name: "HTTP/2, a PING a second", first: http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00", more: ping, want: "did not come in time"},
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

// TestIdle checks that an HTTP/2 client that has acknowledged the early SETTINGS is given the time of an idle connection
// for its first request, and that one that floods the connection is not.
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
				refused := make(chan Refused, 1)
				m.OnRefuse = func(r Refused) { refused <- r }
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

// TestDeadlineCleared checks that the time limit on deciding is none on the connection after that.
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

// TestGone checks what is made of clients that go before they have a route.
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
			refused := make(chan Refused, 1)
			m.OnRefuse = func(r Refused) { refused <- r }
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

// TestTimeUpWhileWriting has the end come while the early SETTINGS are written.
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
				refused := make(chan Refused, 1)
				m.OnRefuse = func(r Refused) { refused <- r }
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

// TestFloodedRoute checks that what breaks the rules on the way to a header block is refused, also if a route below
// would take the connection.
func TestFloodedRoute(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	m.Match(GRPC())
	m.Match(HTTP2(), Any())
	serve(t, m)
	client := dial(t, root)
	write(t, client, []byte(http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"+strings.Repeat("\x00\x00\x08\x06\x01\x00\x00\x00\x00 a pong ", 100)))
	if _, goAway, _ := frames(t, client); goAway == nil || goAway.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("the client got %v, want GOAWAY with ENHANCE_YOUR_CALM", goAway)
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		routes  []Matcher
		sends   string
		after   time.Duration
		want    int // the route, -1 for none
		waiting time.Duration
	}{
		{"silent", []Matcher{GRPC(), Silence(time.Second)}, "", 0, 1, time.Second},
		{"silent, first route", []Matcher{Silence(time.Second), GRPC()}, "", 0, 0, time.Second},
		{"speaks at once", []Matcher{Silence(time.Second), HTTP1()}, "GET / HTTP/1.1\r\n", 0, 1, 0},
		{"speaks in time", []Matcher{HTTP1(), Silence(time.Second)}, "GET / HTTP/1.1\r\n", 999 * time.Millisecond, 0, 999 * time.Millisecond},
		{"two silences", []Matcher{Silence(2 * time.Second), Silence(time.Second)}, "", 0, 1, time.Second},
		{"two silences, the first impossible", []Matcher{All(Silence(time.Second), HTTP1()), Silence(2 * time.Second)}, "", 0, 1, 2 * time.Second},
		{"Any above", []Matcher{GRPC(), Any(), Silence(time.Second)}, "", 0, 1, time.Second},
		{"Any below", []Matcher{GRPC(), Silence(time.Second), Any()}, "", 0, 1, time.Second},
		{"or", []Matcher{AnyOf(SSH(), Silence(time.Second))}, "SSH-2.0-x\r\n", time.Millisecond, 0, time.Millisecond},
		{"not silent", []Matcher{Not(Silence(time.Second)), Any()}, "", 0, 1, time.Second},
		{"longer than the time to decide", []Matcher{Silence(time.Minute)}, "", 0, -1, DefaultDecideTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				names := make(map[string]int)
				for i, matcher := range tt.routes {
					name := fmt.Sprint(i)
					m.Route(Route{Name: name, Matchers: []Matcher{matcher}})
					names[name] = i
				}
				got := make(chan int, 1)
				m.OnMatch = func(i Matched) { got <- names[i.Route] }
				m.OnRefuse = func(Refused) { got <- -1 }
				serve(t, m)
				start := time.Now()
				client := dial(t, root)
				if tt.sends != "" {
					go func() {
						time.Sleep(tt.after)
						io.WriteString(client, tt.sends)
					}()
				}
				if route := <-got; route != tt.want || time.Since(start) != tt.waiting {
					t.Errorf("route %d after %v, want %d after %v", route, time.Since(start), tt.want, tt.waiting)
				}
			})
		})
	}
}

// TestSilenceOnSocket checks the waiting for a silence where it is done in the poller.
func TestSilenceOnSocket(t *testing.T) {
	t.Parallel()
	root := record(listen(t, "tcp"))
	m := newMux(root)
	m.Match(GRPC())
	silent := m.Match(Silence(10 * time.Millisecond))
	serve(t, m)
	client := dial(t, root)
	server := accept(t, silent)
	if want := <-root.conns; server != want {
		t.Errorf("the server got %T, not what was accepted", server)
	}
	write(t, server, []byte("220 ready\r\n"))
	buf := make([]byte, 11)
	if _, err := io.ReadFull(client, buf); err != nil {
		t.Fatal(err)
	}
	write(t, client, []byte("EHLO a\r\n"))
	if n, err := server.Read(buf); string(buf[:n]) != "EHLO a\r\n" {
		t.Errorf("the server read %q, %v", buf[:n], err)
	}
}

// TestSilenceNoticedLate has a mux that comes to wait only after a client was silent for long enough.
func TestSilenceNoticedLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.Match(MatcherFunc(func(*Preview) Verdict {
			time.Sleep(time.Second)
			return Undecided
		}))
		silent := m.Match(Silence(10 * time.Millisecond))
		serve(t, m)
		dial(t, root)
		accept(t, silent)
	})
}

func TestTooLong(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			root := listen(t, network)
			m := newMux(root)
			m.MaxPreviewBytes = 1000
			m.Match(Header("last", "1"))
			m.Match(Any()) // must not get what a route above might have taken
			serve(t, m)
			head := "GET / HTTP/1.1\r\nFirst: " + strings.Repeat("a", 1000)
			for _, length := range []int{1000, 1001, len(head)} {
				client := dial(t, root)
				write(t, client, []byte(head[:length]))
				resp := readResponse(t, client)
				if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
					t.Errorf("with %d bytes: %s", length, resp.Status)
				}
			}
			fits := head[:986] + "\r\nLast: 1\r\n"
			if len(fits) != 997 {
				t.Fatal(len(fits))
			}
			client := dial(t, root)
			write(t, client, []byte(fits+"\r\n"))
			if resp := m.Stats().Refused[ReasonTooLong]; resp != 3 {
				t.Errorf("%d connections were refused for their length, want 3", resp)
			}
		})
	}
}

func TestMaxUndecided(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.MaxUndecided = 10
		route := m.Match(HTTP1())
		serve(t, m)
		var clients []net.Conn
		for range 25 {
			clients = append(clients, dial(t, root))
			synctest.Wait() // so that they are in this order
		}
		if s := m.Stats(); s.Undecided != 10 || s.Refused[ReasonTooMany] != 15 {
			t.Errorf("%d connections are undecided and %d refused, want 10 and 15", s.Undecided, s.Refused[ReasonTooMany])
		}
		for i, c := range clients[:15] {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("client %d was not refused: %v", i, err)
			}
		}
		for i, c := range clients[15:] {
			go io.WriteString(c, "GET / HTTP/1.1\r\n")
			if b, err := io.ReadAll(io.LimitReader(accept(t, route), 16)); string(b) != "GET / HTTP/1.1\r\n" {
				t.Errorf("client %d, which was not the oldest, was not served: %q, %v", 15+i, b, err)
			}
		}
	})
}

func TestQueueFull(t *testing.T) {
	t.Parallel()
	request := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	setUp := func(t *testing.T, policy QueuePolicy) (*Mux, net.Listener, *pipeListener, chan string) {
		root := newPipeListener()
		m := newMux(root)
		m.QueueLength = 2
		m.QueuePolicy = policy
		route := m.Match(HTTP1())
		serve(t, m)
		answers := make(chan string, 3)
		for range 3 {
			c := dial(t, root)
			go func() {
				io.WriteString(c, request)
				b, _ := io.ReadAll(c)
				answers <- string(b)
			}()
			synctest.Wait()
		}
		if s := m.Stats(); s.Queued != 2 {
			t.Errorf("%d connections are queued, want 2", s.Queued)
		}
		return m, route, root, answers
	}
	t.Run("refuse", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			m, route, _, answers := setUp(t, QueueRefuse)
			if a := <-answers; !strings.HasPrefix(a, "HTTP/1.1 503 ") {
				t.Errorf("the third client got %q", a)
			}
			for range 2 {
				accept(t, route)
			}
			if s := m.Stats(); s.Refused[ReasonQueueFull] != 1 || s.Matched != 2 || s.Accepted != 3 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("wait for room", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			m, route, _, _ := setUp(t, QueueWait)
			for range 3 {
				accept(t, route)
			}
			if s := m.Stats(); s.Matched != 3 || len(s.Refused) != 0 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("wait in vain", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			_, _, _, answers := setUp(t, QueueWait)
			if a := <-answers; !strings.HasPrefix(a, "HTTP/1.1 503 ") || time.Since(start) != DefaultDecideTimeout {
				t.Errorf("after %v the third client got %q", time.Since(start), a)
			}
		})
	})
	t.Run("route closed while waiting", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			_, route, _, answers := setUp(t, QueueWait)
			route.Close()
			for range 3 {
				if a := <-answers; !strings.HasPrefix(a, "HTTP/1.1 503 ") {
					t.Errorf("a client got %q", a)
				}
			}
		})
	})
	t.Run("Shutdown while waiting", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			m, route, _, _ := setUp(t, QueueWait)
			done := make(chan error, 1)
			go func() { done <- m.Shutdown(context.Background()) }()
			synctest.Wait()
			for range 3 { // all of them had a route: they reach their server
				accept(t, route)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if s := m.Stats(); s.Matched != 3 || len(s.Refused) != 0 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("evicted while waiting", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			m, _, root, answers := setUp(t, QueueWait)
			m.MaxUndecided = 1
			dial(t, root)
			if a := <-answers; !strings.HasPrefix(a, "HTTP/1.1 503 ") {
				t.Errorf("the third client got %q", a)
			}
		})
	})
}

// TestShutdown has a client in every state.
func TestShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		route := m.Match(HTTP1())
		serve(t, m)
		silent, partial, queued, accepted := dial(t, root), dial(t, root), dial(t, root), dial(t, root)
		write(t, partial, []byte("GET"))
		go io.WriteString(accepted, "GET /accepted HTTP/1.1\r\n")
		server := accept(t, route)
		go io.WriteString(queued, "GET /queued HTTP/1.1\r\n")
		time.Sleep(2 * DefaultShutdownGrace)

		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- m.Shutdown(t.Context()) }()
		if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the silent client got %v", err)
		}
		if resp := readResponse(t, partial); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("the client with half a request got %s", resp.Status)
		}
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Shutdown returned %v before the matched connection had reached its server", err)
		default:
		}
		second := accept(t, route)
		if err := <-done; err != nil || time.Since(start) != beginTime {
			t.Errorf("Shutdown returned %v after %v", err, time.Since(start))
		}
		if _, err := route.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Shutdown, Accept returned %v", err)
		}
		for path, c := range map[string]net.Conn{"/accepted": server, "/queued": second} {
			b := make([]byte, 64)
			if n, _ := c.Read(b); !strings.HasPrefix(string(b[:n]), "GET "+path+" ") {
				t.Errorf("a server read %q, want a request for %s", b[:n], path)
			}
		}
		if _, err := root.dial(); err == nil {
			t.Error("after Shutdown, a client connected")
		}
	})
}

// TestInterruptedBeforeItWaits checks that a client whose request is there before the mux stops, and which has no route
// yet, is answered.
func TestInterruptedBeforeItWaits(t *testing.T) {
	t.Parallel()
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", string(headerFlight(":method", "GET", ":path", "/"))} {
		root := listen(t, "tcp")
		m := newMux(root)
		asked, interrupted := make(chan struct{}, 1), make(chan struct{})
		m.Match(MatcherFunc(func(p *Preview) Verdict {
			if len(p.Bytes()) == 0 {
				return Undecided
			}
			asked <- struct{}{}
			<-interrupted
			return Yes
		}))
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte(request))
		<-asked
		m.lobby.Stop()
		close(interrupted)
		done := make(chan error, 1)
		go func() { done <- m.Shutdown(t.Context()) }()
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(client); err != nil || !strings.Contains(string(b), "The server is shutting down.") {
			t.Errorf("the client read %q, %v", b, err)
		}
		client.Close()
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
}

// TestShutdownInTime checks that Shutdown ends with its context, and with DecideTimeout, when a server does not accept,
// and leaves nothing.
func TestShutdownInTime(t *testing.T) {
	t.Parallel()
	for limit, want := range map[time.Duration]string{
		DefaultDecideTimeout / 2: context.DeadlineExceeded.Error(),
		0:                        "did not accept them within 10s",
	} {
		synctest.Test(t, func(t *testing.T) {
			root := newPipeListener()
			m := newMux(root)
			m.Match(HTTP1())
			serve(t, m)
			queued := dial(t, root)
			go io.WriteString(queued, "GET / HTTP/1.1\r\n")
			synctest.Wait()
			ctx := t.Context()
			ends := DefaultDecideTimeout
			if limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, limit)
				defer cancel()
				ends = limit
			}
			start := time.Now()
			answer := make(chan string, 1)
			go func() {
				b, _ := bufio.NewReader(queued).ReadString('\n')
				answer <- b
				queued.Close()
			}()
			if err := m.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), want) || time.Since(start) != ends {
				t.Errorf("Shutdown returned %v after %v, want %q after %v", err, time.Since(start), want, ends)
			}
			if got := <-answer; !strings.HasPrefix(got, "HTTP/1.1 503 ") {
				t.Errorf("the client got %q", got)
			}
		})
	}
}

// stubborn is a connection whose deadlines do nothing, or are not to be had.
type stubborn struct {
	net.Conn
	err error
}

func (c stubborn) SetDeadline(time.Time) error      { return c.err }
func (c stubborn) SetReadDeadline(time.Time) error  { return c.err }
func (c stubborn) SetWriteDeadline(time.Time) error { return c.err }

type stubbornListener struct {
	*pipeListener
	err error
}

func (l stubbornListener) Accept() (net.Conn, error) {
	c, err := l.pipeListener.Accept()
	if err != nil {
		return nil, err
	}
	return stubborn{c, l.err}, nil
}

// TestWithoutDeadlines checks that connections that have no deadlines are still bounded in time.
func TestWithoutDeadlines(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"timeout", "evicted", "Shutdown"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(stubbornListener{root, errors.ErrUnsupported})
				m.MaxUndecided = 1
				route := m.Match(HTTP1())
				serve(t, m)

				slow := dial(t, root) // is served
				write(t, slow, []byte("GET / "))
				time.Sleep(time.Second)
				go io.WriteString(slow, "HTTP/1.1\r\n")
				server := accept(t, route)
				time.Sleep(time.Hour)
				buf := make([]byte, 100)
				if n, err := server.Read(buf); string(buf[:n]) != "GET / HTTP/1.1\r\n" {
					t.Errorf("the server read %q, %v", buf[:n], err)
				}

				start := time.Now()
				silent := dial(t, root)
				synctest.Wait()
				want := time.Duration(0)
				switch how {
				case "timeout":
					want = DefaultDecideTimeout
				case "evicted":
					dial(t, root)
				case "Shutdown":
					want = DefaultShutdownGrace
					m.Shutdown(t.Context())
				}
				if _, err := silent.Read(buf); err != io.EOF || time.Since(start) != want {
					t.Errorf("the silent client got %v after %v, want the end after %v", err, time.Since(start), want)
				}
			})
		})
	}
	t.Run("Shutdown in time", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			root := newPipeListener()
			m := newMux(stubbornListener{root, nil})
			m.Match(HTTP1())
			serve(t, m)
			client := dial(t, root)
			write(t, client, []byte("GET "))
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := m.Shutdown(ctx); err != context.DeadlineExceeded {
				t.Errorf("Shutdown returned %v", err)
			}
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the client got %v", err)
			}
		})
	})
}

// TestCloseSilent checks that whoever else reads from a silent connection when the mux is closed finds it closed, rather than
// a deadline that was set to interrupt the mux. A test of cmux's own does that.
func TestCloseSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.Match(HTTP1())
		serve(t, m)
		client, server := net.Pipe()
		defer client.Close()
		root.conns <- server
		read := make(chan error, 1)
		go func() {
			_, err := server.Read(nil)
			read <- err
		}()
		synctest.Wait()
		m.Close()
		if err := <-read; !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("reading failed with %v, want %v", err, io.ErrClosedPipe)
		}
	})
}

// TestCloseInAnyOrder closes the listener below, a route and the mux in every order, with clients in every state. That
// no goroutine is left is checked for the whole of the tests.
func TestCloseInAnyOrder(t *testing.T) {
	t.Parallel()
	orders := [][]string{{}}
	for range 4 {
		var longer [][]string
		for _, order := range orders {
			for _, what := range []string{"root", "route", "other", "mux", "shutdown"} {
				if !strings.Contains(strings.Join(order, " "), what) {
					longer = append(longer, append(order[:len(order):len(order)], what))
				}
			}
		}
		orders = longer
	}
	for _, order := range orders {
		t.Run(strings.Join(order, ","), func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			m.QueueLength = 1
			matcher, seen := looks(HTTP1("GET"))
			route := m.Match(matcher)
			other := m.Match(HTTP1("PUT"))
			done := make(chan error, 1)
			go func() { done <- m.Serve() }()

			var clients sync.WaitGroup
			for _, sends := range []string{"", "G", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\x00"} {
				c := dial(t, root)
				write(t, c, []byte(sends))
				for <-seen != len(sends) {
				}
				clients.Go(func() {
					c.SetReadDeadline(time.Now().Add(10 * time.Second))
					if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("the connection of the client that sent %q was left open", sends)
					}
					c.Close()
				})
			}
			accepting := make(chan error, 1)
			go func() {
				for {
					c, err := other.Accept()
					if err != nil {
						accepting <- err
						return
					}
					c.Close()
				}
			}()
			for _, what := range order {
				switch what {
				case "root":
					root.Close()
				case "route":
					route.Close()
				case "other":
					other.Close()
				case "mux":
					m.Close()
				case "shutdown":
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					m.Shutdown(ctx)
				}
			}
			m.Close()
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Errorf("Serve returned %v", err)
			}
			if err := <-accepting; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept returned %v", err)
			}
			clients.Wait()
			if s := m.Stats(); s.Undecided != 0 || s.Queued != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestRouteClosed checks that the end of one route leaves the others alone, and that its clients are told.
func TestRouteClosed(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	h1, h2 := m.Match(HTTP1()), m.Match(HTTP2())
	serve(t, m)

	queued := dial(t, root)
	write(t, queued, []byte("GET / HTTP/1.1\r\n\r\n"))
	for m.Stats().Queued == 0 {
		time.Sleep(time.Millisecond)
	}
	accepting := make(chan error, 1)
	go func() {
		_, err := h2.Accept()
		accepting <- err
	}()
	h1.Close()
	h1.Close()
	if _, err := h1.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of the closed route returned %v", err)
	}
	late := dial(t, root)
	write(t, late, []byte("GET / HTTP/1.1\r\n\r\n"))
	for _, c := range []net.Conn{queued, late} {
		if resp := readResponse(t, c); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a client of the closed route got %s", resp.Status)
		}
	}
	write(t, dial(t, root), capture(t, "node-http2.1"))
	if err := <-accepting; err != nil {
		t.Errorf("Accept of the other route returned %v", err)
	}
}

// TestPanics checks that code of the user's that panics costs the one connection.
func TestPanics(t *testing.T) {
	t.Parallel()
	badHook := func(m *Mux) {
		m.OnMatch = func(i Matched) {
			if i.Route == "bad" {
				panic("boom")
			}
		}
	}
	for _, tt := range []struct {
		name    string
		matcher Matcher
		hook    func(*Mux)
		served  bool // all the same
	}{
		{"MatcherFunc", MatcherFunc(func(p *Preview) Verdict {
			if _, v := p.Request(); v != Yes {
				return v
			}
			panic("boom")
		}), nil, false},
		{"ReadMatcher", ReadMatcher(func(r io.Reader) bool { r.Read(make([]byte, 1)); panic("boom") }), nil, false},
		{"HeaderFunc", HeaderFunc("a", func(string) bool { panic("boom") }), nil, false},
		{"ReadMatcher that is told to end", AnyOf(ReadMatcher(func(r io.Reader) bool {
			if _, err := io.Copy(io.Discard, r); err != nil {
				panic("boom")
			}
			return false
		}), HTTP1()), nil, true},
		{"OnMatch", HTTP1(), badHook, false},
		{"OnRefuse", Prefix("no"), func(m *Mux) { m.OnRefuse = func(Refused) { panic("boom") } }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			var logged lockedBuffer
			m.Logger = slog.New(slog.NewTextHandler(&logged, nil))
			if tt.hook != nil {
				tt.hook(m)
			}
			good := m.Match(HTTP1("PUT"))
			route := m.Route(Route{Name: "bad", Matchers: []Matcher{tt.matcher}})
			serve(t, m)
			client := dial(t, root)
			write(t, client, []byte("GET / HTTP/1.1\r\na: b\r\n\r\n"))
			switch {
			case tt.served:
				accept(t, route)
			case tt.name == "OnRefuse":
				if resp := readResponse(t, client); resp.StatusCode != http.StatusNotFound {
					t.Errorf("the client got %s", resp.Status)
				}
			default:
				if resp := readResponse(t, client); resp.StatusCode != http.StatusInternalServerError {
					t.Errorf("the client got %s", resp.Status)
				}
			}
			if log := logged.String(); !strings.Contains(log, "boom") || !strings.Contains(log, "mux_test.go") ||
				!strings.Contains(log, client.LocalAddr().String()) {
				t.Errorf("the log has not the panic, its stack and the connection: %s", log)
			}
			write(t, dial(t, root), []byte("PUT / HTTP/1.1\r\n\r\n"))
			accept(t, good)
		})
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
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

func TestStats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		get := m.Match(HTTP1("GET"))
		m.Route(Route{Name: "other methods", Matchers: []Matcher{HTTP1()}})
		serve(t, m)
		for _, sends := range []string{"GET / HTTP/1.1\r\n", "PUT / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n", "", "\x00"} {
			c := dial(t, root)
			go io.WriteString(c, sends)
			go io.Copy(io.Discard, c)
		}
		accept(t, get)
		synctest.Wait()
		want := Stats{
			Accepted:       5,
			Matched:        1,
			Refused:        map[RefuseReason]uint64{ReasonNoRoute: 1},
			RefusedByRoute: map[string]map[RefuseReason]uint64{},
			Undecided:      1,
			Queued:         2,
			Routes:         []RouteStats{{Name: `HTTP1("GET")`, Matched: 1, Queued: 1}, {Name: "other methods", Queued: 1}},
		}
		if diff := cmp.Diff(want, m.Stats()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestLogLevels checks which refusals are worth a warning.
func TestLogLevels(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		sends string
		then  func(m *Mux, client net.Conn)
		hook  bool
		want  string
	}{
		{name: "closes at once", then: func(_ *Mux, c net.Conn) { c.Close() }, want: "DEBUG client closed"},
		{name: "says nothing", want: "DEBUG timeout"},
		{name: "says nothing until Shutdown", then: func(m *Mux, _ net.Conn) { m.Close() }, want: "DEBUG shutdown"},
		{name: "says half of it", sends: "GET / HT", want: "WARN timeout"},
		{name: "says half of it and closes", sends: "GET / HT", then: func(_ *Mux, c net.Conn) { c.Close() }, want: "DEBUG client closed"},
		{name: "says rubbish", sends: "\x00", want: "WARN no route"},
		{name: "says rubbish, with a hook", sends: "\x00", hook: true, want: "WARN no route"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				var logged lockedBuffer
				m.Logger = slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
				if tt.hook {
					m.OnRefuse = func(Refused) {}
				}
				m.Match(HTTP1())
				serve(t, m)
				client := dial(t, root)
				go io.Copy(io.Discard, client)
				write(t, client, []byte(tt.sends))
				synctest.Wait()
				if tt.then != nil {
					tt.then(m, client)
				}
				time.Sleep(time.Minute)
				var record struct{ Level, Reason string }
				if err := json.Unmarshal([]byte(logged.String()), &record); err != nil {
					t.Fatalf("%v in %q", err, logged.String())
				}
				if got := record.Level + " " + record.Reason; got != tt.want {
					t.Errorf("logged %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// TestLogLimit checks that a flood of bad connections is no flood of records, and that none goes uncounted.
func TestLogLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		var logged lockedBuffer
		m.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		m.Match(HTTP1())
		serve(t, m)
		for range 50 {
			c := dial(t, root)
			write(t, c, []byte("\x00"))
			c.Close()
			time.Sleep(100 * time.Millisecond)
		}
		m.Close()
		log := logged.String()
		records, total := strings.Count(log, "\n"), 0
		for line := range strings.Lines(log) {
			_, n, _ := strings.Cut(strings.TrimSpace(line), "not_logged=")
			held, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(line)
			}
			total += 1 + held
		}
		if records > 6 || total != 50 {
			t.Errorf("in 5 seconds %d records of %d connections were logged: %s", records, total, log)
		}
	})
}

func readResponse(t testing.TB, c net.Conn) *http.Response {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatalf("no whole answer: %v", err)
	}
	return resp
}
