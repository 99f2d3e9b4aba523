package h2open

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

var (
	early = h2.AppendSettings(nil, http2.Setting{ID: http2.SettingNoRFC7540Priorities, Val: 1})
	start = time.Unix(1_000_000, 0)
)

// frames are those that clients send here, by name.
var frames = map[string]string{
	"preface":        h2.Preface,
	"SETTINGS":       string(h2.AppendSettings(nil)),
	"SETTINGS+":      string(h2.AppendSettings(nil, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})),
	"ACK":            string(h2.AppendSettingsACK(nil)),
	"PING 1":         string(h2.AppendPing(nil, [8]byte{1})),
	"PING 2":         string(h2.AppendPing(nil, [8]byte{2})),
	"PING ACK":       string(h2.AppendPingACK(nil, [8]byte{3})),
	"WINDOW_UPDATE":  string(h2.AppendWindowUpdate(nil, 0, 1)),
	"HEADERS":        string(h2.AppendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0x83, 0x86, 0x84})),
	"HEADERS...":     string(h2.AppendFrame(nil, http2.FrameHeaders, 0, 1, []byte{0x83, 0x86})),
	"CONTINUATION":   string(h2.AppendFrame(nil, http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1, []byte{0x84})),
	"HEADERS header": "\x00\x00\x03\x01\x04\x00\x00\x00\x01", // a frame header without a payload
	"HTTP/1":         "GET / HTTP/1.1\r\n\r\n",
	"":               "",
}

// named returns the bytes of frames, separated by commas.
func named(t testing.TB, names string) (b []byte) {
	t.Helper()
	for name := range strings.SplitSeq(names, ", ") {
		frame, ok := frames[name]
		if !ok {
			t.Fatalf("no frame is called %q", name)
		}
		b = append(b, frame...)
	}
	return b
}

// words names the frames that b consists of, which must be whole ones.
func words(t testing.TB, b []byte) string {
	t.Helper()
	var list []string
	fr := http2.NewFramer(nil, bytes.NewReader(b))
	for {
		f, err := fr.ReadFrame()
		switch f := f.(type) {
		case nil:
			if rest := fmt.Sprint(err); rest != "EOF" {
				t.Fatalf("%x is not a number of frames: %v", b, err)
			}
			return strings.Join(list, ", ")
		case *http2.SettingsFrame:
			if f.IsAck() {
				list = append(list, "ACK")
			} else if f.NumSettings() == 1 {
				list = append(list, "early")
			} else {
				t.Fatalf("unexpected %v", f)
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				t.Fatalf("unexpected %v", f)
			}
			list = append(list, fmt.Sprintf("PING ACK %d", f.Data[0]))
		default:
			t.Fatalf("unexpected %v", f)
		}
	}
}

// An opened is an Opening with what has come.
type opened struct {
	Opening
	parser h2.Parser
	data   []byte
}

func newOpened(configure func(*h2.Parser)) *opened {
	o := new(opened)
	o.Parser = &o.parser
	if configure != nil {
		configure(&o.parser)
	}
	return o
}

// receive does what a mux does when bytes have come, or when the time to wake has. It returns what is to be written.
func (o *opened) receive(b []byte, now time.Time) []byte {
	o.data = append(o.data, b...)
	if o.parser.Parse(o.data) != h2.Incomplete {
		return nil
	}
	o.Advance(now)
	return o.Append(nil, early, now)
}

