package interop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport"
)

// The servers whose HTTP/2 takes an acknowledgement too many for a PROTOCOL_ERROR. They differ in whether they send
// SETTINGS_NO_RFC7540_PRIORITIES.
var httpServers = []struct {
	name  string
	serve func(*testing.T, net.Listener)
}{
	{"net/http", serveNetHTTP},
	{"x/net", serveXNet},
}

// Clients of RFC 9218 that got early SETTINGS end the connection if the server's own contradict them.
func TestLateHeaders(t *testing.T) {
	for _, server := range httpServers {
		for _, client := range http2Clients {
			t.Run(server.name+"/"+client.name, func(t *testing.T) {
				t.Parallel()
				p := newPort(t)
				p.route(t, "grpc", serveGRPC, oneport.GRPC())
				p.route(t, "http", server.serve, oneport.HTTP1(), oneport.HTTP2())
				p.start(t)
				r := newRelay(t, p.addr, afterSettings)
				want := server.name + " by HTTP/2.0"
				if got := client.get(t, r.addr); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				r.wantNoProblem(t)
				p.wantMatch(t, "http", oneport.ProtocolHTTP2, true)
			})
		}
	}
}

func TestThousandRequests(t *testing.T) {
	for _, server := range httpServers {
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			p := newPort(t)
			p.route(t, "grpc", serveGRPC, oneport.GRPC())
			p.route(t, "http", server.serve, oneport.HTTP1(), oneport.HTTP2())
			p.start(t)
			c, err := dialStrict(p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			want := server.name + " by HTTP/2.0"
			for i := range 1000 {
				got, err := c.get(p.addr)
				if err != nil {
					t.Fatalf("request %d: %v", i, err)
				}
				if got != want {
					t.Fatalf("request %d: got %q, want %q", i, got, want)
				}
			}
			if c.settings.frames < 2 {
				t.Errorf("the server sent SETTINGS %d times, want the early ones and its own", c.settings.frames)
			}
			if c.acknowledged != 1 {
				t.Errorf("the client's SETTINGS were acknowledged %d times, want once", c.acknowledged)
			}
			p.wantMatch(t, "http", oneport.ProtocolHTTP2, true)
		})
	}
}

// strictClient is a client of HTTP/2 that sends nothing but preface and SETTINGS before the server's SETTINGS, and
// forgives the server nothing.
type strictClient struct {
	net.Conn
	framer       *http2.Framer
	block        bytes.Buffer
	encoder      *hpack.Encoder
	stream       uint32 // the next one
	settings     settingsRule
	acknowledged int
	pings        byte
}

func dialStrict(addr string) (*strictClient, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return newStrict(conn)
}

func newStrict(conn net.Conn) (*strictClient, error) {
	c := &strictClient{Conn: conn, framer: http2.NewFramer(conn, conn), stream: 1}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	if err := c.begin(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *strictClient) begin() error {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return err
	}
	if err := c.framer.WriteSettings(http2.Setting{ID: settingNoRFC7540Priorities, Val: 1}); err != nil {
		return err
	}
	frame, err := c.framer.ReadFrame()
	if err != nil {
		return err
	}
	if settings, ok := frame.(*http2.SettingsFrame); !ok || settings.IsAck() {
		return fmt.Errorf("the first frame is %v, want SETTINGS", frame)
	}
	return c.take(frame)
}

// get sends a request and returns the content of the response.
func (c *strictClient) get(authority string) (string, error) {
	return c.do("GET", "/", authority, "")
}

// check asks grpc-go for its health.
func (c *strictClient) check(authority string, fields ...hpack.HeaderField) error {
	fields = append(fields, hpack.HeaderField{Name: "content-type", Value: "application/grpc"}, hpack.HeaderField{Name: "te", Value: "trailers"})
	got, err := c.do("POST", checkPath, authority, checkRequest, fields...)
	if err == nil && got != checkResponse {
		err = fmt.Errorf("got %q, want %q", got, checkResponse)
	}
	return err
}

// A call of the health service, as the contents of request and response: messages with their lengths.
const (
	checkPath     = "/grpc.health.v1.Health/Check"
	checkRequest  = "\x00\x00\x00\x00\x00"
	checkResponse = "\x00\x00\x00\x00\x02\x08\x01"
)

// do sends a request and returns the content of the response.
func (c *strictClient) do(method, path, authority, content string, fields ...hpack.HeaderField) (string, error) {
	c.block.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: method},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: path},
		{Name: ":authority", Value: authority},
	}, fields...) {
		c.encoder.WriteField(f)
	}
	stream := c.stream
	c.stream += 2
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: content == "",
	})
	if err == nil && content != "" {
		err = c.framer.WriteData(stream, true, []byte(content))
	}
	if err != nil {
		return "", err
	}
	return c.response(stream)
}

// ping sends PING and reads on to its acknowledgement.
func (c *strictClient) ping() error {
	c.pings++
	payload := [8]byte{7: c.pings}
	if err := c.framer.WritePing(false, payload); err != nil {
		return err
	}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
			if ping.Data != payload {
				return fmt.Errorf("PING %v was acknowledged, not %v", ping.Data, payload)
			}
			return nil
		}
		if err := c.take(frame); err != nil {
			return err
		}
	}
}

// response reads on to the end of the response on the stream and returns its content.
func (c *strictClient) response(stream uint32) (string, error) {
	var content []byte
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return "", err
		}
		if err := c.take(frame); err != nil {
			return "", err
		}
		if data, ok := frame.(*http2.DataFrame); ok && len(data.Data()) > 0 {
			content = append(content, data.Data()...)
			if err := c.framer.WriteWindowUpdate(0, uint32(len(data.Data()))); err != nil {
				return "", err
			}
		}
		if end, ok := frame.(interface{ StreamEnded() bool }); ok && end.StreamEnded() {
			if got := frame.Header().StreamID; got != stream {
				return "", fmt.Errorf("the response on stream %d has ended, not that on %d", got, stream)
			}
			return string(content), nil
		}
	}
}

// take does for a frame what has to be done on behalf of the connection.
func (c *strictClient) take(frame http2.Frame) error {
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if frame.IsAck() {
			c.acknowledged++
			return nil
		}
		return errors.Join(c.settings.check(frame), c.framer.WriteSettingsAck())
	case *http2.PingFrame:
		if frame.IsAck() {
			return errors.New("a PING was acknowledged that was not sent, or twice")
		}
		return c.framer.WritePing(true, frame.Data)
	case *http2.GoAwayFrame:
		if frame.ErrCode == http2.ErrCodeNo && frame.LastStreamID+2 >= c.stream {
			return nil // to what was sent an answer will come
		}
		return fmt.Errorf("GOAWAY: %v %q", frame.ErrCode, frame.DebugData())
	case *http2.RSTStreamFrame:
		return fmt.Errorf("RST_STREAM: %v", frame.ErrCode)
	}
	return nil
}
