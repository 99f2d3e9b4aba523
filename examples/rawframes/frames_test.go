package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// client writes frames as it is told, and says what comes back.
type client struct {
	*http2.Framer
	t    *testing.T
	conn net.Conn
}

// dial connects, and is past the exchange of settings when it returns.
func dial(t *testing.T, addr string) *client {
	t.Helper()
	c := dialBare(t, addr)
	io.WriteString(c.conn, http2.ClientPreface)
	c.WriteSettings()
	for _, want := range []string{"SETTINGS", "SETTINGS ACK"} {
		if got := c.next(); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	c.WriteSettingsAck()
	return c
}

func dialBare(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &client{http2.NewFramer(conn, conn), t, conn}
	c.AllowIllegalWrites = true
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return c
}

// next describes the next frame.
func (c *client) next() string {
	f, err := c.ReadFrame()
	if err != nil {
		return err.Error()
	}
	end := ""
	if f.Header().Flags.Has(http2.FlagDataEndStream) { // which is the same bit in HEADERS
		end = " END"
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return "SETTINGS ACK"
		}
		return "SETTINGS"
	case *http2.PingFrame:
		return fmt.Sprintf("PING ACK=%v %s", f.IsAck(), f.Data)
	case *http2.MetaHeadersFrame:
		return fmt.Sprintf("HEADERS %d %s%s", f.StreamID, f.PseudoValue("status"), end)
	case *http2.DataFrame:
		return fmt.Sprintf("DATA %d %d%s", f.StreamID, len(f.Data()), end)
	case *http2.WindowUpdateFrame:
		return fmt.Sprintf("WINDOW_UPDATE %d %d", f.StreamID, f.Increment)
	case *http2.RSTStreamFrame:
		return fmt.Sprintf("RST_STREAM %d %v", f.StreamID, f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %v", f.LastStreamID, f.ErrCode)
	}
	return f.Header().String()
}

func block(fields ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

func requestBlock(method, path string, more ...string) []byte {
	return block(append([]string{":method", method, ":scheme", "http", ":authority", "a", ":path", path}, more...)...)
}

func (c *client) headers(id uint32, last bool, block []byte) {
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: last})
}

func (c *client) request(id uint32, last bool, method, path string, more ...string) {
	c.headers(id, last, requestBlock(method, path, more...))
}

