package oneport

import (
	"cmp"
	"context"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func (lc *ListenConfig) listenTCP(ctx context.Context, network, address string) (net.Listener, error) {
	inner := lc.ListenConfig
	inner.KeepAlive, inner.KeepAliveConfig = -1, net.KeepAliveConfig{} // so that net leaves alone what was inherited
	// Where Control fails on a socket of Multipath TCP, net tries again with one of plain TCP.
	inner.Control = lc.ControlSocket
	return inner.Listen(ctx, network, address)
}

// controlSocket sets the options of a listening socket, if it is one of TCP.
func (lc *ListenConfig) controlSocket(network string, c syscall.RawConn) (err error) {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	if e := c.Control(func(fd uintptr) { err = lc.setOptions(int(fd)) }); e != nil {
		return e
	}
	return err
}

// setOptions sets the options of a listening socket, for the accepted ones to inherit. TCP_NODELAY is not among them:
// the net package sets it on every connection, whatever it is, and has no way to accept one without.
func (lc *ListenConfig) setOptions(fd int) error {
	set := func(level, option, value int) error {
		return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(fd, level, option, value))
	}
	if lc.ReusePort {
		if err := set(syscall.SOL_SOCKET, soReusePort(), 1); err != nil {
			return err
		}
	}
	if lc.DeferAccept > 0 {
		if err := set(syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, seconds(lc.DeferAccept)); err != nil {
			return err
		}
	}
	keepAlive, ok := lc.keepAlive()
	if !ok {
		return nil
	}
	if err := set(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1); err != nil {
		return err
	}
	for _, o := range [...]struct{ option, value int }{
		{syscall.TCP_KEEPIDLE, seconds(keepAlive.Idle)},
		{syscall.TCP_KEEPINTVL, seconds(keepAlive.Interval)},
		{syscall.TCP_KEEPCNT, keepAlive.Count},
	} {
		if o.value < 0 {
			continue // the system's own
		}
		if err := set(syscall.IPPROTO_TCP, o.option, o.value); err != nil {
			return err
		}
	}
	return nil
}

// keepAlive returns what net would set on an accepted connection, if anything. A negative value stands for one that it
// would not set.
func (lc *ListenConfig) keepAlive() (net.KeepAliveConfig, bool) {
	cfg := lc.KeepAliveConfig
	if !cfg.Enable {
		if lc.KeepAlive < 0 {
			return cfg, false
		}
		cfg = net.KeepAliveConfig{Enable: true, Idle: lc.KeepAlive}
	}
	// The defaults of net.KeepAliveConfig.
	cfg.Idle = cmp.Or(cfg.Idle, 15*time.Second)
	cfg.Interval = cmp.Or(cfg.Interval, 15*time.Second)
	cfg.Count = cmp.Or(cfg.Count, 9)
	return cfg, true
}

// seconds rounds up to what the kernel counts in. The result is negative if d is.
func seconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((d + time.Second - 1) / time.Second)
}

// soReusePort returns SO_REUSEPORT, which syscall does not have for every architecture.
func soReusePort() int {
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		return 0x200
	}
	return 0xf
}
