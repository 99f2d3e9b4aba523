package h2upgrade

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/http1"
)

var captures = []string{"curl-h2c-upgrade", "curl-h2c-upgrade-post", "nghttp-h2c-upgrade"}

// capture returns the request that a real client sent.
func capture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("../../testdata/captures/" + name + ".1.bin")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// upgrade returns a request with what every upgrade needs, and the lines.
func upgrade(lines ...string) string {
	const needed = "Host: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
	return "GET /p?q HTTP/1.1\r\n" + needed + strings.Join(append(lines, "\r\n"), "\r\n")
}

// check parses and checks a request whose head is complete.
func check(t testing.TB, data []byte) (*Request, error) {
	t.Helper()
	var p http1.Parser
	if state := p.Parse(data); state != http1.Complete {
		t.Fatalf("state %v of the head %q, %v", state, data, p.Err())
	}
	return Check(data, &p)
}

func mustCheck(t testing.TB, data []byte) *Request {
	t.Helper()
	r, err := check(t, data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// flight returns the client's preface and its SETTINGS frame.
func flight(settings ...http2.Setting) []byte {
	return h2.AppendSettings([]byte(h2.Preface), settings...)
}

// clientSettings are partly those of HTTP2-Settings, as real clients' are.
var clientSettings = []http2.Setting{{ID: http2.SettingEnablePush, Val: 0}, {ID: http2.SettingInitialWindowSize, Val: 1 << 20}}

// translated is what a server reads.
type translated struct {
	Settings  []http2.Setting
	Fields    []hpack.HeaderField
	Content   string
	Frames    []http2.FrameType
	EndStream int // how many frames have the flag
}

// read reads a translation with the frame reader and the header decoder of golang.org/x/net.
func read(t testing.TB, first []byte) translated {
	t.Helper()
	rest, ok := bytes.CutPrefix(first, []byte(h2.Preface))
	if !ok {
		t.Fatalf("no preface in %q", first)
	}
	fr := http2.NewFramer(io.Discard, bytes.NewReader(rest))
	fr.SetMaxReadFrameSize(h2.DefaultMaxFrameSize)
	var got translated
	var block []byte
	for {
		f, err := fr.ReadFrame()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		h := f.Header()
		got.Frames = append(got.Frames, h.Type)
		if got.EndStream > 0 && h.Type != http2.FrameContinuation {
			t.Errorf("%v after the end of the stream", h)
		}
		if h.Type != http2.FrameSettings && h.StreamID != 1 {
			t.Errorf("%v on another stream than 1", h)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			f.ForeachSetting(func(s http2.Setting) error { got.Settings = append(got.Settings, s); return nil })
		case *http2.HeadersFrame:
			block = append(block, f.HeaderBlockFragment()...)
			if f.StreamEnded() {
				got.EndStream++
			}
		case *http2.ContinuationFrame:
			block = append(block, f.HeaderBlockFragment()...)
		case *http2.DataFrame:
			got.Content += string(f.Data())
			if f.StreamEnded() {
				got.EndStream++
			}
		default:
			t.Errorf("unexpected %v", h)
		}
	}
	dec := hpack.NewDecoder(4096, nil)
	fields, err := dec.DecodeFull(block)
	if err != nil {
		t.Fatal(err)
	}
	got.Fields = fields
	if got.EndStream != 1 {
		t.Errorf("%d frames end the stream", got.EndStream)
	}
	// What nothing was added to has no entry 62 (RFC 7541, Section 2.3.3).
	if _, err := dec.DecodeFull([]byte{0x80 | 62}); err == nil {
		t.Error("the decoder's dynamic table has an entry")
	}
	return got
}

// TestCaptures follows real clients with every end of the data, each new to the request and as one more byte.
func TestCaptures(t *testing.T) {
	t.Parallel()
	for _, name := range captures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := capture(t, name)
			const behind = "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01" // a WINDOW_UPDATE frame
			data := append(bytes.Clone(request), flight(clientSettings...)...)
			end := len(data)
			data = append(data, behind...)

			grown := mustCheck(t, request)
			if grown.Len() != len(request) {
				t.Fatalf("the request has %d bytes, want %d", grown.Len(), len(request))
			}
			if end > grown.MaxLen() {
				t.Errorf("%d bytes are enough, but MaxLen says %d", end, grown.MaxLen())
			}
			var want []byte
			for n := range len(data) + 1 {
				for _, r := range []*Request{grown, mustCheck(t, request)} {
					state, err := r.Parse(bytes.Clone(data[:n]))
					wantState := h2.Incomplete
					if n >= end {
						wantState = h2.Complete
					}
					if state != wantState || err != nil {
						t.Fatalf("%d bytes: %v, %v, want %v", n, state, err, wantState)
					}
					if state != h2.Complete {
						continue
					}
					first, rest := r.Translate([]byte("dst"), data[:n])
					if rest != end {
						t.Fatalf("%d bytes: the rest begins at %d, want %d", n, rest, end)
					}
					if want == nil {
						want = first
					}
					if !bytes.Equal(first, want) {
						t.Fatalf("%d bytes: the translation differs from that with fewer", n)
					}
				}
			}
			got := read(t, bytes.TrimPrefix(want, []byte("dst")))
			if diff := cmp.Diff(captured[name], got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(got.Fields, grown.Fields()); diff != "" {
				t.Errorf("Fields: %s", diff)
			}
		})
	}
}

