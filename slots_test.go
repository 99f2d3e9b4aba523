package oneport

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
)

// TestMaxConns checks that servers get no more connections than they may have at once, that closing one makes room for
// another, once, and that clients without a server take no place.
func TestMaxConns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		mux, route int
		most       int // of both routes together
	}{
		{"no bound", 0, 0, 4},
		{"of the Mux", 1, 0, 1},
		{"of a route", 0, 1, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				m.MaxConns = tt.mux
				x := m.Route(Route{Matchers: []Matcher{Prefix("x")}, MaxConns: tt.route})
				y := m.Match(Prefix("y"))
				serve(t, m)
				conns := make(chan net.Conn)
				for _, l := range []net.Listener{x, y} {
					go func() {
						for {
							c, err := l.Accept()
							if err != nil {
								return
							}
							conns <- c
						}
					}()
				}
				for range 3 {
					dial(t, root) // and says nothing
				}
				for _, first := range []string{"x", "x", "y", "y"} {
					write(t, dial(t, root), []byte(first))
				}
				var open []net.Conn
				take := func() {
					for {
						synctest.Wait()
						select {
						case c := <-conns:
							open = append(open, c)
						default:
							return
						}
					}
				}
				if take(); len(open) != tt.most {
					t.Fatalf("%d connections at once, want %d", len(open), tt.most)
				}
				for total := len(open); total < 4; total += len(open) {
					for _, c := range open {
						c.Close()
						c.Close()
					}
					open = nil
					if take(); len(open) == 0 || tt.mux > 0 && len(open) > tt.mux {
						t.Fatalf("%d connections at once after the others were closed", len(open))
					}
				}
				if s := m.Stats(); s.Matched != 4 {
					t.Errorf("%d connections were accepted, want 4", s.Matched)
				}
				for _, c := range open {
					c.Close()
				}
			})
		})
	}
}

// TestMaxConnsDispatched checks that a connection whose requests are dispatched is refused over the bound, on its
// stream.
func TestMaxConnsDispatched(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	m.MaxConns = 1
	refused := watchRefusals(m)
	l := m.Requests().Match(Any())
	serve(t, m)
	first := dial(t, root)
	write(t, first, headerFlight(":method", "GET", ":path", "/", ":scheme", "http"))
	accept(t, l)
	second := dial(t, root)
	write(t, second, headerFlight(":method", "GET", ":path", "/", ":scheme", "http"))
	answer, err := io.ReadAll(second)
	if err != nil || !strings.Contains(string(answer), "The server is overloaded") {
		t.Errorf("the second client read %q, %v", answer, err)
	}
	if r := <-refused; r.Reason != ReasonTooMany {
		t.Errorf("refused for %v", r.Reason)
	}
}
