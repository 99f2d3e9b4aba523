//go:build unix

package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/oneport-go/oneport/internal/exampletest"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	goleak.VerifyTestMain(m)
}

func TestServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others can connect: %v, %v", info.Mode(), err)
	}
	t.Run("run", func(t *testing.T) {
		exampletest.Run(t, func(ctx context.Context) error { return serve(ctx, l) })
		cc := exampletest.GRPC(t, "unix:"+path)
		exampletest.CheckHealth(t, cc)
		exampletest.CheckServices(t, cc, "grpc.health.v1.Health")
		for _, http2 := range []bool{false, true} {
			want := "hello over HTTP/1.1\n"
			if http2 {
				want = "hello over HTTP/2.0\n"
			}
			c := exampletest.HTTP(t, http2)
			c.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}
			if status, got := exampletest.Get(t, c, "http://localhost/"); status != 200 || got != want {
				t.Errorf("%d, %q, want %q", status, got, want)
			}
		}
	})
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// TestListenAgain listens where a socket is already.
func TestListenAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := listen(path); !errors.Is(err, syscall.EADDRINUSE) {
		if err == nil {
			l.Close()
		}
		t.Errorf("took over a socket that is listened on: %v", err)
	}
	l.SetUnlinkOnClose(false) // as if the process was killed
	l.Close()
	l, err = listen(path)
	if err != nil {
		t.Fatalf("a socket that was left behind: %v", err)
	}
	l.Close()
}
