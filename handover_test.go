package oneport

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/oneport-go/oneport/internal/lobby"
)

// TestHandOverNow checks which connections reach their servers without a goroutine of their own, and that all others
// still reach theirs.
func TestHandOverNow(t *testing.T) {
	t.Parallel()
	foreign := MatcherFunc(func(p *Preview) Verdict { return No })
	many, manyHosts := make([]Matcher, 100), make([]Matcher, 100)
	for i := range many {
		many[i], manyHosts[i] = Path("/nowhere"), Host("nowhere")
	}
	for _, tt := range []struct {
		name   string
		flight string // of which capture
		cut    int    // after how many bytes, 0 for none
		others []Matcher
		set    func(*Mux)
		late   Matcher // of a route that is added after Serve
		now    bool
	}{
		{name: "HTTP1", flight: "curl-http1.1", now: true},
		{name: "h2c", flight: "curl-h2c-prior.1", others: []Matcher{GRPC()}, now: true},
		{name: "request line", flight: "curl-http1.1", cut: 30, others: []Matcher{GRPC()}, now: true},
		{name: "TLS", flight: "chromium-tls.1", others: []Matcher{ServerName("other.test")}, now: true},
		{name: "too little", flight: "curl-http1.1", cut: 10},
		{name: "strict gRPC", flight: "grpc-go.1", others: []Matcher{GRPCWeb()}},
		{name: "a user's matcher", flight: "curl-http1.1", others: []Matcher{foreign}},
		{name: "a user's matcher within", flight: "curl-http1.1", others: []Matcher{All(HTTP2(), Not(AnyOf(foreign)))}},
		{name: "a user's matcher, added late", flight: "curl-http1.1", late: foreign},
		{name: "HTTP1, and a route added late", flight: "curl-http1.1", late: GRPC(), now: true},
		{name: "a user's test", flight: "curl-http1.1", others: []Matcher{HeaderFunc("a", func(string) bool { return false })}},
		{name: "hook", flight: "curl-http1.1", set: func(m *Mux) { m.OnMatch = func(Matched) {} }},
		{name: "log", flight: "curl-http1.1", set: func(m *Mux) {
			m.Logger = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}},
		{name: "many routes", flight: "curl-http1.1", others: many},
		{name: "many hosts", flight: "curl-http1.1", others: manyHosts, now: true},
		{name: "upgrade", flight: "curl-h2c-upgrade.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			if tt.set != nil {
				tt.set(m)
			}
			for _, o := range tt.others {
				m.Match(o)
			}
			l := m.Route(Route{Matchers: []Matcher{HTTP1(), HTTP2(), TLS()}, Upgrade: tt.name == "upgrade"})
			if err := m.begin(); err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if tt.late != nil {
				m.Match(tt.late)
			}
			flight := capture(t, tt.flight)
			first := flight
			if tt.cut > 0 {
				first = flight[:tt.cut]
			}
			client := dial(t, root)
			server := accept(t, root)
			write(t, client, first)
			c := m.newPending(server)
			if now := m.deliverNow(c); now != tt.now {
				t.Fatalf("handed over at once: %v, want %v", now, tt.now)
			} else if !now {
				go func() {
					if tt.flight == "grpc-go.1" {
						client.Write(capture(t, "grpc-go.2"))
					}
					if tt.flight == "curl-h2c-upgrade.1" {
						client.Write([]byte(clientStart))
					}
					client.Write(flight[len(first):])
				}()
				m.lobby.Enter(&c.Entry, c, lobby.Accepted, c.accepted)
				go m.handle(c)
			}
			got := accept(t, l)
			if tt.flight != "grpc-go.1" && tt.flight != "curl-h2c-upgrade.1" && got != server {
				t.Errorf("the server got a %T", got)
			}
			if tt.now {
				client.Write(flight[len(first):])
			}
			b := make([]byte, 24)
			if _, err := io.ReadFull(got, b); err != nil || !bytes.HasPrefix(flight, b) && tt.name != "upgrade" {
				t.Errorf("the server read %q, %v", b, err)
			}
		})
	}
}

// TestHandOverNowFull checks that a full queue does not hold up the accept loop.
func TestHandOverNowFull(t *testing.T) {
	t.Parallel()
	root := record(listen(t, "tcp"))
	m := newMux(root)
	m.QueueLength = 1
	full, other := m.Match(HTTP1("GET")), m.Match(HTTP1("PUT"))
	serve(t, m)
	var clients []net.Conn
	for range 3 {
		c := dial(t, root)
		write(t, c, []byte("GET / HTTP/1.1\r\n"))
		<-root.conns
		clients = append(clients, c)
	}
	write(t, dial(t, root), []byte("PUT / HTTP/1.1\r\n"))
	accept(t, other)
	for range clients {
		accept(t, full)
	}
}
