//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport/internal/exampletest"
)

// asProgram makes the test binary be the program.
const asProgram = "ONEPORT_TABLEFLIP_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// A family is the program with all processes that take its place.
type family struct {
	addr    string
	pid     int         // of the process that serves
	serving chan []byte // lines by which processes say that they serve
	lines   exampletest.Log
}

var servingLine = regexp.MustCompile(`serving on (\S+); to restart: kill -HUP (\d+)`)

// start starts the program. When the test ends, all processes must have ended.
func start(t *testing.T) *family {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stderr = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	f := &family{serving: make(chan []byte, 10)}
	ended := make(chan struct{}) // the last process that could write
	go func() {
		defer close(ended)
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			fmt.Fprintf(&f.lines, "%s\n", lines.Bytes())
			if servingLine.Match(lines.Bytes()) {
				f.serving <- append([]byte(nil), lines.Bytes()...)
			}
		}
	}()
	t.Cleanup(func() {
		if f.pid != 0 {
			syscall.Kill(f.pid, syscall.SIGTERM)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the first process: %v", err)
		}
		<-ended
		t.Log(f.lines.Await(t))
	})
	f.next(t)
	return f
}

// next waits for the next process to serve.
func (f *family) next(t *testing.T) {
	t.Helper()
	select {
	case line := <-f.serving:
		m := servingLine.FindSubmatch(line)
		f.addr = string(m[1])
		f.pid, _ = strconv.Atoi(string(m[2]))
	case <-time.After(30 * time.Second):
		t.Fatalf("no process serves:\n%s", f.lines.Await(t))
	}
}

// TestRestart restarts the program several times while clients make requests, none of which may fail.
func TestRestart(t *testing.T) {
	f := start(t)
	addr, first := f.addr, f.pid
	cc := exampletest.GRPC(t, addr)
	exampletest.CheckHealth(t, cc)
	exampletest.CheckServices(t, cc, "grpc.health.v1.Health")

	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	var requests atomic.Int64
	load := func(name string, request func() error) {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := request(); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				requests.Add(1)
			}
		})
	}
	check := func(cc *grpc.ClientConn) error {
		_, err := healthpb.NewHealthClient(cc).Check(context.Background(), new(healthpb.HealthCheckRequest))
		return err
	}
	get := func(c *http.Client) error {
		res, err := c.Get("http://" + addr + "/")
		if err != nil {
			return err
		}
		return res.Body.Close()
	}
	load("gRPC", func() error { return check(cc) })
	load("gRPC, new connections", func() error {
		cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer cc.Close()
		return check(cc)
	})
	http2 := exampletest.HTTP(t, true)
	load("HTTP/2", func() error { return get(http2) })
	once := exampletest.HTTP(t, false)
	once.Transport.(*http.Transport).DisableKeepAlives = true
	load("HTTP/1.1, new connections", func() error { return get(once) })

	for range 3 {
		before, made := f.pid, requests.Load()
		if err := syscall.Kill(before, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		f.next(t)
		if f.pid == before || f.addr != addr {
			t.Errorf("process %d serves on %s, after process %d on %s", f.pid, f.addr, before, addr)
		}
		// The old process says so when it has answered its requests.
		f.lines.Await(t, fmt.Sprintf("process %d: ended", before))
		if requests.Load() == made {
			t.Error("no request was made meanwhile")
		}
	}
	stop()
	clients.Wait()
	if _, got := exampletest.Get(t, once, "http://"+addr+"/"); got != fmt.Sprintf("process %d over HTTP/1.1\n", f.pid) || f.pid == first {
		t.Errorf("answered by %q, want process %d", got, f.pid)
	}
	t.Logf("%d requests over 3 restarts", requests.Load())
}
