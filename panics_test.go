package oneport

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
)

// TestPanics checks that a panic in the user's code costs only its connection.
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
			if log := logged.String(); !strings.Contains(log, "boom") || !strings.Contains(log, "panics_test.go") ||
				!strings.Contains(log, client.LocalAddr().String()) {
				t.Errorf("the log has not the panic, its stack and the connection: %s", log)
			}
			write(t, dial(t, root), []byte("PUT / HTTP/1.1\r\n\r\n"))
			accept(t, good)
		})
	}
}
