package dispatch

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// What a connection keeps after much has passed is as little as before.
func TestKept(t *testing.T) {
	long := strings.Repeat("v", 100_000)
	many := []string{":method", "GET", ":path", "/0"}
	for range 3000 {
		many = append(many, "accept", "")
	}
	for _, tt := range []struct {
		name string
		send func(w *world, a *end)
	}{
		{"request with a long value", func(w *world, a *end) { w.client.headers(5, true, ":method", "GET", ":path", "/0", "x-field", long) }},
		{"request with many fields", func(w *world, a *end) { w.client.headers(5, true, many...) }},
		{"trailers with a long value", func(w *world, a *end) { w.client.headers(1, true, "x-field", long) }},
		{"header block in pieces", func(w *world, a *end) {
			b := w.client.block(":method", "GET", ":path", "/0", "x-field", long)
			w.client.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, EndStream: true, BlockFragment: b[:1000]})
			for b = b[1000:]; len(b) > 5000; b = b[5000:] {
				w.client.fr.WriteContinuation(5, false, b[:5000])
			}
			w.client.fr.WriteContinuation(5, true, b)
		}},
		{"answer with a long value", func(w *world, a *end) { a.headers(1, false, ":status", "200", "x-field", long) }},
		{"long answer", func(w *world, a *end) {
			w.client.fr.WriteWindowUpdate(0, 1<<20)
			w.client.fr.WriteWindowUpdate(1, 1<<20)
			a.headers(1, false, ":status", "200")
			for range 10 {
				synctest.Wait()
				a.fr.WriteData(1, false, make([]byte, 16_000))
			}
		}},
		{"long answer that is queued", func(w *world, a *end) {
			w.client.fr.WriteWindowUpdate(1, 1<<20)
			a.headers(1, false, ":status", "200")
			for range 8 {
				synctest.Wait()
				a.fr.WriteData(1, false, make([]byte, 16_000))
			}
			w.client.got()
			w.client.fr.WriteWindowUpdate(0, 1<<20)
		}},
		{"long request", func(w *world, a *end) {
			for range 4 {
				w.client.fr.WriteData(1, false, make([]byte, 16_000))
			}
		}},
		{"many streams", func(w *world, a *end) {
			for id := uint32(5); id < 1600; id += 2 {
				w.client.request(id, "0", false)
			}
			w.client.got()
			for id := uint32(1); id < 1600; id += 2 {
				w.client.fr.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		}},
	} {
		for _, mode := range []string{"passing", "shared"} {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				inWorld(t, newDispatcher(2), func(w *world) {
					var a *end
					if mode == "shared" {
						var b *end
						a, b = w.shared()
						defer b.close()
					} else {
						w.client.request(1, "0", false)
						a = w.accept(0, "HEADERS 1 :method=GET :path=/0")
					}
					defer a.close()
					tt.send(w, a)
					w.client.got()
					a.got()
					v := a.conn.(*Conn)
					c := v.c
					c.mu.Lock()
					defer c.mu.Unlock()
					c.fillIn(v)
					for what, n := range map[string]int{
						"the client's blocks": cap(c.in.joined), "blocks for the client": c.enc.buf.Cap(), "the server's blocks": cap(v.out.joined),
						"blocks for the server": v.enc.buf.Cap(), "frames for the client": cap(c.out) + cap(c.spare) + cap(c.raw),
						"frames for the server": cap(v.in.b), "what the server has written in part": cap(v.held), "what the client has": cap(v.buf),
						"the client's last block": c.dec.block, "the server's last block": v.dec.block,
					} {
						if n > 2*maxKept {
							t.Errorf("%s: %d bytes", what, n)
						}
					}
					if c.dec.list != nil || v.dec.list != nil || cap(c.streams) > keptStreams || cap(c.passed.places) > keptPlaces {
						t.Errorf("lists %v and %v, %d and %d streams", c.dec.list, v.dec.list, cap(c.streams), cap(c.passed.places))
					}
				})
			})
		}
	}
}

