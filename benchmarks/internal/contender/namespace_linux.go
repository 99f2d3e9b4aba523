package contender

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNamespace has a command run in a network namespace of its own, which takes the right to make one (CAP_SYS_ADMIN).
func inNamespace(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	return nil
}

// prepareLoopback sets the loopback of the process's namespace up, and makes it as slow as a network with the
// round-trip time. A packet on its way passes netem once.
func prepareLoopback(rtt time.Duration) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("setting the loopback up: %w", err)
	}
	if rtt == 0 {
		return nil
	}
	attributes := netlink.QdiscAttrs{
		LinkIndex: loopback.Attrs().Index,
		Handle:    netlink.MakeHandle(1, 0),
		Parent:    netlink.HANDLE_ROOT,
	}
	delay := netlink.NetemQdiscAttrs{Latency: uint32((rtt / 2).Microseconds()), Limit: 100_000}
	if err := netlink.QdiscAdd(netlink.NewNetem(attributes, delay)); err != nil {
		return fmt.Errorf("adding netem to the loopback: %w", err)
	}
	return nil
}

// namespace is the network namespace of another process.
type namespace struct{ own, other *os.File }

func namespaceOf(pid int) (*namespace, error) {
	own, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	other, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		own.Close()
		return nil, err
	}
	return &namespace{own, other}, nil
}

// dial connects in the namespace. A socket stays in the namespace in which its thread was when it was made, and
// net.Dial makes that for a literal address on the caller's thread.
func (n *namespace) dial(address string) (net.Conn, error) {
	runtime.LockOSThread()
	if err := unix.Setns(int(n.other.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("entering the network namespace: %w", err)
	}
	c, err := net.Dial("tcp", address)
	if back := unix.Setns(int(n.own.Fd()), unix.CLONE_NEWNET); back != nil {
		if err == nil {
			c.Close()
		}
		// The thread stays locked, and ends with its goroutine.
		return nil, fmt.Errorf("leaving the network namespace: %w", back)
	}
	runtime.UnlockOSThread()
	return c, err
}

func (n *namespace) close() {
	n.own.Close()
	n.other.Close()
}
