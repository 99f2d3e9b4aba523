package oneport

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/http1"
)

// TestMatchers says after how many bytes which matcher decides how. At every length before that it is undecided, and at
// every length after that it says the same.
func TestMatchers(t *testing.T) {
	t.Parallel()
	file := func(names ...string) string {
		var all []byte
		for _, name := range names {
			all = append(all, capture(t, name)...)
		}
		return string(all)
	}
	const get = "GET /a/b?c=/d HTTP/1.1\r\nHost: API.example.com:8080\r\nX-Tag: one\r\nx-tag: two\r\nX-Folded: a\r\n\tb\r\n\r\n"
	at := func(in, part string) int { // the number of bytes up to the end of part
		i := strings.Index(in, part)
		if i < 0 {
			t.Fatalf("%q is not in %q", part, in)
		}
		return i + len(part)
	}
	curl, grpcGo, grpcJS := file("curl-h2c-prior.1"), file("grpc-go.1", "grpc-go.2"), file("grpc-js.1", "grpc-js.2")
	for _, tt := range []struct {
		m    Matcher
		in   string
		want Verdict
		n    int // -1: all of in
	}{
		{Any(), "x", Match, 0},
		{AnyOf(), "x", NoMatch, 0},
		{All(), "x", Match, 0},

		{Prefix("ab", "abcd"), "abcd", Match, 2},
		{Prefix("ab", "xy"), "xz", NoMatch, 2},
		{Prefix("ab", "xy"), "b", NoMatch, 1},
		{Prefix(""), "b", Match, 0},
		{Prefix(), "b", NoMatch, 0},

		{HTTP1(), get, Match, at(get, "1.1\r\n")},
		{HTTP1(), "GET / HTTP/1.0\n", Match, -1},
		{HTTP1(), "VERSION-CONTROL / HTTP/1.1\r\n", Match, -1},
		{HTTP1(), "GOT / HTTP/1.1\r\n", NoMatch, 2},
		{HTTP1(), "get / HTTP/1.1\r\n", NoMatch, 1},
		{HTTP1(), "GET / HTTP/2.0\r\n", NoMatch, at("GET / HTTP/2.0", "HTTP/2")},
		{HTTP1(), "OPTIONS rtsp://a/b RTSP/1.0\r\n", NoMatch, at("OPTIONS rtsp://a/b RTSP/1.0", " R")},
		{HTTP1(), curl, NoMatch, len("PRI")},
		{HTTP1(), file("openssl-tls13.1"), NoMatch, 1},
		{HTTP1("GET", "PURGE"), get, Match, at(get, "1.1\r\n")},
		{HTTP1("GET", "PURGE"), "PURGE / HTTP/1.1\r\n", Match, -1},
		{HTTP1("GET", "PURGE"), "PUT / HTTP/1.1\r\n", NoMatch, 3},
		{HTTP1("GE"), get, NoMatch, 3},

		{HTTP2(), curl, Match, 24},
		{HTTP2(), get, NoMatch, 1},
		{HTTP2(), "PUT / HTTP/1.1\r\n", NoMatch, 2},
		{HTTP2(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\x00", NoMatch, 24},

		{GRPC(), grpcGo, Match, len(grpcGo) - len("\x00\x00\x05\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00")},
		{GRPC(), grpcJS, Match, len(grpcJS) - len("\x00\x00\x05\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00")},
		{GRPC(), curl, NoMatch, -1},
		{GRPC(), get, NoMatch, 1},
		{GRPC(), "POST / HTTP/1.1\r\nContent-Type: application/grpc\r\n\r\n", NoMatch, 2},

		{Header("x-tag", "one"), get, Match, at(get, "one\r\nx")},
		{Header("X-TAG", "two"), get, Match, at(get, "two\r\nX")},
		{Header("X-Tag", "One"), get, NoMatch, -1},
		{Header("X-Folded", "a b"), get, Match, len(get) - 1},
		{Header("X", "one"), get, NoMatch, -1},
		{Header("x-tag", ""), get, NoMatch, -1},
		{Header("x", ""), "GET / HTTP/1.1\r\nx: \r\n\r\n", Match, 22},
		{Header("x", "y"), "GET / HTTP/1.1\r\nx y\r\n", NoMatch, at("GET / HTTP/1.1\r\nx y", "x ")},
		{Header("x", "y"), file("openssl-tls13.1"), NoMatch, 1},
		{Header("User-Agent", "curl/7.88.1"), curl, Match, -1},
		{Header(":path", "/hello"), curl, Match, -1},
		{Header(":path", "/"), curl, NoMatch, -1},
		{HeaderPrefix("user-agent", "curl/"), curl, Match, -1},
		{HeaderPrefix("user-agent", "Curl/"), curl, NoMatch, -1},
		{HeaderPrefix("host", "API."), get, Match, at(get, "8080\r\nX")},
		{HeaderFunc("user-agent", func(v string) bool { return v == "curl/7.88.1" }), curl, Match, -1},
		{HeaderFunc("X-Tag", func(v string) bool { return v == "two" }), get, Match, at(get, "two\r\nX")},

		{Host("api.example.com"), get, Match, at(get, "8080\r\nX")},
		{Host("api.example.com:8080"), get, Match, at(get, "8080\r\nX")},
		{Host("api.example.com:80"), get, NoMatch, at(get, "8080\r\nX")},
		{Host("*.Example.com"), get, Match, at(get, "8080\r\nX")},
		{Host("*.example.com:8080"), get, Match, at(get, "8080\r\nX")},
		{Host("*.api.example.com", "example.com"), get, NoMatch, at(get, "8080\r\nX")},
		{Host("b"), "GET http://u@b:80/x HTTP/1.1\r\nHost: c\r\n\r\n", Match, at("GET http://u@b:80/x HTTP/1.1", "/x ")},
		{Host("c"), "GET http://b/x HTTP/1.1\r\nHost: c\r\n\r\n", NoMatch, at("GET http://b/x HTTP/1.1", "/x ")},
		{Host("b"), "CONNECT b:443 HTTP/1.1\r\n", Match, at("CONNECT b:443 H", "443 ")},
		{Host("[::1]"), "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r", Match, -1},
		{Host("[::1]"), "GET / HTTP/1.1\r\nHost: [::1]\r\n\r", Match, -1},
		{Host("a"), "GET / HTTP/1.0\r\n\r\n", NoMatch, -1},
		{Host("127.0.0.1"), curl, Match, -1},
		{Host("localhost"), curl, NoMatch, -1},

		{Path("/a/"), get, Match, at(get, "/d ")},
		{Path("/b/", "/a/b"), get, Match, at(get, "/d ")},
		{Path("/a/b?"), get, NoMatch, at(get, "/d ")},
		{Path("/x"), "GET http://b/x HTTP/1.1\r\n", Match, at("GET http://b/x H", "/x ")},
		{Path("/hello"), curl, Match, -1},
		{Path("/other"), curl, NoMatch, -1},
		{Path("/grpc.health.v1.Health/"), grpcGo, Match, len(grpcGo) - 14},
		{Path("/"), "\x00", NoMatch, 1},

		{TLS(), file("openssl-tls13.1"), Match, 6},
		{TLS(), file("openssl-tls12-noalpn.1"), Match, 6},
		{TLS(), file("chromium-tls.1"), Match, 6},
		{TLS(), "\x16\x03\x01\x00\x00\x01", NoMatch, 5},
		{TLS(), "\x16\x03\x01\x01\x00\x02", NoMatch, 6},
		{TLS(), get, NoMatch, 1},
		{TLS(), "SSH-2.0-x", NoMatch, 1},

		{SSH(), "SSH-2.0-OpenSSH_9.2\r\n", Match, 4},
		{SSH(), "SSL-", NoMatch, 3},

		{Not(HTTP2()), get, Match, 1},
		{Not(HTTP2()), curl, NoMatch, 24},
		{All(HTTP2(), Path("/hello")), curl, Match, -1},
		{All(HTTP2(), Path("/hello")), get, NoMatch, 1},
		{All(HTTP1(), Host("x")), get, NoMatch, at(get, "8080\r\nX")},
		{AnyOf(GRPC(), HTTP1()), get, Match, at(get, "1.1\r\n")},
		{AnyOf(GRPC(), HTTP2()), grpcGo, Match, 24},
		{AnyOf(GRPC(), TLS()), get, NoMatch, 1},

		{MatcherFunc(func(p *Preview) Verdict {
			r, v := p.Request()
			if v == Match && r.Header.Get("X-Tag") != "one" {
				return NoMatch
			}
			return v
		}), get, Match, -1},
		{MatcherFunc(func(p *Preview) Verdict {
			if len(p.Bytes()) < 5 {
				return Undecided
			}
			return Match
		}), get, Match, 5},

		{ReaderFunc(func(io.Reader) bool { return true }), get, Match, 0},
		{ReaderFunc(func(r io.Reader) bool {
			line, err := bufio.NewReader(r).ReadString('\n')
			return err == nil && strings.HasPrefix(line, "GET ")
		}), get, Match, at(get, "1.1\r\n")},
		{ReaderFunc(func(r io.Reader) bool {
			b := make([]byte, 4)
			n, err := io.ReadFull(r, b)
			return err == nil && string(b[:n]) == "POST"
		}), get, NoMatch, 4},
	} {
		n, v := decidesAt(t, tt.m, []byte(tt.in))
		if tt.n < 0 {
			tt.n = len(tt.in)
		}
		if n != tt.n || v != tt.want {
			t.Errorf("%v says %v after %d bytes of %.60q, want %v after %d", tt.m, v, n, tt.in, tt.want, tt.n)
		}
	}
}

// TestContentTypes checks what counts as gRPC and as gRPC-Web, over both versions of HTTP.
func TestContentTypes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		contentType string
		grpc, web   Verdict
	}{
		{"application/grpc", Match, NoMatch},
		{"application/grpc+proto", Match, NoMatch},
		{"application/grpc;charset=utf-8", Match, NoMatch},
		{"application/grpc-web", NoMatch, Match},
		{"application/grpc-web+proto", NoMatch, Match},
		{"application/grpc-web;x=y", NoMatch, Match},
		{"application/grpc-web-text", NoMatch, Match},
		{"application/grpc-web-text+proto", NoMatch, Match},
		{"application/grpc-websocket", NoMatch, NoMatch},
		{"application/grpcx", NoMatch, NoMatch},
		{"application/json", NoMatch, NoMatch},
		{"", NoMatch, NoMatch},
	} {
		flight := headerFlight(":method", "POST", ":path", "/", "content-type", tt.contentType)
		if _, v := decidesAt(t, GRPC(), flight); v != tt.grpc {
			t.Errorf("HTTP/2, %q: GRPC says %v", tt.contentType, v)
		}
		if _, v := decidesAt(t, GRPCWeb(), flight); v != tt.web {
			t.Errorf("HTTP/2, %q: GRPCWeb says %v", tt.contentType, v)
		}
		request := []byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: " + tt.contentType + "\r\n\r\n")
		if _, v := decidesAt(t, GRPC(), request); v != NoMatch {
			t.Errorf("HTTP/1, %q: GRPC says %v", tt.contentType, v)
		}
		if _, v := decidesAt(t, GRPCWeb(), request); v != tt.web {
			t.Errorf("HTTP/1, %q: GRPCWeb says %v", tt.contentType, v)
		}
	}
	preflight := []byte("OPTIONS / HTTP/1.1\r\nHost: a\r\nAccess-Control-Request-Headers: content-type, X-Grpc-Web\r\n\r\n")
	if _, v := decidesAt(t, GRPCWeb(), preflight); v != Match {
		t.Errorf("a preflight for gRPC-Web: %v", v)
	}
}

