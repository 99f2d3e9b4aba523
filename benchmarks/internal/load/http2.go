package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2Client is a client of HTTP/2 with one connection at a time, for one goroutine, which may have several requests
// in flight on it.
type http2Client struct {
	script *script

	// strict has the client wait for the server's SETTINGS before its first request, as those of gRPC do.
	strict bool

	conn   net.Conn
	in     *bufio.Reader
	out    bytes.Buffer // frames that are not sent yet
	framer *http2.Framer
	hpack  *hpack.Decoder

	requests int    // made on this connection
	nextID   uint32 // of the next stream
	streams  []*stream
	spare    []*stream

	// Where there is more than one request to make, finished is called for each, and decides whether another one is made
	// in its place.
	finished func(took time.Duration) (another bool)

	settled       bool  // the server's SETTINGS have come
	window        int64 // of the connection, for what is sent (RFC 9113, Section 5.2)
	initialWindow int64 // of a stream
	maxFrame      int
	received      uint32 // bytes for which no WINDOW_UPDATE was sent

	// The header block at hand.
	block *stream
}

// stream is a request on its way.
type stream struct {
	id      uint32
	req     *request
	began   time.Time
	sent    int   // bytes of the body
	window  int64 // for what is sent
	got     int   // bytes of the answer's body
	status  string
	grpc    string // the status of the call
	message string
	end     bool // the last frame has come, up to CONTINUATION
}

// A script is what a client asks for on a connection: the requests one after the other, and again from the first.
//
// The header blocks are made once. In the second turn every field is in the dynamic table (RFC 7541, Section 2.3.2) and
// the table does not change any more, so from then on the blocks are those of the second turn.
type script struct {
	requests    []*request
	first, then [][]byte
	large       bool // the answers do not fit in the initial windows
}

func newScript(scheme, authority string, requests ...*request) *script {
	s := &script{requests: requests}
	var b bytes.Buffer
	encoder := hpack.NewEncoder(&b)
	turn := func() (blocks [][]byte) {
		for _, r := range requests {
			b.Reset()
			for _, f := range r.fields(scheme, authority) {
				encoder.WriteField(f) // to a bytes.Buffer, which takes everything
			}
			blocks = append(blocks, bytes.Clone(b.Bytes()))
			s.large = s.large || r.want == anySize || r.want > initialWindow/4
		}
		return blocks
	}
	s.first, s.then = turn(), turn()
	return s
}

// next is the request that is the n-th on its connection, with its header block.
func (s *script) next(n int) (*request, []byte) {
	i := n % len(s.requests)
	if n < len(s.requests) {
		return s.requests[i], s.first[i]
	}
	return s.requests[i], s.then[i]
}

const (
	initialWindow = 65535 // RFC 9113, Section 6.9.2
	largeWindow   = 1 << 30
	minMaxFrame   = 16384
)

func newHTTP2(s *script, strict bool) *http2Client {
	c := &http2Client{script: s, strict: strict, in: bufio.NewReader(nil)}
	c.framer = http2.NewFramer(&c.out, c.in)
	c.framer.SetReuseFrames()
	c.hpack = hpack.NewDecoder(4096, c.field)
	return c
}

// open goes on with a new connection: it sends the preface, and waits for the server's if the client is strict.
func (c *http2Client) open(conn net.Conn) error {
	c.conn = conn
	c.in.Reset(conn)
	c.out.Reset()
	// A table without room loses its entries.
	c.hpack.SetMaxDynamicTableSize(0)
	c.hpack.SetMaxDynamicTableSize(4096)
	c.spare = append(c.spare, c.streams...)
	c.streams = c.streams[:0]
	c.requests, c.nextID, c.received = 0, 1, 0
	c.settled, c.window, c.initialWindow, c.maxFrame = false, initialWindow, initialWindow, minMaxFrame
	c.block = nil

	c.out.WriteString(http2.ClientPreface)
	if c.script.large {
		c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: largeWindow})
		c.framer.WriteWindowUpdate(0, largeWindow)
	} else {
		c.framer.WriteSettings()
	}
	if !c.strict {
		return nil // the preface goes with the first request
	}
	for {
		if c.settled {
			return nil // the acknowledgement goes with the first request
		}
		if err := c.flush(); err != nil {
			return err
		}
		if err := c.readFrame(); err != nil {
			return err
		}
	}
}

// roundTrip makes the next request and waits for the answer.
func (c *http2Client) roundTrip() error {
	c.finished = nil
	c.request()
	return c.finish()
}

// pipeline keeps n requests in flight until finished wants no more.
func (c *http2Client) pipeline(n int, finished func(time.Duration) bool) error {
	c.finished = finished
	for range n {
		c.request()
	}
	return c.finish()
}

// finish reads until there is no request in flight.
func (c *http2Client) finish() error {
	for len(c.streams) > 0 {
		// What there is to say waits for the answers that have come already.
		if c.in.Buffered() == 0 {
			if err := c.sendAll(); err != nil {
				return err
			}
		}
		if err := c.readFrame(); err != nil {
			return err
		}
	}
	return c.flush()
}

func (c *http2Client) flush() error {
	if c.out.Len() == 0 {
		return nil
	}
	_, err := c.conn.Write(c.out.Bytes())
	c.out.Reset()
	return err
}

