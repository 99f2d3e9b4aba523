package interop

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oneport-go/oneport/internal/testenv"
)

// A client is a program that sends one HTTP request and prints the content of the response.
type client struct {
	name string
	argv []string // without the URL, which comes last
}

var (
	curlHTTP1    = client{"curl by HTTP/1.1", []string{"curl", "--http1.1", "--no-progress-meter", "--fail", "--noproxy", "*"}}
	curlHTTP2    = client{"curl by HTTP/2", []string{"curl", "--http2-prior-knowledge", "--no-progress-meter", "--fail", "--noproxy", "*"}}
	nghttp       = client{"nghttp", []string{"nghttp"}}
	nodeHTTP2    = client{"Node", []string{"node", "testdata/node/get.mjs"}}
	http2Clients = []client{curlHTTP2, nghttp, nodeHTTP2}
)

func (c client) get(t *testing.T, addr string) string {
	t.Helper()
	testenv.Program(t, c.argv[0])
	return output(t, append(slices.Clone(c.argv), "http://"+addr+"/")...)
}

// output runs a program and returns what it prints.
func output(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", argv, err, out, &stderr)
	}
	return string(out)
}

// needsGRPCJS ends a test if grpc-js is not installed.
func needsGRPCJS(t *testing.T) {
	t.Helper()
	testenv.Program(t, "node")
	if _, err := os.Stat(filepath.FromSlash("testdata/node/node_modules/@grpc/grpc-js")); err != nil {
		testenv.Missing(t, "grpc-js is not installed: run npm ci --prefix internal/interop/testdata/node")
	}
}
