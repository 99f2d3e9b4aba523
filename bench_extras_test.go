package oneport

import (
	"errors"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/testenv"
)

// An extra is something that a port may have more of, and what one connection or request pays for it.
type extra struct {
	name string
	most float64 // allocations
	op   func(testing.TB) func()
}

// extras are grouped by the first part of their names:
//
//	facts       what the first matcher of a kind has parsed for a connection, for itself and for those that follow
//	route       one more route that does not take the connection, with the facts at hand
//	request     one more route that does not take the request, where requests are dispatched
//	matched     deciding a connection of HTTP/1, and reporting that
//	refused     reporting a refused connection
//	dispatched  reporting that a server takes part in a connection
//	stats       what is read at a scrape
var extras = []extra{
	{"facts/HTTP1", 1, parsing(Host(elsewhere), "curl-http1.1")},
	{"facts/HTTP2", 6, parsing(GRPC(), "grpc-go.1", "grpc-go.2")},
	{"facts/ClientHello", 8, parsing(ServerName(elsewhere), "chromium-tls.1")},
	{"facts/HTTP1 as Request", 16, parsing(matchFunc((*Preview).Request), "curl-http1.1")},
	{"facts/ClientHello as ClientHello", 8, parsing(matchFunc((*Preview).ClientHello), "chromium-tls.1")},

	{"route/Prefix", 0, asking(Prefix("\x03\x00"), "curl-http1.1")},
	{"route/SSH", 0, asking(SSH(), "curl-http1.1")},
	{"route/Silence", 0, asking(Silence(time.Second), "curl-http1.1")},
	{"route/HTTP1", 0, asking(HTTP1("PUT"), "curl-http1.1")},
	{"route/HTTP2", 0, asking(HTTP2(), "curl-http1.1")},
	{"route/GRPC", 0, asking(GRPC(), "curl-h2c-prior.1")},
	{"route/GRPCWeb", 0, asking(GRPCWeb(), "curl-http1.1")},
	{"route/Header", 0, asking(Header("x-tenant", "blue"), "curl-http1.1")},
	{"route/HeaderPrefix", 0, asking(HeaderPrefix("user-agent", "Mozilla"), "curl-http1.1")},
	{"route/Path", 0, asking(Path("/elsewhere/"), "curl-http1.1")},
	{"route/Host", 0, asking(Host(elsewhere), "curl-http1.1")},
	{"route/Host with a star", 0, asking(Host("*.nowhere.example.com"), "curl-http1.1")},
	{"route/TLS", 0, asking(TLS(), "curl-http1.1")},
	{"route/ServerName", 0, asking(ServerName(elsewhere), "chromium-tls.1")},
	{"route/ALPN", 0, asking(ALPN("acme-tls/1"), "chromium-tls.1")},
	{"route/TLSVersion", 0, asking(TLSVersion(0, 0x0302), "chromium-tls.1")},
	{"route/All of two", 0, asking(All(HTTP1(), Host(elsewhere)), "curl-http1.1")},
	{"route/HeaderFunc", 1, asking(HeaderFunc("user-agent", func(v string) bool { return v == "" }), "curl-http1.1")},
	{"route/MatcherFunc", 0, asking(MatcherFunc(func(*Preview) Verdict { return No }), "curl-http1.1")},
	{"route/ReadMatcher", 11, asking(ReadMatcher(func(r io.Reader) bool {
		var b [4]byte
		_, err := io.ReadFull(r, b[:])
		return err != nil
	}), "curl-http1.1")},

	{"request/GRPC", 0, dispatching(GRPC(), restRequest)},
	{"request/Header", 0, dispatching(Header("x-tenant", "blue"), grpcRequest)},
	{"request/Path", 0, dispatching(Path("/elsewhere/"), grpcRequest)},
	{"request/Host", 0, dispatching(Host(elsewhere), grpcRequest)},
	{"request/MatcherFunc", 0, dispatching(MatcherFunc(func(*Preview) Verdict { return No }), grpcRequest)},

	{"matched/unreported", 1, deciding(func(*Mux) {})},
	{"matched/OnMatch", 1, deciding(func(m *Mux) { m.OnMatch = func(Matched) {} })},
	{"matched/record", 5, deciding(func(m *Mux) { m.Logger = logging(slog.LevelDebug) })},

	{"refused/unreported", 0, reporting(func(*Mux) {}, false)},
	{"refused/OnRefuse", 8, reporting(func(m *Mux) { m.OnRefuse = func(Refused) {} }, false)},
	{"refused/record", 21, reporting(func(m *Mux) { m.Logger = logging(slog.LevelWarn) }, true)},
	{"refused/record held back", 13, reporting(func(m *Mux) { m.Logger = logging(slog.LevelWarn) }, false)},

	{"dispatched/unreported", 0, joining(func(*Mux) {})},
	{"dispatched/OnDispatch", 0, joining(func(m *Mux) { m.OnDispatch = func(Dispatched) {} })},

	{"stats/10 routes", 7, reading(10)},
}

// elsewhere is a host that nobody asks for.
const elsewhere = "nowhere.example.com"

// BenchmarkExtras measures what a route, a matcher, a hook and a log record cost. It is the processor time of the
// calls: what it costs that users' code runs on a goroutine of its own is not in it.
func BenchmarkExtras(b *testing.B) {
	for _, e := range extras {
		b.Run(e.name, func(b *testing.B) {
			op := e.op(b)
			b.ReportAllocs()
			for b.Loop() {
				op()
			}
		})
	}
}