// headerFlight is the start of an HTTP/2 connection with the header list.
func headerFlight(list ...string) []byte {
	block := hpackBlock(list...)
	b := h2.AppendSettings([]byte(h2.Preface))
	b = append(b, byte(len(block)>>16), byte(len(block)>>8), byte(len(block)), 1, 0x5, 0, 0, 0, 1)
	return append(b, block...)
}

// TestMatchersAtTheEnd checks that a matcher that is undecided says NoMatch when nothing will follow, inside Not too.
func TestMatchersAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		m    Matcher
		in   string
		want Verdict
	}{
		{HTTP1(), "GE", NoMatch},
		{HTTP2(), "PRI", NoMatch},
		{TLS(), "\x16", NoMatch},
		{SSH(), "SS", NoMatch},
		{Header("a", "b"), "GET / HTTP/1.1\r\n", NoMatch},
		{Host("a"), "GET / HTTP/1.1\r\n", NoMatch},
		{Path("/"), "GET ", NoMatch},
		{GRPC(), h2.Preface, NoMatch},
		{Not(HTTP1()), "GE", Match},
		{Silence(1), "", NoMatch},
		{MatcherFunc(func(*Preview) Verdict { return Undecided }), "", NoMatch},
		{ReaderFunc(func(r io.Reader) bool { b, err := io.ReadAll(r); return string(b) == "x" && err == nil }), "x", Match},
		{ReaderFunc(func(r io.Reader) bool { _, err := io.ReadFull(r, make([]byte, 2)); return err == nil }), "x", NoMatch},
	} {
		p := previewOf([]byte(tt.in))
		p.ended = true
		if v := tt.m.Match(p); v != tt.want {
			t.Errorf("%v on %q and the end: %v", tt.m, tt.in, v)
		}
		p.endReaders()
	}
}