// TestFrames is about everything that a server has to say to a client's frames. Behind each case a PING is sent, whose
// answer shows that nothing else was said.
func TestFrames(t *testing.T) {
	t.Parallel()
	addr := start(t)
	ok := fmt.Sprintf("DATA 1 %d END", len(hello))
	tests := []struct {
		name string
		send func(*client)
		want []string
	}{
		{"PING", func(c *client) { c.WritePing(false, [8]byte([]byte("a ping  "))) }, []string{"PING ACK=true a ping  "}},
		{"an answer to no PING", func(c *client) { c.WritePing(true, [8]byte{}) }, nil},
		{"SETTINGS", func(c *client) { c.WriteSettings() }, []string{"SETTINGS ACK"}},
		{"unknown frames", func(c *client) { c.WriteRawFrame(0xfa, 0xff, 7, []byte("x")) }, nil},
		{"PRIORITY", func(c *client) { c.WritePriority(5, http2.PriorityParam{}) }, nil},
		{"a request", func(c *client) { c.request(1, true, "GET", "/") }, []string{"HEADERS 1 200", ok}},
		{"a request on another stream", func(c *client) { c.request(7, true, "HEAD", "/") }, []string{"HEADERS 7 200 END"}},
		{"header block in parts", func(c *client) {
			b := requestBlock("HEAD", "/")
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:3], EndStream: true})
			c.WriteContinuation(1, false, b[3:5])
			c.WriteContinuation(1, true, b[5:])
		}, []string{"HEADERS 1 200 END"}},
		{"content and trailers", func(c *client) {
			c.request(1, false, "POST", "/echo", "content-length", "3")
			c.WriteData(1, false, []byte("abc"))
			c.headers(1, true, block("x-trailer", "1"))
		}, []string{"HEADERS 1 200", "DATA 1 3", "DATA 1 0 END"}},
		{"more content than is wanted", func(c *client) {
			c.request(1, false, "POST", "/nowhere")
			c.WriteData(1, false, []byte("abc"))
			c.headers(1, true, block("x-trailer", "1"))
		}, []string{"HEADERS 1 404", "DATA 1 23 END", "RST_STREAM 1 NO_ERROR"}},
		{"headers too large", func(c *client) {
			c.request(1, true, "GET", "/", "x-a", strings.Repeat("x", maxHeaderList-1000), "x-b", strings.Repeat("y", 1000))
		}, []string{"HEADERS 1 431", "DATA 1 30 END"}},

		{"PING on a stream", func(c *client) { c.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8)) },
			[]string{"GOAWAY 0 PROTOCOL_ERROR"}},
		{"PING of a wrong length", func(c *client) { c.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) },
			[]string{"GOAWAY 0 FRAME_SIZE_ERROR"}},
		{"a frame that is too large", func(c *client) { c.WriteRawFrame(0xfa, 0, 0, make([]byte, maxFrame+1)) },
			[]string{"GOAWAY 0 FRAME_SIZE_ERROR"}},
		{"a bad setting", func(c *client) { c.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2}) },
			[]string{"GOAWAY 0 PROTOCOL_ERROR"}},
		{"a bad window", func(c *client) { c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}) },
			[]string{"GOAWAY 0 FLOW_CONTROL_ERROR"}},
		{"PUSH_PROMISE", func(c *client) {
			c.request(1, false, "POST", "/echo")
			c.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: requestBlock("GET", "/"), EndHeaders: true})
		}, []string{"HEADERS 1 200", "GOAWAY 1 PROTOCOL_ERROR"}},
		{"HEADERS on an even stream", func(c *client) { c.request(2, true, "GET", "/") }, []string{"GOAWAY 0 PROTOCOL_ERROR"}},
		{"HEADERS on a lower stream", func(c *client) {
			c.request(5, true, "HEAD", "/")
			c.request(3, true, "HEAD", "/")
		}, []string{"HEADERS 5 200 END", "GOAWAY 5 PROTOCOL_ERROR"}},
		{"a bad header block", func(c *client) { c.headers(1, true, []byte{0x80}) }, []string{"GOAWAY 0 COMPRESSION_ERROR"}},
		{"DATA on an idle stream", func(c *client) { c.WriteData(1, true, nil) }, []string{"GOAWAY 0 PROTOCOL_ERROR"}},
		{"WINDOW_UPDATE on an idle stream", func(c *client) { c.WriteWindowUpdate(1, 1) }, []string{"GOAWAY 0 PROTOCOL_ERROR"}},
		{"WINDOW_UPDATE of nothing on an idle stream", func(c *client) { c.WriteWindowUpdate(1, 0) },
			[]string{"GOAWAY 0 PROTOCOL_ERROR"}},
		{"RST_STREAM on an idle stream", func(c *client) { c.WriteRSTStream(1, 0) }, []string{"GOAWAY 0 PROTOCOL_ERROR"}},
		{"a window of the connection that is too large", func(c *client) { c.WriteWindowUpdate(0, maxWindow) },
			[]string{"GOAWAY 0 FLOW_CONTROL_ERROR"}},
		{"WINDOW_UPDATE of nothing", func(c *client) { c.WriteWindowUpdate(0, 0) }, []string{"GOAWAY 0 PROTOCOL_ERROR"}},
		{"settings that make a window too large", func(c *client) {
			c.request(1, false, "POST", "/echo")
			c.WriteWindowUpdate(1, maxWindow-initialWindow)
			c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: initialWindow + 1})
		}, []string{"HEADERS 1 200", "GOAWAY 1 FLOW_CONTROL_ERROR"}},

		{"a window of a stream that is too large", func(c *client) {
			c.request(1, false, "POST", "/echo")
			c.WriteWindowUpdate(1, maxWindow)
		}, []string{"HEADERS 1 200", "RST_STREAM 1 FLOW_CONTROL_ERROR"}},
		{"frames on closed streams", func(c *client) {
			c.request(1, true, "HEAD", "/")
			c.WriteWindowUpdate(1, 1)
			c.WriteRSTStream(1, http2.ErrCodeCancel)
		}, []string{"HEADERS 1 200 END"}},
		{"DATA behind the end", func(c *client) {
			c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) // so that the response does not end
			c.request(1, true, "GET", "/")
			c.WriteData(1, true, nil)
		}, []string{"SETTINGS ACK", "HEADERS 1 200", "RST_STREAM 1 STREAM_CLOSED"}},
		{"HEADERS behind the end", func(c *client) {
			c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			c.request(1, true, "GET", "/")
			c.headers(1, true, block("x-trailer", "1"))
		}, []string{"SETTINGS ACK", "HEADERS 1 200", "RST_STREAM 1 STREAM_CLOSED"}},
		{"DATA behind the end of the response too", func(c *client) {
			c.request(1, true, "HEAD", "/")
			c.WriteData(1, true, nil)
		}, []string{"HEADERS 1 200 END", "RST_STREAM 1 STREAM_CLOSED"}},
		{"trailers that end nothing", func(c *client) {
			c.request(1, false, "POST", "/echo")
			c.headers(1, false, block("x-trailer", "1"))
		}, []string{"HEADERS 1 200", "RST_STREAM 1 PROTOCOL_ERROR"}},
		{"more content than content-length says", func(c *client) {
			c.request(1, false, "POST", "/echo", "content-length", "3")
			c.WriteData(1, false, []byte("abcd"))
		}, []string{"HEADERS 1 200", "RST_STREAM 1 PROTOCOL_ERROR"}},
		{"less content than content-length says", func(c *client) {
			c.request(1, false, "POST", "/echo", "content-length", "3")
			c.WriteData(1, true, []byte("ab"))
		}, []string{"HEADERS 1 200", "RST_STREAM 1 PROTOCOL_ERROR"}},
		{"less content, and trailers", func(c *client) {
			c.request(1, false, "POST", "/echo", "content-length", "3")
			c.WriteData(1, false, []byte("ab"))
			c.headers(1, true, block("x-trailer", "1"))
		}, []string{"HEADERS 1 200", "DATA 1 2", "RST_STREAM 1 PROTOCOL_ERROR"}},
		{"no content where there should be", func(c *client) { c.request(1, true, "POST", "/echo", "content-length", "3") },
			[]string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"content-lengths that differ", func(c *client) {
			c.request(1, true, "POST", "/echo", "content-length", "0", "content-length", "1")
		}, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"content-length of another kind", func(c *client) { c.request(1, true, "POST", "/echo", "content-length", "-1") },
			[]string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"a name in upper case", func(c *client) { c.request(1, true, "GET", "/", "X-A", "1") },
			[]string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"a malformed request, then a good one", func(c *client) {
			c.request(1, true, "GET", "/", "X-A", "1")
			c.request(3, true, "HEAD", "/")
		}, []string{"RST_STREAM 1 PROTOCOL_ERROR", "HEADERS 3 200 END"}},
		{"a connection-specific field", func(c *client) { c.request(1, true, "GET", "/", "connection", "close") },
			[]string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"te", func(c *client) { c.request(1, true, "GET", "/", "te", "gzip") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"te: trailers", func(c *client) { c.request(1, true, "HEAD", "/", "te", "trailers") }, []string{"HEADERS 1 200 END"}},
		{"no path", func(c *client) { c.headers(1, true, block(":method", "GET", ":scheme", "http")) },
			[]string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"a status", func(c *client) { c.headers(1, true, block(":status", "200")) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"CONNECT", func(c *client) { c.headers(1, false, block(":method", "CONNECT", ":authority", "a:80")) },
			[]string{"HEADERS 1 404", "DATA 1 23 END", "RST_STREAM 1 NO_ERROR"}},
		{"extended CONNECT", func(c *client) { c.request(1, false, "CONNECT", "/", ":protocol", "websocket") },
			[]string{"RST_STREAM 1 PROTOCOL_ERROR"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, addr)
			tt.send(c)
			c.WritePing(false, [8]byte([]byte("the end.")))
			var got []string
			for {
				s := c.next()
				if s == "PING ACK=true the end." {
					break
				}
				got = append(got, s)
				if strings.HasPrefix(s, "GOAWAY") {
					if s := c.next(); s != "EOF" {
						t.Errorf("%s behind GOAWAY, want the end of the connection", s)
					}
					break
				}
				if len(got) > len(tt.want)+5 {
					break
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestPreface is about what comes first.
func TestPreface(t *testing.T) {
	t.Parallel()
	addr := start(t)
	for _, tt := range []struct {
		name string
		send func(*client)
	}{
		{"HEADERS", func(c *client) { c.request(1, true, "GET", "/") }},
		{"malformed HEADERS", func(c *client) { c.request(1, true, "GET", "/", "X-A", "1") }},
		{"an acknowledgement", func(c *client) { c.WriteSettingsAck() }},
		{"an unknown frame", func(c *client) { c.WriteRawFrame(0xfa, 0, 0, nil) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dialBare(t, addr)
			io.WriteString(c.conn, http2.ClientPreface)
			tt.send(c)
			for _, want := range []string{"SETTINGS", "GOAWAY 0 PROTOCOL_ERROR", "EOF"} {
				if got := c.next(); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		})
	}
}

// expect reads frames and compares them.
func (c *client) expect(want ...string) {
	c.t.Helper()
	for _, want := range want {
		if got := c.next(); got != want {
			c.t.Fatalf("got %s, want %s", got, want)
		}
	}
}

// TestSendWindows opens and closes the windows of a client step by step.
func TestSendWindows(t *testing.T) {
	t.Parallel()
	c := dial(t, start(t))
	window := func(n uint32) {
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n})
		c.expect("SETTINGS ACK")
	}
	window(10)
	c.request(1, true, "GET", "/large")
	c.expect("HEADERS 1 200", "DATA 1 10")
	c.WriteWindowUpdate(1, 5)
	c.expect("DATA 1 5")
	window(3) // the stream's is -7 now
	c.WriteWindowUpdate(1, 7)
	c.WritePing(false, [8]byte{})
	c.expect("PING ACK=true \x00\x00\x00\x00\x00\x00\x00\x00")
	window(4)
	c.expect("DATA 1 1")
	c.request(3, true, "GET", "/large")
	c.expect("HEADERS 3 200", "DATA 3 4")
	// The connection's window has 65,535 bytes, less these 20.
	c.WriteWindowUpdate(1, 50_000)
	c.expect("DATA 1 16384", "DATA 1 16384", "DATA 1 16384", "DATA 1 848")
	c.WriteWindowUpdate(3, 50_000)
	c.expect("DATA 3 15515")
	c.WriteWindowUpdate(0, 1)
	c.expect("DATA 3 1")
	c.WriteRSTStream(3, http2.ErrCodeCancel)
	c.WriteWindowUpdate(0, 100)
	c.WriteWindowUpdate(1, 2)
	c.expect("DATA 1 2")
}

// TestReceiveWindows looks at what the server gives back.
func TestReceiveWindows(t *testing.T) {
	t.Parallel()
	half := strings.Repeat("x", 16384)
	t.Run("content that nobody wants", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t))
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) // lest the response end the stream
		c.request(1, false, "POST", "/")
		c.expect("SETTINGS ACK", "HEADERS 1 405")
		c.WriteData(1, false, []byte(half))
		c.WriteData(1, false, []byte(half))
		c.expect("WINDOW_UPDATE 0 32768", "WINDOW_UPDATE 1 32768")
	})
	t.Run("content that is on its way back", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t))
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		c.request(1, false, "POST", "/echo")
		c.expect("SETTINGS ACK", "HEADERS 1 200")
		c.WriteData(1, false, []byte(half))
		c.WriteData(1, false, []byte(half))
		c.WritePing(false, [8]byte([]byte("nothing.")))
		c.expect("PING ACK=true nothing.")
		c.WriteWindowUpdate(1, 16383)
		c.expect("DATA 1 16383")
		c.WriteWindowUpdate(1, 16384)
		c.expect("DATA 1 16384", "WINDOW_UPDATE 0 32767", "WINDOW_UPDATE 1 32767")
		// What has not come back when the stream is reset is given back to the connection.
		c.WriteData(1, false, []byte(half))
		c.WriteData(1, false, []byte(half))
		c.WriteRSTStream(1, http2.ErrCodeCancel)
		c.expect("WINDOW_UPDATE 0 32769")
	})
	t.Run("padding", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t))
		c.request(1, false, "POST", "/echo")
		c.expect("HEADERS 1 200")
		for range 127 { // each with 256 bytes of padding, and its length
			c.WriteDataPadded(1, false, nil, make([]byte, 255))
		}
		c.WritePing(false, [8]byte([]byte("nothing.")))
		c.expect("PING ACK=true nothing.")
		c.WriteDataPadded(1, false, nil, make([]byte, 255))
		c.expect("WINDOW_UPDATE 0 32768", "WINDOW_UPDATE 1 32768")
	})
	t.Run("more than the stream's allows", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t))
		// What comes back on stream 1 is one byte too little for its window to be given back, but not for the connection's,
		// so that this has more left.
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 32766})
		c.request(1, false, "POST", "/echo")
		c.request(3, false, "POST", "/echo")
		c.expect("SETTINGS ACK", "HEADERS 1 200", "HEADERS 3 200")
		c.WriteData(1, false, []byte(half))
		c.WriteData(1, false, []byte(half[2:]))
		c.WriteData(3, false, []byte("x"))
		c.expect("DATA 1 16384", "DATA 1 16382", "DATA 3 1", "WINDOW_UPDATE 0 32767")
		c.WriteData(1, false, []byte(half))
		c.WriteData(1, false, []byte(half))
		c.WriteData(1, false, []byte("x"))
		c.WritePing(false, [8]byte([]byte("nothing.")))
		c.expect("PING ACK=true nothing.")
		c.WriteData(1, false, []byte("x"))
		c.expect("RST_STREAM 1 FLOW_CONTROL_ERROR", "WINDOW_UPDATE 0 32769")
		c.WriteData(3, true, nil)
		c.expect("DATA 3 0 END")
	})
	t.Run("more than the connection's allows", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t))
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		c.request(1, false, "POST", "/echo")
		c.request(3, false, "POST", "/echo")
		c.expect("SETTINGS ACK", "HEADERS 1 200", "HEADERS 3 200")
		for range 2 {
			c.WriteData(1, false, []byte(half))
			c.WriteData(3, false, []byte(half))
		}
		c.expect("GOAWAY 3 FLOW_CONTROL_ERROR", "EOF")
	})
}

