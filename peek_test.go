//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package oneport

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSmallReceiveBuffer checks that a socket whose receive buffer is smaller than the first flight does not stall: the
// mux takes the bytes out then.
func TestSmallReceiveBuffer(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 4096, 16 << 10} {
		root := listen(t, "tcp")
		m := newMux(smallBuffers{root, size})
		route := m.Match(Header("last", "1"))
		serve(t, m)
		head := "GET / HTTP/1.1\r\nFirst: " + strings.Repeat("a", 15_000) + "\r\nLast: 1\r\n\r\n"
		client := dial(t, root)
		go io.WriteString(client, head)
		server := accept(t, route)
		got := make([]byte, len(head))
		if _, err := io.ReadFull(server, got); err != nil || string(got) != head {
			t.Errorf("receive buffer %d: the server read %d bytes of the head wrongly, %v", size, len(head), err)
		}
	}
}

type smallBuffers struct {
	net.Listener
	size int
}

func (l smallBuffers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		c.(*net.TCPConn).SetReadBuffer(l.size)
	}
	return c, err
}

// TestMultipathTCP runs over both kinds of TCP socket, since Go listens with the multipath kind where it can.
func TestMultipathTCP(t *testing.T) {
	t.Parallel()
	for _, multipath := range []bool{false, true} {
		var lc net.ListenConfig
		lc.SetMultipathTCP(multipath)
		l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		var d net.Dialer
		d.SetMultipathTCP(multipath)
		root := record(l)
		m := newMux(root)
		matcher, seen := looks(HTTP1())
		route := m.Match(matcher)
		serve(t, m)
		client, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		write(t, client, []byte("GET / HT"))
		for <-seen < len("GET / HT") {
		}
		write(t, client, []byte("TP/1.1\r\n"))
		server := accept(t, route)
		if accepted := <-root.conns; server != accepted {
			t.Errorf("multipath %v: the server got %T, not what was accepted", multipath, server)
		}
		if mp, err := server.(*net.TCPConn).MultipathTCP(); err == nil && mp != multipath {
			t.Logf("multipath TCP was asked for: %v, is used: %v", multipath, mp)
		}
		client.(interface{ CloseWrite() error }).CloseWrite()
		if got, err := io.ReadAll(server); string(got) != "GET / HTTP/1.1\r\n" || err != nil {
			t.Errorf("multipath %v: the server read %q, %v", multipath, got, err)
		}

		client, err = d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		write(t, client, []byte("GE"))
		for <-seen < 2 {
		}
		client.(interface{ CloseWrite() error }).CloseWrite()
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if resp := readResponse(t, client); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("multipath %v: half a request was answered %s", multipath, resp.Status)
		}
	}
}
