package attack

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport/internal/testenv"
)

// A writer makes the frames of an attacking connection.
type writer struct {
	bytes.Buffer
	*http2.Framer
	kind string // of the requests
}

func (w *writer) block(grpc bool) []byte { return w.blockTo("/s/hang", grpc) }

func (w *writer) blockTo(path string, grpc bool) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	enc.SetMaxDynamicTableSize(0)
	all := []string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", path}
	if grpc {
		all = append(all, "content-type", "application/grpc", "te", "trailers")
	}
	for ; len(all) > 0; all = all[2:] {
		enc.WriteField(hpack.HeaderField{Name: all[0], Value: all[1]})
	}
	return b.Bytes()
}

func (w *writer) request(id uint32, end bool) {
	w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: end, BlockFragment: w.block(w.kind == "grpc")})
}

// Streams from 101 on are those of the attacks.
var attacks = []struct {
	name   string
	frames func(w *writer)
}{
	{"rapid reset", func(w *writer) {
		for id := uint32(101); id < 6101; id += 2 {
			w.request(id, true)
			w.WriteRSTStream(id, http2.ErrCodeCancel)
		}
	}},
	{"MadeYouReset", func(w *writer) {
		for id := uint32(101); id < 6101; id += 2 {
			w.request(id, false)
			w.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
		}
	}},
	{"CONTINUATION flood", func(w *writer) {
		w.WriteHeaders(http2.HeadersFrameParam{StreamID: 101, BlockFragment: w.block(w.kind == "grpc")})
		var b bytes.Buffer
		hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: "x-field", Value: strings.Repeat("~", 1000), Sensitive: true})
		for range 3000 {
			w.WriteContinuation(101, false, b.Bytes())
		}
	}},
	{"HPACK bomb", func(w *writer) {
		var b bytes.Buffer
		b.Write(w.block(w.kind == "grpc"))
		enc := hpack.NewEncoder(&b)
		for range 12_000 {
			enc.WriteField(hpack.HeaderField{Name: "x-field", Value: strings.Repeat("v", 3900)})
		}
		for id := uint32(101); id < 181; id += 2 {
			w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: b.Bytes()})
		}
	}},
	{"PING flood", func(w *writer) {
		for range 30_000 {
			w.WritePing(false, [8]byte{})
		}
	}},
	{"SETTINGS flood", func(w *writer) {
		for range 30_000 {
			w.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 5000})
		}
	}},
	{"PRIORITY flood", func(w *writer) {
		for i := range uint32(30_000) {
			w.WritePriority(101+2*i, http2.PriorityParam{Weight: 3})
		}
	}},
	{"empty DATA flood", func(w *writer) {
		w.request(101, false)
		for range 30_000 {
			w.WriteData(101, false, nil)
		}
	}},
	{"WINDOW_UPDATE flood", func(w *writer) {
		w.request(101, false)
		for range 30_000 {
			w.WriteWindowUpdate(101, 1)
		}
	}},
	{"RST_STREAM flood", func(w *writer) {
		w.request(101, true)
		for range 30_000 {
			w.WriteRSTStream(101, http2.ErrCodeCancel)
		}
	}},
	{"flood of unknown frames", func(w *writer) {
		for range 3000 {
			w.WriteRawFrame(0xfa, 0, 0, make([]byte, 1000))
		}
	}},
	{"GOAWAY flood", func(w *writer) {
		for range 30_000 {
			w.WriteGoAway(0, http2.ErrCodeNo, nil)
		}
	}},
}

