package load

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlowProxy counts round trips, by a clock that only waits.
func TestSlowProxy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rtt = 10 * time.Millisecond
		client, proxied := net.Pipe()
		upstream, server := net.Pipe()
		began := time.Now()
		at := func(what string, want time.Duration) {
			t.Helper()
			if got := time.Since(began); got != want {
				t.Errorf("%s after %v, want %v", what, got, want)
			}
		}
		p := &slowProxy{rtt: rtt, conns: make(map[net.Conn]struct{}), dial: func() (net.Conn, error) {
			at("the handshake is complete", rtt+rtt/2)
			return upstream, nil
		}}
		p.track(proxied)
		p.running.Go(func() { p.relay(proxied, began) })

		b := make([]byte, 8)
		client.Write([]byte("preface"))
		n, _ := server.Read(b)
		at("the server has the "+string(b[:n]), rtt+rtt/2)
		server.Write([]byte("settings"))
		n, _ = client.Read(b)
		at("the client has the "+string(b[:n]), 2*rtt)
		client.Write([]byte("request"))
		n, _ = server.Read(b)
		at("the server has the "+string(b[:n]), 2*rtt+rtt/2)
		server.Write([]byte("answer"))
		n, _ = client.Read(b)
		at("the client has the "+string(b[:n]), 3*rtt)
		client.Close()
		if _, err := server.Read(b); err != io.EOF {
			t.Errorf("the end of the client came as %v", err)
		}
		at("the end", 3*rtt+rtt/2)
		p.running.Wait()
		if len(p.conns) > 0 {
			t.Errorf("%d connections are left", len(p.conns))
		}
	})
}

// TestSlowProxyWithoutServer has the client see that there is none.
func TestSlowProxyWithoutServer(t *testing.T) {
	t.Parallel()
	p, err := newSlowProxy(time.Millisecond, func() (net.Conn, error) { return nil, errors.New("nobody is there") })
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	c, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection goes on")
	}
}

// TestSlowProxyKeepsOrder sends much both ways, and closes the proxy while connections are open.
func TestSlowProxyKeepsOrder(t *testing.T) {
	t.Parallel()
	l := listen(t)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				io.Copy(c, c)
				c.Close()
			})
		}
	})
	defer func() { l.Close(); running.Wait() }()
	p, err := newSlowProxy(time.Millisecond, func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	idle, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	sent := strings.Repeat("0123456789abcdef", 64<<10)
	c, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		io.WriteString(c, sent)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != sent {
		t.Errorf("%d bytes came back of %d, or others", len(got), len(sent))
	}
}
