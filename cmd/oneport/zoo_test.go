package main

import (
	"bytes"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/cmd/oneport/internal/zoo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An animal is a server, and what the probe has to say of it.
type animal struct {
	name     string
	start    func(t testing.TB, p *zoo.PKI) string
	args     []string                            // flags beside those of every probe
	files    func(*testing.T, *zoo.PKI) []string // flags that need files
	url      string                              // what goes before the address: a scheme
	exit     int
	findings []string          // the codes of all
	ways     map[string]string // the verdicts of some
}

// plain makes a start function of one that needs no certificates.
func plain(start func(testing.TB) string) func(testing.TB, *zoo.PKI) string {
	return func(t testing.TB, _ *zoo.PKI) string { return start(t) }
}

// trusted names the zoo's authority.
func trusted(t *testing.T, p *zoo.PKI) []string { return []string{"-ca", p.CAFile(t)} }

// short is for animals that have the probe wait for the whole of its timeout.
var short = []string{"-timeout", "600ms"}

// animals are in the order in which docs/troubleshooting.md has them, as far as it does.
var animals = []animal{
	{
		name: "cmux", start: func(t testing.TB, _ *zoo.PKI) string { return zoo.Cmux(t, false) }, args: short,
		exit: 1, findings: []string{"settings-hang"},
		ways: map[string]string{"http1": "works", "h2": "works", "h2-strict": "hangs", "grpc": "hangs", "handshake": "not offered", "mixed": "not tried"},
	},
	{
		name: "cmux-tls", start: zoo.CmuxTLS, args: short, files: trusted,
		exit: 1, findings: []string{"settings-hang", "tls-only"},
		ways: map[string]string{"tls-http1": "works", "tls-h2": "works", "tls-grpc": "hangs"},
	},
	{
		name: "cmux-send-settings", start: func(t testing.TB, _ *zoo.PKI) string { return zoo.Cmux(t, true) },
		exit: 1, findings: []string{"settings-ack"},
		ways: map[string]string{"http1": "works", "h2-strict": "fails", "grpc": "works"},
	},
	{
		name: "raw-frames-status", start: func(t testing.TB, _ *zoo.PKI) string { return zoo.RawFrames(t, ":status:", 0) }, args: short,
		exit: 1, findings: []string{"bad-fields"},
		ways: map[string]string{"h2": "fails", "h2-strict": "fails", "grpc": "fails"},
	},
	{
		name: "raw-frames-stream", start: func(t testing.TB, _ *zoo.PKI) string { return zoo.RawFrames(t, ":status", 2) }, args: short,
		exit: 1, findings: []string{"wrong-stream"},
		ways: map[string]string{"h2": "fails", "h2-strict": "fails"},
	},
	{
		name: "raw-frames-no-ack", start: func(t testing.TB, _ *zoo.PKI) string { return zoo.RawFrames(t, ":status", 0) }, args: short,
		exit: 0, findings: []string{"settings-not-acked", "idle"},
		ways: map[string]string{"h2": "works, but", "h2-strict": "works, but", "grpc": "not offered"},
	},
	{
		name: "http1", start: plain(zoo.HTTP1),
		exit: 0, findings: []string{"http1-only"},
		ways: map[string]string{"http1": "works", "http1.0": "works", "h2": "not offered", "grpc": "not offered", "upgrade": "not offered", "handshake": "not offered"},
	},
	{
		name: "http1-grpc-wanted", start: plain(zoo.HTTP1), args: []string{"-only", "grpc"},
		exit: 1, findings: []string{"no-grpc"},
		ways: map[string]string{"grpc": "refused"},
	},
	{
		name: "http1-upgrade-wanted", start: plain(zoo.HTTP1), args: []string{"-only", "upgrade"},
		exit: 1, findings: []string{"not-offered"},
		ways: map[string]string{"http1": "works", "upgrade": "refused"},
	},
	{
		name: "http1-proxy-wanted", start: plain(zoo.HTTP1), args: []string{"-only", "proxy-v1"},
		exit: 1, findings: []string{"not-offered"},
		ways: map[string]string{"proxy-v1": "refused"},
	},
	{
		name: "oneport-without-http2", start: plain(zoo.HTTPOnly),
		// A client that asks is answered 404 on its stream; one that waits for SETTINGS is closed upon without any.
		exit: 1, findings: []string{"preface-eof"},
		ways: map[string]string{"http1": "works", "h2": "works", "h2-strict": "fails", "grpc": "fails"},
	},
	{
		name: "http1-by-https", start: plain(zoo.HTTP1), url: "https://",
		exit: 1, findings: []string{"tls-to-clear", "http1-only"},
		ways: map[string]string{"http1": "works", "handshake": "fails"},
	},
	{
		name: "h2c", start: plain(zoo.H2C),
		exit: 0,
		ways: map[string]string{"http1": "works", "h2": "works", "h2-strict": "works", "idle": "works", "grpc": "not offered", "upgrade": "not offered", "proxy-v1": "not offered"},
	},
	{
		name: "h2c-grpc-service", start: plain(zoo.H2C), args: []string{"-grpc-service", "a.Service"},
		exit: 1, findings: []string{"grpc-answered-by-http"},
		ways: map[string]string{"h2": "works", "grpc": "refused"},
	},
	{
		name: "grpc", start: plain(zoo.GRPC),
		exit: 0,
		ways: map[string]string{"http1": "not offered", "h2": "works", "h2-strict": "works", "idle": "works", "grpc": "works", "mixed": "not tried", "handshake": "not offered", "proxy-v1": "not offered"},
	},
	{
		name: "grpc-tls", start: zoo.GRPCTLS, files: trusted,
		exit: 0, findings: []string{"tls-only"},
		ways: map[string]string{"http1": "not offered", "h2-strict": "not offered", "handshake": "works", "tls-grpc": "works", "tls-http1": "not offered"},
	},
	{
		name: "tls-by-http", start: zoo.GRPCTLS, files: trusted, url: "http://",
		exit: 1, findings: []string{"clear-to-tls"},
		ways: map[string]string{"tls-grpc": "works"},
	},
	{
		name: "grpc-tls-without-alpn", start: zoo.GRPCNoALPN, files: trusted,
		exit: 1, findings: []string{"no-alpn", "tls-only"},
		ways: map[string]string{"tls-grpc": "fails", "tls-h2-no-alpn": "works"},
	},
	{
		name: "tls-http1", start: zoo.TLSHTTP1, files: trusted,
		exit: 0, findings: []string{"tls-only", "tls-http1-only"},
		ways: map[string]string{"tls-http1": "works", "tls-h2": "not offered", "tls-grpc": "not offered"},
	},
	{
		name: "alpn-lie", start: zoo.ALPNLie, files: trusted,
		exit: 1, findings: []string{"alpn-lie", "tls-only"},
		ways: map[string]string{"tls-http1": "works", "tls-h2": "refused", "tls-grpc": "refused"},
	},
	{
		name: "alpn-closed", start: zoo.ALPNClosed, files: trusted,
		exit: 1, findings: []string{"alpn-lie", "tls-only"},
		ways: map[string]string{"tls-http1": "works", "tls-h2": "fails", "tls-grpc": "fails"},
	},
	{
		name: "https", start: func(t testing.TB, p *zoo.PKI) string { return zoo.HTTPS(t, p, p.Server) }, files: trusted,
		exit: 0, findings: []string{"tls-only"},
		ways: map[string]string{"handshake": "works", "versions": "works", "alpn": "works", "tls-http1": "works", "tls-h2": "works", "tls-grpc": "not offered"},
	},
	{
		name: "https-by-http", start: func(t testing.TB, p *zoo.PKI) string { return zoo.HTTPS(t, p, p.Server) }, files: trusted, url: "http://",
		exit: 1, findings: []string{"clear-to-tls"},
	},
	{
		name: "unknown-authority", start: func(t testing.TB, p *zoo.PKI) string { return zoo.HTTPS(t, p, p.Server) },
		exit: 0, findings: []string{"certificate-authority", "tls-only"},
		ways: map[string]string{"handshake": "works, but", "tls-h2": "works"},
	},
	{
		name: "expired", start: func(t testing.TB, p *zoo.PKI) string { return zoo.HTTPS(t, p, p.Expired) },
		exit: 1, findings: []string{"certificate-expired", "certificate-authority", "tls-only"},
		ways: map[string]string{"handshake": "fails", "tls-h2": "works"},
	},
	{
		name: "expired-insecure", start: func(t testing.TB, p *zoo.PKI) string { return zoo.HTTPS(t, p, p.Expired) }, args: []string{"-insecure"},
		exit: 0, findings: []string{"certificate-expired", "certificate-authority", "tls-only"},
		ways: map[string]string{"handshake": "works, but"},
	},
	{
		name: "self-signed", start: func(t testing.TB, p *zoo.PKI) string { return zoo.HTTPS(t, p, p.SelfSigned) }, files: trusted,
		exit: 1, findings: []string{"certificate-authority", "tls-only"},
		ways: map[string]string{"handshake": "fails"},
	},
	{
		name: "wrong-name", start: func(t testing.TB, p *zoo.PKI) string { return zoo.HTTPS(t, p, p.OtherName) }, files: trusted,
		exit: 1, findings: []string{"certificate-name", "tls-only"},
		ways: map[string]string{"handshake": "fails", "tls-h2": "works"},
	},
	{
		name: "wrong-name-sni", start: func(t testing.TB, p *zoo.PKI) string { return zoo.HTTPS(t, p, p.OtherName) }, files: trusted, args: []string{"-sni", "other.example"},
		exit: 0, findings: []string{"tls-only"},
		ways: map[string]string{"handshake": "works"},
	},
	{
		name: "mtls", start: zoo.MutualTLS, files: trusted,
		exit: 1, findings: []string{"client-cert", "tls-only"},
		ways: map[string]string{"handshake": "works", "tls-http1": "refused", "tls-h2": "refused", "tls-grpc": "refused"},
	},
	{
		name: "mtls-with-certificate", start: zoo.MutualTLS,
		files: func(t *testing.T, p *zoo.PKI) []string {
			return append(trusted(t, p), "-cert", zoo.CertFile(t, p.Client))
		},
		exit: 0, findings: []string{"tls-only"},
		ways: map[string]string{"tls-http1": "works", "tls-h2": "works", "tls-no-cert": "not offered"},
	},
	{
		name: "tls-alert", start: zoo.PickyTLS,
		exit: 1, findings: []string{"tls-alert", "tls-only"},
		ways: map[string]string{"handshake": "refused"},
	},
	{
		name: "old-tls", start: zoo.OldTLS, files: trusted,
		exit: 1, findings: []string{"old-tls-only", "tls-only"},
		ways: map[string]string{"handshake": "fails", "versions": "fails", "tls-http1": "refused"},
	},
	{
		name: "tls-from-1.0", start: zoo.TLSFrom10, files: trusted,
		exit: 0, findings: []string{"old-tls", "tls-only"},
		ways: map[string]string{"versions": "works, but"},
	},
	{
		name: "host-wanted", start: plain(zoo.HostWanted),
		exit: 0, findings: []string{"http-1.0", "http1-only"},
		ways: map[string]string{"http1": "works", "http1.0": "refused", "proxy-v1": "not offered"},
	},
	{
		name: "not-serving", start: plain(zoo.NotServing),
		exit: 0, findings: []string{"grpc-status"},
		ways: map[string]string{"grpc": "works, but"},
	},
	{
		name: "no-health-service", start: plain(zoo.NoHealth),
		exit: 0,
		ways: map[string]string{"grpc": "works"},
	},
	{
		name: "proxy-required", start: plain(zoo.ProxyRequired), args: short,
		exit: 1, findings: []string{"proxy-required"},
		ways: map[string]string{"proxy-v1": "works", "proxy-v2": "works"},
	},
	{
		name: "proxy-required-and-sent", start: plain(zoo.ProxyRequired), args: []string{"-from-proxy", "v2"},
		exit: 0,
		ways: map[string]string{"http1": "works", "h2-strict": "works", "no-proxy": "not offered"},
	},
	{
		name: "proxy-forgotten", start: plain(zoo.H2C), args: []string{"-from-proxy", "v1"},
		exit: 1, findings: []string{"proxy-forgotten"},
		ways: map[string]string{"no-proxy": "works"},
	},
	{
		name: "silent", start: plain(zoo.Silent), args: short,
		exit: 1, findings: []string{"silent"},
		ways: map[string]string{"http1": "hangs", "h2": "hangs", "grpc": "hangs", "handshake": "hangs"},
	},
	{
		name: "resets", start: plain(zoo.Resets),
		exit: 1, findings: []string{"resets"},
		ways: map[string]string{"http1": "fails", "h2": "fails", "grpc": "fails", "handshake": "fails"},
	},
	{
		name: "closes", start: plain(zoo.Closes),
		exit: 1, findings: []string{"closes"},
		ways: map[string]string{"http1": "fails", "grpc": "fails"},
	},
	{
		name: "closes-after-settings", start: plain(zoo.ClosesAfterSettings), args: short,
		exit: 1, findings: []string{"closed-after-settings"},
		ways: map[string]string{"h2": "fails", "h2-strict": "fails", "grpc": "fails"},
	},
	{
		name: "ssh", start: plain(zoo.SSH), args: short,
		exit: 1, findings: []string{"not-http"},
		ways: map[string]string{"http1": "fails"},
	},
	{
		name: "rst-stream", start: func(t testing.TB, _ *zoo.PKI) string { return zoo.StreamReset(t, http2.ErrCodeInternal) }, args: short,
		exit: 1, findings: []string{"stream-reset"},
		ways: map[string]string{"h2": "refused", "grpc": "refused"},
	},
	{
		name: "refuses-once", start: plain(zoo.RefusesOnce),
		exit: 0,
		ways: map[string]string{"h2": "works", "h2-strict": "works", "idle": "works", "grpc": "not offered"},
	},
	{
		name: "mux", start: func(t testing.TB, p *zoo.PKI) string { return zoo.Mux(t, nil) },
		exit: 1, findings: []string{"mixed"},
		ways: map[string]string{"http1": "works", "h2": "works", "h2-strict": "works", "idle": "works", "grpc": "works", "mixed": "fails"},
	},
	{
		name: "mux-tls", start: zoo.Mux, files: trusted,
		exit: 1, findings: []string{"mixed"},
		ways: map[string]string{"h2-strict": "works", "grpc": "works", "tls-h2": "works", "tls-grpc": "works", "tls-h2-no-alpn": "works"},
	},
	{
		name: "server-clear", start: func(t testing.TB, _ *zoo.PKI) string { return zoo.Server(t, nil) },
		exit: 0,
		ways: map[string]string{"h2-strict": "works", "idle": "works", "grpc": "works", "mixed": "works", "handshake": "not offered"},
	},
	{
		name: "server", start: zoo.Server, files: trusted,
		exit: 0,
		ways: map[string]string{
			"http1": "works", "http1.0": "works", "h2": "works", "h2-strict": "works", "idle": "works", "grpc": "works", "mixed": "works",
			"handshake": "works", "tls-http1": "works", "tls-h2": "works", "tls-h2-no-alpn": "works", "tls-grpc": "works", "tls-mixed": "works",
		},
	},
}

// TestZoo probes every animal, and wants the verdicts and the findings that are right for it.
func TestZoo(t *testing.T) {
	t.Parallel()
	pki := zoo.NewPKI(t)
	for _, a := range animals {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			checkAnimal(t, a, pki)
		})
	}
}