func TestOpening(t *testing.T) {
	t.Parallel()
	const never = -1
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	type step struct {
		at   int // milliseconds after the start
		recv string
		send string
		wake int // milliseconds after the start, or never
	}
	for _, tt := range []struct {
		name     string
		declined bool // from the start
		optional bool // SETTINGS
		steps    []step
		state    h2.State
		acks     int
		pings    int
	}{
		{"strict client", false, false, []step{
			{0, "preface, SETTINGS, WINDOW_UPDATE", "early", never},
			{10, "ACK, HEADERS", "", never},
		}, h2.Complete, 0, 0},
		{"strict client, request later than its ACK", false, false, []step{
			{0, "preface, SETTINGS", "early", never},
			{10, "ACK", "", 510},
			{509, "HEADERS", "", 510},
		}, h2.Complete, 0, 0},
		{"preface alone is enough to speak", false, false, []step{
			{0, "preface", "early", never},
			{10, "SETTINGS", "", never},
			{20, "ACK, HEADERS", "", never},
		}, h2.Complete, 0, 0},
		{"request at once", false, false, []step{
			{0, "preface, SETTINGS, WINDOW_UPDATE, HEADERS", "", never},
		}, h2.Complete, 0, 0},
		{"not HTTP/2", false, false, []step{
			{0, "HTTP/1", "", never},
		}, h2.NotHTTP2, 0, 0},
		{"a request has begun: the client does not wait", false, false, []step{
			{0, "preface, SETTINGS, HEADERS header", "", never},
		}, h2.Incomplete, 0, 0},
		{"a header block in two frames", false, false, []step{
			{0, "preface, SETTINGS, HEADERS...", "", never},
			{5, "CONTINUATION", "", never},
		}, h2.Complete, 0, 0},
		{"idle", false, false, []step{
			{0, "preface, SETTINGS", "early", never},
			{10, "ACK", "", 510},
			{400, "WINDOW_UPDATE", "", 510},
			{510, "", "ACK", never},
			{700, "PING 1", "PING ACK 1", never},
			{800, "SETTINGS+", "ACK", never},
			{900, "PING 2, SETTINGS, PING 1", "ACK, PING ACK 2, PING ACK 1", never},
			{1000, "WINDOW_UPDATE", "", never},
			{2000, "HEADERS", "", never},
		}, h2.Complete, 3, 3},
		{"PING before the request", false, false, []step{
			{0, "preface, SETTINGS", "early", never},
			{10, "ACK, PING 1", "ACK, PING ACK 1", never},
			{20, "HEADERS", "", never},
		}, h2.Complete, 1, 1},
		{"PING with the first flight", false, false, []step{
			{0, "preface, SETTINGS, PING 1", "early, ACK, PING ACK 1", never},
			{20, "ACK, HEADERS", "", never},
		}, h2.Complete, 1, 1},
		{"SETTINGS twice", false, false, []step{
			{0, "preface, SETTINGS, SETTINGS+", "early, ACK, ACK", never},
			{20, "ACK", "", never},
		}, h2.Incomplete, 2, 0},
		{"PING behind the beginning of a request", false, false, []step{
			{0, "preface, SETTINGS", "early", never},
			{10, "ACK, PING 1, HEADERS header", "", 510},
		}, h2.Incomplete, 0, 0},
		{"stand-in while a request is under way", false, false, []step{
			{0, "preface, SETTINGS", "early", never},
			{10, "ACK, HEADERS...", "", never},
			{600, "", "", never},
		}, h2.Incomplete, 0, 0},
		{"without ACK there is no idling", false, false, []step{
			{0, "preface, SETTINGS", "early", never},
			{5000, "", "", never},
			{6000, "WINDOW_UPDATE", "", never},
			{7000, "PING 1", "ACK, PING ACK 1", never},
			{8000, "ACK", "", never},
		}, h2.Incomplete, 1, 1},
		{"the ACK of a PING is no PING", false, false, []step{
			{0, "preface, SETTINGS", "early", never},
			{10, "PING ACK", "", never},
		}, h2.Incomplete, 0, 0},
		{"declined", true, false, []step{
			{0, "preface, SETTINGS", "", 500},
			{10, "PING 1, SETTINGS", "", 500},
			{500, "", "", never},
			{600, "PING 2", "", never},
		}, h2.Incomplete, 0, 0},
		{"declined, then a request", true, false, []step{
			{0, "preface, SETTINGS", "", 500},
			{100, "HEADERS", "", 500},
		}, h2.Complete, 0, 0},
		{"without SETTINGS", false, false, []step{
			{0, "preface", "early", never},
			{10, "WINDOW_UPDATE", "", never},
		}, h2.Error, 0, 0},
		{"without SETTINGS, which may be missing", false, true, []step{
			{0, "preface, WINDOW_UPDATE", "early", never},
			{10, "ACK", "", 510},
			{510, "", "", never},
			{520, "PING 1", "PING ACK 1", never},
			{530, "SETTINGS", "ACK", never},
			{540, "HEADERS", "", never},
		}, h2.Complete, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOpened(func(p *h2.Parser) { p.SettingsOptional = tt.optional })
			o.Declined = tt.declined
			for _, s := range tt.steps {
				now := start.Add(ms(s.at))
				if got := words(t, o.receive(named(t, s.recv), now)); got != s.send {
					t.Errorf("at %d, after %q: sent %q, want %q", s.at, s.recv, got, s.send)
				}
				if o.parser.State() != h2.Incomplete {
					continue
				}
				want := time.Time{}
				if s.wake != never {
					want = start.Add(ms(s.wake))
				}
				if s.wake != never && o.parser.Requesting() && !o.Declined {
					want = time.Time{} // nothing will be said any more
				}
				if got := o.Wake(now); !got.Equal(want) {
					t.Errorf("at %d, after %q: to be woken at %v, want %v", s.at, s.recv, got.Sub(start), want.Sub(start))
				}
			}
			if o.parser.State() != tt.state {
				t.Errorf("in the end the state is %v, want %v", o.parser.State(), tt.state)
			}
			if o.Acknowledged() != tt.acks || o.Answered() != tt.pings {
				t.Errorf("%d SETTINGS and %d PING were answered, want %d and %d", o.Acknowledged(), o.Answered(), tt.acks, tt.pings)
			}
		})
	}
}