// TestExtrasAllocs keeps their allocations to what docs/sizing.md says.
func TestExtrasAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("with the race detector, sync.Pool drops some of what it is given")
	}
	for _, e := range extras {
		if got := testing.AllocsPerRun(100, e.op(t)); got > e.most {
			t.Errorf("%s: %v allocations, want at most %v", e.name, got, e.most)
		}
	}
}

// TestExtrasDocumented compares the tables of docs/sizing.md with the allocations. Their rows name what is measured in
// the second column, and the allocations in the last.
func TestExtrasDocumented(t *testing.T) {
	t.Parallel()
	documented := make(map[string]bool)
	row := regexp.MustCompile("(?m)^\\| [^|]+ \\| ((?:`[a-z]+/[^|`]+`(?:, )?)+) \\|.* (\\d+) \\|$")
	for _, m := range row.FindAllStringSubmatch(readPage(t, "docs/sizing.md"), -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			name = strings.Trim(name, "`")
			i := slices.IndexFunc(extras, func(e extra) bool { return e.name == name })
			if i < 0 {
				t.Errorf("docs/sizing.md has %s, which is not measured", name)
			} else if want := strconv.Itoa(int(extras[i].most)); m[2] != want {
				t.Errorf("docs/sizing.md says that %s takes %s allocations, and the test %s", name, m[2], want)
			}
			documented[name] = true
		}
	}
	for _, e := range extras {
		if !documented[e.name] {
			t.Errorf("docs/sizing.md does not have %s", e.name)
		}
	}
}

// matchFunc is a matcher of a user's that goes by a fact of the preview, and takes nothing.
func matchFunc[T any](fact func(*Preview) (T, Verdict)) Matcher {
	return MatcherFunc(func(p *Preview) Verdict {
		if _, v := fact(p); v == Undecided {
			return v
		}
		return No
	})
}

func flight(tb testing.TB, captures ...string) []byte {
	var b []byte
	for _, name := range captures {
		b = append(b, capture(tb, name)...)
	}
	return b
}

// parsing asks the matcher about one connection after the other.
func parsing(m Matcher, captures ...string) func(testing.TB) func() {
	return func(tb testing.TB) func() {
		b := flight(tb, captures...)
		p := previewOf(b)
		return func() {
			conn := p.conn
			p.reset()
			p.conn = conn
			p.show(b, false, DefaultMaxPreviewBytes)
			if m.Match(p) == Undecided {
				tb.Fatal("undecided")
			}
		}
	}
}

// asking asks a route about a connection again and again, as if it were one of many.
func asking(m Matcher, captures ...string) func(testing.TB) func() {
	return func(tb testing.TB) func() {
		mux := newMux(listen(tb, "tcp"))
		mux.Match(m)
		p := previewOf(flight(tb, captures...))
		s := search{routes: *mux.routes.Load()}
		return func() {
			if rt, _, undecided := s.ask(p); rt != nil || undecided {
				tb.Fatal("not the answer")
			}
			if p.readers != nil {
				p.endReaders()
				p.readers = nil // those of the next connection
			}
		}
	}
}

// dispatching asks a route about a request again and again.
func dispatching(m Matcher, r benchRequest) func(testing.TB) func() {
	return func(tb testing.TB) func() {
		conn := previewOf(nil).conn
		routes := []*requestRoute{{matchers: []Matcher{m}}}
		fields := append([]hpack.HeaderField(nil), r.fields...)
		return func() {
			if matchRequest(conn, fields, routes) >= 0 {
				tb.Fatal("not the answer")
			}
		}
	}
}

// logging returns a logger as programs have it, with a handler that writes nowhere.
func logging(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: level}))
}

func deciding(configure func(*Mux)) func(testing.TB) func() {
	return func(tb testing.TB) func() {
		return decideRepeatedly(tb, capture(tb, "curl-http1.1"), func(m *Mux) {
			m.Match(HTTP1())
			configure(m)
		})
	}
}

// reporting reports the same refusal again and again. With flush, each is the first in its second.
func reporting(configure func(*Mux), flush bool) func(testing.TB) func() {
	return func(tb testing.TB) func() {
		root := listen(tb, "tcp")
		dial(tb, root)
		server := accept(tb, root)
		m := newMux(root)
		configure(m)
		tb.Cleanup(func() { m.refusals.flush(m) })
		accepted := time.Now()
		r := &refusal{reason: ReasonNoRoute, err: errors.New("no route takes it"), language: ProtocolHTTP1, seen: 78}
		return func() {
			m.reportRefused(server, nil, accepted, nil, r)
			if flush {
				m.refusals.flush(m)
			}
		}
	}
}

func joining(configure func(*Mux)) func(testing.TB) func() {
	return func(tb testing.TB) func() {
		root := listen(tb, "tcp")
		dial(tb, root)
		m := newMux(root)
		configure(m)
		q := m.Requests()
		q.Match(GRPC())
		(*q.routes.Load())[0].awaited.Do(func() {}) // nobody accepts
		d := &dispatched{requests: q, raw: accept(tb, root)}
		return func() { d.Joined(0) }
	}
}

func reading(routes int) func(testing.TB) func() {
	return func(tb testing.TB) func() {
		m := newMux(listen(tb, "tcp"))
		for range routes {
			m.Match(HTTP1())
		}
		return func() { m.Stats() }
	}
}
