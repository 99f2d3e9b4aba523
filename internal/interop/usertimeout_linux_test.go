package interop

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/oneport-go/oneport"
)

// grpc-go sets TCP_USER_TIMEOUT on a *net.TCPConn only, so that it does shows what the server was given: in cleartext,
// and where it does its own TLS.
func TestUserTimeout(t *testing.T) {
	const timeout = 7 * time.Second
	inClear := insecure.NewCredentials()
	for _, tt := range []struct {
		name           string
		matcher        oneport.Matcher
		server, client credentials.TransportCredentials
	}{
		{"in cleartext", oneport.GRPC(), inClear, inClear},
		{"TLS", oneport.ServerName("localhost"), credentials.NewTLS(serverTLS()), clientCreds()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPort(t)
			l := p.route(t, "grpc", func(t *testing.T, l net.Listener) {
				serveGRPCWith(t, l, grpc.Creds(tt.server), grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: timeout}))
			}, tt.matcher)
			p.route(t, "http", serveNetHTTP, oneport.HTTP1(), oneport.HTTP2())
			p.start(t)

			checkHealth(t, dialGRPCWith(t, strings.Replace(p.addr, "127.0.0.1", "localhost", 1), tt.client))
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
		})
	}
}