// TestPrefaceByte checks that nothing is said before the preface is complete, wherever it is cut.
func TestPrefaceByte(t *testing.T) {
	t.Parallel()
	o := newOpened(nil)
	for i := range len(h2.Preface) {
		got := words(t, o.receive([]byte{h2.Preface[i]}, start))
		if want := i == len(h2.Preface)-1; (got == "early") != want || got != "" && !want {
			t.Fatalf("after %d bytes: sent %q", i+1, got)
		}
	}
}

// TestRested checks the time at which a client has rested, for the two that can.
func TestRested(t *testing.T) {
	t.Parallel()
	for _, declined := range []bool{false, true} {
		o := newOpened(nil)
		o.Declined = declined
		flight := "preface, SETTINGS"
		if !declined {
			o.receive(named(t, flight), start)
			flight = "ACK"
		}
		if o.Rested(start.Add(time.Hour)) {
			t.Errorf("declined %v: rested before it began to", declined)
		}
		o.receive(named(t, flight), start)
		if o.Ready() == declined {
			t.Errorf("declined %v: ready %v", declined, o.Ready())
		}
		o.Advance(start.Add(time.Second)) // which begins nothing anew
		for after, want := range map[time.Duration]bool{0: false, RestTime - 1: false, RestTime: true, time.Hour: true} {
			if got := o.Rested(start.Add(after)); got != want {
				t.Errorf("declined %v: rested after %v: %v", declined, after, got)
			}
		}
	}
}

// A client of the model is what a peer sees of an Opening, and what it may complain about.
type client struct {
	t     testing.TB
	early int
	acks  int
	pings [][8]byte
}

