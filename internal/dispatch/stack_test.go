package dispatch

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/testkit"
)

// TestWriteStack has servers write on goroutines that are new, as net/http does. Their stacks need not grow for it.
func TestWriteStack(t *testing.T) {
	testkit.NeedStacks(t)
	const n = 300
	var enc blockEncoder
	enc.init(h2.DefaultTableSize, true)
	responses := [2][]byte{}
	for i, date := range []string{"yesterday", "today"} {
		block := enc.encode([]hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "date", Value: date}})
		id := uint32(1 + 2*i)
		responses[i] = h2.AppendHeaders(nil, id, false, nil, block, h2.DefaultMaxFrameSize)
		responses[i] = h2.AppendFrame(responses[i], http2.FrameData, http2.FlagDataEndStream, id, []byte("hello"))
	}
	for mode, split := range map[string]bool{"passing": false, "splitting": true} {
		t.Run(mode, func(t *testing.T) {
			conns := make([]net.Conn, n)
			for i := range conns {
				sock := newSilentSock()
				conns[i] = sock.dispatch(t, split)
				defer conns[i].Close()
				conns[i].Write(append(h2.AppendSettingsACK(h2.AppendSettings(nil)), responses[0]...))
				<-sock.answered
			}
			testkit.StacksStay(t, n, func(i int) { conns[i].Write(responses[1]) })
		})
	}
}

// silentSock is the connection of a client that has made two requests and has nothing else to say.
type silentSock struct {
	closableSock
	answered chan struct{} // is closed when the first is
	once     sync.Once
}

func newSilentSock() *silentSock {
	return &silentSock{closableSock: newClosableSock(), answered: make(chan struct{})}
}

func (c *silentSock) Read([]byte) (int, error) {
	<-c.closed
	return 0, io.EOF
}

// Write takes as much of the stack as that of a socket.
func (c *silentSock) Write(p []byte) (int, error) {
	testkit.AsDeepAsSocket()
	if bytes.HasSuffix(p, []byte("hello")) {
		c.once.Do(func() { close(c.answered) })
	}
	return len(p), nil
}

// closableSock is the part of a client's connection that ends its Read.
type closableSock struct {
	calling
	closed chan struct{}
	ending *sync.Once
}

func newClosableSock() closableSock {
	return closableSock{closed: make(chan struct{}), ending: new(sync.Once)}
}

func (c *closableSock) Close() error {
	c.ending.Do(func() { close(c.closed) })
	return nil
}

func (c *closableSock) SetDeadline(time.Time) error      { return nil }
func (c *closableSock) SetReadDeadline(time.Time) error  { return c.Close() } // it is set to end a Read
func (c *closableSock) SetWriteDeadline(time.Time) error { return nil }

// dispatch begins to dispatch the requests, and returns what the server gets.
func (c *silentSock) dispatch(t *testing.T, split bool) net.Conn {
	t.Helper()
	d := newDispatcher(1)
	d.AlwaysSplit = split
	request := []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/0"}, {Name: ":authority", Value: "a"},
	}
	var enc blockEncoder
	enc.init(h2.DefaultTableSize, true)
	opening := h2.AppendSettings([]byte(h2.Preface))
	settingsEnd := len(opening)
	dec := hpack.NewDecoder(h2.DefaultTableSize, func(hpack.HeaderField) {})
	for _, id := range []uint32{1, 3} {
		block := enc.encode(request)
		opening = h2.AppendHeaders(opening, id, true, nil, block, h2.DefaultMaxFrameSize)
		if id == 1 {
			dec.Write(block)
			dec.Close()
		}
	}
	d.Start(Opened{Conn: c, Received: opening, StreamID: 1, Fields: request, Decoder: dec, SettingsEnd: settingsEnd},
		&owner{done: make(chan struct{})})
	server, err := d.all()[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	return server
}
