package oneport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-go/oneport/internal/h2"
)

// A logBook keeps what is logged.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// logTo has the mux log at level Warn and above to the result.
func logTo(m *Mux) *logBook {
	book := new(logBook)
	m.Logger = slog.New(slog.NewTextHandler(book, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return book
}

// TestMistakes checks that a mistake which makes it impossible to serve is an error of Serve with the fix, and closes
// the listener, so that clients do not wait for ever.
func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		build func(*Mux)
		want  string
	}{
		{"no route", func(*Mux) {}, "the Mux has no routes"},
		{"no matcher", func(m *Mux) { m.Match() }, "such as Any(), which takes everything"},
		{"no matcher inside TLS", func(m *Mux) { m.TLS(serverTLS()).Match() }, `route "tls/" has no matchers`},
		{"no matcher for requests", func(m *Mux) { m.Requests().Match() }, `route "requests/" has no matchers`},
		{"nil matcher", func(m *Mux) { m.Match(nil) }, "is nil"},
		{"nil MatcherFunc", func(m *Mux) { m.Match(HTTP1(), MatcherFunc(nil)) }, "is nil"},
		{"nil ReadMatcher", func(m *Mux) { m.Match(ReadMatcher(nil)) }, "is nil"},
		{"nil in All", func(m *Mux) { m.Match(AnyOf(GRPC(), All(HTTP2(), nil))) }, "is nil"},
		{"nil in Not", func(m *Mux) { m.Match(Not(nil)) }, "is nil"},
		{"no TLS config", func(m *Mux) { m.TLS(nil).Match(Any()) }, "config of Mux.TLS is nil"},
		{"no certificate", func(m *Mux) { m.TLS(new(tls.Config)).Match(Any()) }, "has no certificate"},
		{"no route inside TLS", func(m *Mux) { m.TLS(serverTLS()) }, "a TLSMux has no routes"},
		{"no route for requests", func(m *Mux) { m.Requests() }, "call its Match"},
		{"setting out of range", func(m *Mux) {
			m.EarlySettings = []Setting{{ID: 4, Value: 1 << 31}}
			m.Match(Any())
		}, "EarlySettings"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			tt.build(m)
			if err := m.Serve(); err == nil || errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Serve returned %v, want %q", err, tt.want)
			}
			if c, err := net.Dial("tcp", root.Addr().String()); err == nil {
				c.Close()
				t.Error("the listener is open")
			}
		})
	}
	m := New(nil)
	m.Match(Any())
	if err := m.Serve(); err == nil || !strings.Contains(err.Error(), "without a listener") {
		t.Errorf("Serve of New(nil) returned %v", err)
	}
}

// TestServerMistakes is TestMistakes for a Server.
func TestServerMistakes(t *testing.T) {
	t.Parallel()
	handler := http.NotFoundHandler()
	for _, tt := range []struct {
		name string
		s    *Server
		want string
	}{
		{"address of HTTP", &Server{HTTP: &http.Server{Addr: "127.0.0.1:0", Handler: handler}}, "set Server.Addr"},
		{"TLS config of HTTP", &Server{HTTP: &http.Server{TLSConfig: serverTLS(), Handler: handler}}, "set Server.TLSConfig"},
	} {
		if err := tt.s.ListenAndServe(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: ListenAndServe returned %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestUnreachable checks which routes are reported to be out of reach.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		build func(*Mux)
		want  []string // routes
	}{
		{"good order", func(m *Mux) {
			m.Match(GRPC())
			m.Match(HTTP1("PURGE"), SSH())
			m.Match(Path("/x"))
			m.Match(HTTP1(), HTTP2())
			m.Match(ServerName("a"))
			m.TLS(serverTLS()).Match(HTTP1(), HTTP2())
			m.Match(Any())
		}, nil},
		{"Any first", func(m *Mux) {
			m.Match(Any())
			m.Match(GRPC())
		}, []string{"GRPC()"}},
		{"HTTP2 before GRPC", func(m *Mux) {
			m.Match(HTTP2(), HTTP1())
			m.Match(GRPC())
			m.Match(Path("/x"))
			m.Match(SSH())
		}, []string{"GRPC()", "Path(\\\"/x\\\")"}},
		{"HTTP2 before GRPC that takes upgrades", func(m *Mux) {
			m.Match(HTTP2())
			m.Route(Route{Matchers: []Matcher{GRPC()}, Upgrade: true})
		}, nil},
		{"inside TLS", func(m *Mux) {
			inside := m.TLS(serverTLS())
			inside.Match(HTTP2())
			inside.Match(GRPC())
			m.Match(TLS())
		}, []string{"tls/GRPC()", "TLS()"}},
		{"requests", func(m *Mux) {
			q := m.Requests()
			q.Match(Any())
			q.Match(GRPC())
			m.Match(GRPC())
		}, []string{"requests/GRPC()", "GRPC()"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMux(newPipeListener())
			book := logTo(m)
			tt.build(m)
			if err := m.begin(); err != nil {
				t.Fatal(err)
			}
			got := book.String()
			if n := strings.Count(got, "no connection can reach a route"); n != len(tt.want) {
				t.Errorf("%d warnings, want %d:\n%s", n, len(tt.want), got)
			}
			for _, name := range tt.want {
				if !strings.Contains(got, "route="+name+" ") && !strings.Contains(got, `route="`+name+`" `) {
					t.Errorf("no warning for %s:\n%s", name, got)
				}
			}
		})
	}
}

// TestNobodyAccepts checks that connections for a route whose server was never started are reported, once.
func TestNobodyAccepts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		route func(*Mux) net.Listener
	}{
		{"connections", func(m *Mux) net.Listener { return m.Match(HTTP2()) }},
		{"requests", func(m *Mux) net.Listener { return m.Requests().Match(Any()) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				book := logTo(m)
				forgotten := tt.route(m)
				serve(t, m)
				for range 3 {
					client := dial(t, root)
					go io.Copy(io.Discard, client)
					write(t, client, []byte(h2.Preface+settingsFrame+getFrame))
				}
				time.Sleep(acceptPatience + time.Second)
				synctest.Wait()
				got := book.String()
				if strings.Count(got, "nobody accepts") != 1 || !strings.Contains(got, "connections=3") {
					t.Errorf("logged:\n%s", got)
				}
				forgotten.Close()
			})
		})
	}
}

