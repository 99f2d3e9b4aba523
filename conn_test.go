package oneport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/testkit"
)

// connPair returns a connection over the network with the client's end, which has sent "socket" behind "replayed ".
func connPair(t *testing.T, network string) (server, client net.Conn) {
	t.Helper()
	if network == "pipe" {
		client, below := net.Pipe()
		t.Cleanup(func() { client.Close(); below.Close() })
		go io.WriteString(client, "socket")
		return newConn(below, changes{replay: []byte("replayed ")}), client
	}
	l := listen(t, network)
	client = dial(t, l)
	write(t, client, []byte("socket"))
	return newConn(accept(t, l), changes{replay: []byte("replayed ")}), client
}

// TestConn uses a connection that replays as servers use theirs.
func TestConn(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix", "pipe"} {
		isTCP, isPipe := network == "tcp", network == "pipe"
		for _, tt := range []struct {
			name string
			do   func(t *testing.T, server, client net.Conn)
		}{
			{"a first Read returns all that is replayed", func(t *testing.T, server, _ net.Conn) {
				buf := make([]byte, 100)
				if n, err := server.Read(buf); string(buf[:n]) != "replayed " || err != nil {
					t.Errorf("%q, %v", buf[:n], err)
				}
				if n, err := server.Read(buf); string(buf[:n]) != "socket" || err != nil {
					t.Errorf("%q, %v", buf[:n], err)
				}
			}},
			{"small reads", func(t *testing.T, server, _ net.Conn) {
				got := make([]byte, 0, 15)
				for len(got) < cap(got) {
					n, err := server.Read(got[len(got) : len(got)+1])
					if n != 1 || err != nil {
						t.Fatal(n, err)
					}
					got = got[:len(got)+1]
				}
				if string(got) != "replayed socket" {
					t.Errorf("%q", got)
				}
			}},
			{"an empty read", func(t *testing.T, server, _ net.Conn) {
				if n, err := server.Read(nil); n != 0 || err != nil && !isPipe {
					t.Error(n, err)
				}
			}},
			{"deadlines", func(t *testing.T, server, client net.Conn) {
				io.ReadFull(server, make([]byte, len("replayed socket")))
				server.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("Read returned %v", err)
				}
				server.SetDeadline(time.Time{})
				go io.WriteString(client, "x")
				if n, err := server.Read(make([]byte, 1)); n != 1 || err != nil {
					t.Errorf("Read returned %d, %v", n, err)
				}
			}},
			{"Close", func(t *testing.T, server, client net.Conn) {
				server.Close()
				io.ReadFull(server, make([]byte, len("replayed ")))
				if _, err := server.Read(make([]byte, 1)); err == nil {
					t.Error("Read works on a closed connection")
				}
				if _, err := server.Write([]byte("x")); err == nil {
					t.Error("Write works on a closed connection")
				}
			}},
			{"NetConn", func(t *testing.T, server, _ net.Conn) {
				below := server.(interface{ NetConn() net.Conn }).NetConn()
				if _, ok := below.(*net.TCPConn); ok != isTCP {
					t.Errorf("NetConn is a %T", below)
				}
				if server.LocalAddr() != below.LocalAddr() || server.RemoteAddr() != below.RemoteAddr() {
					t.Error("the addresses differ")
				}
			}},
			{"CloseWrite", func(t *testing.T, server, client net.Conn) {
				err := server.(interface{ CloseWrite() error }).CloseWrite()
				if isPipe {
					if !errors.Is(err, errors.ErrUnsupported) {
						t.Errorf("CloseWrite returned %v", err)
					}
					return
				}
				if b, rerr := io.ReadAll(client); len(b) != 0 || rerr != nil || err != nil {
					t.Errorf("CloseWrite returned %v, the client read %q, %v", err, b, rerr)
				}
				if b := make([]byte, len("replayed socket")); err == nil {
					if _, err := io.ReadFull(server, b); err != nil {
						t.Errorf("after CloseWrite, reading fails: %v", err)
					}
				}
			}},
			{"SyscallConn", func(t *testing.T, server, _ net.Conn) {
				raw, err := server.(syscall.Conn).SyscallConn()
				if isPipe {
					if !errors.Is(err, errors.ErrUnsupported) {
						t.Errorf("SyscallConn returned %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				below := server.(interface{ NetConn() net.Conn }).NetConn()
				want, err := below.(syscall.Conn).SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				var got, wantFD uintptr
				if err := errors.Join(raw.Control(func(fd uintptr) { got = fd }), want.Control(func(fd uintptr) { wantFD = fd })); err != nil || got != wantFD {
					t.Errorf("the socket is %d, want %d, %v", got, wantFD, err)
				}
			}},
			{"ReadFrom", func(t *testing.T, server, client net.Conn) {
				if _, ok := server.(io.ReaderFrom); ok != isTCP {
					t.Fatalf("a %T has ReadFrom: %v", server, ok)
				}
				f, err := os.Open("testdata/captures/chromium-tls.1.bin")
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				go io.Copy(server, f)
				got := make([]byte, 2019)
				if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, capture(t, "chromium-tls.1")) {
					t.Errorf("the client read %d bytes, %v", len(got), err)
				}
			}},
			{"WriteTo", func(t *testing.T, server, client net.Conn) {
				if _, ok := server.(io.WriterTo); ok != isTCP {
					t.Fatalf("a %T has WriteTo: %v", server, ok)
				}
				if isPipe {
					return
				}
				client.(interface{ CloseWrite() error }).CloseWrite()
				var got bytes.Buffer
				if n, err := io.Copy(&got, server); n != 15 || err != nil || got.String() != "replayed socket" {
					t.Errorf("copied %d, %v: %q", n, err, &got)
				}
			}},
			{"net.Buffers", func(t *testing.T, server, client net.Conn) {
				buffers := net.Buffers{[]byte("a"), []byte("bc"), []byte("d")}
				go buffers.WriteTo(server)
				got := make([]byte, 4)
				if _, err := io.ReadFull(client, got); err != nil || string(got) != "abcd" {
					t.Errorf("the client read %q, %v", got, err)
				}
			}},
		} {
			t.Run(network+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				server, client := connPair(t, network)
				tt.do(t, server, client)
			})
		}
	}
}

