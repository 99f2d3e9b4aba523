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

// listenVia returns functions that make a listener with the options of lc: that of lc itself, and those for listeners
// that are made elsewhere, where net is told to leave keep-alive alone.
func listenVia(lc *ListenConfig) map[string]func(_ context.Context, network, address string) (net.Listener, error) {
	elsewhere := func(control func(_, _ string, _ syscall.RawConn) error) *net.ListenConfig {
		other := &net.ListenConfig{KeepAlive: -1, Control: control}
		other.SetMultipathTCP(false)
		return other
	}
	return map[string]func(_ context.Context, network, address string) (net.Listener, error){
		"Listen": lc.Listen,
		"ControlSocket": func(ctx context.Context, network, address string) (net.Listener, error) {
			return elsewhere(lc.ControlSocket).Listen(ctx, network, address)
		},
		"ApplyTo": func(ctx context.Context, network, address string) (net.Listener, error) {
			l, err := elsewhere(nil).Listen(ctx, network, address)
			if err == nil {
				err = lc.ApplyTo(l)
			}
			return l, err
		},
	}
}

// TestListenElsewhere holds the options that accepted connections inherit from a listener which was made elsewhere to
// those that net gives them with the same settings.
func TestListenElsewhere(t *testing.T) {
	t.Parallel()
	for name, lc := range map[string]net.ListenConfig{
		"defaults":     {},
		"another idle": {KeepAlive: 61500 * time.Millisecond},
		"off":          {KeepAlive: -1},
		"all set": {KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 7 * time.Second, Interval: 1500 * time.Millisecond, Count: 4}},
		"the system's": {KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}},
	} {
		lc.SetMultipathTCP(false)
		want := acceptedOptions(t, lc.Listen, false)
		for via, listen := range listenVia(&ListenConfig{ListenConfig: lc}) {
			if diff := cmp.Diff(want, acceptedOptions(t, listen, false)); diff != "" {
				t.Errorf("%s by %s: %s", name, via, diff)
			}
		}
	}
}

// TestListenElsewhereOptions looks for the other options on the listening sockets.
func TestListenElsewhereOptions(t *testing.T) {
	t.Parallel()
	called := 0
	lc := &ListenConfig{DeferAccept: 3 * time.Second, ReusePort: true}
	lc.Control = func(network, address string, c syscall.RawConn) error {
		called++
		return nil
	}
	for via, listen := range listenVia(lc) {
		called = 0
		l, err := listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var deferred, reuse int
		var errs [2]error
		if err := raw.Control(func(fd uintptr) {
			deferred, errs[0] = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT)
			reuse, errs[1] = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort())
		}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		// ReusePort comes too late for a socket that is bound, and Control has to do with making one.
		early := via != "ApplyTo"
		if deferred < 3 || reuse == 1 != early || called == 1 != early {
			t.Errorf("by %s: TCP_DEFER_ACCEPT %d, SO_REUSEPORT %d, Control called %d times", via, deferred, reuse, called)
		}
	}
}

// TestControlSocketErrors checks which errors reach the caller, and that sockets of other networks are left alone.
func TestControlSocketErrors(t *testing.T) {
	t.Parallel()
	want := errors.New("control")
	lc := &ListenConfig{DeferAccept: time.Second}
	lc.Control = func(string, string, syscall.RawConn) error { return want }
	other := net.ListenConfig{Control: lc.ControlSocket}
	for _, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = listen(t, network).Addr().String() + "2"
		}
		if l, err := other.Listen(t.Context(), network, address); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v", network, l, err)
		}
	}
	lc.Control = nil
	l := listen(t, "unix")
	if err := lc.ApplyTo(l); err != nil {
		t.Errorf("ApplyTo a Unix socket: %v", err)
	}
	closed := listen(t, "tcp")
	closed.Close()
	if err := lc.ApplyTo(closed); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ApplyTo a closed listener: %v", err)
	}
	if err := lc.ApplyTo(newPipeListener()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ApplyTo a listener without a socket: %v", err)
	}
}
