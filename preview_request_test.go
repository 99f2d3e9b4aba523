package oneport

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2/hpack"
)

func TestRequestPreview(t *testing.T) {
	t.Parallel()
	grpc := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: "/helloworld.Greeter/SayHello?x=1"},
		{Name: ":authority", Value: "API.example.com:8080"},
		{Name: "content-type", Value: "application/grpc+proto"},
		{Name: "x-tenant", Value: "a"},
		{Name: "x-tenant", Value: "b"},
	}
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()

	for _, tt := range []struct {
		name string
		m    Matcher
		want Verdict
	}{
		{"GRPC", GRPC(), Yes},
		{"GRPCWeb", GRPCWeb(), No},
		{"HTTP2", HTTP2(), Yes},
		{"HTTP1", HTTP1(), No},
		{"TLS", TLS(), No},
		{"SSH", SSH(), No},
		{"Any", Any(), Yes},
		{"Header", Header("X-Tenant", "b"), Yes},
		{"Header with another value", Header("x-tenant", "c"), No},
		{"HeaderPrefix", HeaderPrefix(":path", "/helloworld."), Yes},
		{"Host", Host("api.example.com"), Yes},
		{"Host with another port", Host("api.example.com:80"), No},
		{"Path", Path("/helloworld.Greeter/"), Yes},
		{"Path of another service", Path("/other/"), No},
		{"Prefix", Prefix("PRI"), No},
		{"Silence", Silence(time.Second), No},
		{"ReadMatcher", ReadMatcher(func(r io.Reader) bool { io.ReadAll(r); return true }), No},
		{"Not", Not(GRPC()), No},
		{"MatcherFunc", MatcherFunc(func(p *Preview) Verdict {
			r, v := p.Request()
			if v == Yes && r.Header.Get("x-tenant") != "a" {
				return No
			}
			return v
		}), Yes},
		{"undecided MatcherFunc", MatcherFunc(func(*Preview) Verdict { return Undecided }), No},
	} {
		if got := tt.m.Match(newRequestPreview(server, grpc)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}

	p := newRequestPreview(server, grpc)
	if p.Protocol() != ProtocolHTTP2 || len(p.Bytes()) != 0 || p.Ended() || p.RemoteAddr() != server.RemoteAddr() {
		t.Errorf("Protocol %v, Bytes %q, Ended %v, RemoteAddr %v", p.Protocol(), p.Bytes(), p.Ended(), p.RemoteAddr())
	}
	got, verdict := p.Request()
	want := &Request{
		Protocol: ProtocolHTTP2,
		Method:   "POST",
		Target:   "/helloworld.Greeter/SayHello?x=1",
		Path:     "/helloworld.Greeter/SayHello",
		Host:     "API.example.com:8080",
		Header:   http.Header{"Content-Type": {"application/grpc+proto"}, "X-Tenant": {"a", "b"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || verdict != Yes {
		t.Errorf("Request: %v, -want +got:\n%s", verdict, diff)
	}

	for _, tt := range []struct {
		routes [][]Matcher
		want   int
	}{
		{[][]Matcher{{HTTP1()}, {Path("/x"), GRPC()}, {Any()}}, 1},
		{[][]Matcher{{HTTP1()}, {}, {Not(Any())}}, -1},
		{nil, -1},
	} {
		for range 2 { // the second time with a Preview that has been used
			if got := matchRequestOf(server, grpc, tt.routes); got != tt.want {
				t.Errorf("matchRequest: %d, want %d", got, tt.want)
			}
			if got := matchRequestOf(server, nil, [][]Matcher{{Host("api.example.com"), Header("x-tenant", "a")}}); got != -1 {
				t.Errorf("matchRequest without fields: %d", got)
			}
		}
	}

	empty := newRequestPreview(server, nil)
	if v := GRPC().Match(empty); v != No || empty.Protocol() != ProtocolHTTP2 {
		t.Errorf("without fields: GRPC %v, Protocol %v", v, empty.Protocol())
	}
}

// TestMatchRequestGRPC holds what a Server dispatches by to the matcher with a Preview of its own.
func TestMatchRequestGRPC(t *testing.T) {
	t.Parallel()
	for _, contentTypes := range [][]string{
		nil, {"application/grpc"}, {"Application/GRPC"}, {"application/grpc+proto"}, {"application/grpc;x=y"},
		{"application/grpc-web"}, {"application/grp"}, {""}, {"text/plain", "application/grpc"},
	} {
		for _, name := range []string{"content-type", "Content-Type", "content-length"} {
			fields := []hpack.HeaderField{{Name: ":method", Value: "POST"}}
			for _, v := range contentTypes {
				fields = append(fields, hpack.HeaderField{Name: name, Value: v})
			}
			want := GRPC().Match(newRequestPreview(nil, fields)) == Yes
			if got := matchRequestOf(nil, fields, [][]Matcher{{GRPC()}}) == 0; got != want {
				t.Errorf("%s %q: %t, and GRPC says %t", name, contentTypes, got, want)
			}
		}
	}
}

// newRequestPreview returns the preview of a request.
func newRequestPreview(c net.Conn, fields []hpack.HeaderField) *Preview {
	p := new(Preview)
	p.showStream(c, fields)
	return p
}

// matchRequestOf returns the index of the first of the routes that takes a request.
func matchRequestOf(c net.Conn, fields []hpack.HeaderField, matchers [][]Matcher) int {
	var routes []*requestRoute
	for _, m := range matchers {
		routes = append(routes, &requestRoute{matchers: m})
	}
	return matchRequest(c, fields, routes)
}
