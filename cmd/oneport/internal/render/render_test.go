package render

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/cmd/oneport/internal/diagnose"
	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files")

const ms1 = time.Millisecond

// report has each field of a report set at least once.
func report() *probe.Report {
	day := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	return &probe.Report{
		Target: "example.com:443", Network: "tcp", Address: "192.0.2.1:443", Others: []string{"[2001:db8::1]:443"},
		Connect: 12345 * time.Microsecond, Timeout: 5 * time.Second, FromProxy: "v2",
		Results: []*probe.Result{
			{
				ID: "http1", Group: probe.Clear, Title: "HTTP/1.1", Verdict: probe.Works, Outcome: probe.OK, Came: "200 OK",
				Answered: true, FirstByte: 1500 * time.Microsecond, Took: 3 * ms1, End: wire.Closed, Language: wire.HTTP1,
				Steps: []probe.Step{{Name: "connect", Took: ms1}},
				HTTP:  &probe.HTTP{Proto: "HTTP/1.1", Status: 200, Server: "nginx", ContentType: "text/html", Location: "/x"},
			},
			{
				ID: "h2", Group: probe.Clear, Title: "HTTP/2, request at once", Verdict: probe.Fails, Outcome: probe.WentAway,
				Came: "GOAWAY PROTOCOL_ERROR, after two SETTINGS frames", Answered: true, FirstByte: 123 * ms1, Took: 1500 * ms1,
				HTTP2: &probe.HTTP2{
					Settings:   []wire.SettingsFrame{{At: ms1}, {At: 2 * ms1, Values: []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 16384}, {ID: 9, Val: 1}}}},
					ACKed:      true,
					Pong:       true,
					First:      true,
					GoAway:     &wire.GoAway{Code: http2.ErrCodeProtocol, LastStream: 1, Debug: "why"},
					Reset:      http2.ErrCodeInternal,
					Violations: []wire.Violation{{Fault: wire.FaultNoACK, Text: "no acknowledgement"}},
				},
				Log: []wire.Event{
					{At: ms1, Direction: wire.Sent, Text: "SETTINGS", Details: []string{"ENABLE_PUSH = 0"}},
					{At: 2 * ms1, Direction: wire.Received, Text: "SETTINGS"},
					{At: 3 * ms1, Direction: wire.Note, Text: "two SETTINGS frames came, and each has to be acknowledged: a server that has sent one of them only takes the other acknowledgement for an error"},
				},
			},
			{ID: "h2-strict", Group: probe.Clear, Title: "HTTP/2, waiting for SETTINGS", Verdict: probe.Hangs, Outcome: probe.Silent, Came: "nothing in 5 s", Took: 5 * time.Second},
			{
				ID: "grpc", Group: probe.Clear, Title: "gRPC", Verdict: probe.WorksBut, Outcome: probe.OK, Came: "NOT_SERVING, 2 services",
				GRPC: &probe.GRPC{Via: "/grpc.health.v1.Health/Check", Message: "m", Health: "NOT_SERVING", Services: []string{"a.B", "a.C"}},
			},
			{ID: "mixed", Group: probe.Clear, Title: "gRPC and REST on one connection", Verdict: probe.NotTried, Outcome: probe.Untried, Came: "REST does not work by itself"},
			{ID: "no-proxy", Group: probe.Proxy, Title: "without a PROXY header", Verdict: probe.NotOffered, Outcome: probe.Reset, Came: "reset"},
			{
				ID: "handshake", Group: probe.TLS, Title: "handshake", Verdict: probe.Refused, Outcome: probe.Alert, Came: "TLS alert: handshake failure",
				TLS: &probe.TLSFacts{
					Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", Offered: []string{"h2", "http/1.1"}, ALPN: "h2", Alert: "handshake failure",
					Chain:       []probe.Certificate{{Subject: "CN=example.com", Names: []string{"example.com"}, Issuer: "CN=ca", NotBefore: day, NotAfter: day}},
					Problems:    []probe.Problem{{Kind: probe.Expired, Text: "expired on 2030-01-02"}},
					AsksForCert: true, Authorities: []string{"CN=clients"},
					Versions: map[string]string{"TLS 1.3": "yes"}, ByOffer: map[string]string{"h2": "h2"},
				},
			},
		},
	}
}

