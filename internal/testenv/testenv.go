// Package testenv gives tests the programs and connections of the machine that they run on.
package testenv

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Program returns the path of the first of the programs that is installed. If none is, the test ends as by Missing.
func Program(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		// Debian has servers in a folder where an ordinary user does not look.
		for _, name := range []string{name, "/usr/sbin/" + name} {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
	}
	Missing(t, strings.Join(names, " or ")+" is not installed")
	return ""
}

// Missing skips a test because something is missing. If ONEPORT_REQUIRE_CLIENTS is 1, the test fails instead.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("ONEPORT_REQUIRE_CLIENTS") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// TCP returns the ends of a connection over the loopback interface, which are closed when the test ends.
func TCP(t testing.TB) (server, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// Start starts a command and returns its ends. When the test ends, its standard input is closed, upon which it has to
// exit with success.
func Start(t testing.TB, cmd *exec.Cmd) (stdin io.Writer, stdout *bufio.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdout = bufio.NewReader(out)
	t.Cleanup(func() {
		in.Close()
		rest, _ := io.ReadAll(stdout)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", cmd, err, rest)
		}
	})
	return in, stdout
}