// read takes in what was written to the client, which has sent what p has seen.
func (c *client) read(b []byte, p *h2.Parser, declined bool) {
	c.t.Helper()
	if len(b) > 0 && (declined || p.Requesting() || p.State() != h2.Incomplete || !p.PrefaceSeen()) {
		c.t.Fatalf("%s was written: declined %v, requesting %v, %v", words(c.t, b), declined, p.Requesting(), p.State())
	}
	fr := http2.NewFramer(nil, bytes.NewReader(b))
	for read := 0; read < len(b); {
		f, err := fr.ReadFrame()
		if err != nil {
			c.t.Fatalf("%x: %v", b, err)
		}
		read += h2.FrameHeaderLen + int(f.Header().Length)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				c.acks++
			} else {
				c.early++
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.t.Fatal("the client was sent a PING")
			}
			c.pings = append(c.pings, f.Data)
		default:
			c.t.Fatalf("the client was sent %v", f)
		}
		if c.early != 1 {
			c.t.Fatalf("the client was sent %d early SETTINGS, want them once and first", c.early)
		}
	}
	if c.acks > p.SettingsFrames() {
		c.t.Fatalf("%d acknowledgements were sent for %d SETTINGS", c.acks, p.SettingsFrames())
	}
	if n := len(c.pings); n > len(p.Pings()) || !slices.Equal(c.pings, p.Pings()[:n]) {
		c.t.Fatalf("PINGs %x were answered with %x", p.Pings(), c.pings)
	}
}

// check compares what the client was sent with what the Opening says of it. What it says was not answered, a server
// answers, to which the rest goes.
func (c *client) check(o *opened) {
	c.t.Helper()
	if o.Early() != (c.early == 1) || o.Acknowledged() != c.acks || o.Answered() != len(c.pings) {
		c.t.Fatalf("early %v, %d acknowledged, %d answered; the client was sent %d, %d and %d",
			o.Early(), o.Acknowledged(), o.Answered(), c.early, c.acks, len(c.pings))
	}
}

// TestModel runs random clients, whose bytes come in random pieces at random times.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5000) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		o := newOpened(nil)
		o.parser.SettingsOptional = rnd.IntN(4) == 0
		c := &client{t: t}
		now := start
		var log []string
		t.Cleanup(func() {
			if t.Failed() && log != nil {
				t.Logf("seed %d:\n%s", seed, strings.Join(log, "\n"))
			}
		})

		// What the client sends: without the early SETTINGS no ACK.
		script := []string{"preface"}
		if !o.parser.SettingsOptional || rnd.IntN(2) == 0 {
			script = append(script, []string{"SETTINGS", "SETTINGS+"}[rnd.IntN(2)])
		}
		for range rnd.IntN(8) {
			script = append(script, []string{"WINDOW_UPDATE", "PING 1", "PING 2", "PING ACK", "SETTINGS", "SETTINGS+"}[rnd.IntN(6)])
		}
		acked := rnd.IntN(4) == 0 // it never acknowledges
		declined := rnd.IntN(8) == 0
		switch rnd.IntN(4) {
		case 0:
		case 1:
			script = append(script, "HEADERS...", "CONTINUATION")
		default:
			script = append(script, "HEADERS")
		}
		whole := len(script)
		var rest []byte
		for len(rest) > 0 || len(script) > 0 {
			for len(rest) == 0 || len(script) > 0 && rnd.IntN(3) == 0 {
				if settled := len(script) < whole-1; settled && !acked && c.early == 1 && script[0] != "CONTINUATION" && rnd.IntN(2) == 0 {
					acked = true
					rest = append(rest, frames["ACK"]...)
					continue
				}
				rest = append(rest, frames[script[0]]...)
				if script = script[1:]; len(script) == 0 {
					break
				}
			}
			// Some time passes, in which the Opening may want to be woken.
			next := now.Add(time.Duration(rnd.IntN(4)*rnd.IntN(400)) * time.Millisecond)
			for wake := o.Wake(now); !wake.IsZero() && !wake.After(next); wake = o.Wake(now) {
				if !wake.After(now) {
					t.Fatal("to be woken in the past")
				}
				now = wake
				log = append(log, fmt.Sprintf("%v: woken", now.Sub(start)))
				c.read(o.receive(nil, now), &o.parser, declined)
			}
			now = next
			n := 1 + rnd.IntN(len(rest))
			log = append(log, fmt.Sprintf("%v: %x", now.Sub(start), rest[:n]))
			o.Declined = declined
			out := o.receive(rest[:n], now)
			rest = rest[n:]
			c.read(out, &o.parser, declined)
			c.check(o)
			if o.parser.State() == h2.Error {
				t.Fatal(o.parser.Err())
			}
			p := &o.parser
			if p.State() != h2.Incomplete || !p.PrefaceSeen() || p.Requesting() || declined {
				continue
			}
			if c.early != 1 {
				t.Fatal("the client may be waiting for SETTINGS")
			}
			if c.acks > 0 && (c.acks != p.SettingsFrames() || len(c.pings) != len(p.Pings())) {
				t.Fatal("a client that was stood in for has to wait")
			}
			if len(p.Pings()) != len(c.pings) {
				t.Fatal("a client waits for the answer to PING")
			}
		}
		if o.parser.State() != h2.Incomplete || declined || o.parser.Requesting() {
			log = nil
			continue
		}
		// It makes no request. If its connection is ready it lacks nothing in the end.
		for wake := o.Wake(now); !wake.IsZero(); wake = o.Wake(now) {
			now = wake
			c.read(o.receive(nil, now), &o.parser, declined)
		}
		c.check(o)
		if acked := o.parser.Acknowledged(); o.Ready() != acked || acked && c.acks != o.parser.SettingsFrames() {
			t.Fatalf("ready %v, %d acknowledged, %d SETTINGS", o.Ready(), c.acks, o.parser.SettingsFrames())
		}
		log = nil
	}
}