// captured is what the captures have in them.
var captured = map[string]translated{
	"curl-h2c-upgrade": {
		Settings: []http2.Setting{
			{ID: http2.SettingMaxConcurrentStreams, Val: 100},
			{ID: http2.SettingInitialWindowSize, Val: 1 << 20},
			{ID: http2.SettingEnablePush, Val: 0},
		},
		Fields: []hpack.HeaderField{
			{Name: ":method", Value: "GET"},
			{Name: ":scheme", Value: "http"},
			{Name: ":authority", Value: "127.0.0.1:9100"},
			{Name: ":path", Value: "/hello"},
			{Name: "user-agent", Value: "curl/7.88.1"},
			{Name: "accept", Value: "*/*"},
		},
		Frames:    []http2.FrameType{http2.FrameSettings, http2.FrameHeaders},
		EndStream: 1,
	},
	"curl-h2c-upgrade-post": {
		Settings: []http2.Setting{
			{ID: http2.SettingMaxConcurrentStreams, Val: 100},
			{ID: http2.SettingInitialWindowSize, Val: 1 << 20},
			{ID: http2.SettingEnablePush, Val: 0},
		},
		Fields: []hpack.HeaderField{
			{Name: ":method", Value: "POST"},
			{Name: ":scheme", Value: "http"},
			{Name: ":authority", Value: "127.0.0.1:9100"},
			{Name: ":path", Value: "/hello"},
			{Name: "user-agent", Value: "curl/7.88.1"},
			{Name: "accept", Value: "*/*"},
			{Name: "content-type", Value: "application/x-www-form-urlencoded"},
			{Name: "content-length", Value: "12"},
		},
		Content:   `{"name":"x"}`,
		Frames:    []http2.FrameType{http2.FrameSettings, http2.FrameHeaders, http2.FrameData},
		EndStream: 1,
	},
	"nghttp-h2c-upgrade": {
		Settings: []http2.Setting{
			{ID: http2.SettingMaxConcurrentStreams, Val: 100},
			{ID: http2.SettingInitialWindowSize, Val: 1 << 20},
			{ID: http2.SettingEnablePush, Val: 0},
		},
		Fields: []hpack.HeaderField{
			{Name: ":method", Value: "GET"},
			{Name: ":scheme", Value: "http"},
			{Name: ":authority", Value: "127.0.0.1:9100"},
			{Name: ":path", Value: "/hello"},
			{Name: "accept", Value: "*/*"},
			{Name: "user-agent", Value: "nghttp2/1.52.0"},
		},
		Frames:    []http2.FrameType{http2.FrameSettings, http2.FrameHeaders},
		EndStream: 1,
	},
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, request string
		want          string // part of the error; "" if it is to be upgraded
	}{
		{"correct", upgrade(), ""},
		{"no Upgrade", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ErrNotAsked.Error()},
		{"Upgrade to another protocol", strings.Replace(upgrade(), "h2c", "websocket", 1), ErrNotAsked.Error()},
		{"a token that contains it", strings.Replace(upgrade(), "h2c", "h2c14", 1), ErrNotAsked.Error()},
		{"any case", strings.NewReplacer("h2c", "H2C", "Upgrade, HTTP2-Settings", "uPGRADE, http2-sETTINGS").Replace(upgrade()), ""},
		{"among others", strings.Replace(upgrade(), "h2c", "websocket , h2c,", 1), ""},
		{"on a second line", strings.Replace(upgrade("Upgrade: h2c"), "h2c", "websocket", 1), ""},
		{"Connection on two lines", strings.Replace(upgrade("Connection: HTTP2-Settings"), ", HTTP2-Settings", "", 1), ""},
		{"Connection folded", strings.Replace(upgrade(), "Upgrade, HTTP2-Settings", "Upgrade,\r\n HTTP2-Settings", 1), ""},
		{"bare LF", strings.ReplaceAll(upgrade(), "\r\n", "\n"), ""},
		{"HTTP/1.0", strings.Replace(upgrade(), "HTTP/1.1", "HTTP/1.0", 1), "HTTP/1.0"},
		{"CONNECT", strings.Replace(upgrade(), "GET /p?q", "CONNECT a:80", 1), "CONNECT"},
		{"Connection without upgrade", strings.Replace(upgrade(), "Upgrade, HTTP2", "HTTP2", 1), "name Upgrade"},
		{"Connection without HTTP2-Settings", strings.Replace(upgrade(), ", HTTP2-Settings", "", 1), "name HTTP2-Settings"},
		{"no Connection", strings.Replace(upgrade(), "Connection:", "X:", 1), "name Upgrade"},
		{"no HTTP2-Settings", strings.Replace(upgrade(), "HTTP2-Settings:", "X:", 1), "0 times"},
		{"HTTP2-Settings twice", upgrade("HTTP2-Settings: AAMAAABk"), "2 times"},
		{"HTTP2-Settings empty", strings.Replace(upgrade(), "AAMAAABk", "", 1), ""},
		{"HTTP2-Settings of base64 with the wrong alphabet", strings.Replace(upgrade(), "AAMAAABk", "AAMA/+Bk", 1), "malformed"},
		{"HTTP2-Settings of base64url", strings.Replace(upgrade(), "AAMAAABk", "AAMA_-Bk", 1), ""},
		{"HTTP2-Settings with padding", strings.Replace(upgrade(), "AAMAAABk", "AAMAAABk=", 1), "malformed"},
		{"HTTP2-Settings with a partial setting", strings.Replace(upgrade(), "AAMAAABk", "AAMAAABkAA", 1), "partial"},
		{"HTTP2-Settings with a bad ENABLE_PUSH", strings.Replace(upgrade(), "AAMAAABk", "AAIAAAAC", 1), "ENABLE_PUSH"},
		{"HTTP2-Settings with a bad window", strings.Replace(upgrade(), "AAMAAABk", "AASAAAAA", 1), "INITIAL_WINDOW_SIZE"},
		{"HTTP2-Settings with a bad frame size", strings.Replace(upgrade(), "AAMAAABk", "AAUAAAAA", 1), "MAX_FRAME_SIZE"},
		{"Expect", upgrade("Content-Length: 1", "Expect: 100-continue"), "Expect"},
		{"Transfer-Encoding", upgrade("Transfer-Encoding: chunked"), "Transfer-Encoding"},
		{"no Host", strings.Replace(upgrade(), "Host:", "X:", 1), "exactly once"},
		{"Host twice", upgrade("Host: a.example"), "exactly once"},
		{"Host empty", strings.Replace(upgrade(), "a.example", "", 1), "Host is malformed"},
		{"Host with userinfo", strings.Replace(upgrade(), "a.example", "u@a.example", 1), "Host is malformed"},
		{"Content-Length", upgrade("Content-Length: 65535"), ""},
		{"Content-Length too large", upgrade("Content-Length: 65536"), "longer than"},
		{"Content-Length far too large", upgrade("Content-Length: 99999999999999999999"), "longer than"},
		{"Content-Length negative", upgrade("Content-Length: -1"), "malformed"},
		{"Content-Length signed", upgrade("Content-Length: +1"), "malformed"},
		{"Content-Length empty", upgrade("Content-Length:"), "malformed"},
		{"Content-Length twice", upgrade("Content-Length: 3", "Content-Length: 3"), ""},
		{"Content-Length twice, different", upgrade("Content-Length: 3", "Content-Length: 4"), "different"},
		{"Content-Length as a list", upgrade("Content-Length: 3, 3"), "malformed"},
		{"absolute-form", strings.Replace(upgrade(), "/p?q", "HTTP://b.example/", 1), ""},
		{"absolute-form of another scheme", strings.Replace(upgrade(), "/p?q", "https://b.example/", 1), "scheme"},
		{"absolute-form without authority", strings.Replace(upgrade(), "/p?q", "http:///p", 1), "authority"},
		{"absolute-form with userinfo", strings.Replace(upgrade(), "/p?q", "http://u@b.example/p", 1), "authority"},
		{"asterisk-form", strings.Replace(upgrade(), "GET /p?q", "OPTIONS *", 1), ""},
		{"asterisk-form of GET", strings.Replace(upgrade(), "/p?q", "*", 1), "OPTIONS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := check(t, []byte(tt.request))
			if tt.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got the error %v, want one with %q", err, tt.want)
			}
			if r != nil {
				t.Error("got a Request with the error")
			}
			if errors.Is(err, ErrNotAsked) != (tt.want == ErrNotAsked.Error()) {
				t.Errorf("%v is ErrNotAsked, or is not", err)
			}
		})
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	type fields []hpack.HeaderField
	pseudo := func(method, authority, path string) fields {
		return fields{{Name: ":method", Value: method}, {Name: ":scheme", Value: "http"},
			{Name: ":authority", Value: authority}, {Name: ":path", Value: path}}
	}
	get := pseudo("GET", "a.example", "/p?q")
	tests := []struct {
		name, request string
		want          fields
	}{
		{"nothing else", upgrade(), get},
		{"names in lower case, order and repetition kept", upgrade("X-A: 1", "x-b: 2", "X-a: 3"),
			append(get, fields{{Name: "x-a", Value: "1"}, {Name: "x-b", Value: "2"}, {Name: "x-a", Value: "3"}}...)},
		{"obs-fold", upgrade("X-A: 1 \r\n\t 2"), append(get, hpack.HeaderField{Name: "x-a", Value: "1 2"})},
		{"obs-fold without a value", upgrade("X-A: 1\r\n \t"), append(get, hpack.HeaderField{Name: "x-a", Value: "1"})},
		{"what Connection names", upgrade("Connection: x-a ,, X-B", "X-A: 1", "X-b: 2", "X-C: 3"),
			append(get, hpack.HeaderField{Name: "x-c", Value: "3"})},
		{"connection-specific", upgrade("Keep-Alive: timeout=5", "Proxy-Connection: keep-alive"), get},
		{"TE without trailers", upgrade("TE: gzip;q=0.5"), get},
		{"TE with trailers", upgrade("Connection: TE", "TE: gzip", "te: deflate, Trailers"),
			append(get, hpack.HeaderField{Name: "te", Value: "trailers"})},
		{"Content-Length once", upgrade("Connection: content-length", "Content-Length: 3", "Content-Length: 3"),
			append(get, hpack.HeaderField{Name: "content-length", Value: "3"})},
		{"secrets", upgrade("Authorization: Basic Og==", "Cookie: a=b", "Proxy-Authorization: x"),
			append(get, fields{{Name: "authorization", Value: "Basic Og==", Sensitive: true},
				{Name: "cookie", Value: "a=b", Sensitive: true}, {Name: "proxy-authorization", Value: "x", Sensitive: true}}...)},
		{"obs-text", upgrade("X-A: \xff"), append(get, hpack.HeaderField{Name: "x-a", Value: "\xff"})},
		{"absolute-form", strings.Replace(upgrade(), "/p?q", "http://b.example:81/r?s", 1), pseudo("GET", "b.example:81", "/r?s")},
		{"absolute-form without path", strings.Replace(upgrade(), "/p?q", "http://b.example", 1), pseudo("GET", "b.example", "/")},
		{"absolute-form with query only", strings.Replace(upgrade(), "/p?q", "http://b.example?s", 1),
			pseudo("GET", "b.example", "/?s")},
		{"asterisk-form", strings.Replace(upgrade(), "GET /p?q", "OPTIONS *", 1), pseudo("OPTIONS", "a.example", "*")},
		{"asterisk-form to a proxy", strings.Replace(upgrade(), "GET /p?q", "OPTIONS http://b.example", 1),
			pseudo("OPTIONS", "b.example", "*")},
		{"absolute-form of OPTIONS with a query", strings.Replace(upgrade(), "GET /p?q", "OPTIONS http://b.example?s", 1),
			pseudo("OPTIONS", "b.example", "/?s")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := mustCheck(t, []byte(tt.request))
			if diff := cmp.Diff(tt.want, fields(r.Fields())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestKeepsNothing changes the bytes after Check.
func TestKeepsNothing(t *testing.T) {
	t.Parallel()
	data := []byte(upgrade("X-A: 1"))
	r := mustCheck(t, data)
	want := mustCheck(t, bytes.Clone(data)).Fields()
	clear(data)
	if diff := cmp.Diff(want, r.Fields()); diff != "" {
		t.Error(diff)
	}
}

// TestFlightErrors has every end of the data, for the byte at which the error is seen.
func TestFlightErrors(t *testing.T) {
	t.Parallel()
	const frameAt = len(h2.Preface)
	frame := func(header string, n int) []byte {
		return append([]byte(h2.Preface+header), make([]byte, n)...)
	}
	tests := []struct {
		name   string
		flight []byte
		at     int // with how many of its bytes it is an error
		code   http2.ErrCode
	}{
		{"another request", []byte("GET / HTTP/1.1\r\n"), 1, http2.ErrCodeProtocol},
		{"preface with a mistake", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\rx"), 24, http2.ErrCodeProtocol},
		{"HEADERS first", frame("\x00\x00\x01\x01\x05\x00\x00\x00\x03", 1), frameAt + 9, http2.ErrCodeProtocol},
		{"an acknowledgement first", h2.AppendSettingsACK([]byte(h2.Preface)), frameAt + 9, http2.ErrCodeProtocol},
		{"SETTINGS on a stream", frame("\x00\x00\x00\x04\x00\x00\x00\x00\x01", 0), frameAt + 9, http2.ErrCodeProtocol},
		{"a partial setting", frame("\x00\x00\x05\x04\x00\x00\x00\x00\x00", 5), frameAt + 9, http2.ErrCodeFrameSize},
		{"a frame too large", frame("\x00\x40\x02\x04\x00\x00\x00\x00\x00", 1), frameAt + 9, http2.ErrCodeFrameSize},
		{"a bad value", flight(http2.Setting{ID: http2.SettingEnablePush, Val: 2}), frameAt + 9 + 6, http2.ErrCodeProtocol},
		{"a bad window", flight(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}), frameAt + 9 + 6,
			http2.ErrCodeFlowControl},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, content := range []string{"", "content"} {
				request := []byte(upgrade("Content-Length: "+strconv.Itoa(len(content))) + content)
				data := append(request, tt.flight...)
				r := mustCheck(t, data)
				for n := len(request); n <= len(data); n++ {
					state, err := r.Parse(data[:n])
					if n-len(request) < tt.at {
						if state != h2.Incomplete || err != nil {
							t.Fatalf("%d bytes: %v, %v", n-len(request), state, err)
						}
						continue
					}
					if state != h2.Error || err == nil || err.Code != tt.code || err.Reason == "" {
						t.Fatalf("%d bytes: %v, %v, want %v", n-len(request), state, err, tt.code)
					}
				}
				if len(data) > r.MaxLen() {
					t.Errorf("%d bytes, and MaxLen says %d", len(data), r.MaxLen())
				}
			}
		})
	}
}

// TestFlightWithoutAnEnd checks that nothing behind the SETTINGS frame is looked at.
func TestFlightWithoutAnEnd(t *testing.T) {
	t.Parallel()
	data := append([]byte(upgrade()), flight()...)
	end := len(data)
	data = append(data, "not a frame that HTTP/2 knows"...)
	r := mustCheck(t, data)
	if state, err := r.Parse(data); state != h2.Complete {
		t.Fatalf("%v, %v", state, err)
	}
	if _, rest := r.Translate(nil, data); rest != end {
		t.Errorf("the rest begins at %d, want %d", rest, end)
	}
}

// TestSizes translates requests whose parts end beside and at the limits of frames.
func TestSizes(t *testing.T) {
	t.Parallel()
	base := 0 // the length of the header block but for the value of one field
	for _, f := range mustCheck(t, []byte(upgrade("X-A: 1"))).Fields() {
		base = len(appendField(nil, f)) + base
	}
	base += -len("1") + 2 // the length of a long value takes two bytes more
	blocks := []int{base + 127 + 128, h2.DefaultMaxFrameSize - 1, h2.DefaultMaxFrameSize, h2.DefaultMaxFrameSize + 1, 2*h2.DefaultMaxFrameSize + 1}
	contents := []int{0, 1, h2.DefaultMaxFrameSize - 1, h2.DefaultMaxFrameSize, h2.DefaultMaxFrameSize + 1, MaxContent}
	for _, block := range blocks {
		for _, content := range contents {
			value := strings.Repeat("v", block-base)
			body := strings.Repeat("0123456789abcdef", MaxContent/16+1)[:content]
			lines := []string{"X-A: " + value}
			if content > 0 {
				lines = append(lines, "Content-Length: "+strconv.Itoa(content))
			}
			data := append([]byte(upgrade(lines...)+body), flight(clientSettings...)...)
			r := mustCheck(t, data)
			if state, err := r.Parse(data); state != h2.Complete {
				t.Fatalf("%v, %v", state, err)
			}
			first, rest := r.Translate(nil, data)
			if rest != len(data) {
				t.Errorf("the rest begins at %d of %d", rest, len(data))
			}
			got := read(t, first)
			want := translated{
				Settings:  append([]http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 100}}, clientSettings...),
				Fields:    r.Fields(),
				Content:   body,
				Frames:    []http2.FrameType{http2.FrameSettings, http2.FrameHeaders},
				EndStream: 1,
			}
			encoded := block
			if content > 0 {
				encoded += len(appendField(nil, hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(content)}))
			}
			for n := encoded; n > h2.DefaultMaxFrameSize; n -= h2.DefaultMaxFrameSize {
				want.Frames = append(want.Frames, http2.FrameContinuation)
			}
			for n := content; n > 0; n -= h2.DefaultMaxFrameSize {
				want.Frames = append(want.Frames, http2.FrameData)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("block of %d, content of %d: %s", block, content, diff)
			}
		}
	}
}

