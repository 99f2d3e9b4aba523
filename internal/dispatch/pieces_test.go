package dispatch

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// A collector keeps what is read from a connection.
type collector struct {
	mu sync.Mutex
	b  []byte
}

func (c *collector) collect(r io.Reader, size int) {
	p := make([]byte, size)
	for {
		n, err := r.Read(p)
		c.mu.Lock()
		c.b = append(c.b, p[:n]...)
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// got returns what has come since it was called last, once nothing moves any more.
func (c *collector) got() []byte {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.b
	c.b = nil
	return b
}

// passed returns what is to be passed on of the beginning of a stream of frames: all whole frames, header blocks as
// one, and DATA and long frames of unknown type as they come.
func passed(b []byte) []byte {
	n := 0
	for rest := b; len(rest) >= h2.FrameHeaderLen; rest = b[n:] {
		h := h2.ParseFrameHeader(rest)
		end := h2.FrameLen(h)
		switch {
		case h.Type == http2.FrameData && h.Flags.Has(http2.FlagDataPadded) && len(rest) == h2.FrameHeaderLen:
			return b[:n]
		case h.Type == http2.FrameData || h.Type > http2.FrameContinuation && h.Length > maxUnknownLen:
			n += min(end, len(rest))
			continue
		case h.Type == http2.FrameHeaders && !h.Flags.Has(http2.FlagHeadersEndHeaders):
			// The tests have one CONTINUATION frame.
			if len(rest) < end+h2.FrameHeaderLen {
				return b[:n]
			}
			end += h2.FrameLen(h2.ParseFrameHeader(rest[end:]))
		}
		if len(rest) < end {
			return b[:n]
		}
		n += end
	}
	return b[:n]
}

// inPieces runs a test with a connection that passes through to a server, on which the client has opened stream 1. If
// answered is set, the client's SETTINGS frame was acknowledged in the server's place.
func inPieces(t *testing.T, answered bool, f func(near net.Conn, client *collector, v *Conn)) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newDuplex()
		d := newDispatcher(1)
		defer d.Close()
		d.Handle(far)
		var client collector
		go client.collect(near, 4096)
		near.Write(h2.AppendSettings([]byte(http2.ClientPreface)))
		if answered {
			near.Write(h2.AppendPing(nil, [8]byte{}))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		near.Write(h2.AppendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte("\x82\x04\x02/0")))
		c, err := d.all()[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		client.got()
		f(near, &client, c.(*Conn))
		c.Close()
		near.Close()
	})
}

// TestServerPieces has a server write in two pieces, cut anywhere. What can be passed on of the first has reached the
// client when nothing is withheld any more, and all when the second is written.
func TestServerPieces(t *testing.T) {
	t.Parallel()
	ack := h2.AppendSettingsACK(nil)
	before := h2.AppendSettings(nil, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14})
	behind := h2.AppendWindowUpdate(nil, 0, 1000)
	behind = h2.AppendPing(behind, [8]byte{'a'})
	behind = h2.AppendFrame(behind, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0x88})
	behind = h2.AppendWindowUpdate(behind, 1, 1000)
	behind = h2.AppendFrame(behind, http2.FrameData, 0, 1, []byte("content"))
	behind = h2.AppendFrame(behind, http2.FrameData, http2.FlagDataPadded, 1, []byte("\x03content\x00\x00\x00"))
	behind = h2.AppendSettings(behind, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	behind = h2.AppendFrame(behind, 0xee, 0, 0, make([]byte, maxUnknownLen+1))
	behind = h2.AppendFrame(behind, http2.FrameHeaders, http2.FlagHeadersEndStream, 1, []byte{0x40, 1, 'a'})
	behind = h2.AppendFrame(behind, http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1, []byte{1, 'b'})
	written := bytes.Join([][]byte{before, ack, behind}, nil)
	for _, answered := range []bool{false, true} {
		for _, pause := range []time.Duration{0, withholdTime, 2 * withholdTime} {
			t.Run(fmt.Sprintf("answered %t, pause %v", answered, pause), func(t *testing.T) {
				t.Parallel()
				for cut := range len(written) + 1 {
					inPieces(t, answered, func(_ net.Conn, client *collector, v *Conn) {
						want := func(written []byte) []byte {
							b := passed(written)
							if at := len(before); answered && len(b) > at {
								return append(bytes.Clone(b[:at]), b[at+len(ack):]...)
							}
							return b
						}
						v.Write(written[:cut])
						time.Sleep(pause)
						got := client.got()
						if pause >= 2*withholdTime && !bytes.Equal(got, want(written[:cut])) {
							t.Errorf("of the first %d bytes the client has got %q, want %q", cut, got, want(written[:cut]))
						}
						v.Write(written[cut:])
						time.Sleep(2 * withholdTime)
						if got = append(got, client.got()...); !bytes.Equal(got, want(written)) {
							t.Errorf("cut at %d, the client has got %q, want %q", cut, got, want(written))
						}
					})
				}
			})
		}
	}
}

