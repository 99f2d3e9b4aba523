package oneport

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/oneport-go/oneport/internal/lobby"
	"github.com/oneport-go/oneport/internal/testenv"
)

// flights are what clients send first, and for strict ones what they send after the server's SETTINGS.
var flights = []struct {
	name          string
	first, second string
}{
	{"HTTP1", "curl-http1.1", ""},
	{"h2c", "curl-h2c-prior.1", ""},
	{"strict gRPC", "grpc-go.1", "grpc-go.2"},
	{"TLS", "chromium-tls.1", ""},
}

// BenchmarkHandOver measures a connection from the client's dialling to the server's Accept, on a listener alone and
// through a mux. What the mux costs is the difference, since the client and the kernel are in both.
func BenchmarkHandOver(b *testing.B) {
	for _, f := range flights {
		first, second := capture(b, f.first), []byte(nil)
		if f.second != "" {
			second = capture(b, f.second)
		}
		run := func(b *testing.B, root, l net.Listener, early bool) {
			b.ReportAllocs()
			frame := make([]byte, 15)
			for b.Loop() {
				client, err := net.Dial("tcp", root.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				client.Write(first)
				if second != nil {
					if early {
						if _, err := io.ReadFull(client, frame); err != nil {
							b.Fatal(err)
						}
					}
					client.Write(second)
				}
				server, err := l.Accept()
				if err != nil {
					b.Fatal(err)
				}
				server.Close()
				client.Close()
			}
		}
		b.Run(f.name+"/listener alone", func(b *testing.B) {
			l := listen(b, "tcp")
			run(b, l, l, false)
		})
		b.Run(f.name+"/mux", func(b *testing.B) {
			root := listen(b, "tcp")
			m := newMux(root)
			var routes []net.Listener
			routes = append(routes, m.Match(GRPC()), m.Match(HTTP2()), m.Match(HTTP1()), m.Match(TLS()))
			serve(b, m)
			i := map[string]int{"HTTP1": 2, "h2c": 1, "strict gRPC": 0, "TLS": 3}[f.name]
			run(b, root, routes[i], true)
		})
	}
}

// decideRepeatedly returns a function that decides one connection, whose first flight is there and stays there since
// looking takes nothing out. configure adds the routes.
func decideRepeatedly(tb testing.TB, flight []byte, configure func(*Mux)) func() {
	root := listen(tb, "tcp")
	client := dial(tb, root)
	server := accept(tb, root)
	write(tb, client, flight)
	m := newMux(root)
	configure(m)
	if err := m.begin(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { m.Close() })
	return func() {
		c := m.newPending(server)
		m.lobby.Enter(&c.Entry, c, lobby.Accepted, c.accepted)
		if _, refused := c.decide(); refused != nil {
			tb.Fatal(refused.err)
		}
		m.lobby.Leave(&c.Entry)
		c.recycle()
	}
}

// matching adds a route for each of the matchers.
func matching(matchers ...Matcher) func(*Mux) {
	return func(m *Mux) {
		for _, matcher := range matchers {
			m.Match(matcher)
		}
	}
}

// BenchmarkDecide measures the deciding alone, where the bytes are at hand.
func BenchmarkDecide(b *testing.B) {
	for _, f := range flights {
		flight := capture(b, f.first)
		if f.second != "" {
			flight = append(flight, capture(b, f.second)...)
		}
		for _, routes := range []int{4, 100, 1000} {
			matchers := []Matcher{GRPC(), HTTP2(), HTTP1(), TLS()}
			for len(matchers) < routes {
				matchers = append([]Matcher{Host("nowhere.example.com")}, matchers...)
			}
			b.Run(strings.Join([]string{f.name, map[int]string{4: "4 routes", 100: "100 routes", 1000: "1000 routes"}[routes]}, "/"), func(b *testing.B) {
				decide := decideRepeatedly(b, flight, matching(matchers...))
				b.ReportAllocs()
				for b.Loop() {
					decide()
				}
			})
		}
	}
}

// TestDecideAllocs keeps the allocations of deciding a connection to a handful: one is the access to the socket, the
// others are the strings of a compressed header block.
func TestDecideAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("with the race detector, sync.Pool drops some of what it is given")
	}
	for _, tt := range []struct {
		flight string
		most   float64
	}{
		{"curl-http1.1", 1},
		{"chromium-tls.1", 1},
		{"curl-h2c-prior.1", 6},
		{"grpc-go.1 grpc-go.2", 8},
	} {
		var flight []byte
		for name := range strings.FieldsSeq(tt.flight) {
			flight = append(flight, capture(t, name)...)
		}
		decide := decideRepeatedly(t, flight, matching(GRPC(), HTTP2(), HTTP1(), TLS()))
		if got := testing.AllocsPerRun(100, decide); got > tt.most {
			t.Errorf("%s: %v allocations, want at most %v", tt.flight, got, tt.most)
		}
	}
}
