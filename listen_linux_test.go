package oneport

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// socketOptions are those that a connection may inherit.
type socketOptions struct{ NoDelay, KeepAlive, Idle, Interval, Count int }

func optionsOf(t *testing.T, c syscall.Conn) socketOptions {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var o socketOptions
	var errs [5]error
	if err := raw.Control(func(fd uintptr) {
		o.NoDelay, errs[0] = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
		o.KeepAlive, errs[1] = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
		o.Idle, errs[2] = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
		o.Interval, errs[3] = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL)
		o.Count, errs[4] = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestListenInherits holds the options of accepted connections to those that net gives them with the same settings, for
// listeners and clients with Multipath TCP, where the kernel has it, and without.
func TestListenInherits(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		lc   net.ListenConfig
	}{
		{"defaults", net.ListenConfig{}},
		{"another idle time", net.ListenConfig{KeepAlive: 61500 * time.Millisecond}},
		{"off", net.ListenConfig{KeepAlive: -1}},
		{"all set", net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 7 * time.Second, Interval: 1500 * time.Millisecond, Count: 4}}},
		{"some set", net.ListenConfig{KeepAlive: time.Minute, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Count: 5}}},
		{"the system's", net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: -1, Interval: -1, Count: -1}}},
	}
	for _, tt := range tests {
		for _, multipath := range []bool{false, true} {
			name := tt.name + ", plain"
			if multipath {
				name = tt.name + ", multipath"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				lc := tt.lc
				lc.SetMultipathTCP(multipath)
				want := acceptedOptions(t, lc.Listen, multipath)
				got := acceptedOptions(t, (&ListenConfig{ListenConfig: lc}).Listen, multipath)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// acceptedOptions returns the options of a connection that a listener accepts.
func acceptedOptions(t *testing.T, listen func(_ context.Context, network, address string) (net.Listener, error),
	multipath bool) socketOptions {
	t.Helper()
	l, err := listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var d net.Dialer
	d.SetMultipathTCP(multipath)
	client, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, ok := accept(t, l).(*net.TCPConn)
	if !ok {
		t.Fatal("Accept returned something else than a *net.TCPConn")
	}
	return optionsOf(t, server)
}

// TestListenSetsOnce looks for the options where they are set, so that they are not inherited by chance.
func TestListenSetsOnce(t *testing.T) {
	t.Parallel()
	l, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := optionsOf(t, l.(*net.TCPListener))
	got.NoDelay = 0
	if diff := cmp.Diff(socketOptions{KeepAlive: 1, Idle: 15, Interval: 15, Count: 9}, got); diff != "" {
		t.Error(diff)
	}
}

// TestListenControl lets the user's own options have the last word.
func TestListenControl(t *testing.T) {
	t.Parallel()
	lc := &ListenConfig{ListenConfig: net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		if err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 3)
		}); err != nil {
			return err
		}
		return failed
	}}}
	if got := acceptedOptions(t, lc.Listen, false); got.Count != 3 || got.Idle != 15 {
		t.Errorf("got %+v", got)
	}
}

// TestDeferAccept has a silent client connect before one that talks.
func TestDeferAccept(t *testing.T) {
	t.Parallel()
	lc := ListenConfig{DeferAccept: time.Minute}
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial(t, l)
	talking := dial(t, l)
	write(t, talking, []byte("x"))
	if got := accept(t, l).RemoteAddr().String(); got != talking.LocalAddr().String() {
		t.Errorf("accepted %s, want the client that talks, %v", got, talking.LocalAddr())
	}
}

// TestReusePort listens on one address twice.
func TestReusePort(t *testing.T) {
	t.Parallel()
	lc := ListenConfig{ReusePort: true}
	first, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := lc.Listen(t.Context(), "tcp", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if l, err := Listen("tcp", first.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a listener without ReusePort: %v, %v", l, err)
	}
}
