package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/oneport-go/oneport/benchmarks/internal/capacity"
)

// TestTarget puts a server under load that is not one of the contenders, and one that drops every second connection.
func TestTarget(t *testing.T) {
	t.Parallel()
	for _, drops := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if drops {
			l = &dropping{Listener: l}
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/hello" {
				w.WriteHeader(http.StatusNotFound)
			}
			io.WriteString(w, "hello")
		})}
		served := make(chan error)
		go func() { served <- s.Serve(l) }()
		dir := t.TempDir()
		args := fmt.Sprintf("-duration 60ms -clients 2 -path /v1/hello -rate 100 -find p50=1s -protocol HTTP/1 -pid %d -out %s -target %s", os.Getpid(), dir, l.Addr())
		if drops {
			args = fmt.Sprintf("-duration 60ms -clients 2 -path /v1/hello -protocol http/1 -out %s -target %s", dir, l.Addr())
		}
		if runtime.GOOS != "linux" {
			args = strings.Replace(args, fmt.Sprint("-pid ", os.Getpid()), "", 1)
		}
		var out bytes.Buffer
		err = command(t.Context(), strings.Fields(args), &out, io.Discard)
		s.Close()
		<-served
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "target.json"))
		if err != nil {
			t.Fatal(err)
		}
		var r capacity.Report
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		server := r.Servers[0]
		if len(server.Speaks) != 1 || server.Speaks[0] != "HTTP/1" || len(server.Not) != 1 {
			t.Errorf("it speaks %q, and not %q", server.Speaks, server.Not)
		}
		if drops {
			if row := server.Rows[0]; row.Errors == 0 || row.Error == "" || !strings.Contains(out.String(), "errors") {
				t.Errorf("a server that drops connections: %+v", row)
			}
			continue
		}
		if len(server.Rows) != 4 || len(server.Searches) != 2 {
			t.Fatalf("%d rows and %d searches", len(server.Rows), len(server.Searches))
		}
		for _, row := range server.Rows {
			if row.Errors > 0 || row.Ops == 0 || !(row.P50 > 0) || row.Wanted > 0 && row.Ops != 6 {
				t.Errorf("%+v", row)
			}
			if runtime.GOOS == "linux" && row.Process == nil {
				t.Error("nothing is known of its process")
			}
		}
		for _, want := range []string{"speaks HTTP/1.", "keeps p50=1s", "wanted/s"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in:\n%s", want, &out)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "rates-0-0.svg")); err != nil {
			t.Error(err)
		}
	}
}

// dropping is a listener that closes every second connection.
type dropping struct {
	net.Listener
	n int
}

func (l *dropping) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if l.n++; err == nil && l.n%2 == 0 {
		c.Close()
	}
	return c, err
}

func TestTargetFails(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-target nowhere":                        "missing port",
		"-target 127.0.0.1:1":                    "speaks nothing",
		"-target 127.0.0.1:1 -find p99":          "no bound",
		"-target 127.0.0.1:1 -pid 1073741824":    "-pid",
		"-target 127.0.0.1:1 -clients 0":         "must be more than 0",
		"-target 127.0.0.1:1 -contender nothing": "there is no",
	} {
		err := command(t.Context(), append(strings.Fields(args), "-out", t.TempDir()), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want %q in it", args, err, want)
		}
	}
}
