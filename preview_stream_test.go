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

func TestStreamPreview(t *testing.T) {
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
		{"GRPC", GRPC(), Match},
		{"GRPCWeb", GRPCWeb(), NoMatch},
		{"HTTP2", HTTP2(), Match},
		{"HTTP1", HTTP1(), NoMatch},
		{"TLS", TLS(), NoMatch},
		{"SSH", SSH(), NoMatch},
		{"Any", Any(), Match},
		{"Header", Header("X-Tenant", "b"), Match},
		{"Header with another value", Header("x-tenant", "c"), NoMatch},
		{"HeaderPrefix", HeaderPrefix(":path", "/helloworld."), Match},
		{"Host", Host("api.example.com"), Match},
		{"Host with another port", Host("api.example.com:80"), NoMatch},
		{"Path", Path("/helloworld.Greeter/"), Match},
		{"Path of another service", Path("/other/"), NoMatch},
		{"Prefix", Prefix("PRI"), NoMatch},
		{"Silence", Silence(time.Second), NoMatch},
		{"ReaderFunc", ReaderFunc(func(r io.Reader) bool { io.ReadAll(r); return true }), NoMatch},
		{"Not", Not(GRPC()), NoMatch},
		{"MatcherFunc", MatcherFunc(func(p *Preview) Verdict {
			r, v := p.Request()
			if v == Match && r.Header.Get("x-tenant") != "a" {
				return NoMatch
			}
			return v
		}), Match},
		{"undecided MatcherFunc", MatcherFunc(func(*Preview) Verdict { return Undecided }), NoMatch},
	} {
		if got := tt.m.Match(NewStreamPreview(server, grpc)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}

	p := NewStreamPreview(server, grpc)
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
	if diff := cmp.Diff(want, got); diff != "" || verdict != Match {
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
			if got := MatchStream(server, grpc, tt.routes); got != tt.want {
				t.Errorf("MatchStream: %d, want %d", got, tt.want)
			}
			if got := MatchStream(server, nil, [][]Matcher{{Host("api.example.com"), Header("x-tenant", "a")}}); got != -1 {
				t.Errorf("MatchStream without fields: %d", got)
			}
		}
	}

	empty := NewStreamPreview(server, nil)
	if v := GRPC().Match(empty); v != NoMatch || empty.Protocol() != ProtocolHTTP2 {
		t.Errorf("without fields: GRPC %v, Protocol %v", v, empty.Protocol())
	}
}

// TestMatchStreamGRPC holds what a Server dispatches by to the matcher with a Preview of its own.
func TestMatchStreamGRPC(t *testing.T) {
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
			want := GRPC().Match(NewStreamPreview(nil, fields)) == Match
			if got := MatchStream(nil, fields, [][]Matcher{{GRPC()}}) == 0; got != want {
				t.Errorf("%s %q: %t, and GRPC says %t", name, contentTypes, got, want)
			}
		}
	}
}
