//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package peek

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// pair returns both ends of a connection.
func pair(t *testing.T, network string) (server, client net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "peek") // t.TempDir's path can be longer than a socket's may be
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		address = filepath.Join(dir, "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, client
}

// TestPeekDoesNotSpin waits behind queued bytes on a socket whose poller is busy: each write of ours that the client
// takes wakes it up, since epoll reports readable again with every edge of writable.
func TestPeekDoesNotSpin(t *testing.T) {
	if !CanAwaitMore {
		t.Skip("this system cannot wait for more while bytes are queued")
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			server, client := pair(t, network)
			if _, err := io.WriteString(client, "part"); err != nil {
				t.Fatal(err)
			}

			bufs := &Pool{Size: 4096}
			var p Peeker
			if !p.Init(server, bufs) {
				t.Fatalf("cannot peek on a %T", server)
			}
			recv, calls := p.try, 0
			p.try = func(fd uintptr) bool { calls++; return recv(fd) }
			type result struct {
				data  string
				ended bool
				err   error
			}
			done := make(chan result, 1)
			go func() {
				data, ended, err := p.Peek(len("part"), true)
				done <- result{string(data), ended, err}
			}()
			const edges = 50
			buf := make([]byte, 1<<20)
			for range edges {
				// Enough to fill the client's buffer, so that there is an edge.
				if _, err := server.Write(buf[:100_000]); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(client, buf[:100_000]); err != nil {
					t.Fatal(err)
				}
			}
			client.(interface{ CloseWrite() error }).CloseWrite()
			if r := <-done; r.data != "part" || !r.ended || r.err != nil {
				t.Errorf("peek returned %+v", r)
			}
			// A loop that spins would call millions of times.
			if calls > 100*edges {
				t.Errorf("%d looks for %d edges", calls, edges)
			}
			if got, err := io.ReadAll(server); string(got) != "part" || err != nil {
				t.Errorf("after peeking, %q, %v", got, err)
			}
		})
	}
}