// TestReaderFuncReadsOnce checks that the function runs once, sees every byte once, and is told when it is not needed.
func TestReaderFuncReadsOnce(t *testing.T) {
	t.Parallel()
	calls, got, end := 0, "", error(nil)
	m := ReaderFunc(func(r io.Reader) bool {
		calls++
		b := make([]byte, 3)
		for {
			n, err := r.Read(b)
			got += string(b[:n])
			if err != nil {
				end = err
				return true
			}
		}
	})
	p := previewOf(nil)
	for i := range 11 {
		p.data = []byte("0123456789")[:i]
		if v := m.Match(p); v != Undecided {
			t.Fatalf("after %d bytes: %v", i, v)
		}
	}
	p.endReaders()
	if calls != 1 || got != "0123456789" || end != errDecided {
		t.Errorf("%d calls, which read %q and then %v", calls, got, end)
	}
}

func TestPreviewRequest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want *Request
	}{
		{"POST http://a.example:81/p%20q?x=y HTTP/1.1\r\nHost: other\r\nx-a: 1\r\nX-A: 2\r\nX-B: c\r\n d\r\n\r\nbody", &Request{
			Protocol: ProtocolHTTP1, Method: "POST", Target: "http://a.example:81/p%20q?x=y", Path: "/p%20q", Host: "a.example:81",
			Header: map[string][]string{"Host": {"other"}, "X-A": {"1", "2"}, "X-B": {"c d"}},
		}},
		{"OPTIONS * HTTP/1.0\r\n\r\n", &Request{
			Protocol: ProtocolHTTP1, Method: "OPTIONS", Target: "*", Path: "*", Header: map[string][]string{},
		}},
		{string(headerFlight(":method", "GET", ":scheme", "http", ":authority", "b", ":path", "/p?q", "x-a", "1", "x-a", "2")), &Request{
			Protocol: ProtocolHTTP2, Method: "GET", Target: "/p?q", Path: "/p", Host: "b",
			Header: map[string][]string{"X-A": {"1", "2"}},
		}},
		{string(headerFlight(":method", "GET", ":path", "/", "host", "c")), &Request{
			Protocol: ProtocolHTTP2, Method: "GET", Target: "/", Path: "/", Host: "c",
			Header: map[string][]string{"Host": {"c"}},
		}},
	} {
		p := previewOf(nil)
		for i := range len(tt.in) + 1 {
			p.data = []byte(tt.in[:i])
			if r, v := p.Request(); v == Match {
				if diff := cmp.Diff(tt.want, r); diff != "" {
					t.Errorf("%q after %d bytes: %s", tt.in, i, diff)
				}
				break
			} else if v != Undecided || i == len(tt.in) {
				t.Errorf("%q after %d bytes: %v", tt.in, i, v)
				break
			}
		}
	}
	for _, in := range []string{"\x16\x03\x01\x02\x00\x01", "GET / HTTP/1.1\r\nbad line\r\n", h2.Preface + "\x00\x00\x08\x06\x00\x00\x00\x00\x00"} {
		if _, v := previewOf([]byte(in)).Request(); v != NoMatch {
			t.Errorf("%q: %v", in, v)
		}
	}
}

