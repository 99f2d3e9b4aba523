//go:build unix

package main

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-go/oneport/internal/exampletest"
)

// asProgram makes the test binary be the program.
const asProgram = "ONEPORT_SYSTEMD_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		// systemd knows the process before it runs the program.
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// program is the program with sockets as systemd passes them on.
func program(t *testing.T, stderr *exampletest.Log, files ...*os.File) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), asProgram+"=1", "LISTEN_FDS="+strconv.Itoa(len(files)))
	cmd.ExtraFiles = files // from 3 on, as systemd does
	cmd.Stderr = stderr
	return cmd
}

// TestActivation plays systemd: it listens, has a client connect, starts the program, and later starts it again.
func TestActivation(t *testing.T) {
	dir := t.TempDir()
	tcp := exampletest.Listen(t).(*net.TCPListener)
	defer tcp.Close()
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	var files []*os.File
	for _, l := range []interface{ File() (*os.File, error) }{tcp, unix} {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	told := func(want string) {
		t.Helper()
		notify.SetReadDeadline(time.Now().Add(30 * time.Second))
		b := make([]byte, 1000)
		n, err := notify.Read(b)
		if err != nil || !strings.Contains(string(b[:n]), want) {
			t.Fatalf("systemd was told %q, %v, want %s", b[:n], err, want)
		}
	}

	for range 2 {
		// A client comes before the program runs.
		early, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer early.Close()
		if _, err := early.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		var log exampletest.Log
		cmd := program(t, &log, files...)
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+notify.LocalAddr().String())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		told("READY=1")
		res, err := http.ReadResponse(bufio.NewReader(early), nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		for _, target := range []string{tcp.Addr().String(), "unix:" + unix.Addr().String()} {
			cc := exampletest.GRPC(t, target)
			exampletest.CheckHealth(t, cc)
			exampletest.CheckServices(t, cc, "grpc.health.v1.Health")
			cc.Close()
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		told("STOPPING=1")
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v:\n%s", err, log.Await(t))
		}
		log.Await(t, "serving on "+tcp.Addr().String(), "waiting at most 10 seconds for running requests")
	}
}

func TestNoSocket(t *testing.T) {
	var log exampletest.Log
	if err := program(t, &log).Run(); err == nil || !strings.Contains(log.Await(t), "systemd has passed no socket") {
		t.Errorf("%v:\n%s", err, log.Await(t))
	}
}