// request puts the next request of the script into out.
func (c *http2Client) request() {
	var s *stream
	if n := len(c.spare); n > 0 {
		s, c.spare = c.spare[n-1], c.spare[:n-1]
	} else {
		s = new(stream)
	}
	req, block := c.script.next(c.requests)
	*s = stream{id: c.nextID, req: req, began: time.Now(), window: c.initialWindow}
	c.requests++
	c.nextID += 2
	c.streams = append(c.streams, s)
	// The Framer writes to a bytes.Buffer, which takes everything.
	c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: s.id, BlockFragment: block, EndStream: req.size() == 0, EndHeaders: true,
	})
	c.send(s)
}

// send puts as much of the body into out as the windows and the size of a write allow.
func (c *http2Client) send(s *stream) {
	const most = 64 << 10
	size := s.req.size()
	for s.sent < size && c.out.Len() < most {
		at := s.sent % len(s.req.chunk)
		n := min(int64(len(s.req.chunk)-at), int64(c.maxFrame), c.window, s.window)
		if n <= 0 {
			return
		}
		s.sent += int(n)
		s.window -= n
		c.window -= n
		c.framer.WriteData(s.id, s.sent == size, s.req.chunk[at:at+int(n)])
	}
}

// sendAll sends what is in out, and as much of the bodies as the windows allow. A server need not say anything before
// it has all of that.
func (c *http2Client) sendAll() error {
	for {
		for _, s := range c.streams {
			c.send(s)
		}
		if c.out.Len() == 0 {
			return nil
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
}

func (c *http2Client) find(id uint32) *stream {
	for _, s := range c.streams {
		if s.id == id {
			return s
		}
	}
	return nil
}

// readFrame reads a frame and does what it calls for.
func (c *http2Client) readFrame() error {
	frame, err := c.framer.ReadFrame()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("reading a frame: %w", err)
	}
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			c.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int64(f.Increment)
		} else if s := c.find(f.StreamID); s != nil {
			s.window += int64(f.Increment)
		}
	case *http2.DataFrame:
		return c.data(f)
	case *http2.HeadersFrame:
		if c.block = c.find(f.StreamID); c.block == nil {
			return fmt.Errorf("the server has sent %v, and there is no request on that stream", f.Header())
		}
		c.block.end = f.StreamEnded()
		return c.headers(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		return c.headers(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.GoAwayFrame:
		return fmt.Errorf("the server has sent GOAWAY %v, %q", f.ErrCode, f.DebugData())
	case *http2.RSTStreamFrame:
		// An answer can be complete before the body of its request is (RFC 9113, Section 8.1).
		if s := c.find(f.StreamID); s != nil {
			return fmt.Errorf("the server has sent RST_STREAM %v to %s", f.ErrCode, s.req.path)
		}
	}
	return nil
}

func (c *http2Client) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	c.settled = true
	if err := f.ForeachSetting(func(s http2.Setting) error {
		switch s.ID {
		case http2.SettingInitialWindowSize:
			for _, open := range c.streams {
				open.window += int64(s.Val) - c.initialWindow
			}
			c.initialWindow = int64(s.Val)
		case http2.SettingMaxFrameSize:
			c.maxFrame = int(s.Val)
		}
		return nil
	}); err != nil {
		return err
	}
	return c.framer.WriteSettingsAck()
}

func (c *http2Client) data(f *http2.DataFrame) error {
	s := c.find(f.StreamID)
	if s == nil {
		return fmt.Errorf("the server has sent %v, and there is no request on that stream", f.Header())
	}
	s.got += len(f.Data())
	// Stream windows suffice for a whole answer.
	c.received += f.Length
	threshold := uint32(initialWindow / 2)
	if c.script.large {
		threshold = largeWindow / 2
	}
	if c.received > threshold {
		c.framer.WriteWindowUpdate(0, c.received)
		c.received = 0
	}
	if f.StreamEnded() {
		return c.complete(s)
	}
	return nil
}

func (c *http2Client) headers(fragment []byte, last bool) error {
	if _, err := c.hpack.Write(fragment); err != nil {
		return err
	}
	if !last {
		return nil
	}
	if err := c.hpack.Close(); err != nil {
		return err
	}
	if c.block.end {
		return c.complete(c.block)
	}
	return nil
}

// field takes a field of the header block at hand.
func (c *http2Client) field(f hpack.HeaderField) {
	switch f.Name {
	case ":status":
		c.block.status = f.Value
	case "grpc-status":
		c.block.grpc = f.Value
	case "grpc-message":
		c.block.message = f.Value
	}
}

// complete judges an answer.
func (c *http2Client) complete(s *stream) error {
	switch {
	case s.status == "" || s.status[0] != '2' && s.status[0] != '3':
		return fmt.Errorf("the status of %s is %q", s.req.path, s.status)
	case s.req.grpc && s.grpc != "0":
		return fmt.Errorf("the gRPC status of %s is %q, %q", s.req.path, s.grpc, s.message)
	case s.req.want != anySize && s.got != s.req.want:
		return fmt.Errorf("the answer to %s has %d bytes, want %d", s.req.path, s.got, s.req.want)
	case s.sent < s.req.size():
		return errors.New("the server has answered " + s.req.path + " before it had the whole request")
	}
	for i := range c.streams {
		if c.streams[i] == s {
			c.streams = append(c.streams[:i], c.streams[i+1:]...)
			break
		}
	}
	took := time.Since(s.began)
	c.spare = append(c.spare, s)
	if c.finished != nil && c.finished(took) {
		c.request()
	}
	return nil
}
