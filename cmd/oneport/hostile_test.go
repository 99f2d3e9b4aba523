package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
	"github.com/oneport-go/oneport/cmd/oneport/internal/zoo"
)

// block compresses fields.
func block(fields ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range fields {
		enc.WriteField(f)
	}
	return b.Bytes()
}

// hear reads the client's preface and SETTINGS, if it sends them, and up to 4 KiB in any case.
func hear(c net.Conn) { c.Read(make([]byte, 4096)) }

// forever writes b again and again.
func forever(c net.Conn, b []byte) {
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// frames returns what write writes to a Framer.
func frames(write func(*http2.Framer)) []byte {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	write(fr)
	return b.Bytes()
}

func settingsFrame() []byte { return frames(func(fr *http2.Framer) { fr.WriteSettings() }) }

// drip writes b one byte at a time, with a pause after each, until the client has gone.
func drip(c net.Conn, b []byte, pause time.Duration) {
	gone := make(chan struct{})
	go func() {
		io.Copy(io.Discard, c)
		close(gone)
	}()
	defer func() { c.Close(); <-gone }()
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			return
		}
		select {
		case <-gone:
			return
		case <-time.After(pause):
		}
	}
	<-gone
}

// record makes a TLS record.
func record(typ byte, b []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{typ, 3, 3}, uint16(len(b))), b...)
}

// hostile are servers that do harm to clients without bounds. Each serves one connection.
var hostile = map[string]func(net.Conn){
	"endless HTTP/1 head": func(c net.Conn) {
		hear(c)
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		forever(c, []byte("X-Filler: "+strings.Repeat("x", 1000)+"\r\n"))
	},
	"endless status line": func(c net.Conn) {
		hear(c)
		io.WriteString(c, "HTTP/1.1 ")
		forever(c, bytes.Repeat([]byte("9"), 4096))
	},
	"endless interim responses": func(c net.Conn) {
		hear(c)
		forever(c, []byte("HTTP/1.1 103 Early Hints\r\n\r\n"))
	},
	"endless chunks": func(c net.Conn) {
		hear(c)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		forever(c, []byte("1;"+strings.Repeat("e", 2000)+"\r\nx\r\n"))
	},
	"endless PING": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		forever(c, frames(func(fr *http2.Framer) { fr.WritePing(false, [8]byte{}) }))
	},
	"endless SETTINGS": func(c net.Conn) {
		hear(c)
		forever(c, frames(func(fr *http2.Framer) { fr.WriteSettings(http2.Setting{ID: 99, Val: 1}) }))
	},
	"endless unknown frames": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		forever(c, frames(func(fr *http2.Framer) { fr.WriteRawFrame(0x20, 0, 0, make([]byte, 16000)) }))
	},
	"endless empty DATA": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		c.Write(frames(func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block(hpack.HeaderField{Name: ":status", Value: "200"})})
		}))
		forever(c, frames(func(fr *http2.Framer) { fr.WriteData(1, false, nil) }))
	},
	"endless DATA": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		c.Write(frames(func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block(hpack.HeaderField{Name: ":status", Value: "200"})})
		}))
		forever(c, frames(func(fr *http2.Framer) { fr.WriteData(1, false, make([]byte, 16000)) }))
	},
	"endless CONTINUATION": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		c.Write(frames(func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(hpack.HeaderField{Name: ":status", Value: "200"})})
		}))
		forever(c, frames(func(fr *http2.Framer) {
			fr.WriteContinuation(1, false, block(hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 1000), Sensitive: true}))
		}))
	},
	"endless empty CONTINUATION": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		c.Write(frames(func(fr *http2.Framer) { fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1}) }))
		forever(c, frames(func(fr *http2.Framer) { fr.WriteContinuation(1, false, nil) }))
	},
	"HPACK bomb": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		bomb := block(hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 4000)})
		for range 12000 {
			bomb = append(bomb, 0x80|62) // the field in the dynamic table, again
		}
		c.Write(frames(func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: bomb})
		}))
		io.Copy(io.Discard, c)
	},
	"huge field": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		// A literal field whose value claims 2 MiB.
		c.Write(frames(func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: append([]byte{0x10, 1, 'x', 0x7f, 0x81, 0xff, 0x7f}, bytes.Repeat([]byte("x"), 9000)...)})
		}))
		forever(c, frames(func(fr *http2.Framer) { fr.WriteContinuation(1, false, bytes.Repeat([]byte("x"), 9000)) }))
	},
	"huge frame": func(c net.Conn) {
		hear(c)
		c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1})
		forever(c, make([]byte, 16<<10))
	},
	"a message of gRPC that claims 4 GiB": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		hear(c)
		c.Write(frames(func(fr *http2.Framer) {
			fr.WriteSettingsAck()
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block(
				hpack.HeaderField{Name: ":status", Value: "200"}, hpack.HeaderField{Name: "content-type", Value: "application/grpc"},
				hpack.HeaderField{Name: "grpc-status", Value: "99999999999999999999"})})
			fr.WriteData(1, true, []byte{0, 0xff, 0xff, 0xff, 0xff, 0x0a, 0xff})
		}))
		io.Copy(io.Discard, c)
	},
	"GOAWAY with escape sequences": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		c.Write(frames(func(fr *http2.Framer) {
			fr.WriteGoAway(0, http2.ErrCodeProtocol, []byte("\x1b[2J\x1b]0;owned\x07\r\n"))
		}))
		io.Copy(io.Discard, c)
	},
	"HTTP/1 with escape sequences": func(c net.Conn) {
		hear(c)
		io.WriteString(c, "HTTP/1.1 400 \x1b[2Jowned\r\nServer: \x1b]0;owned\x07\r\nContent-Length: 6\r\n\r\n\x1b[31mxx")
	},
	"101 and garbage": func(c net.Conn) {
		hear(c)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
		forever(c, []byte("\xff\xfe\xfd\xfc"))
	},
	"garbage": func(c net.Conn) {
		hear(c)
		b := make([]byte, 4096)
		r := rand.New(rand.NewPCG(1, 2))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		forever(c, b)
	},
	"zeros":          func(c net.Conn) { hear(c); forever(c, make([]byte, 4096)) },
	"text":           func(c net.Conn) { hear(c); forever(c, []byte("all work and no play\n")) },
	"speaks at once": func(c net.Conn) { forever(c, []byte("220 smtp.example ESMTP\r\n")) },
	"TLS records of nothing": func(c net.Conn) {
		hear(c)
		forever(c, record(22, nil))
	},
	"endless TLS handshake": func(c net.Conn) {
		hear(c)
		c.Write(record(22, []byte{2, 0xff, 0xff, 0xff})) // a ServerHello of 16 MiB
		forever(c, record(22, make([]byte, 16000)))
	},
	"endless TLS warnings": func(c net.Conn) {
		hear(c)
		forever(c, record(21, []byte{1, 90}))
	},
	"HTTP/1 by the byte": func(c net.Conn) {
		hear(c)
		drip(c, []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), 300*time.Millisecond)
	},
	"HTTP/2 by the byte": func(c net.Conn) { drip(c, settingsFrame(), 300*time.Millisecond) },
	"TLS by the byte":    func(c net.Conn) { drip(c, record(22, make([]byte, 100)), 300*time.Millisecond) },
	"HTTP/2 frames by the byte": func(c net.Conn) {
		hear(c)
		c.Write(settingsFrame())
		drip(c, bytes.Repeat(settingsFrame(), 10), 50*time.Millisecond)
	},
	"half of a frame": func(c net.Conn) {
		hear(c)
		c.Write([]byte{0, 0, 12, 4, 0})
	},
}

