package dispatch

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/testenv"
)

// TestContentGarbage passes content on over a shared connection, in each direction, for which hardly any memory is
// allocated.
func TestContentGarbage(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("with the race detector, a sync.Pool drops some of what it is given")
	}
	const size = 60_000 // no more than the window
	content := bytes.Repeat(h2.AppendFrame(nil, http2.FrameData, 0, 1, make([]byte, size/4)), 4)
	indexed := []byte{0x88} // :status: 200
	response := append(h2.AppendHeaders(nil, 1, false, nil, indexed, h2.DefaultMaxFrameSize), content...)
	sock := &contentSock{closableSock: newClosableSock(), in: make(chan []byte), wrote: make(chan int, 100)}
	server := sock.dispatch(t)
	read := make(chan int, 100)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer server.Close()
	wg.Go(func() { readContent(server, read) })
	const rest = h2.DefaultWindow - size
	server.Write(h2.AppendFrame(bytes.Clone(content), http2.FrameData, 0, 1, make([]byte, rest)))
	takeContent(sock.wrote, h2.DefaultWindow) // and the client's credit is used up
	credit := h2.AppendWindowUpdate(nil, 0, size)
	for _, direction := range []struct {
		name  string
		round func()
	}{
		{"download", func() {
			sock.in <- credit
			if _, err := server.Write(response); err != nil {
				t.Error(err)
			}
			takeContent(sock.wrote, size)
		}},
		{"download, queued", func() {
			if _, err := server.Write(response); err != nil {
				t.Error(err)
			}
			sock.in <- credit
			takeContent(sock.wrote, size)
		}},
		{"upload", func() {
			sock.in <- content
			takeContent(read, size)
		}},
	} {
		const rounds = 100
		for range 10 {
			direction.round()
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			direction.round()
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / rounds; n > size/4 {
			t.Errorf("%s: %d bytes are allocated for %d of content", direction.name, n, size)
		}
	}
}

// takeContent waits until n bytes have come.
func takeContent(content <-chan int, n int) {
	for n > 0 {
		n -= <-content
	}
}

// readContent reads what a server gets, and says how much content is in it.
func readContent(server net.Conn, content chan<- int) {
	io.ReadFull(server, make([]byte, len(h2.Preface)))
	b := make([]byte, h2.FrameHeaderLen+h2.DefaultMaxFrameSize)
	for {
		if _, err := io.ReadFull(server, b[:h2.FrameHeaderLen]); err != nil {
			return
		}
		h := h2.ParseFrameHeader(b)
		if _, err := io.ReadFull(server, b[h2.FrameHeaderLen:h2.FrameLen(h)]); err != nil {
			return
		}
		if h.Type == http2.FrameData {
			content <- int(h.Length)
		}
	}
}

// contentSock is the connection of a client that gives a stream credit for all that comes.
type contentSock struct {
	closableSock
	in    chan []byte // what the client sends
	rest  []byte      // of it
	wrote chan int    // how much content the client was sent
}

func (c *contentSock) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		select {
		case c.rest = <-c.in:
		case <-c.closed:
			return 0, io.EOF
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *contentSock) Write(p []byte) (int, error) {
	content := 0
	for b := p; len(b) > 0; {
		h := h2.ParseFrameHeader(b)
		if h.Type == http2.FrameData {
			content += int(h.Length)
		}
		b = b[h2.FrameLen(h):]
	}
	if content > 0 {
		c.wrote <- content
	}
	return len(p), nil
}

// dispatch begins to dispatch the requests of the client, and returns what the server gets.
func (c *contentSock) dispatch(t *testing.T) net.Conn {
	t.Helper()
	const window = 1 << 30
	d := newDispatcher(1)
	d.AlwaysSplit = true
	request := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/0"}, {Name: ":authority", Value: "a"},
	}
	var enc blockEncoder
	enc.init(h2.DefaultTableSize, true)
	block := enc.encode(request)
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: window}}
	opening := h2.AppendSettings([]byte(h2.Preface), settings...)
	settingsEnd := len(opening)
	opening = h2.AppendHeaders(opening, 1, false, nil, block, h2.DefaultMaxFrameSize)
	dec := hpack.NewDecoder(h2.DefaultTableSize, func(hpack.HeaderField) {})
	dec.Write(block)
	dec.Close()
	d.Start(Opened{
		Conn: c, Received: opening, StreamID: 1, Fields: request, Decoder: dec, Settings: settings, SettingsEnd: settingsEnd,
	}, &owner{done: make(chan struct{})})
	server, err := d.all()[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	hello := h2.AppendSettings(nil, settings...)
	hello = h2.AppendWindowUpdate(h2.AppendSettingsACK(hello), 0, window)
	server.Write(h2.AppendHeaders(hello, 1, false, nil, enc.encode([]hpack.HeaderField{{Name: ":status", Value: "200"}}), h2.DefaultMaxFrameSize))
	return server
}