// TestUnreached checks that a route which no connection has reached is reported, once, when there were many in a long
// time.
func TestUnreached(t *testing.T) {
	t.Parallel()
	config := serverTLS() // not with the time of the bubble, which is not that of other tests
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		h := &recordingHandler{level: slog.LevelInfo}
		m.Logger = slog.New(h)
		m.exemptNew(func() { m.Route(Route{Name: "exempt", Matchers: []Matcher{Prefix("e")}}) })
		m.Route(Route{Name: "closed", Matchers: []Matcher{Prefix("c")}}).Close()
		m.Route(Route{Name: "bare", Matchers: []Matcher{Host("other.example")}})
		reachable := m.Route(Route{Name: "reached", Matchers: []Matcher{Prefix("\x01")}})
		m.TLS(config).Route(Route{Name: "inside", Matchers: []Matcher{Any()}})
		m.Requests().Route(Route{Name: "request", Matchers: []Matcher{Any()}})
		serve(t, m)

		// comeMany stands for n connections, of which the last one is there.
		comeMany := func(n uint64) {
			m.counters.accepted.Add(n - 1)
			write(t, dial(t, root), []byte("\x01"))
			accept(t, reachable)
			synctest.Wait()
		}
		unreached := func() (names []string) {
			for _, r := range h.all() {
				if strings.Contains(r.msg, "no connection has reached") {
					names = append(names, r.attrs["route"].(string))
				}
			}
			return names
		}
		comeMany(reachConns)
		if got := unreached(); len(got) != 0 {
			t.Errorf("at once: %q", got)
		}
		time.Sleep(reachTime)
		comeMany(reachConns / 2)
		if got := unreached(); len(got) != 0 {
			t.Errorf("after too few connections: %q", got)
		}
		late := m.Route(Route{Name: "late", Matchers: []Matcher{Prefix("l")}})
		defer late.Close()
		comeMany(reachConns / 2)
		want := []string{"bare", "tls/inside", "requests/request"}
		if got := unreached(); !slices.Equal(got, want) {
			t.Errorf("reported are %q, want %q", got, want)
		}
		for range 3 {
			time.Sleep(reachTime)
			comeMany(reachConns)
		}
		if got := unreached(); !slices.Equal(got, append(want, "late")) {
			t.Errorf("reported are %q, want those and the late one", got)
		}
	})
}

// TestReadErrors checks that an error of the connection which the client cannot have caused by going away is reported.
func TestReadErrors(t *testing.T) {
	t.Parallel()
	malformed := errors.New("proxyproto: signature not present")
	for _, tt := range []struct {
		err  error
		want RefuseReason
	}{
		{malformed, ReasonReadError},
		{io.ErrUnexpectedEOF, ReasonClientClosed},
		{&net.OpError{Op: "read", Err: net.ErrClosed}, ReasonClientClosed},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(42)}, ReasonClientClosed},
	} {
		root := newPipeListener()
		m := newMux(brokenListener{root, tt.err})
		book := logTo(m)
		refused := watchRefusals(m)
		m.Match(HTTP1())
		serve(t, m)
		dial(t, root)
		if r := <-refused; r.Reason != tt.want || !errors.Is(r.Err, tt.err) {
			t.Errorf("%v: refused for %v, %v", tt.err, r.Reason, r.Err)
		}
		if logged := strings.Contains(book.String(), "read error"); logged != (tt.want == ReasonReadError) {
			t.Errorf("%v: logged %q", tt.err, book)
		}
	}
}

// A brokenListener is one whose connections cannot be read.
type brokenListener struct {
	*pipeListener
	err error
}

func (l brokenListener) Accept() (net.Conn, error) {
	c, err := l.pipeListener.Accept()
	if err != nil {
		return nil, err
	}
	return brokenConn{c, l.err}, nil
}

type brokenConn struct {
	net.Conn
	err error
}

func (c brokenConn) Read([]byte) (int, error) { return 0, c.err }

// TestUpgradeByOptions checks that it is logged, once, if connections were upgraded by requests that say nothing of the
// gRPC calls to come.
func TestUpgradeByOptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method string
		want   int
	}{{"OPTIONS", 1}, {"HEAD", 1}, {"GET", 0}} {
		synctest.Test(t, func(t *testing.T) {
			root := newPipeListener()
			m := newMux(root)
			book := logTo(m)
			m.Match(GRPC())
			route := m.Route(Route{Matchers: []Matcher{HTTP2()}, Upgrade: true})
			serve(t, m)
			for range 2 {
				client := dial(t, root)
				go io.Copy(io.Discard, client)
				go io.WriteString(client, tt.method+" / HTTP/1.1\r\n"+upgradeHead+"\r\n"+clientStart)
				accept(t, route).Close()
			}
			if n := strings.Count(book.String(), "upgraded a connection to h2c"); n != tt.want {
				t.Errorf("%s: %d records, want %d:\n%s", tt.method, n, tt.want, book)
			}
		})
	}
}