// TestHostile probes servers that send without end, too slowly, or what nobody understands: each ends in a verdict, in
// time, with little read, and nothing of what they send reaches the terminal as it is.
func TestHostile(t *testing.T) {
	t.Parallel()
	const timeout = 500 * time.Millisecond
	for name, serve := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var most atomic.Int64
			addr := zoo.Each(t, func(c net.Conn) {
				counted := &counter{Conn: c}
				serve(counted)
				for {
					old := most.Load()
					if n := counted.n.Load(); n <= old || most.CompareAndSwap(old, n) {
						return
					}
				}
			})
			for _, args := range [][]string{{"-json"}, {"-v", "-color", "never"}} {
				var stdout, stderr bytes.Buffer
				began := time.Now()
				args = append(append([]string{"probe", "-timeout", fmt.Sprint(timeout)}, args...), addr)
				exit := run(t.Context(), args, &stdout, &stderr)
				// Half a second of that is for a busy machine.
				if took, most := time.Since(began), probe.TotalTimeouts*timeout+500*time.Millisecond; took > most {
					t.Errorf("it took %v, more than %v", took, most)
				}
				if exit != exitFails && exit != exitOK {
					t.Errorf("exit status %d: %s", exit, &stderr)
				}
				if i := bytes.IndexFunc(stdout.Bytes(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == 0xfffd }); i >= 0 {
					t.Errorf("the output has a control character: %q", stdout.Bytes()[max(0, i-40):i+1])
				}
				if !slices.Contains(args, "-json") {
					continue
				}
				var got output
				if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
					t.Fatal(err)
				}
				if exit == exitFails && len(got.Findings) == 0 {
					t.Error("something fails, and no finding says why")
				}
				for _, w := range got.Ways {
					if w.Verdict == "" {
						t.Errorf("%s has no verdict", w.ID)
					}
				}
				for _, f := range got.Findings {
					if f.Code == "unexplained" {
						t.Errorf("no explanation for %v", f.Ways)
					}
				}
				for _, w := range got.Ways {
					if w.Verdict == "" {
						t.Errorf("%s has no verdict", w.ID)
					}
				}
				if testing.Verbose() {
					for _, f := range got.Findings {
						t.Logf("%s: %v", f.Code, f.Ways)
					}
					for _, w := range got.Ways {
						if w.Verdict != "not tried" {
							t.Logf("%-16s %-12s %-12s %s", w.ID, w.Verdict, w.Outcome, w.Came)
						}
					}
				}
			}
			// What the kernel buffers on both sides comes on top of what the probe reads.
			if got := most.Load(); got > wire.MaxBytes+16<<20 {
				t.Errorf("on one connection the server could send %d bytes", got)
			}
		})
	}
}

// A counter counts what is written to a connection.
type counter struct {
	net.Conn
	n atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}