// attack makes connections that attack, and returns what the server had to bear for each of them. Good clients are
// served meanwhile.
func attack(t *testing.T, server, kind string, shared bool, conns int, frames func(*writer)) (memory, running float64) {
	s := start(t, server)
	before := s.load()
	good := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if server != "http" {
			cc, err := grpc.NewClient("passthrough:///"+before.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			if _, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
				t.Errorf("a good client: %v", err)
			}
		}
		if server != "grpc" {
			tr := &http.Transport{Protocols: new(http.Protocols)}
			tr.Protocols.SetUnencryptedHTTP2(true)
			defer tr.CloseIdleConnections()
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+before.Addr+"/", nil)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Errorf("a good client: %v", err)
				return
			}
			resp.Body.Close()
		}
	}
	good()
	before = s.load()

	other := map[string]string{"grpc": "http", "http": "grpc"}[kind]
	w := &writer{kind: kind}
	w.Framer = http2.NewFramer(&w.Buffer, nil)
	w.AllowIllegalWrites = true
	w.WriteString(http2.ClientPreface)
	w.WriteSettings()
	w.request(1, false)
	if shared {
		w.kind = other
		w.request(3, false)
		w.kind = kind
	}
	frames(w)
	w.WritePing(false, lastPing)
	var open sync.WaitGroup
	all := make([]net.Conn, conns)
	for i := range all {
		c, err := net.Dial("tcp", before.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		all[i] = c
		open.Go(func() {
			c.SetDeadline(time.Now().Add(2 * time.Second))
			if i%2 == 0 {
				open.Go(func() { awaitLast(c) })
			} else { // does not read, and so can come to write no more
				c.SetDeadline(time.Now().Add(time.Second / 2))
			}
			c.Write(w.Bytes())
		})
	}
	open.Wait()
	good()
	after := s.load()
	return max(0, float64(after.Memory-before.Memory)) / float64(conns), float64(after.Running) / float64(conns)
}

// lastPing ends an attack.
var lastPing = [8]byte{'t', 'h', 'e', ' ', 'e', 'n', 'd'}

// awaitLast reads until the server has answered lastPing, or the connection has ended.
func awaitLast(c net.Conn) {
	for fr := http2.NewFramer(nil, c); ; {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if p, ok := f.(*http2.PingFrame); ok && p.Data == lastPing {
			return
		}
	}
}

// TestAttacks compares. ONEPORT_ATTACK_CONNS is how many connections attack.
func TestAttacks(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("with the race detector a process takes other memory, and time")
	}
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("the resident size of a process is not known here")
	}
	conns, err := strconv.Atoi(os.Getenv("ONEPORT_ATTACK_CONNS"))
	if err != nil {
		t.Skip("it takes a minute and wants the machine for itself: set ONEPORT_ATTACK_CONNS, say to 40, as .ci/run does")
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			// What a server takes varies with how many of its goroutines run at a time: the most of it counts alone, and of
			// three attempts one has to be within the bounds.
			alone := make(map[string]float64)
			running := make(map[string]float64)
			bare := func() {
				for _, kind := range []string{"grpc", "http"} {
					memory, n := attack(t, kind, kind, false, conns, a.frames)
					alone[kind], running[kind] = max(alone[kind], memory), max(running[kind], n)
				}
			}
			bare()
			for _, kind := range []string{"grpc", "http"} {
				for _, shared := range []bool{false, true} {
					for attempt := 1; ; attempt++ {
						memory, n := attack(t, "oneport", kind, shared, conns, a.frames)
						both, handlers := alone["grpc"]+alone["http"], running[kind]
						if shared {
							handlers++ // of stream 3
						}
						t.Logf("%s, shared %t: %.0f KiB, both servers alone %.0f KiB; %.1f handlers, alone %.1f", kind, shared,
							memory/1024, both/1024, n, handlers)
						tooMany := n > 1.5*handlers+10 // how many run at a time varies with the machine's load
						tooMuch := memory > 1.5*both+noise/float64(conns)
						if !tooMany && !tooMuch {
							break
						}
						if attempt < 3 {
							bare()
							continue
						}
						if tooMany {
							t.Errorf("%.1f handlers run for each connection, alone %.1f", n, handlers)
						}
						if tooMuch {
							t.Errorf("%.0f KiB for each connection, and both servers alone take %.0f KiB", memory/1024, both/1024)
						}
						break
					}
				}
			}
		})
	}
}

// noise is by how much the resident size of a process changes without a reason.
const noise = 6 << 20
