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
	needs(t, c.argv[0])
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

// needs ends a test whose client is not installed.
func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		missing(t, program+" is not installed")
	}
}

// needsGRPCJS ends a test if grpc-js is not installed.
func needsGRPCJS(t *testing.T) {
	t.Helper()
	needs(t, "node")
	if _, err := os.Stat(filepath.FromSlash("testdata/node/node_modules/@grpc/grpc-js")); err != nil {
		missing(t, "grpc-js is not installed: run npm ci --prefix internal/interop/testdata/node")
	}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ONEPORT_REQUIRE_CLIENTS") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}
