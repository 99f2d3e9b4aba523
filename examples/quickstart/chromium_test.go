package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/oneport-go/oneport/internal/testenv"
)

// A netLog is what Chromium writes about its network with --log-net-log.
type netLog struct {
	Constants struct {
		LogEventTypes map[string]int
	}
	Events []struct {
		Type   int
		Params json.RawMessage
	}
}

// params returns the parameters of the events of a type, as far as T has them.
func params[T any](t *testing.T, log *netLog, event string) (all []T) {
	t.Helper()
	typ, ok := log.Constants.LogEventTypes[event]
	if !ok {
		t.Fatalf("this version of Chromium has no event %s in its log", event)
	}
	for _, e := range log.Events {
		if e.Type != typ || len(e.Params) == 0 {
			continue
		}
		var p T
		if err := json.Unmarshal(e.Params, &p); err != nil {
			t.Fatalf("%s: %v in %s", event, err, e.Params)
		}
		all = append(all, p)
	}
	return all
}

// TestChromium has a browser load the page over TLS. Both ends have to say that it came by HTTP/2, which ALPN has
// negotiated.
func TestChromium(t *testing.T) {
	t.Parallel()
	program := testenv.Program(t, "chromium", "chromium-browser", "google-chrome")
	_, addr := start(t)
	dir := t.TempDir()
	logFile := filepath.Join(dir, "net.json")
	args := []string{
		"--headless",
		"--ignore-certificate-errors", // the authority is in memory
		"--user-data-dir=" + filepath.Join(dir, "profile"),
		"--no-first-run",
		"--disable-gpu",
		"--disable-background-networking",
		"--disable-component-update",
		"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", // nothing is asked of anybody else
		"--no-proxy-server",
		"--log-net-log=" + logFile,
		"--dump-dom",
	}
	if runtime.GOOS == "linux" {
		args = append(args, "--no-sandbox", "--disable-dev-shm-usage") // for root, and in containers
	}
	cmd := exec.CommandContext(t.Context(), program, append(args, "https://"+addr+"/")...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	page, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if want := "<strong>HTTP/2.0</strong> over TLS"; !strings.Contains(string(page), want) {
		t.Errorf("%q is not in the page:\n%s\n%s", want, page, &stderr)
	}

	b, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	var log netLog
	if err := json.Unmarshal(b, &log); err != nil {
		t.Fatalf("the network log: %v", err)
	}
	type handshake struct {
		Protocol string `json:"next_proto"`
	}
	if got := params[handshake](t, &log, "SSL_CONNECT"); !slices.Contains(got, handshake{"h2"}) {
		t.Errorf("the network log has no handshake with h2: %v", got)
	}
	type session struct{ Host string }
	if got := params[session](t, &log, "HTTP2_SESSION"); !slices.Contains(got, session{addr}) {
		t.Errorf("the network log has no session of HTTP/2 with %s: %v", addr, got)
	}
	type goAway struct{ Description string }
	if got := params[goAway](t, &log, "HTTP2_SESSION_RECV_GOAWAY"); len(got) > 0 {
		t.Errorf("the server has ended the session: %v", got)
	}
}