// The parts of a header block are looked at once, however late the last of it comes.
func TestBlockIsJoinedOnce(t *testing.T) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("abc")})
	fr.WriteContinuation(1, false, []byte("def"))
	whole := b.Len()
	fr.WriteContinuation(1, true, []byte("ghi"))
	fr.WritePing(false, [8]byte{})
	p := parser{from: h2.FromClient, maxFrame: h2.DefaultMaxFrameSize, maxBlock: 100, maxContinuations: 10}
	flight := b.Bytes()
	var it item
	for n := range whole + 1 {
		if taken, err := p.next(&it, flight[:n]); taken != 0 || err != nil {
			t.Fatal(n, taken, err)
		}
	}
	clear(flight[h2.FrameHeaderLen:whole])
	n, err := p.next(&it, flight)
	if err != nil || string(it.payload) != "abcdefghi" || n != whole+h2.FrameHeaderLen+3 {
		t.Errorf("%q of %d bytes, %v", it.payload, n, err)
	}
	if _, err := p.next(&it, flight[n:]); err != nil || it.Type != http2.FramePing {
		t.Errorf("then %v, %v", it.FrameHeader, err)
	}
}

// A client that sends SETTINGS, and does not read, so that servers cannot acknowledge them, is not kept for ever.
func TestUnacknowledgedSettings(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared()
		defer a.close()
		defer b.close()
		for i := range uint32(maxUnacknowledged) {
			w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: i})
		}
		w.client.want()
		w.client.fr.WriteSettings()
		lines := w.client.got()
		if len(lines) != 1 || !strings.Contains(lines[0], "ENHANCE_YOUR_CALM too many SETTINGS frames") {
			t.Errorf("%q", lines)
		}
		w.client.wantEnd()
	})
}

// The one that reads moves what it has not taken as seldom as it can.
func TestMakeRoom(t *testing.T) {
	buffer := func(length, capacity int) []byte { return make([]byte, length, capacity) }
	for _, tt := range []struct {
		name          string
		b             []byte
		taken         int
		length, space int
		moved         bool
	}{
		{"small", buffer(10, 10), 0, 10, readBuffer, true},
		{"all taken", buffer(readBuffer, readBuffer), readBuffer, 0, readBuffer, true},
		{"none taken", buffer(1000, readBuffer), 0, 1000, readBuffer, false},
		{"some taken", buffer(1000, readBuffer), 500, 500, readBuffer, true},
		{"full", buffer(readBuffer, readBuffer), 0, readBuffer, 2 * readBuffer, true},
		{"large", buffer(100_000, 200_000), 0, 100_000, 200_000, false},
		{"large no more", buffer(100_000, 200_000), 99_000, 1000, readBuffer, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := makeRoom(tt.b, tt.b[tt.taken:])
			if len(got) != tt.length || cap(got) != tt.space || len(got) == cap(got) {
				t.Errorf("%d of %d bytes", len(got), cap(got))
			}
			if !tt.moved && &got[0] != &tt.b[0] {
				t.Error("moved")
			}
		})
	}
}

// Trailers that are held behind content are bounded as that is: few bytes can be many fields.
func TestHeldTrailers(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared() // neither gives credit
		defer a.close()
		defer b.close()
		w.client.fr.WriteData(3, false, make([]byte, 16_000))
		for range 4 {
			w.client.fr.WriteData(1, false, make([]byte, 12_000)) // with stream 3, more than a's window
		}
		var fields []string
		for range 500 {
			fields = append(fields, "accept-encoding", "gzip, deflate") // a byte
		}
		for id := uint32(5); id < 45; id += 2 {
			w.client.request(id, "1", false)
			w.client.fr.WriteData(id, false, make([]byte, 4000))
		}
		for id := uint32(5); id < 45; id += 2 {
			w.client.headers(id, true, fields...)
		}
		reset := 0
		for _, line := range w.client.got() {
			if strings.HasSuffix(line, " ENHANCE_YOUR_CALM") {
				reset++
			}
		}
		v := b.conn.(*Conn)
		v.c.mu.Lock()
		if n := v.uploadServer.trailers; reset == 0 || n == 0 || n > int64(w.d.Limits.MaxBuffered) {
			t.Errorf("trailers of %d bytes are held, and %d streams were reset", n, reset)
		}
		v.c.mu.Unlock()
		invariants(t, v.c)
		b.fr.WriteWindowUpdate(0, 1<<20)
		b.got()
		invariants(t, v.c)
		if n := v.uploadServer.trailers; n != 0 {
			t.Errorf("trailers of %d bytes are still held", n)
		}
	})
}