func TestProtocol(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/captures/*.1.bin")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := ProtocolHTTP2
		switch name := filepath.Base(file); {
		case strings.Contains(name, "tls"):
			want = ProtocolTLS
		case strings.Contains(name, "http1"), strings.Contains(name, "upgrade"):
			want = ProtocolHTTP1
		}
		if got := previewOf(b).Protocol(); got != want {
			t.Errorf("%s is %v, want %v", file, got, want)
		}
	}
	for in, want := range map[string]Protocol{
		"": ProtocolUnknown, "G": ProtocolUnknown, "\x00": ProtocolUnknown, "SSH-2.0": ProtocolSSH, "EHLO a\r\n": ProtocolUnknown,
	} {
		if got := previewOf([]byte(in)).Protocol(); got != want {
			t.Errorf("%q is %v, want %v", in, got, want)
		}
	}
}

// TestRouteNames checks the names that logs and Stats have for routes.
func TestRouteNames(t *testing.T) {
	t.Parallel()
	m := New(newPipeListener())
	for _, tt := range []struct {
		route Route
		want  string
	}{
		{Route{Matchers: []Matcher{GRPC()}}, "GRPC()"},
		{Route{Matchers: []Matcher{HTTP1("GET", "PUT"), Not(Host("a"))}}, `HTTP1("GET", "PUT") or Not(Host("a"))`},
		{Route{Matchers: []Matcher{All(TLS(), Silence(1e9))}}, "All(TLS(), Silence(1s))"},
		{Route{Matchers: []Matcher{MatcherFunc(nil), ReaderFunc(nil), nameless{}}}, "MatcherFunc or ReaderFunc or oneport.nameless"},
		{Route{Name: "api", Matchers: []Matcher{Any()}}, "api"},
	} {
		m.Route(tt.route)
		routes := m.Stats().Routes
		if got := routes[len(routes)-1].Name; got != tt.want {
			t.Errorf("the name is %s, want %s", got, tt.want)
		}
	}
}

type nameless struct{}

func (nameless) Match(*Preview) Verdict { return NoMatch }

// TestArgumentsAreCopied checks that a matcher does not change when the slice it was made from does.
func TestArgumentsAreCopied(t *testing.T) {
	t.Parallel()
	args := []string{"GET"}
	m, p, h := HTTP1(args...), Prefix(args...), Path(args...)
	matchers := []Matcher{Any()}
	all, anyOf := All(matchers...), AnyOf(matchers...)
	args[0], matchers[0] = "PUT", AnyOf()
	in := []byte("GET GET HTTP/1.1\r\n\r\n")
	_ = h
	for _, m := range []Matcher{p, all, anyOf} {
		if _, v := decidesAt(t, m, in); v != Match {
			t.Errorf("%v: %v", m, v)
		}
	}
	if _, v := decidesAt(t, m, []byte("GET / HTTP/1.1\r\n")); v != Match {
		t.Errorf("%v: %v", m, v)
	}
	if !slices.IsSorted(http1.Methods) {
		t.Error("http1.Methods has changed")
	}
}

func TestStrings(t *testing.T) {
	t.Parallel()
	for v, want := range map[fmt.Stringer]string{
		Undecided: "Undecided", NoMatch: "NoMatch", Match: "Match", Verdict(9): "Verdict(9)",
		ProtocolUnknown: "unknown", ProtocolHTTP1: "HTTP/1", ProtocolHTTP2: "HTTP/2", ProtocolTLS: "TLS", ProtocolSSH: "SSH",
		RefuseReason(0): "RefuseReason(0)", reasons: fmt.Sprintf("RefuseReason(%d)", reasons),
	} {
		if got := v.String(); got != want {
			t.Errorf("%#v is %q, want %q", v, got, want)
		}
	}
	for r := ReasonNoRoute; r < reasons; r++ {
		if strings.HasPrefix(r.String(), "RefuseReason") {
			t.Errorf("%v has no name", r)
		}
	}
}