// TestVectoredWrite checks that net.Buffers are one system call on a TCPConn: it has the net package's own method for
// them, which is the only way.
func TestVectoredWrite(t *testing.T) {
	t.Parallel()
	server, client := connPair(t, "tcp")
	tc := server.(*TCPConn)
	if tc.TCPConn == nil {
		t.Fatal("no TCPConn inside")
	}
	// One segment arrives for many buffers, however small.
	buffers := make(net.Buffers, 100)
	for i := range buffers {
		buffers[i] = []byte("0123456789")
	}
	if _, err := buffers.WriteTo(server); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	if n, err := client.Read(buf); n != 1000 || err != nil {
		t.Errorf("the client read %d bytes at once, %v, want 1000", n, err)
	}
}

// TestWriteToFiltered copies a stream with an acknowledgement in it to a writer.
func TestWriteToFiltered(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 100_000)
	data := "\x01\x86\xa0\x00\x00\x00\x00\x00\x01" + body
	l := listen(t, "tcp")
	client := dial(t, l)
	go func() {
		io.WriteString(client, h2.Preface+data+ackFrame+data)
		client.(interface{ CloseWrite() error }).CloseWrite()
	}()
	server := newConn(accept(t, l), changes{fromClient: newFrameFilter(1)})
	var got bytes.Buffer
	if n, err := io.Copy(&got, server); err != nil || got.String() != h2.Preface+data+data || n != int64(got.Len()) {
		t.Errorf("copied %d bytes, %v, want %d", n, err, len(h2.Preface+data+data))
	}
}

// TestFilteredConcurrentReads has several goroutines read a connection that is filtered: every byte comes once.
func TestFilteredConcurrentReads(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	client := dial(t, l)
	stream := h2.Preface + strings.Repeat("\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01", 1000) + ackFrame + strings.Repeat("y", 1000)
	go func() {
		io.WriteString(client, stream)
		client.(interface{ CloseWrite() error }).CloseWrite()
	}()
	server := newConn(accept(t, l), changes{fromClient: newFrameFilter(1)})
	total := make(chan int)
	for range 4 {
		go func() {
			n, _ := io.Copy(io.Discard, struct{ io.Reader }{server})
			total <- int(n)
		}()
	}
	sum := 0
	for range 4 {
		sum += <-total
	}
	if want := len(stream) - len(ackFrame); sum != want {
		t.Errorf("%d bytes came, want %d", sum, want)
	}
}

// deepSock is a connection whose Write takes as much of the stack as that of a socket.
type deepSock struct{ net.Conn }

func (deepSock) Write(p []byte) (int, error) {
	testkit.AsDeepAsSocket()
	return len(p), nil
}

// TestWriteStack writes on goroutines that are new, as net/http does. Their stacks need not grow for it.
func TestWriteStack(t *testing.T) {
	testkit.NeedStacks(t)
	settings := h2.AppendSettings(nil)
	check := &answerCheck{rt: new(route)}
	c := newConn(deepSock{}, changes{first: []byte("x"), check: check})
	c.Write(settings) // which ends the check
	if !check.over.Load() {
		t.Fatal("the server has answered, and is still checked")
	}
	testkit.StacksStay(t, 300, func(int) { c.Write(settings) })
}
