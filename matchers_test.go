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
	// How many bytes of curl's there are when a field is known.
	const curlPath, curlAuthority, curlAgent = 81, 94, 104
	curl, grpcGo, grpcJS := file("curl-h2c-prior.1"), file("grpc-go.1", "grpc-go.2"), file("grpc-js.1", "grpc-js.2")
	for _, tt := range []struct {
		m    Matcher
		in   string
		want Verdict
		n    int // -1: all of in
	}{
		{Any(), "x", Yes, 0},
		{AnyOf(), "x", No, 0},
		{All(), "x", Yes, 0},

		{Prefix("ab", "abcd"), "abcd", Yes, 2},
		{Prefix("ab", "xy"), "xz", No, 2},
		{Prefix("ab", "xy"), "b", No, 1},
		{Prefix(""), "b", Yes, 0},
		{Prefix(), "b", No, 0},

		{HTTP1(), get, Yes, at(get, "1.1\r\n")},
		{HTTP1(), "GET / HTTP/1.0\n", Yes, -1},
		{HTTP1(), "VERSION-CONTROL / HTTP/1.1\r\n", Yes, -1},
		{HTTP1(), "GOT / HTTP/1.1\r\n", No, 2},
		{HTTP1(), "get / HTTP/1.1\r\n", No, 1},
		{HTTP1(), "GET / HTTP/2.0\r\n", No, at("GET / HTTP/2.0", "HTTP/2")},
		{HTTP1(), "OPTIONS rtsp://a/b RTSP/1.0\r\n", No, at("OPTIONS rtsp://a/b RTSP/1.0", " R")},
		{HTTP1(), curl, No, len("PRI")},
		{HTTP1(), file("openssl-tls13.1"), No, 1},
		{HTTP1(), "\r\nGET / HTTP/1.1\r\n", Yes, -1},
		{HTTP1(), "\nGET / HTTP/1.1\r\n", Yes, -1},
		{HTTP1(), "\r\n\r\nGET / HTTP/1.1\r\n", No, 3},
		{HTTP1(), "\rGET / HTTP/1.1\r\n", No, 2},
		{HTTP1("PUT"), "\r\nGET / HTTP/1.1\r\n", No, 3},
		{HTTP1("GET", "PURGE"), get, Yes, at(get, "1.1\r\n")},
		{HTTP1("GET", "PURGE"), "PURGE / HTTP/1.1\r\n", Yes, -1},
		{HTTP1("GET", "PURGE"), "PUT / HTTP/1.1\r\n", No, 3},
		{HTTP1("GE"), get, No, 3},

		{HTTP2(), curl, Yes, 24},
		{HTTP2(), get, No, 1},
		{HTTP2(), "PUT / HTTP/1.1\r\n", No, 2},
		{HTTP2(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\x00", No, 24},

		{GRPC(), grpcGo, Yes, 101},
		{GRPC(), grpcJS, Yes, 180},
		{GRPC(), curl, No, -1},
		{GRPC(), get, No, 1},
		{GRPC(), "POST / HTTP/1.1\r\nContent-Type: application/grpc\r\n\r\n", No, 2},

		{Header("x-tag", "one"), get, Yes, at(get, "one\r\nx")},
		{Header("X-TAG", "two"), get, Yes, at(get, "two\r\nX")},
		{Header("X-Tag", "One"), get, No, -1},
		{Header("X-Folded", "a b"), get, Yes, len(get) - 1},
		{Header("X", "one"), get, No, -1},
		{Header("x-tag", ""), get, No, -1},
		{Header("x", ""), "GET / HTTP/1.1\r\nx: \r\n\r\n", Yes, 22},
		{Header("x", "y"), "GET / HTTP/1.1\r\nx y\r\n", No, at("GET / HTTP/1.1\r\nx y", "x ")},
		{Header("x", "y"), file("openssl-tls13.1"), No, 1},
		{Header("User-Agent", "curl/7.88.1"), curl, Yes, curlAgent},
		{Header(":path", "/hello"), curl, Yes, curlPath},
		{Header(":Path", "/hello"), curl, Yes, curlPath},
		{Header(":path", "/"), curl, No, curlPath},
		{Header(":protocol", ""), curl, No, curlAgent},
		{HeaderPrefix("user-agent", "curl/"), curl, Yes, curlAgent},
		{HeaderPrefix("user-agent", "Curl/"), curl, No, -1},
		{HeaderPrefix("host", "API."), get, Yes, at(get, "8080\r\nX")},
		{HeaderFunc("user-agent", func(v string) bool { return v == "curl/7.88.1" }), curl, Yes, curlAgent},
		{HeaderFunc("X-Tag", func(v string) bool { return v == "two" }), get, Yes, at(get, "two\r\nX")},

		{Host("api.example.com"), get, Yes, at(get, "8080\r\nX")},
		{Host("api.example.com:8080"), get, Yes, at(get, "8080\r\nX")},
		{Host("api.example.com:80"), get, No, at(get, "8080\r\nX")},
		{Host("*.Example.com"), get, Yes, at(get, "8080\r\nX")},
		{Host("*.example.com:8080"), get, Yes, at(get, "8080\r\nX")},
		{Host("*.api.example.com", "example.com"), get, No, at(get, "8080\r\nX")},
		{Host("b"), "GET http://u@b:80/x HTTP/1.1\r\nHost: c\r\n\r\n", Yes, at("GET http://u@b:80/x HTTP/1.1", "/x ")},
		{Host("c"), "GET http://b/x HTTP/1.1\r\nHost: c\r\n\r\n", No, at("GET http://b/x HTTP/1.1", "/x ")},
		{Host("b"), "CONNECT b:443 HTTP/1.1\r\n", Yes, at("CONNECT b:443 H", "443 ")},
		{Host("[::1]"), "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r", Yes, -1},
		{Host("[::1]"), "GET / HTTP/1.1\r\nHost: [::1]\r\n\r", Yes, -1},
		{Host("a"), "GET / HTTP/1.0\r\n\r\n", No, -1},
		{Host("127.0.0.1"), curl, Yes, curlAuthority},
		{Host("localhost"), curl, No, curlAuthority},

		{Path("/a/"), get, Yes, at(get, "/d ")},
		{Path("/b/", "/a/b"), get, Yes, at(get, "/d ")},
		{Path("/a/b?"), get, No, at(get, "/d ")},
		{Path("/x"), "GET http://b/x HTTP/1.1\r\n", Yes, at("GET http://b/x H", "/x ")},
		{Path("/hello"), curl, Yes, curlPath},
		{Path("/other"), curl, No, curlPath},
		{Path("/grpc.health.v1.Health/"), grpcGo, Yes, 76},
		{Path("/"), "\x00", No, 1},

		{TLS(), file("openssl-tls13.1"), Yes, 6},
		{TLS(), file("openssl-tls12-noalpn.1"), Yes, 6},
		{TLS(), file("chromium-tls.1"), Yes, 6},
		{TLS(), "\x16\x03\x01\x00\x00\x01", No, 5},
		{TLS(), "\x16\x03\x01\x01\x00\x02", No, 6},
		{TLS(), get, No, 1},
		{TLS(), "SSH-2.0-x", No, 1},

		{SSH(), "SSH-2.0-OpenSSH_9.2\r\n", Yes, 4},
		{SSH(), "SSL-", No, 3},

		{Not(HTTP2()), get, Yes, 1},
		{Not(HTTP2()), curl, No, 24},
		{All(HTTP2(), Path("/hello")), curl, Yes, curlPath},
		{All(HTTP2(), Path("/hello")), get, No, 1},
		{All(HTTP1(), Host("x")), get, No, at(get, "8080\r\nX")},
		{AnyOf(GRPC(), HTTP1()), get, Yes, at(get, "1.1\r\n")},
		{AnyOf(GRPC(), HTTP2()), grpcGo, Yes, 24},
		{AnyOf(GRPC(), TLS()), get, No, 1},

		{MatcherFunc(func(p *Preview) Verdict {
			r, v := p.Request()
			if v == Yes && r.Header.Get("X-Tag") != "one" {
				return No
			}
			return v
		}), get, Yes, -1},
		{MatcherFunc(func(p *Preview) Verdict {
			if len(p.Bytes()) < 5 {
				return Undecided
			}
			return Yes
		}), get, Yes, 5},

		{ReadMatcher(func(io.Reader) bool { return true }), get, Yes, 0},
		{ReadMatcher(func(r io.Reader) bool {
			line, err := bufio.NewReader(r).ReadString('\n')
			return err == nil && strings.HasPrefix(line, "GET ")
		}), get, Yes, at(get, "1.1\r\n")},
		{ReadMatcher(func(r io.Reader) bool {
			b := make([]byte, 4)
			n, err := io.ReadFull(r, b)
			return err == nil && string(b[:n]) == "POST"
		}), get, No, 4},
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
		{"application/grpc", Yes, No},
		{"application/grpc+proto", Yes, No},
		{"application/grpc;charset=utf-8", Yes, No},
		{"application/grpc-web", No, Yes},
		{"application/grpc-web+proto", No, Yes},
		{"application/grpc-web;x=y", No, Yes},
		{"application/grpc-web-text", No, Yes},
		{"application/grpc-web-text+proto", No, Yes},
		{"application/grpc-websocket", No, No},
		{"application/grpcx", No, No},
		{"application/json", No, No},
		{"", No, No},
	} {
		flight := headerFlight(":method", "POST", ":path", "/", "content-type", tt.contentType)
		if _, v := decidesAt(t, GRPC(), flight); v != tt.grpc {
			t.Errorf("HTTP/2, %q: GRPC says %v", tt.contentType, v)
		}
		if _, v := decidesAt(t, GRPCWeb(), flight); v != tt.web {
			t.Errorf("HTTP/2, %q: GRPCWeb says %v", tt.contentType, v)
		}
		request := []byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: " + tt.contentType + "\r\n\r\n")
		if _, v := decidesAt(t, GRPC(), request); v != No {
			t.Errorf("HTTP/1, %q: GRPC says %v", tt.contentType, v)
		}
		if _, v := decidesAt(t, GRPCWeb(), request); v != tt.web {
			t.Errorf("HTTP/1, %q: GRPCWeb says %v", tt.contentType, v)
		}
	}
	preflight := []byte("OPTIONS / HTTP/1.1\r\nHost: a\r\nAccess-Control-Request-Headers: content-type, X-Grpc-Web\r\n\r\n")
	if _, v := decidesAt(t, GRPCWeb(), preflight); v != Yes {
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

// TestMatchersAtTheEnd checks that a matcher that is undecided says No when nothing will follow, inside Not too.
func TestMatchersAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		m    Matcher
		in   string
		want Verdict
	}{
		{HTTP1(), "GE", No},
		{HTTP2(), "PRI", No},
		{TLS(), "\x16", No},
		{SSH(), "SS", No},
		{Header("a", "b"), "GET / HTTP/1.1\r\n", No},
		{Host("a"), "GET / HTTP/1.1\r\n", No},
		{Path("/"), "GET ", No},
		{GRPC(), h2.Preface, No},
		{Not(HTTP1()), "GE", Yes},
		{Silence(1), "", No},
		{MatcherFunc(func(*Preview) Verdict { return Undecided }), "", No},
		{ReadMatcher(func(r io.Reader) bool { b, err := io.ReadAll(r); return string(b) == "x" && err == nil }), "x", Yes},
		{ReadMatcher(func(r io.Reader) bool { _, err := io.ReadFull(r, make([]byte, 2)); return err == nil }), "x", No},
	} {
		p := previewOf([]byte(tt.in))
		p.end = eof
		if v := tt.m.Match(p); v != tt.want {
			t.Errorf("%v on %q and the end: %v", tt.m, tt.in, v)
		}
		p.endReaders()
	}
}

// TestReadMatcherReadsOnce checks that the function runs once, sees every byte once, and is told when it is not needed.
func TestReadMatcherReadsOnce(t *testing.T) {
	t.Parallel()
	calls, got, end := 0, "", error(nil)
	m := ReadMatcher(func(r io.Reader) bool {
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
			Protocol: ProtocolHTTP1, Method: "POST", Target: "http://a.example:81/p%20q?x=y", Path: "/p q", Host: "a.example:81",
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
			if r, v := p.Request(); v == Yes {
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
		if _, v := previewOf([]byte(in)).Request(); v != No {
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
		{Route{Matchers: []Matcher{MatcherFunc(nil), ReadMatcher(nil), nameless{}}}, "MatcherFunc or ReadMatcher or oneport.nameless"},
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

func (nameless) Match(*Preview) Verdict { return No }

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
		if _, v := decidesAt(t, m, in); v != Yes {
			t.Errorf("%v: %v", m, v)
		}
	}
	if _, v := decidesAt(t, m, []byte("GET / HTTP/1.1\r\n")); v != Yes {
		t.Errorf("%v: %v", m, v)
	}
	if !slices.IsSorted(http1.Methods) {
		t.Error("http1.Methods has changed")
	}
}

func TestStrings(t *testing.T) {
	t.Parallel()
	for v, want := range map[fmt.Stringer]string{
		Undecided: "Undecided", No: "No", Yes: "Yes", Verdict(9): "Verdict(9)",
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
