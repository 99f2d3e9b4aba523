package oneport

import (
	"context"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// TestAllowMissingSettings checks which clients are refused whose first frame is their request.
func TestAllowMissingSettings(t *testing.T) {
	t.Parallel()
	flight := http2.ClientPreface + "\x00\x00\x02\x01\x05\x00\x00\x00\x01\x82\x84" // :method GET, :path /
	for _, allow := range []bool{false, true} {
		root := listen(t, "tcp")
		m := newMux(root)
		m.AllowMissingSettings = allow
		refused := watchRefusals(m)
		route := m.Match(Header(":path", "/"))
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte(flight))
		if !allow {
			if r := <-refused; r.Reason != ReasonProtocolError || !strings.Contains(r.Err.Error(), "without SETTINGS") {
				t.Errorf("refused for %v, %v", r.Reason, r.Err)
			}
			continue
		}
		server := accept(t, route)
		client.Close()
		if got, err := io.ReadAll(server); err != nil || string(got) != flight {
			t.Errorf("the server read %q, %v", got, err)
		}
	}
}

// TestLongHead checks that a decision can depend on more bytes than one peek returns.
func TestLongHead(t *testing.T) {
	t.Parallel()
	head := "GET / HTTP/1.1\r\n" + strings.Repeat("Cookie: "+strings.Repeat("c", 1000)+"\r\n", 900) + "Last: 1\r\n\r\n"
	for _, network := range []string{"tcp", "unix"} {
		root := listen(t, network)
		m := newMux(root)
		m.MaxPreviewBytes = 1 << 20
		route := m.Match(Header("Last", "1"))
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte(head))
		server := accept(t, route)
		client.Close()
		if got, err := io.ReadAll(server); err != nil || string(got) != head {
			t.Errorf("%s: the server read %d bytes, %v, want the %d of the head", network, len(got), err, len(head))
		}
	}
}

// TestMaxUndecidedBytes checks that the connection that has held memory for its first bytes for longest makes room, and
// not an older one that holds none.
func TestMaxUndecidedBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.MaxUndecidedBytes = 150 << 10
		refused := watchRefusals(m)
		m.Match(Header("Last", "1"))
		serve(t, m)
		const requestLine = "GET / HTTP/1.1\r\n"
		write(t, dial(t, root), []byte(requestLine))
		synctest.Wait()
		long := []byte(requestLine + strings.Repeat("Cookie: "+strings.Repeat("c", 1000)+"\r\n", 80))
		first := dial(t, root)
		write(t, first, long)
		synctest.Wait()
		if n := m.Stats().Undecided; n != 2 {
			t.Fatalf("%d connections are undecided, want 2", n)
		}
		write(t, dial(t, root), long)
		synctest.Wait()
		if r := <-refused; r.Reason != ReasonTooMany || r.Seen != len(long) {
			t.Errorf("a connection that had sent %d bytes was refused for %v, want one with %d", r.Seen, r.Reason, len(long))
		}
		if n := m.Stats().Undecided; n != 2 {
			t.Errorf("%d connections are undecided, want 2", n)
		}
		readResponse(t, first)
	})
}

// TestLimitsAreOn checks that no limit can be switched off: zero and negative values stand for the default.
func TestLimitsAreOn(t *testing.T) {
	t.Parallel()
	defaults := reflect.ValueOf(Limits{}.withDefaults())
	var negative Limits
	fields := reflect.ValueOf(&negative).Elem()
	for i := range fields.NumField() {
		fields.Field(i).SetInt(-1)
		if name := fields.Type().Field(i).Name; defaults.Field(i).Int() <= 0 && name != "MaxConns" {
			t.Errorf("the default of %s is %v", name, defaults.Field(i))
		}
	}
	if got := negative.withDefaults(); got != (Limits{}).withDefaults() {
		t.Errorf("negative values: %+v", got)
	}
}

// TestFloodedRoute checks that a client that violates HTTP/2 before its first header block is refused, even if a route
// below would take the connection.
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