// TestManySettings has as many settings as the field and the frame can hold, more than a server would want to see.
func TestManySettings(t *testing.T) {
	t.Parallel()
	payload := bytes.Repeat([]byte{0xf0, 0, 0, 0, 0, 1}, 1000)
	request := strings.Replace(upgrade(), "AAMAAABk", base64.RawURLEncoding.EncodeToString(payload), 1)
	settings := make([]http2.Setting, h2.DefaultMaxFrameSize/6)
	for i := range settings {
		settings[i] = http2.Setting{ID: http2.SettingID(0xf000 + i), Val: 2}
	}
	data := append([]byte(request), flight(settings...)...)
	r := mustCheck(t, data)
	if state, err := r.Parse(data); state != h2.Complete {
		t.Fatalf("%v, %v", state, err)
	}
	first, _ := r.Translate(nil, data)
	got := read(t, first).Settings
	if len(got) == 0 || len(got) > 100 || got[0] != settings[0] {
		t.Errorf("%d settings: %v", len(got), got)
	}
}

// TestTableSize has a client set SETTINGS_HEADER_TABLE_SIZE in HTTP2-Settings and in its SETTINGS frame. The server is
// told the lowest value, of which it has to tell the client (RFC 7541, Section 4.2).
func TestTableSize(t *testing.T) {
	t.Parallel()
	const none = -1
	for _, tt := range []struct{ field, frame, want int }{
		{none, none, none},
		{none, 100, 100},
		{100, none, 100},
		{0, 4096, 0},
		{100, 5000, 100},
		{100, 50, 50},
		{8192, 4096, 4096},
	} {
		var settings [2][]http2.Setting
		for i, size := range []int{tt.field, tt.frame} {
			settings[i] = []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: uint32(1000 + i)}}
			if size != none {
				settings[i] = append(settings[i], http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(size)})
			}
		}
		field := base64.RawURLEncoding.EncodeToString(h2.AppendSettings(nil, settings[0]...)[h2.FrameHeaderLen:])
		data := append([]byte(strings.Replace(upgrade(), "AAMAAABk", field, 1)), flight(settings[1]...)...)
		r := mustCheck(t, data)
		if state, err := r.Parse(data); state != h2.Complete {
			t.Fatalf("%v, %v", state, err)
		}
		first, _ := r.Translate(nil, data)
		want := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1001}}
		if tt.want != none {
			want = append(want, http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(tt.want)})
		}
		if got := read(t, first).Settings; !cmp.Equal(got, want) {
			t.Errorf("%d, then %d: %v, want %v", tt.field, tt.frame, got, want)
		}
	}
}
