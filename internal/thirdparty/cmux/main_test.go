package cmux

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/soheilhy/cmux"
	"go.uber.org/goleak"
)

// patience is how long a test waits for what has to happen. Against the original, what fails takes as long.
const patience = 5 * time.Second

// original reports whether the tests run against the original cmux.
var original = func() bool {
	_, explains := any(cmux.ErrNotMatched{}).(interface{ Unwrap() error })
	return !explains
}()

func TestMain(m *testing.M) {
	if original {
		m.Run() // of what fails, something is left
		return
	}
	goleak.VerifyTestMain(m)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serve runs m until the end of the test, or until the listener below is closed, and returns what Serve returns.
func serve(t *testing.T, m cmux.CMux, l net.Listener) <-chan error {
	t.Helper()
	ended, result := make(chan struct{}), make(chan error, 1)
	go func() {
		result <- m.Serve()
		close(ended)
	}()
	t.Cleanup(func() {
		l.Close()
		within(t, ended, "Serve has not returned")
	})
	return result
}

// within receives from ch, if something comes within the test's patience.
func within[T any](t *testing.T, ch <-chan T, otherwise string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Errorf("after %v: %s", patience, otherwise)
	}
	return v
}

type accepted struct {
	net.Conn
	err error
}

// accept accepts from l in the background.
func accept(l net.Listener) <-chan accepted {
	ch := make(chan accepted, 1)
	go func() {
		c, err := l.Accept()
		ch <- accepted{c, err}
	}()
	return ch
}

// mustAccept accepts from l.
func mustAccept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	a := within(t, accept(l), "no connection")
	if a.err != nil || a.Conn == nil {
		t.Fatalf("Accept: %v", a.err)
	}
	t.Cleanup(func() { a.Close() })
	return a.Conn
}

// dial connects to l and sends what is given.
func dial(t *testing.T, l net.Listener, send string) net.Conn {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	return c
}

// wantRead checks what c reads next.
func wantRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	c.SetReadDeadline(time.Now().Add(patience))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got[:n], err, want)
	}
}

// wantEnd checks that the connection is closed by the other side, which may say something before that.
func wantEnd(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, c)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Errorf("after %v the connection is still open", patience)
	}
}
