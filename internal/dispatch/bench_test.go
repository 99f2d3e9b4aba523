package dispatch

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/testenv"
)

// frames are frames of calls, of the same length each.
type frames struct {
	b     []byte
	calls int
}

// number gives the calls the numbers of streams from the first on.
func (f frames) number(first uint32) {
	one := len(f.b) / f.calls
	for i := range f.calls {
		for call := f.b[i*one : (i+1)*one]; len(call) > 0; {
			binary.BigEndian.PutUint32(call[5:], first+2*uint32(i))
			call = call[h2.FrameLen(h2.ParseFrameHeader(call)):]
		}
	}
}

// calling is a client's connection on which calls are made, so many with each Read.
type calling struct {
	net.Conn
	first  uint32 // number of the next
	frames frames
}

func (c *calling) Read(p []byte) (int, error) {
	c.frames.number(c.first)
	c.first += 2 * uint32(c.frames.calls)
	return copy(p, c.frames.b), nil
}

func (c *calling) Write(p []byte) (int, error) { return len(p), nil }
func (c *calling) Close() error                { return nil }
func (c *calling) LocalAddr() net.Addr         { return &net.TCPAddr{} }
func (c *calling) RemoteAddr() net.Addr        { return &net.TCPAddr{} }

// BenchmarkPassing is what it costs to look at a unary call of gRPC, while its connection passes through to one server.
func BenchmarkPassing(b *testing.B) {
	const batch = 16 // calls in one Read and one Write
	call := passingCalls(b, batch)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%batch == 0 {
			call()
		}
	}
}

// TestPassingAllocs makes calls on a connection that passes through to one server, for which nothing is allocated.
func TestPassingAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("the race detector allocates")
	}
	call := passingCalls(t, 1)
	if n := testing.AllocsPerRun(1000, call); n > 0 {
		t.Errorf("%v allocations for a call", n)
	}
}

// passingCalls returns a function that makes so many unary calls of gRPC, with one Read and one Write of the server.
func passingCalls(b testing.TB, batch int) func() {
	request := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/hello.Hello/Say"},
		{Name: ":authority", Value: "127.0.0.1:8080"}, {Name: "content-type", Value: "application/grpc"},
		{Name: "user-agent", Value: "grpc-go/1.85.0"}, {Name: "te", Value: "trailers"},
	}
	header := []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}}
	trailer := []hpack.HeaderField{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message", Value: ""}}
	var client, server blockEncoder
	client.init(h2.DefaultTableSize, true)
	server.init(h2.DefaultTableSize, true)
	message := make([]byte, 20)
	calls := func(n int) []byte {
		block := client.encode(request)
		call := h2.AppendHeaders(nil, 1, false, nil, block, h2.DefaultMaxFrameSize)
		call = h2.AppendFrame(call, http2.FrameData, http2.FlagDataEndStream, 1, message)
		return bytes.Repeat(call, n)
	}
	answers := func(n int) []byte {
		answer := h2.AppendHeaders(nil, 1, false, nil, server.encode(header), h2.DefaultMaxFrameSize)
		answer = h2.AppendFrame(answer, http2.FrameData, 0, 1, message)
		answer = h2.AppendHeaders(answer, 1, true, nil, server.encode(trailer), h2.DefaultMaxFrameSize)
		return bytes.Repeat(answer, n)
	}

	d := newDispatcher(2)
	d.Decide = func(net.Conn, []hpack.HeaderField) int { return 0 }
	d.Lasting = func(int) bool { return true }
	opening := append(h2.AppendSettings([]byte(h2.Preface)), calls(1)...)
	dec := hpack.NewDecoder(h2.DefaultTableSize, func(hpack.HeaderField) {})
	dec.Write(client.buf.Bytes())
	dec.Close()
	sock := &calling{first: 3, frames: frames{calls(batch), batch}}
	d.Start(Opened{
		Conn: sock, Received: opening, StreamID: 1, Fields: request, Decoder: dec,
		SettingsEnd: len(h2.Preface) + h2.FrameHeaderLen,
	}, &owner{done: make(chan struct{})})
	v, err := d.all()[0].Accept()
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 16<<10)
	read := func(n int) {
		for n > 0 {
			m, err := v.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			n -= m
		}
	}
	write := func(p []byte) {
		if _, err := v.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	read(len(opening))
	write(append(h2.AppendSettingsACK(h2.AppendSettings(nil)), answers(1)...))
	answer := frames{answers(batch), batch}
	return func() {
		answer.number(sock.first)
		read(len(sock.frames.b))
		write(answer.b)
	}
}