// FuzzOpening has whatever bytes come in whatever pieces. Each byte of cuts is the length of a piece, and how long it
// takes to come.
func FuzzOpening(f *testing.F) {
	captures, err := filepath.Glob("../../testdata/captures/*.bin")
	if err != nil || len(captures) == 0 {
		f.Fatal(captures, err)
	}
	for _, name := range captures {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if first, ok := strings.CutSuffix(name, ".1.bin"); ok {
			if second, err := os.ReadFile(first + ".2.bin"); err == nil {
				f.Add(append(slices.Clone(b), second...), []byte{byte(min(len(b), 255)), 255}, false)
			}
		}
		f.Add(b, []byte{1, 40}, false)
		f.Add(b, []byte{}, true)
	}
	f.Add(named(f, "preface, SETTINGS, ACK, PING 1, SETTINGS+, HEADERS..., CONTINUATION"), []byte{24, 9, 9, 200}, false)
	f.Fuzz(func(t *testing.T, data, cuts []byte, declined bool) {
		o := newOpened(nil)
		c := &client{t: t}
		now := start
		for rest := data; ; {
			n := len(rest)
			if len(cuts) > 0 {
				n = min(n, int(cuts[0]))
				now = now.Add(time.Duration(cuts[0]) * 10 * time.Millisecond)
				cuts = cuts[1:]
			}
			o.Declined = declined
			c.read(o.receive(rest[:n], now), &o.parser, declined)
			c.check(o)
			if wake := o.Wake(now); !wake.IsZero() && !wake.After(now) {
				t.Fatal("to be woken in the past")
			}
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		if c.acks > 0 && !declined && o.parser.State() == h2.Incomplete && !o.parser.Requesting() && c.acks != o.parser.SettingsFrames() {
			t.Fatalf("%d of %d SETTINGS were acknowledged", c.acks, o.parser.SettingsFrames())
		}
		// The pieces change nothing about what the bytes are.
		var whole h2.Parser
		if state := whole.Parse(data); state != o.parser.State() {
			t.Fatalf("in pieces %v, whole %v", o.parser.State(), state)
		}
	})
}