// TestClientPieces has a client write in two pieces, cut anywhere, while its server waits. What can be passed on of the
// first has reached the server before the second is written, into buffers of any size.
func TestClientPieces(t *testing.T) {
	t.Parallel()
	ack := h2.AppendSettingsACK(nil)
	behind := h2.AppendFrame(nil, http2.FrameData, 0, 1, []byte("content"))
	behind = h2.AppendWindowUpdate(behind, 0, 1000)
	behind = h2.AppendPing(behind, [8]byte{'a'})
	behind = h2.AppendWindowUpdate(behind, 1, 1000)
	behind = h2.AppendFrame(behind, http2.FrameData, http2.FlagDataPadded, 1, []byte("\x03content\x00\x00\x00"))
	behind = h2.AppendFrame(behind, 0xee, 0, 0, make([]byte, maxUnknownLen+1))
	behind = h2.AppendFrame(behind, 0xee, 0, 0, []byte("unknown"))
	behind = h2.AppendSettings(behind, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	behind = h2.AppendFrame(behind, http2.FrameHeaders, http2.FlagHeadersEndStream, 3, []byte("\x82\x04"))
	behind = h2.AppendFrame(behind, http2.FrameContinuation, http2.FlagContinuationEndHeaders, 3, []byte("\x02/0"))
	behind = h2.AppendFrame(behind, http2.FrameData, http2.FlagDataEndStream, 1, nil)
	written := bytes.Join([][]byte{ack, ack, behind}, nil) // the first is that of the early SETTINGS
	want := func(written []byte) []byte { return bytes.TrimPrefix(passed(written), ack) }
	for _, size := range []int{1, h2.FrameHeaderLen, 4096} {
		for _, ready := range []bool{false, true} {
			t.Run(fmt.Sprintf("buffers of %d, ReadReady %t", size, ready), func(t *testing.T) {
				t.Parallel()
				for cut := range len(written) + 1 {
					inPieces(t, false, func(near net.Conn, _ *collector, v *Conn) {
						v.Write(append(h2.AppendSettings(nil), ack...))
						var server collector
						var r io.Reader = v
						if ready {
							r = readyConn{v, t}
						}
						go server.collect(r, size)
						time.Sleep(2 * withholdTime)
						server.got()
						near.Write(written[:cut])
						got := server.got()
						if !bytes.Equal(got, want(written[:cut])) {
							t.Errorf("of the first %d bytes the server has got %q, want %q", cut, got, want(written[:cut]))
						}
						near.Write(written[cut:])
						if got = append(got, server.got()...); !bytes.Equal(got, want(written)) {
							t.Errorf("cut at %d, the server has got %q, want %q", cut, got, want(written))
						}
					})
				}
			})
		}
	}
}
