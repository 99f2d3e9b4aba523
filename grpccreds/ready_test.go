package grpccreds

import (
	"errors"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc/mem"

	"github.com/oneport-go/oneport/internal/dispatch"
)

// The connections of package dispatch are known by their methods.
var _ readyReader = (*dispatch.Conn)(nil)

// fakeReader is a connection that asks for its buffers. It reads what it has, then EOF.
type fakeReader struct {
	*net.TCPConn
	has  string
	gets int // how often it asks before it reads
}

func (f *fakeReader) ReadReady(m interface {
	Get() []byte
	Put()
}) (int, error) {
	for range f.gets {
		m.Get()
		m.Put()
	}
	n := copy(m.Get(), f.has)
	if n == 0 {
		m.Put()
		return 0, io.EOF
	}
	f.has = f.has[n:]
	return n, nil
}

// countingPool counts the buffers that are lent.
type countingPool struct{ lent int }

func (p *countingPool) Get(n int) *[]byte {
	p.lent++
	b := make([]byte, n)
	return &b
}

func (p *countingPool) Put(*[]byte) { p.lent-- }

var _ mem.BufferPool = (*countingPool)(nil)

// TestReadOnReady reads as gRPC does, which knows a connection that can do that by a method.
func TestReadOnReady(t *testing.T) {
	t.Parallel()
	fake := &fakeReader{TCPConn: new(net.TCPConn), has: "abcde", gets: 2}
	got, _, err := Credentials{}.ServerHandshake(fake)
	if err != nil {
		t.Fatal(err)
	}
	r, ok := got.(interface {
		ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error)
	})
	if !ok {
		t.Fatalf("gRPC gets a %T, without the method", got)
	}
	if n, ok := got.(interface{ NetConn() net.Conn }); !ok || n.NetConn() != fake {
		t.Error("NetConn is not the connection that the server was given")
	}
	pool := new(countingPool)
	for _, want := range []string{"abc", "de"} {
		b, n, err := r.ReadOnReady(3, pool)
		if err != nil || string((*b)[:n]) != want || pool.lent != 1 {
			t.Fatalf("got %d, %v, with %d buffers lent; want %q", n, err, pool.lent, want)
		}
		pool.Put(b)
	}
	if b, n, err := r.ReadOnReady(3, pool); b != nil || n != 0 || !errors.Is(err, io.EOF) || pool.lent != 0 {
		t.Errorf("at the end: %v, %d, %v, with %d buffers lent", b, n, err, pool.lent)
	}
}
