package peek

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-go/oneport/internal/testenv"
)

// look calls Look and checks what it returns.
func look(t *testing.T, s *Source, wait bool, limit int, want string, wantEnd bool) {
	t.Helper()
	data, ended, err := s.Look(wait, limit)
	if string(data) != want || ended != wantEnd || err != nil {
		t.Fatalf("Look(%v, %d) returned %q, ended %v, %v; want %q, ended %v", wait, limit, data, ended, err, want, wantEnd)
	}
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

const noLimit = 1 << 20

// TestSourceSocket looks at a socket and leaves everything in it.
func TestSourceSocket(t *testing.T) {
	t.Parallel()
	if !CanAwaitMore {
		t.Skip("this system cannot wait for more while bytes are queued")
	}
	server, client := testenv.TCP(t)
	var s Source
	s.Start(server, &Pool{Size: 4096})
	defer s.End()
	if !s.Peeking() || s.Queued() {
		t.Fatalf("peeking %v, bytes are queued %v", s.Peeking(), s.Queued())
	}
	look(t, &s, false, noLimit, "", false)
	send(t, client, "one")
	look(t, &s, true, noLimit, "one", false)
	if !s.Queued() || s.Seen() != 3 || s.Taken() != nil {
		t.Errorf("queued %v, seen %d, taken %q", s.Queued(), s.Seen(), s.Taken())
	}
	look(t, &s, false, noLimit, "one", false)
	server.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if data, _, err := s.Look(true, noLimit); !errors.Is(err, os.ErrDeadlineExceeded) || s.Seen() != 3 {
		t.Errorf("with nothing new: %q, %v, seen %d", data, err, s.Seen())
	}
	server.SetReadDeadline(time.Time{})
	send(t, client, " two")
	look(t, &s, true, noLimit, "one two", false)
	if data, ended, err := s.Again(); string(data) != "one two" || ended || err != nil {
		t.Errorf("Again returned %q, %v, %v", data, ended, err)
	}
	client.CloseWrite()
	look(t, &s, true, noLimit, "one two", true)
	s.Release()
	if got, err := io.ReadAll(server); string(got) != "one two" || err != nil {
		t.Errorf("what is left in the socket is %q, %v", got, err)
	}
}

// TestSourceNothingYet checks that a look which found nothing is not repeated at once, but is once something is waited
// for.
func TestSourceNothingYet(t *testing.T) {
	t.Parallel()
	server, client := testenv.TCP(t)
	var s Source
	s.Start(server, &Pool{Size: 4096})
	defer s.End()
	if !s.Peeking() {
		t.Skip("this system cannot peek")
	}
	look(t, &s, false, noLimit, "", false)
	send(t, client, "x")
	if err := awaitQueued(&s); err != nil {
		t.Fatal(err)
	}
	look(t, &s, false, noLimit, "", false) // as a moment ago
	look(t, &s, false, noLimit, "x", false)
}

func awaitQueued(s *Source) error {
	for range 1_000_000 {
		if s.Queued() {
			return nil
		}
		runtime.Gosched()
	}
	return errors.New("the bytes do not arrive")
}

// TestSourcePipe takes the bytes out of what cannot be peeked.
func TestSourcePipe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		var s Source
		s.Start(server, &Pool{Size: 4096})
		if s.Peeking() || s.Queued() {
			t.Fatalf("peeking %v, bytes are queued %v", s.Peeking(), s.Queued())
		}
		look(t, &s, false, noLimit, "", false)
		go client.Write([]byte("one"))
		look(t, &s, true, noLimit, "one", false)
		look(t, &s, false, noLimit, "one", false)
		server.SetReadDeadline(time.Now().Add(time.Second))
		if _, _, err := s.Look(true, noLimit); !errors.Is(err, os.ErrDeadlineExceeded) || string(s.Taken()) != "one" {
			t.Errorf("with nothing new: %v, taken %q", err, s.Taken())
		}
		server.SetReadDeadline(time.Time{})
		go func() {
			client.Write([]byte(strings.Repeat("x", 1000)))
			client.Close()
		}()
		want := "one"
		for range 3 { // a read each
			data, ended, err := s.Look(true, noLimit)
			if err != nil {
				t.Fatal(err)
			}
			if want = "one" + strings.Repeat("x", len(data)-3); string(data) != want {
				t.Fatalf("Look returned %q", data)
			}
			if ended {
				break
			}
		}
		if len(want) != 1003 || string(s.Taken()) != want {
			t.Errorf("taken were %d bytes, shown %d", len(s.Taken()), len(want))
		}
		s.Drop(3)
		if len(s.Taken()) != 1000 {
			t.Errorf("after Drop there are %d bytes", len(s.Taken()))
		}
		s.End()
		if s.Taken() != nil {
			t.Error("End has kept bytes")
		}
	})
}