// TestTooManyStreams opens more than SETTINGS_MAX_CONCURRENT_STREAMS.
func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	c := dial(t, start(t))
	id := uint32(1)
	for range maxStreams {
		c.request(id, false, "POST", "/echo")
		c.expect(fmt.Sprintf("HEADERS %d 200", id))
		id += 2
	}
	c.request(id, false, "POST", "/echo")
	c.expect(fmt.Sprintf("RST_STREAM %d REFUSED_STREAM", id))
	c.WriteData(1, true, nil)
	c.expect("DATA 1 0 END")
	c.request(id+2, true, "HEAD", "/")
	c.expect(fmt.Sprintf("HEADERS %d 200 END", id+2))
}

// TestGoAway has a client go on after the server's GOAWAY.
func TestGoAway(t *testing.T) {
	t.Parallel()
	addr, stop, done := startUntil(t)
	c := dial(t, addr)
	c.request(1, false, "POST", "/echo")
	c.expect("HEADERS 1 200")
	stop()
	c.expect("GOAWAY 1 NO_ERROR")
	c.request(3, false, "POST", "/echo") // on its way when GOAWAY was
	c.WriteData(3, false, []byte("not looked at"))
	c.WriteData(1, true, []byte("looked at"))
	c.expect("DATA 1 9 END", "EOF")
	c.conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