var findings = []diagnose.Finding{
	{
		Code: "settings-ack", Severity: diagnose.Fault, Ways: []string{"h2"}, Title: "HTTP/2 breaks after the first request.",
		Cause: "Two SETTINGS frames came, from two parties that do not know of each other. The client has to acknowledge both.",
		Says:  []diagnose.Saying{{Who: "curl", What: "(92)"}, {Who: "net/http", What: "http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=PROTOCOL_ERROR, debug=\"\""}},
		Fix:   []string{"One.", "Two."}, Page: "docs/handshake-hang.md#cmuxs-workaround",
	},
	{Code: "grpc-status", Severity: diagnose.Warning, Ways: []string{"grpc"}, Title: "It says no.", Cause: "So.", Fix: []string{"This."}, Page: "docs/x.md"},
	{Code: "tls-only", Severity: diagnose.Remark, Ways: []string{"http1"}, Title: "TLS only.", Cause: "So.", Fix: []string{"That."}, Page: "docs/y.md"},
}

// TestGolden compares what is written with the golden files.
func TestGolden(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(*bytes.Buffer) error{
		"report.json":  func(b *bytes.Buffer) error { return JSON(b, report(), findings, false) },
		"verbose.json": func(b *bytes.Buffer) error { return JSON(b, report(), findings, true) },
		"empty.json": func(b *bytes.Buffer) error {
			return JSON(b, &probe.Report{Target: "a:1", Network: "tcp", Address: "a:1"}, nil, false)
		},
		"report.txt":  func(b *bytes.Buffer) error { return Text(b, report(), findings, Style{}) },
		"narrow.txt":  func(b *bytes.Buffer) error { return Text(b, report(), findings, Style{Width: 80}) },
		"color.txt":   func(b *bytes.Buffer) error { return Text(b, report(), findings, Style{Color: true}) },
		"verbose.txt": func(b *bytes.Buffer) error { return Text(b, report(), findings, Style{Verbose: true}) },
		"works.txt": func(b *bytes.Buffer) error {
			return Text(b, &probe.Report{Target: "a:1", Network: "tcp", Address: "a:1", Results: report().Results[:1]}, nil, Style{})
		},
		"interrupted.txt": func(b *bytes.Buffer) error {
			r := &probe.Report{Target: "a:1", Network: "tcp", Address: "a:1", Interrupted: true, Results: report().Results[:1]}
			r.Results = append(r.Results, &probe.Result{ID: "h2", Group: probe.Clear, Title: "HTTP/2, request at once", Verdict: probe.NotTried, Outcome: probe.Stopped, Came: "interrupted"})
			return Text(b, r, nil, Style{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.ReplaceAll(string(want), "\r\n", "\n"), b.String()); diff != "" {
				t.Errorf("run go test -update (-golden +got):\n%s", diff)
			}
		})
	}
}

// TestWidth checks that lines keep to the width of a terminal, as far as words allow.
func TestWidth(t *testing.T) {
	t.Parallel()
	for _, width := range []int{60, 80, 100, 140} {
		var b bytes.Buffer
		if err := Text(&b, report(), findings, Style{Width: width, Verbose: true}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			n := len([]rune(strings.TrimRight(line, "\n")))
			if n > width && !strings.Contains(line, "https://") && width >= 80 {
				t.Errorf("%d columns: %q has %d", width, line, n)
			}
		}
	}
}

// TestJSONIsDocumented checks that README.md of the command has each field.
func TestJSONIsDocumented(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.FromSlash("../../README.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[reflect.Type]bool)
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() || seen[typ] {
			return
		}
		seen[typ] = true
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				t.Errorf("%v.%s has no name in JSON", typ, f.Name)
			}
			if !strings.Contains(string(b), "`"+name+"`") {
				t.Errorf("README.md does not have `%s`", name)
			}
			check(f.Type)
		}
	}
	check(reflect.TypeFor[jsonReport]())
}

// TestPlain checks that without colors there are no escape sequences.
func TestPlain(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Text(&b, report(), findings, Style{Verbose: true}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Error("there is an escape sequence")
	}
}
