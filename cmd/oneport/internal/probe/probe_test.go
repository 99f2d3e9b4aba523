package probe

import (
	"bytes"
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseTarget(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in        string
		want      Target
		authority string
		host      string
	}{
		{"localhost:8080", Target{Network: "tcp", Address: "localhost:8080", name: "localhost:8080"}, "localhost:8080", "localhost"},
		{":8080", Target{Network: "tcp", Address: "localhost:8080", name: "localhost:8080"}, "localhost:8080", "localhost"},
		{"[::1]:80", Target{Network: "tcp", Address: "[::1]:80", name: "[::1]:80"}, "[::1]:80", "::1"},
		{"http://example.com", Target{Network: "tcp", Address: "example.com:80", Scheme: "http", Path: "/", name: "example.com:80"}, "example.com", "example.com"},
		{"https://example.com/a?b=c", Target{Network: "tcp", Address: "example.com:443", Scheme: "https", Path: "/a?b=c", name: "example.com:443"}, "example.com", "example.com"},
		{"https://[::1]/", Target{Network: "tcp", Address: "[::1]:443", Scheme: "https", Path: "/", name: "[::1]:443"}, "[::1]", "::1"},
		{"http://example.com:8080/", Target{Network: "tcp", Address: "example.com:8080", Scheme: "http", Path: "/", name: "example.com:8080"}, "example.com:8080", "example.com"},
		{"unix:/run/x", Target{Network: "unix", Address: "/run/x", name: "unix:/run/x"}, "localhost", "localhost"},
		{"unix:///run/x", Target{Network: "unix", Address: "/run/x", name: "unix:/run/x"}, "localhost", "localhost"},
	} {
		got, err := ParseTarget(test.in)
		if err != nil {
			t.Errorf("%s: %v", test.in, err)
			continue
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(Target{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.in, diff)
		}
		if got.authority() != test.authority || got.host() != test.host {
			t.Errorf("%s: authority %q, host %q", test.in, got.authority(), got.host())
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	all := names(allWays(Options{Cert: new(tls.Certificate)}))
	for _, test := range []struct{ only, skip, want string }{
		{only: "http1", want: "http1"},
		{only: "grpc", want: "h2 grpc"},
		{only: "mixed", want: "h2 grpc mixed"},
		{only: "tls-mixed", want: "handshake tls-h2 tls-grpc tls-mixed"},
		{only: "proxy", want: "proxy-v1 proxy-v2"},
		{only: "upgrade", skip: "http1", want: "upgrade"},
		{only: "clear", skip: "upgrade,upgrade-options,grpc-web,idle", want: "http1 http1.0 h2 h2-strict grpc mixed"},
	} {
		split := func(s string) []string {
			return slices.DeleteFunc(strings.Split(s, ","), func(s string) bool { return s == "" })
		}
		ways, err := choose(allWays(Options{}), split(test.only), split(test.skip))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range ways {
			got = append(got, w.id)
		}
		if diff := cmp.Diff(strings.Fields(test.want), got); diff != "" {
			t.Errorf("-only %s -skip %s (-want +got):\n%s", test.only, test.skip, diff)
		}
	}
	for _, w := range allWays(Options{}) {
		for _, after := range w.after {
			if slices.Index(all, after) < 0 || slices.Index(all, after) > slices.Index(all, w.id) {
				t.Errorf("%s depends on %s, which does not stand above it", w.id, after)
			}
		}
	}
}

// TestMessages compares what is written and read field by field with the generated code of grpc-go.
func TestMessages(t *testing.T) {
	t.Parallel()
	var health healthpb.HealthCheckRequest
	if b, ok := payload(healthRequest("a.B")); !ok || proto.Unmarshal(b, &health) != nil || health.Service != "a.B" {
		t.Errorf("a health request: %v", &health)
	}
	var list reflectionpb.ServerReflectionRequest
	if b, ok := payload(listServices); !ok || proto.Unmarshal(b, &list) != nil || list.GetListServices() != "*" {
		t.Errorf("a reflection request: %v", &list)
	}
	for status, want := range map[healthpb.HealthCheckResponse_ServingStatus]string{0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN", 9: "status 9"} {
		b, err := proto.Marshal(&healthpb.HealthCheckResponse{Status: status})
		if err != nil {
			t.Fatal(err)
		}
		if got := servingStatus(b); got != want {
			t.Errorf("status %d: %q, want %q", status, got, want)
		}
	}
	b, err := proto.Marshal(&reflectionpb.ServerReflectionResponse{
		ValidHost: "host",
		MessageResponse: &reflectionpb.ServerReflectionResponse_ListServicesResponse{
			ListServicesResponse: &reflectionpb.ListServiceResponse{Service: []*reflectionpb.ServiceResponse{{Name: "a.B"}, {Name: "c.D"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a.B", "c.D"}, serviceNames(b)); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	for n := range b { // cut anywhere, it has fewer services, and does no harm
		if got := serviceNames(b[:n]); len(got) > 2 {
			t.Errorf("%d bytes: %q", n, got)
		}
	}
}

func TestSeconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{5 * time.Second: "5 s", 600 * time.Millisecond: "600 ms", 2500 * time.Millisecond: "2.5 s"} {
		if got := Seconds(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// TestDefaults checks what zero options stand for.
func TestDefaults(t *testing.T) {
	t.Parallel()
	target, err := ParseTarget("https://example.com:8443/a")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Target: target}
	o.setDefaults()
	want := Options{
		Target: target, Timeout: 5 * time.Second, Idle: 2 * time.Second, Linger: 250 * time.Millisecond,
		Path: "/a", Host: "example.com:8443", SNI: "example.com",
	}
	if diff := cmp.Diff(want, o, cmpopts.IgnoreFields(Options{}, "Progress"), cmp.AllowUnexported(Target{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzFields reads anything as a message of protocol buffers.
func FuzzFields(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0x32, 2, 0x0a, 0}, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		if names := serviceNames(b); len(names) > 50 {
			t.Errorf("%d names", len(names))
		}
		servingStatus(b)
	})
}
