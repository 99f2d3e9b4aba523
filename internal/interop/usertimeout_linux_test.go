package interop

import (
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/oneport-go/oneport"
)

// grpc-go sets TCP_USER_TIMEOUT on a *net.TCPConn only, so that it does shows what the server was given.
func TestUserTimeout(t *testing.T) {
	const timeout = 7 * time.Second
	p := newPort(t)
	l := p.route(t, "grpc", func(t *testing.T, l net.Listener) {
		serveGRPCWith(t, l, grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: timeout}))
	}, oneport.GRPC())
	p.route(t, "http", serveNetHTTP, oneport.HTTP1(), oneport.HTTP2())
	p.start(t)

	checkHealth(t, dialGRPC(t, p.addr))
	raw, err := l.last().(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ms int
	var optErr error
	err = raw.Control(func(fd uintptr) {
		ms, optErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	})
	if err != nil || optErr != nil {
		t.Fatalf("getsockopt: %v, %v", err, optErr)
	}
	if got := time.Duration(ms) * time.Millisecond; got != timeout {
		t.Errorf("TCP_USER_TIMEOUT is %v, want %v", got, timeout)
	}
	p.wantSameConn(t, l)
}