// output is what the tests read of the JSON.
type output struct {
	OK   bool
	Ways []struct {
		ID, Verdict, Outcome, Came string
	}
	Findings []struct {
		Code, Severity, Page string
		Ways                 []string
	}
}

func checkAnimal(t *testing.T, a animal, pki *zoo.PKI) {
	addr := a.start(t, pki)
	args := append([]string{"probe", "-json", "-idle", "600ms"}, a.args...)
	if a.files != nil {
		args = append(args, a.files(t, pki)...)
	}
	var stdout, stderr bytes.Buffer
	exit := run(t.Context(), append(args, a.url+addr), &stdout, &stderr)
	var got output
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
	}
	if exit != a.exit || got.OK != (a.exit == 0) {
		t.Errorf("exit status %d, ok %t, want status %d", exit, got.OK, a.exit)
	}
	var codes []string
	explained := make(map[string]bool)
	for _, f := range got.Findings {
		codes = append(codes, f.Code)
		if f.Severity == "fault" {
			for _, id := range f.Ways {
				explained[id] = true
			}
		}
	}
	if diff := cmp.Diff(a.findings, codes); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	verdicts := make(map[string]string)
	for _, w := range got.Ways {
		verdicts[w.ID] = w.Verdict
		if bad := w.Verdict == "fails" || w.Verdict == "hangs"; bad && !explained[w.ID] {
			t.Errorf("%s %s, and no finding says why", w.ID, w.Verdict)
		}
	}
	for id, want := range a.ways {
		if verdicts[id] != want {
			t.Errorf("%s: %q, want %q", id, verdicts[id], want)
		}
	}
	if t.Failed() {
		for _, w := range got.Ways {
			t.Logf("%-16s %-12s %-12s %s", w.ID, w.Verdict, w.Outcome, w.Came)
		}
	}
}

// TestUnreachable probes a port that nobody listens on.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	var stdout, stderr bytes.Buffer
	if exit := run(t.Context(), []string{"probe", l.Addr().String()}, &stdout, &stderr); exit != exitUnreachable {
		t.Errorf("exit status %d, want %d", exit, exitUnreachable)
	}
	if !strings.Contains(stderr.String(), "Nobody listens there") {
		t.Errorf("it says %q", &stderr)
	}
}
