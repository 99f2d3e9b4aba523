package oneport

import (
	"context"
	"errors"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// TestListen serves a connection of each network through a mux.
func TestListen(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "tcp4", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			address := listen(t, network).Addr().String() + "2"
			if network != "unix" {
				address = "127.0.0.1:0"
			}
			root, err := Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			m := newMux(root)
			l := m.Match(HTTP1())
			serve(t, m)
			write(t, dial(t, root), []byte("GET / HTTP/1.1\r\n"))
			c := accept(t, l)
			if _, ok := c.(*net.TCPConn); ok != (network != "unix") {
				t.Errorf("the server got a %T", c)
			}
		})
	}
}

func TestListenErrors(t *testing.T) {
	t.Parallel()
	taken := listen(t, "tcp")
	if l, err := Listen("tcp", taken.Addr().String()); err == nil {
		l.Close()
		t.Error("listened on an address that is in use")
	} else if runtime.GOOS != "windows" && !errors.Is(err, syscall.EADDRINUSE) {
		t.Error(err)
	}
	for _, lc := range []*ListenConfig{{DeferAccept: time.Second}, {ReusePort: true}} {
		if l, err := lc.Listen(t.Context(), "unix", "/nowhere"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%+v on a Unix socket: %v, %v", lc, l, err)
		}
	}
	want := errors.New("control")
	failing := ListenConfig{ListenConfig: net.ListenConfig{
		Control: func(string, string, syscall.RawConn) error { return want },
	}}
	if l, err := failing.Listen(t.Context(), "tcp", "127.0.0.1:0"); !errors.Is(err, want) {
		t.Errorf("with a Control that fails: %v, %v", l, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := new(ListenConfig).Listen(ctx, "tcp", "no-such-host.invalid:0"); err == nil {
		l.Close()
		t.Error("listened on a host that is not there")
	}
}

// BenchmarkAccept measures connecting and accepting, of which what the client does is a part.
func BenchmarkAccept(b *testing.B) {
	for _, bb := range []struct {
		name   string
		listen func(network, address string) (net.Listener, error)
	}{{"net", net.Listen}, {"oneport", Listen}} {
		b.Run(bb.name, func(b *testing.B) {
			l, err := bb.listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			for b.Loop() {
				client, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				server, err := l.Accept()
				if err != nil {
					b.Fatal(err)
				}
				client.(*net.TCPConn).SetLinger(0)
				client.Close()
				server.Close()
			}
		})
	}
}