// What is held for a client, or for a server, that gives no credit is bounded as the heap has it, in however small
// pieces it comes. The test is not parallel, so that the heap is its own.
func TestHeldInSmallPieces(t *testing.T) {
	const streams = 500
	var fields []string
	for range 50 {
		fields = append(fields, "accept-encoding", "gzip, deflate") // a byte each
	}
	for _, tt := range []struct {
		name    string
		up      bool // from the client to a server
		streams int
		frames  int // on each stream
		content string
		block   bool // trailers behind that
	}{
		{name: "a byte at a time", streams: 1, frames: 2 << 20, content: "x"},
		{name: "messages of gRPC", streams: 1, frames: 1 << 20, content: "\x00\x00\x00\x00\x00"},
		{name: "many streams", streams: streams, frames: 4 << 10, content: "x"},
		{name: "trailers", streams: streams, frames: 1, content: "x", block: true},
		{name: "a byte at a time", up: true, streams: 1, frames: 60_000, content: "x"},
		{name: "many streams", up: true, streams: streams, frames: 1800, content: "x"},
		{name: "trailers", up: true, streams: streams, frames: 1, content: "x", block: true},
	} {
		t.Run(fmt.Sprintf("%s/up %t", tt.name, tt.up), func(t *testing.T) {
			d := newDispatcher(2)
			d.Limits.MaxBuffered = 1 << 20
			inWorld(t, d, func(w *world) {
				a, b := w.shared()
				defer a.close()
				defer b.close()
				w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: h2.MaxWindow})
				w.client.got()
				a.fr.WriteSettingsAck()
				b.fr.WriteSettingsAck()
				from := a
				if tt.up {
					from = w.client
				}
				for i := range uint32(tt.streams) {
					w.client.request(5+2*i, "0", false)
				}
				a.got()
				if !tt.up {
					for i := range uint32(tt.streams) {
						a.headers(5+2*i, false, ":status", "200")
					}
				}
				for _, n := range []int{16_000, 16_000, 16_000, 16_000, 1535} { // all that the other end takes
					from.fr.WriteData(1, false, make([]byte, n))
				}
				a.got()
				w.client.got()

				before := heapInUse()
				done := make(chan struct{})
				go func() {
					defer close(done)
					var flight bytes.Buffer
					fr := http2.NewFramer(&flight, nil)
					for i := range tt.frames {
						for id := uint32(5); id < 5+2*uint32(tt.streams); id += 2 {
							fr.WriteData(id, false, []byte(tt.content))
							if tt.block && i == tt.frames-1 {
								fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: from.block(fields...)})
							}
							if flight.Len() < 1000 {
								continue
							}
							if _, err := from.conn.Write(flight.Bytes()); err != nil {
								return
							}
							flight.Reset()
						}
					}
					from.conn.Write(flight.Bytes())
				}()
				synctest.Wait()
				held := heapInUse() - before
				v := a.conn.(*Conn)
				v.c.mu.Lock()
				known := v.memory + v.uploadServer.held + v.uploadServer.trailers
				v.c.mu.Unlock()
				if known == 0 {
					t.Error("nothing is held")
				}
				if held > 2*d.Limits.MaxBuffered {
					t.Errorf("%d bytes are held, %d by the accounts", held, known)
				}
				a.conn.Close()
				w.client.conn.Close()
				<-done
			})
		})
	}
}

// heapInUse returns how much is in use.
func heapInUse() int {
	runtime.GC()
	runtime.GC() // for what is left in pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
