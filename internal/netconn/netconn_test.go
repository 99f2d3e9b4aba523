package netconn

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/oneport-go/oneport/internal/certs"
	"github.com/oneport-go/oneport/internal/testenv"
)

// wrapper wraps a connection, and has nothing that it has.
type wrapper struct{ net.Conn }

func (w wrapper) NetConn() net.Conn { return w.Conn }

// dead ends a chain: it wraps nothing.
type dead struct{ net.Conn }

// stateful has a ConnectionState of its own.
type stateful struct {
	wrapper
	state tls.ConnectionState
}

func (s stateful) ConnectionState() tls.ConnectionState { return s.state }

// socketless has a SyscallConn that fails.
type socketless struct{ wrapper }

var errNoSocket = errors.New("no socket")

func (socketless) SyscallConn() (syscall.RawConn, error) { return nil, errNoSocket }

// halfCloser has a CloseWrite.
type halfCloser struct {
	net.Conn
	err error
}

func (h halfCloser) CloseWrite() error { return h.err }

// pipe returns an end of a connection without a socket.
func pipe(t *testing.T) net.Conn {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a
}

func TestChain(t *testing.T) {
	t.Parallel()
	bottom := pipe(t)
	middle := tls.Server(bottom, nil)
	top := wrapper{middle}
	for _, tt := range []struct {
		name string
		c    net.Conn
		want []net.Conn
	}{
		{"nothing", nil, nil},
		{"one", bottom, []net.Conn{bottom}},
		{"three", top, []net.Conn{top, middle, bottom}},
		{"a wrapper of nothing", wrapper{}, []net.Conn{wrapper{}}},
		{"a wrapper that does not say so", dead{top}, []net.Conn{dead{top}}},
	} {
		if got := slices.Collect(Chain(tt.c)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
		var below net.Conn
		if len(tt.want) > 1 {
			below = tt.want[1]
		}
		if got := Below(tt.c); got != below {
			t.Errorf("%s: got %v below, want %v", tt.name, got, below)
		}
	}
	for c := range Chain(top) {
		if c != top {
			t.Errorf("%v comes first", c)
		}
		break
	}
}

func TestCloseWrite(t *testing.T) {
	t.Parallel()
	server, client := testenv.TCP(t)
	if err := CloseWrite(server); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %d bytes, %v", n, err)
	}
	if err := CloseWrite(halfCloser{err: io.ErrClosedPipe}); err != io.ErrClosedPipe {
		t.Errorf("got %v", err)
	}
	// The connection below could, and must not.
	for _, c := range []net.Conn{pipe(t), wrapper{client}} {
		if err := CloseWrite(c); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "a ") {
			t.Errorf("%T: got %v", c, err)
		}
	}
}

func TestConnectionState(t *testing.T) {
	t.Parallel()
	server, client := testenv.TCP(t)
	authority, err := certs.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Server("server.example")
	if err != nil {
		t.Fatal(err)
	}
	secured := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
	done := make(chan error)
	go func() {
		done <- tls.Client(client, &tls.Config{RootCAs: authority.Pool(), ServerName: "server.example", NextProtos: []string{"h2"}}).Handshake()
	}()
	if err := secured.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	other := tls.ConnectionState{HandshakeComplete: true, NegotiatedProtocol: "other"}
	for _, tt := range []struct {
		name          string
		c             net.Conn
		state, hidden string // the ALPN protocol; empty for no TLS
	}{
		{"nothing", nil, "", ""},
		{"in cleartext", wrapper{pipe(t)}, "", ""},
		{"TLS", secured, "h2", ""},
		{"TLS without a handshake", tls.Server(pipe(t), &tls.Config{}), "", ""},
		{"below", wrapper{wrapper{secured}}, "h2", "h2"},
		{"out of sight", dead{secured}, "", ""},
		{"below what has the method for all cases", stateful{wrapper: wrapper{secured}}, "h2", ""},
		{"below a wrapper of that", wrapper{stateful{wrapper: wrapper{secured}}}, "h2", "h2"},
		{"the uppermost", stateful{wrapper{secured}, other}, "other", ""},
		{"the uppermost below", wrapper{stateful{wrapper{secured}, other}}, "other", "other"},
	} {
		state, ok := ConnectionState(tt.c)
		if ok != (tt.state != "") || state.NegotiatedProtocol != tt.state || state.HandshakeComplete != ok {
			t.Errorf("%s: ConnectionState is %q, %v, want %q", tt.name, state.NegotiatedProtocol, ok, tt.state)
		}
		state, ok = HiddenState(tt.c)
		if ok != (tt.hidden != "") || state.NegotiatedProtocol != tt.hidden || state.HandshakeComplete != ok {
			t.Errorf("%s: HiddenState is %q, %v, want %q", tt.name, state.NegotiatedProtocol, ok, tt.hidden)
		}
	}
}

func TestSocket(t *testing.T) {
	t.Parallel()
	server, _ := testenv.TCP(t)
	for _, tt := range []struct {
		name       string
		c          net.Conn
		itself, ok bool
	}{
		{"nothing", nil, false, false},
		{"TCP", server, true, true},
		{"below TLS", tls.Server(server, nil), false, true},
		{"below a wrapper of TLS", wrapper{tls.Server(server, nil)}, false, true},
		{"below what has the method for all cases", socketless{wrapper{server}}, false, true},
		{"none", wrapper{pipe(t)}, false, false},
		{"none below TLS", tls.Server(pipe(t), nil), false, false},
		{"none below what has the method for all cases", socketless{wrapper{pipe(t)}}, false, false},
		{"out of sight", dead{server}, false, false},
	} {
		if got := HasSocket(tt.c); got != tt.itself {
			t.Errorf("%s: HasSocket is %v", tt.name, got)
		}
		if got := Socket(tt.c); (got != nil) != tt.ok || tt.ok && got != syscall.Conn(server) {
			t.Errorf("%s: Socket is %v", tt.name, got)
		}
		raw, err := SyscallConn(tt.c)
		if !tt.ok {
			if raw != nil || !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: SyscallConn returns %v, %v", tt.name, raw, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if err := raw.Control(func(uintptr) {}); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