// TestSourceLimit checks that no more is taken out than the limit, nor more memory.
func TestSourceLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 511, 512, 513, 1000, 5000} {
		client, server := net.Pipe()
		go func() {
			client.Write(make([]byte, 6000))
			client.Close()
		}()
		var s Source
		s.Start(server, &Pool{Size: 4096})
		for len(s.Taken()) < limit {
			data, _, err := s.Look(true, limit)
			if err != nil || len(data) > limit {
				t.Fatalf("limit %d: %d bytes, %v", limit, len(data), err)
			}
		}
		if n := cap(s.Taken()); n > limit {
			t.Errorf("limit %d: the bytes take %d", limit, n)
		}
		server.Close()
	}
}

// TestSourceFull checks that what does not fit into the buffers for looking, or into the socket's own, is taken out.
func TestSourceFull(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		pool       int // size
		readBuffer int // of the socket
	}{
		{"the pool's buffer", 64, 0},
		{"the socket's buffer", 16 << 10, 4096},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server, client := testenv.TCP(t)
			if tt.readBuffer > 0 {
				if err := server.SetReadBuffer(tt.readBuffer); err != nil {
					t.Fatal(err)
				}
			}
			var s Source
			s.Start(server, &Pool{Size: tt.pool})
			defer s.End()
			if !s.Peeking() {
				t.Skip("this system cannot peek")
			}
			whole := strings.Repeat("0123456789", 2000)
			done := make(chan error, 1)
			go func() {
				_, err := io.WriteString(client, whole)
				client.CloseWrite()
				done <- err
			}()
			var data []byte
			for ended := false; !ended; {
				var err error
				if data, ended, err = s.Look(true, noLimit); err != nil {
					t.Fatal(err)
				}
				if string(data) != whole[:len(data)] {
					t.Fatalf("Look returned something else after %d bytes", len(data))
				}
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if string(data) != whole || s.Peeking() || string(s.Taken()) != whole {
				t.Errorf("shown were %d bytes, taken %d, peeking %v; want %d", len(data), len(s.Taken()), s.Peeking(), len(whole))
			}
		})
	}
}

// TestSourceTake checks that each byte is shown once by which it is peeked or taken.
func TestSourceTake(t *testing.T) {
	t.Parallel()
	server, client := testenv.TCP(t)
	var s Source
	s.Start(server, &Pool{Size: 4096})
	defer s.End()
	send(t, client, "one")
	look(t, &s, true, noLimit, "one", false)
	s.Take()
	if s.Peeking() || s.Seen() != 3 {
		t.Errorf("after Take: peeking %v, seen %d", s.Peeking(), s.Seen())
	}
	send(t, client, " two")
	look(t, &s, true, noLimit, "one two", false)
	if string(s.Taken()) != "one two" || s.Queued() {
		t.Errorf("taken were %q, more is queued: %v", s.Taken(), s.Queued())
	}
}

// TestSourceEnter goes on with a connection above a socket.
func TestSourceEnter(t *testing.T) {
	t.Parallel()
	server, client := testenv.TCP(t)
	above, inside := net.Pipe()
	defer above.Close()
	defer inside.Close()
	var s Source
	s.Start(server, &Pool{Size: 4096})
	canPeek := s.Peeking()
	send(t, client, "below")
	look(t, &s, true, noLimit, "below", false)
	s.Enter(inside)
	if s.Peeking() || s.Seen() != 0 || s.Taken() != nil {
		t.Errorf("after Enter: peeking %v, seen %d, taken %q", s.Peeking(), s.Seen(), s.Taken())
	}
	if canPeek && !s.Queued() {
		t.Error("what the socket below holds is not known any more")
	}
	go io.WriteString(above, "inside")
	look(t, &s, true, noLimit, "inside", false)

	// The same Source serves another connection.
	s.End()
	server, client = testenv.TCP(t)
	s.Start(server, &Pool{Size: 4096})
	defer s.End()
	send(t, client, "next")
	look(t, &s, true, noLimit, "next", false)
}

// TestSourceReuse has the memory of what was taken go from one connection to the next, and never to two at once.
func TestSourceReuse(t *testing.T) {
	t.Parallel()
	take := func(s *Source, text string) []byte {
		server, client := net.Pipe()
		t.Cleanup(func() { client.Close(); server.Close() })
		go io.WriteString(client, text)
		s.Start(server, &Pool{Size: 4096})
		s.Take()
		data, _, err := s.Look(true, noLimit)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var a, b, c Source
	take(&a, "first")
	a.Reuse()
	if len(a.Taken()) != 0 {
		t.Errorf("%q is left", a.Taken())
	}
	second, third := take(&b, "second"), take(&c, "third")
	if string(second) != "second" || string(third) != "third" {
		t.Errorf("took %q and %q", second, third)
	}

	large := take(&a, strings.Repeat("large", firstTake))
	for len(large) < 5*firstTake {
		if large, _, _ = a.ReadMore(noLimit); cap(large) == firstTake {
			t.Fatalf("%d bytes do not grow", len(large))
		}
	}
	a.Reuse()
	if fourth := take(&b, "fourth"); string(fourth) != "fourth" {
		t.Errorf("took %q", fourth)
	}
}
