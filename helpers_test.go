package oneport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-go/oneport/internal/h2"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(serverVariable); kind != "" {
		benchServer(kind)
		return
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.DiscardHandler)

// newMux returns a mux over l that logs nothing.
func newMux(l net.Listener) *Mux {
	m := New(l)
	m.Logger = quiet
	return m
}

// serve runs m until the end of the test, and checks how Serve ends.
func serve(t testing.TB, m *Mux) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- m.Serve() }()
	t.Cleanup(func() {
		m.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve returned %v, want ErrClosed", err)
		}
	})
}

// listen returns a listener on a free port or socket, closed at the end of the test.
func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		// Not t.TempDir, whose path can be longer than a socket's may be.
		dir, err := os.MkdirTemp("", "oneport")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		address = filepath.Join(dir, "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects to l and closes the connection at the end of the test.
func dial(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	if p, ok := l.(*pipeListener); ok {
		c, err = p.dial()
	} else {
		c, err = net.Dial(l.Addr().Network(), l.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// accept accepts a connection from l and closes it at the end of the test.
func accept(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t testing.TB, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

// watchRefusals makes m send each refused connection to the channel that it returns.
func watchRefusals(m *Mux) chan Refused {
	refused := make(chan Refused, 10)
	m.OnRefuse = func(r Refused) { refused <- r }
	return refused
}

// capture returns the bytes that a real client sent.
func capture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/captures/" + name + ".bin")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pipeListener is a listener of in-memory connections, which work with synctest and cannot be peeked.
type pipeListener struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (l *pipeListener) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "pipe", Err: net.ErrClosed}
	}
}

func (l *pipeListener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() { close(l.closed); err = nil })
	return err
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// recorder keeps what a listener accepted.
type recorder struct {
	net.Listener
	conns chan net.Conn
}

func record(l net.Listener) *recorder { return &recorder{l, make(chan net.Conn, 100)} }

func (r *recorder) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err == nil {
		r.conns <- c
	}
	return c, err
}

// looks is a matcher like m that reports how many bytes it was shown.
func looks(m Matcher) (Matcher, <-chan int) {
	seen := make(chan int, 100_000)
	return MatcherFunc(func(p *Preview) Verdict {
		seen <- len(p.Bytes())
		return m.Match(p)
	}), seen
}

// previewOf returns a Preview as a matcher sees it when the client has sent b.
func previewOf(b []byte) *Preview {
	client, server := net.Pipe()
	client.Close()
	server.Close()
	return &Preview{facts: facts{conn: server, data: b}}
}

// decidesAt returns how many bytes of b the matcher needs, and checks that its verdict does not change after that.
func decidesAt(t testing.TB, m Matcher, b []byte) (n int, v Verdict) {
	t.Helper()
	n, p := -1, previewOf(nil)
	defer p.endReaders()
	for i := range len(b) + 1 {
		p.data = bytes.Clone(b[:i]) // as after each look, the bytes are the same and the memory is not
		switch got := m.Match(p); {
		case n < 0 && got != Undecided:
			n, v = i, got
		case n >= 0 && got != v:
			t.Fatalf("%v said %v after %d bytes and %v after %d", m, v, n, got, i)
		}
	}
	return n, v
}

// requestBegins returns how many bytes of a flight show that a request has begun, if it is one of HTTP/2.
func requestBegins(flight []byte) int {
	var p h2.Parser
	for i := range flight {
		if p.Parse(flight[:i]); p.Requesting() {
			return i
		}
	}
	return 0
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func readResponse(t testing.TB, c net.Conn) *http.Response {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatalf("no whole answer: %v", err)
	}
	return resp
}
