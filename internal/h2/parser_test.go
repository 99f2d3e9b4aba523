package h2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frame returns the bytes of a frame. streamID is written with its reserved bit.
func frame(typ http2.FrameType, flags http2.Flags, streamID uint32, payload ...byte) []byte {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), byte(typ), byte(flags)}
	b = binary.BigEndian.AppendUint32(b, streamID)
	return append(b, payload...)
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func setting(id http2.SettingID, val uint32) []byte {
	return AppendSettings(nil, http2.Setting{ID: id, Val: val})
}

func windowUpdate(streamID, increment uint32) []byte {
	return frame(http2.FrameWindowUpdate, 0, streamID, u32(increment)...)
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

const (
	endStream  = http2.FlagHeadersEndStream
	endHeaders = http2.FlagHeadersEndHeaders
	padded     = http2.FlagHeadersPadded
	priority   = http2.FlagHeadersPriority
)

var (
	preface  = []byte(Preface)
	settings = AppendSettings(nil)
	opening  = join(preface, settings)

	// getBlock needs no dynamic table: :method GET, :scheme http, :path /.
	getBlock  = []byte{0x82, 0x86, 0x84}
	getFields = []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: "/"},
	}
	get = frame(http2.FrameHeaders, endStream|endHeaders, 1, getBlock...)
)

// result is all that a Parser tells of a connection.
type result struct {
	State     State
	Preface   bool
	Err       *ConnError
	Fields    []hpack.HeaderField
	StreamID  uint32
	EndStream bool
}

func resultOf(p *Parser) result {
	r := result{State: p.state, Preface: p.PrefaceSeen(), Err: p.Err()}
	if p.state == Complete {
		r.Fields = slices.Clone(p.Fields())
		r.StreamID = p.StreamID()
		r.EndStream = p.EndStream()
	}
	return r
}

// settle gives data to p byte by byte, and returns the length at which the state became final, or -1. It fails the test
// if the state is not final for good, or if a Parser that gets data at once disagrees.
func settle(t *testing.T, p *Parser, data []byte) int {
	t.Helper()
	at := -1
	var settled result
	for n := range len(data) + 1 {
		s := p.Parse(data[:n:n])
		switch {
		case at < 0 && s != Incomplete:
			at, settled = n, resultOf(p)
		case at >= 0 && s != settled.State:
			t.Fatalf("%v at %d bytes is %v at %d bytes", settled.State, at, s, n)
		}
	}
	once := &Parser{MaxFrames: p.MaxFrames, MaxHeaderListSize: p.MaxHeaderListSize}
	once.Parse(data)
	if diff := cmp.Diff(resultOf(once), resultOf(p)); diff != "" {
		t.Fatalf("at once (-) and byte by byte (+) differ:\n%s", diff)
	}
	return at
}

func TestParserError(t *testing.T) {
	t.Parallel()

	const (
		protocol    = http2.ErrCodeProtocol
		frameSize   = http2.ErrCodeFrameSize
		flowControl = http2.ErrCodeFlowControl
		compression = http2.ErrCodeCompression

		header = FrameHeaderLen
		whole  = -1
	)
	headers := frame(http2.FrameHeaders, 0, 1, getBlock...)
	tests := []struct {
		name   string
		before []byte // what is still right
		bad    []byte // the frame at fault
		at     int    // the length of bad at which this is reported
		code   http2.ErrCode
	}{
		// RFC 9113, Section 3.4.
		{"first frame is HEADERS", preface, get, header, protocol},
		{"first frame is PING", preface, frame(http2.FramePing, 0, 0, make([]byte, 8)...), header, protocol},
		{"first frame is unknown", preface, frame(0xfa, 0, 0), header, protocol},
		{"first frame is a SETTINGS ACK", preface, frame(http2.FrameSettings, http2.FlagSettingsAck, 0), header, protocol},
		{"first frame is SETTINGS on a stream", preface, frame(http2.FrameSettings, 0, 1), header, protocol},
		{"first frame is text", preface, []byte("GET / HTTP/1.1\r\n"), header, protocol},
		{"first frame has a partial setting", preface, frame(http2.FrameSettings, 0, 0, 1), header, frameSize},
		{"first frame has a bad setting", preface, setting(http2.SettingEnablePush, 2), whole, protocol},

		// RFC 9113, Section 4.2.
		{"long SETTINGS", preface, frame(http2.FrameSettings, 0, 0, make([]byte, 16386)...), header, frameSize},
		{"long HEADERS", opening, frame(http2.FrameHeaders, endHeaders, 1, make([]byte, 16385)...), header, frameSize},
		{"long unknown frame", opening, frame(0xfa, 0, 0, make([]byte, 16385)...), header, frameSize},
		{"longest frame", opening, []byte{0xff, 0xff, 0xff, 0xfa, 0, 0, 0, 0, 0}, header, frameSize},
		{"long CONTINUATION", join(opening, headers), frame(http2.FrameContinuation, 0, 1, make([]byte, 16385)...), header, frameSize},

		// RFC 9113, Section 6.5.
		{"SETTINGS on a stream", opening, frame(http2.FrameSettings, 0, 1), header, protocol},
		{"SETTINGS ACK with payload", opening, frame(http2.FrameSettings, http2.FlagSettingsAck, 0, make([]byte, 6)...), header, frameSize},
		{"SETTINGS with a partial setting", opening, frame(http2.FrameSettings, 0, 0, make([]byte, 7)...), header, frameSize},
		{"SETTINGS with two faults", opening, frame(http2.FrameSettings, http2.FlagSettingsAck, 1, 1), header, protocol},
		{"ENABLE_PUSH 2", opening, setting(http2.SettingEnablePush, 2), whole, protocol},
		{"INITIAL_WINDOW_SIZE 2^31", opening, setting(http2.SettingInitialWindowSize, 1<<31), whole, flowControl},
		{"MAX_FRAME_SIZE 2^14-1", opening, setting(http2.SettingMaxFrameSize, 1<<14-1), whole, protocol},
		{"MAX_FRAME_SIZE 2^24", opening, setting(http2.SettingMaxFrameSize, 1<<24), whole, protocol},
		{"ENABLE_CONNECT_PROTOCOL 2", opening, setting(http2.SettingEnableConnectProtocol, 2), whole, protocol},
		{"NO_RFC7540_PRIORITIES 2", opening, setting(http2.SettingNoRFC7540Priorities, 2), whole, protocol},
		{
			"second setting is bad", opening,
			AppendSettings(nil, http2.Setting{ID: http2.SettingEnablePush}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}),
			whole, flowControl,
		},

		// RFC 9113, Sections 5.1 and 6.9.
		{"WINDOW_UPDATE on an idle stream", opening, windowUpdate(1, 1), header, protocol},
		{"WINDOW_UPDATE of length 3", opening, frame(http2.FrameWindowUpdate, 0, 0, 0, 0, 1), header, frameSize},
		{"WINDOW_UPDATE of length 5", opening, frame(http2.FrameWindowUpdate, 0, 0, 0, 0, 0, 0, 1), header, frameSize},
		{"WINDOW_UPDATE by 0", opening, windowUpdate(0, 0), whole, protocol},
		{"WINDOW_UPDATE by 0 and the reserved bit", opening, windowUpdate(0, 1<<31), whole, protocol},
		{"WINDOW_UPDATE over the maximum", opening, windowUpdate(0, 1<<31-1-65535+1), whole, flowControl},
		{"WINDOW_UPDATE sum over the maximum", join(opening, windowUpdate(0, 1<<31-1-65535)), windowUpdate(0, 1), whole, flowControl},

		// RFC 9113, Sections 6.7 and 6.8.
		{"PING on a stream", opening, frame(http2.FramePing, 0, 1, make([]byte, 8)...), header, protocol},
		{"PING of length 7", opening, frame(http2.FramePing, 0, 0, make([]byte, 7)...), header, frameSize},
		{"PING ACK of length 9", opening, frame(http2.FramePing, http2.FlagPingAck, 0, make([]byte, 9)...), header, frameSize},
		{"GOAWAY on a stream", opening, frame(http2.FrameGoAway, 0, 1, make([]byte, 8)...), header, protocol},
		{"GOAWAY of length 7", opening, frame(http2.FrameGoAway, 0, 0, make([]byte, 7)...), header, frameSize},

		// RFC 9113, Section 6.3.
		{"PRIORITY on stream 0", opening, frame(http2.FramePriority, 0, 0, make([]byte, 5)...), header, protocol},
		{"PRIORITY of a stream on itself", opening, frame(http2.FramePriority, 0, 3, 0x80, 0, 0, 3, 0), whole, protocol},

		// RFC 9113, Sections 5.1, 6.1, 6.4, 6.10 and 8.4.
		{"DATA on an idle stream", opening, frame(http2.FrameData, 0, 1), header, protocol},
		{"DATA on stream 0", opening, frame(http2.FrameData, 0, 0), header, protocol},
		{"RST_STREAM on an idle stream", opening, frame(http2.FrameRSTStream, 0, 1, make([]byte, 4)...), header, protocol},
		{"RST_STREAM of length 3", opening, frame(http2.FrameRSTStream, 0, 1, make([]byte, 3)...), header, protocol},
		{"PUSH_PROMISE", opening, frame(http2.FramePushPromise, endHeaders, 1, 0, 0, 0, 2), header, protocol},
		{"CONTINUATION without HEADERS", opening, frame(http2.FrameContinuation, endHeaders, 1), header, protocol},

		// RFC 9113, Sections 5.1.1 and 6.2.
		{"HEADERS on stream 0", opening, frame(http2.FrameHeaders, endHeaders, 0, getBlock...), header, protocol},
		{"HEADERS on stream 2", opening, frame(http2.FrameHeaders, endHeaders, 2, getBlock...), header, protocol},
		{"HEADERS on stream 0 with the reserved bit", opening, frame(http2.FrameHeaders, endHeaders, 1<<31, getBlock...), header, protocol},
		{"HEADERS without Pad Length", opening, frame(http2.FrameHeaders, endHeaders|padded, 1), header, frameSize},
		{"HEADERS without Weight", opening, frame(http2.FrameHeaders, endHeaders|priority, 1, make([]byte, 4)...), header, frameSize},
		{"HEADERS without Weight after Pad Length", opening, frame(http2.FrameHeaders, endHeaders|padded|priority, 1, make([]byte, 5)...), header, frameSize},
		{"padding of the length of the payload", opening, frame(http2.FrameHeaders, endHeaders|padded, 1, 3, 0, 0), header + 1, protocol},
		{"padding of the empty payload", opening, frame(http2.FrameHeaders, padded, 1, 1), whole, protocol},
		{"padding over the priority fields", opening, frame(http2.FrameHeaders, endHeaders|padded|priority, 1, 1, 0, 0, 0, 0, 0), whole, protocol},

		// RFC 9113, Sections 6.10 and 5.5.
		{"HEADERS in a header block", join(opening, headers), get, header, protocol},
		{"PING in a header block", join(opening, headers), frame(http2.FramePing, 0, 0, make([]byte, 8)...), header, protocol},
		{"unknown frame in a header block", join(opening, headers), frame(0xfa, 0, 1), header, protocol},
		{"CONTINUATION of another stream", join(opening, headers), frame(http2.FrameContinuation, endHeaders, 3), header, protocol},
		{"CONTINUATION on stream 0", join(opening, headers), frame(http2.FrameContinuation, endHeaders, 0), header, protocol},
		{
			"DATA after a CONTINUATION", join(opening, headers, frame(http2.FrameContinuation, 0, 1)),
			frame(http2.FrameData, 0, 1), header, protocol,
		},

		// RFC 9113, Section 4.3, RFC 7541.
		{"index 0", opening, frame(http2.FrameHeaders, endHeaders, 1, 0x80), whole, compression},
		{"index into the empty table", opening, frame(http2.FrameHeaders, endHeaders, 1, 0xbe), whole, compression},
		{"truncated block", opening, frame(http2.FrameHeaders, endHeaders, 1, 0x82, 0x40), whole, compression},
		{"truncated split block", join(opening, headers), frame(http2.FrameContinuation, endHeaders, 1, 0x40), whole, compression},
		{"bad field before the last", join(opening, frame(http2.FrameHeaders, 0, 1)), frame(http2.FrameContinuation, endHeaders, 1, 0x82, 0x80, 0x82), header + 2, compression},
		{"dynamic table of 4097 bytes", opening, frame(http2.FrameHeaders, endHeaders, 1, 0x3f, 0xe2, 0x1f), whole, compression},
		{"Huffman padding of 8 bits", opening, frame(http2.FrameHeaders, endHeaders, 1, 0x00, 0x81, 0xff, 0x00), whole, compression},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.at == whole {
				tt.at = len(tt.bad)
			}
			var p Parser
			data := join(tt.before, tt.bad, get)
			at := settle(t, &p, data)
			if p.Err() == nil {
				t.Fatalf("state %v, want an error", p.state)
			}
			if p.Err().Code != tt.code {
				t.Errorf("got %v, want %v", p.Err(), tt.code)
			}
			if want := len(tt.before) + tt.at; at != want {
				t.Errorf("reported at %d bytes, want %d", at, want)
			}
			if p.Fields() != nil {
				t.Errorf("fields %v with an error", p.Fields())
			}
		})
	}
}

// TestParserCountsQuestions checks what the parser tells of frames that want an answer.
func TestParserCountsQuestions(t *testing.T) {
	t.Parallel()
	one, two := [8]byte{1}, [8]byte{2}
	data := join(
		opening,
		frame(http2.FramePing, 0, 0, one[:]...),
		frame(http2.FramePing, http2.FlagPingAck, 0, make([]byte, 8)...),
		AppendSettings(nil, http2.Setting{ID: 4, Val: 1}, http2.Setting{ID: 5, Val: 1 << 14}, http2.Setting{ID: 4, Val: 2}),
		AppendSettingsACK(nil),
		frame(http2.FramePing, 0, 0, two[:]...),
	)
	for range 2 {
		var p Parser
		p.Parse(data)
		if diff := cmp.Diff([]http2.Setting{{ID: 4, Val: 2}, {ID: 5, Val: 1 << 14}}, p.Settings()); diff != "" {
			t.Error(diff)
		}
		if p.SettingsFrames() != 2 || !p.Acknowledged() || p.Requesting() || !slices.Equal(p.Pings(), [][8]byte{one, two}) {
			t.Errorf("%d SETTINGS, acknowledged: %v, requesting: %v, PINGs %v", p.SettingsFrames(), p.Acknowledged(), p.Requesting(), p.Pings())
		}
		if p.Parse(join(data, get[:FrameHeaderLen])); !p.Requesting() {
			t.Error("a HEADERS frame has begun, and the parser does not say so")
		}
		p.Reset()
		if p.Parse(opening); p.SettingsFrames() != 1 || len(p.Settings()) != 0 || p.Acknowledged() || p.Requesting() || len(p.Pings()) != 0 {
			t.Errorf("after Reset: %d SETTINGS, acknowledged: %v, requesting: %v, PINGs %v", p.SettingsFrames(), p.Acknowledged(), p.Requesting(), p.Pings())
		}
	}
}

func TestParserAccepts(t *testing.T) {
	t.Parallel()

	before := func(parts ...[]byte) []byte { return join(opening, join(parts...), get) }
	getRequest := result{State: Complete, Preface: true, Fields: getFields, StreamID: 1, EndStream: true}
	on := func(streamID uint32, endStream bool, fields ...hpack.HeaderField) result {
		return result{State: Complete, Preface: true, Fields: fields, StreamID: streamID, EndStream: endStream}
	}
	tests := []struct {
		name string
		data []byte
		want result
	}{
		{"nothing but SETTINGS", before(), getRequest},
		{"empty SETTINGS again", before(settings), getRequest},
		{"SETTINGS ACK", before(frame(http2.FrameSettings, http2.FlagSettingsAck, 0)), getRequest},
		{"SETTINGS with unused flags", before(frame(http2.FrameSettings, 0xfe, 0)), getRequest},
		{
			"settings at their bounds",
			before(
				setting(http2.SettingHeaderTableSize, 0),
				setting(http2.SettingHeaderTableSize, 1<<32-1),
				setting(http2.SettingEnablePush, 0),
				setting(http2.SettingEnablePush, 1),
				setting(http2.SettingMaxConcurrentStreams, 1<<32-1),
				setting(http2.SettingInitialWindowSize, 1<<31-1),
				setting(http2.SettingMaxFrameSize, 1<<14),
				setting(http2.SettingMaxFrameSize, 1<<24-1),
				setting(http2.SettingMaxHeaderListSize, 0),
				setting(http2.SettingEnableConnectProtocol, 0),
				setting(http2.SettingEnableConnectProtocol, 1),
				setting(http2.SettingNoRFC7540Priorities, 0),
				setting(http2.SettingNoRFC7540Priorities, 1),
			),
			getRequest,
		},
		{"unknown setting", before(setting(0x1a2a, 1<<32-1)), getRequest},
		{"most settings in a frame", before(AppendSettings(nil, make([]http2.Setting, 2730)...)), getRequest},
		{"PING", before(frame(http2.FramePing, 0, 0, make([]byte, 8)...)), getRequest},
		{"PING ACK", before(frame(http2.FramePing, http2.FlagPingAck, 0, make([]byte, 8)...)), getRequest},
		{"PING with the reserved bit", before(frame(http2.FramePing, 0, 1<<31, make([]byte, 8)...)), getRequest},
		{"GOAWAY", before(AppendGoAway(nil, 0, http2.ErrCodeNo, "bye")), getRequest},
		{"window of 2^31-1", before(windowUpdate(0, 1<<31-1-65535)), getRequest},
		{"window of 2^31-1 in two", before(windowUpdate(0, 1<<31|1), windowUpdate(0, 1<<31-1-65535-1)), getRequest},
		{"PRIORITY", before(frame(http2.FramePriority, 0, 3, 0, 0, 0, 0, 200)), getRequest},
		{"PRIORITY of length 4", before(frame(http2.FramePriority, 0, 3, 0, 0, 0, 0)), getRequest},
		{"PRIORITY of an even stream", before(frame(http2.FramePriority, 0, 2, 0, 0, 0, 0, 0)), getRequest},
		{"PRIORITY_UPDATE", before(frame(http2.FramePriorityUpdate, 0, 0, 0, 0, 0, 1, 'u', '=', '1')), getRequest},
		{"PRIORITY_UPDATE on a stream", before(frame(http2.FramePriorityUpdate, 0, 1)), getRequest},
		{"unknown frame", before(frame(0xfa, 0xff, 7, 1, 2, 3)), getRequest},
		{"longest unknown frame", before(frame(0xfa, 0, 0, make([]byte, 16384)...)), getRequest},

		{"END_STREAM not set", join(opening, frame(http2.FrameHeaders, endHeaders, 1, getBlock...)), on(1, false, getFields...)},
		{"highest stream", join(opening, frame(http2.FrameHeaders, endHeaders, 1<<31-1, getBlock...)), on(1<<31-1, false, getFields...)},
		{"stream with the reserved bit", join(opening, frame(http2.FrameHeaders, endHeaders, 1<<31|5, getBlock...)), on(5, false, getFields...)},
		{"unused flags", join(opening, frame(http2.FrameHeaders, endHeaders|0x92, 1, getBlock...)), on(1, false, getFields...)},
		{"no padding", join(opening, frame(http2.FrameHeaders, endHeaders|padded, 1, 0, 0x82)), on(1, false, getFields[0])},
		{"padding", join(opening, frame(http2.FrameHeaders, endHeaders|padded, 1, 2, 0x82, 0xff, 0xff)), on(1, false, getFields[0])},
		{"padding and nothing else", join(opening, frame(http2.FrameHeaders, endHeaders|padded, 1, 2, 0, 0)), on(1, false)},
		{"priority", join(opening, frame(http2.FrameHeaders, endHeaders|priority, 1, 0, 0, 0, 1, 0, 0x82)), on(1, false, getFields[0])},
		{"padding and priority", join(opening, frame(http2.FrameHeaders, endHeaders|padded|priority, 1, 1, 0, 0, 0, 3, 0, 0x82, 0)), on(1, false, getFields[0])},
		{"priority and nothing else", join(opening, frame(http2.FrameHeaders, endHeaders|priority, 1, 0, 0, 0, 3, 0)), on(1, false)},
		{"empty block", join(opening, frame(http2.FrameHeaders, endHeaders, 1)), on(1, false)},
		{
			"block in four frames",
			join(opening,
				frame(http2.FrameHeaders, endStream|padded, 1, 1, 0x82, 0),
				frame(http2.FrameContinuation, 0, 1, 0x86, 0x44),
				frame(http2.FrameContinuation, 0, 1),
				// Only END_HEADERS has a meaning here.
				frame(http2.FrameContinuation, endHeaders|padded|priority, 1, 0x02, '/', 'x')),
			on(1, true, getFields[0], getFields[1], hpack.HeaderField{Name: ":path", Value: "/x"}),
		},
		{
			"malformed request",
			join(opening, frame(http2.FrameHeaders, endHeaders, 1, join([]byte{0x88, 0x88, 0x00, 1}, []byte("A"), []byte{2}, []byte("\r\n"))...)),
			on(1, false,
				hpack.HeaderField{Name: ":status", Value: "200"}, hpack.HeaderField{Name: ":status", Value: "200"},
				hpack.HeaderField{Name: "A", Value: "\r\n"}),
		},
		{
			"dynamic table",
			join(opening, frame(http2.FrameHeaders, endHeaders, 1, 0x3f, 0xe1, 0x1f, 0x40, 1, 'a', 1, 'b', 0xbe)),
			on(1, false, hpack.HeaderField{Name: "a", Value: "b"}, hpack.HeaderField{Name: "a", Value: "b"}),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var p Parser
			// What follows would be an error, if it were looked at.
			if at := settle(t, &p, join(tt.data, preface)); at != len(tt.data) {
				t.Errorf("settled at %d bytes, want %d", at, len(tt.data))
			}
			if diff := cmp.Diff(tt.want, resultOf(&p), cmp.Transformer("nonNil", func(f []hpack.HeaderField) []hpack.HeaderField {
				return append([]hpack.HeaderField{}, f...)
			})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParserPreface(t *testing.T) {
	t.Parallel()
	for i := range len(Preface) {
		var p Parser
		data := slices.Clone(opening)
		data[i] ^= 0x20
		if at := settle(t, &p, data); at != i+1 || p.state != NotHTTP2 || p.PrefaceSeen() || p.Err() != nil {
			t.Errorf("byte %d wrong: %+v at %d bytes", i, resultOf(&p), at)
		}

		p.Reset()
		if s := p.Parse(preface[:i]); s != Incomplete || p.PrefaceSeen() {
			t.Errorf("%d bytes: %v, preface %v", i, s, p.PrefaceSeen())
		}
	}
	var p Parser
	if s := p.Parse(preface); s != Incomplete || !p.PrefaceSeen() {
		t.Errorf("whole preface: %v, preface %v", s, p.PrefaceSeen())
	}
}

func TestParserOrder(t *testing.T) {
	t.Parallel()
	frames := [][]byte{
		setting(http2.SettingInitialWindowSize, 1<<20),
		frame(http2.FrameSettings, http2.FlagSettingsAck, 0),
		windowUpdate(0, 1<<30),
		frame(http2.FramePriority, 0, 3, 0, 0, 0, 0, 200),
		frame(http2.FramePing, 0, 0, make([]byte, 8)...),
		AppendGoAway(nil, 0, http2.ErrCodeNo, ""),
		frame(http2.FramePriorityUpdate, 0, 0, 0, 0, 0, 1),
	}
	want := result{State: Complete, Preface: true, Fields: getFields, StreamID: 1, EndStream: true}
	var p Parser
	permute(frames, func() {
		data := join(opening, join(frames...), get)
		p.Reset()
		at := -1
		for n := range len(data) + 1 {
			if p.Parse(data[:n]) != Incomplete && at < 0 {
				at = n
			}
		}
		if at != len(data) {
			t.Fatalf("%q: settled at %d bytes, want %d", frames, at, len(data))
		}
		if diff := cmp.Diff(want, resultOf(&p)); diff != "" {
			t.Fatalf("%q: (-want +got):\n%s", frames, diff)
		}
	})
}

// permute calls visit with s in each of its orders.
func permute[E any](s []E, visit func()) {
	var next func(k int)
	next = func(k int) {
		if k == len(s) {
			visit()
			return
		}
		for i := k; i < len(s); i++ {
			s[k], s[i] = s[i], s[k]
			next(k + 1)
			s[k], s[i] = s[i], s[k]
		}
	}
	next(0)
}

func TestParserMaxFrames(t *testing.T) {
	t.Parallel()
	ping := frame(http2.FramePing, 0, 0, make([]byte, 8)...)
	continuation := frame(http2.FrameContinuation, 0, 1)
	for _, limit := range []int{2, 3, 7, 0} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			most := limit
			if limit == 0 {
				most = DefaultMaxFrames
			}
			pings := func(frames int) []byte {
				return join(opening, bytes.Repeat(ping, frames-2), get)
			}
			continuations := func(frames int) []byte {
				if frames == 2 {
					return join(opening, get)
				}
				return join(opening, frame(http2.FrameHeaders, 0, 1, getBlock...), bytes.Repeat(continuation, frames-3),
					frame(http2.FrameContinuation, endHeaders, 1))
			}
			for name, build := range map[string]func(int) []byte{"PING": pings, "CONTINUATION": continuations} {
				p := Parser{MaxFrames: limit}
				data := build(most)
				if at := settle(t, &p, data); at != len(data) || p.state != Complete {
					t.Errorf("%s: %d frames: %+v at %d of %d bytes", name, most, resultOf(&p), at, len(data))
				}

				p.Reset()
				data = build(most + 1)
				// The last frame is over the limit, and its header is enough.
				last := get
				if name == "CONTINUATION" {
					last = continuation
					if most == 2 {
						last = frame(http2.FrameContinuation, endHeaders, 1)
					}
				}
				want := len(data) - len(last) + FrameHeaderLen
				if at := settle(t, &p, data); at != want || p.Err() == nil || p.Err().Code != http2.ErrCodeEnhanceYourCalm {
					t.Errorf("%s: %d frames: %+v at %d bytes, want at %d", name, most+1, resultOf(&p), at, want)
				}
			}
		})
	}
}

// encode returns a header block.
func encode(fields ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range fields {
		enc.WriteField(f)
	}
	return b.Bytes()
}

// headerFrames returns block in as few frames as possible.
func headerFrames(block []byte) []byte {
	var b []byte
	typ := http2.FrameHeaders
	for {
		n := min(len(block), DefaultMaxFrameSize)
		var flags http2.Flags
		if n == len(block) {
			flags = endHeaders
		}
		b = append(b, frame(typ, flags, 1, block[:n]...)...)
		if block = block[n:]; len(block) == 0 {
			return b
		}
		typ = http2.FrameContinuation
	}
}

func TestParserMaxHeaderListSize(t *testing.T) {
	t.Parallel()
	const small = 200
	tests := []struct {
		name  string
		limit int
		over  int // by how much the list is over the limit
		block func(size int) []byte
	}{
		{"one field", small, 0, func(size int) []byte {
			return encode(hpack.HeaderField{Name: "a", Value: strings.Repeat("v", size-33)})
		}},
		{"indexed fields", small, 0, func(size int) []byte {
			return join(getBlock, encode(hpack.HeaderField{Name: "a", Value: strings.Repeat("v", size-33-42-43-38)}))
		}},
		{"default", 0, 0, func(size int) []byte {
			return encode(hpack.HeaderField{Name: "a", Value: strings.Repeat("v", size-33)})
		}},
		{"default in empty fields", 0, 0, func(size int) []byte {
			return bytes.Repeat([]byte{0x00, 0x00, 0x00}, size/32)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			limit := tt.limit
			if limit == 0 {
				limit = DefaultMaxHeaderListSize
			}
			step := 1
			if strings.Contains(tt.name, "empty fields") {
				step = 32
			}
			p := Parser{MaxHeaderListSize: tt.limit}
			data := join(opening, headerFrames(tt.block(limit)))
			if at := settle(t, &p, data); at != len(data) || p.state != Complete {
				t.Errorf("at the limit: %v at %d of %d bytes: %v", p.state, at, len(data), p.Err())
			}
			var size int
			for _, f := range p.Fields() {
				size += int(f.Size())
			}
			if size != limit {
				t.Errorf("list of %d bytes, want %d", size, limit)
			}

			p.Reset()
			data = join(opening, headerFrames(tt.block(limit+step)))
			if at := settle(t, &p, data); at != len(data) || p.Err() == nil || p.Err().Code != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("over the limit: %v at %d of %d bytes: %v", p.state, at, len(data), p.Err())
			}
		})
	}
}

// A string over the limit is reported as that, and not as what is wrong with it or with the block behind it.
func TestParserMaxHeaderListSizeFirst(t *testing.T) {
	t.Parallel()
	for name, block := range map[string][]byte{
		"declared string length": {0x00, 0x7f, 0x80, 0x01},
		"encoded string":         join([]byte{0x00, 0x00, 0xff, 0x00}, bytes.Repeat([]byte{0xff}, 127)),
		"indexes, then index 0":  append(bytes.Repeat([]byte{0x82}, 4), 0x80),
		"value, then index 0":    append(encode(hpack.HeaderField{Name: "a", Value: strings.Repeat("v", 68)}), 0x80),
	} {
		p := Parser{MaxHeaderListSize: 100}
		data := join(opening, frame(http2.FrameHeaders, endHeaders, 1, block...))
		if at := settle(t, &p, data); p.Err() == nil || p.Err().Code != http2.ErrCodeEnhanceYourCalm || !p.TooLarge() {
			t.Errorf("%s: %+v at %d of %d bytes", name, resultOf(&p), at, len(data))
		}
	}
}

// A block can index an entry of the dynamic table, which is as large as the table, with each of its bytes.
func TestParserExpansion(t *testing.T) {
	t.Parallel()
	big := encode(hpack.HeaderField{Name: "a", Value: strings.Repeat("\x00", DefaultTableSize-33)})
	block := append(big, bytes.Repeat([]byte{0xbe}, 98*DefaultMaxFrameSize-len(big))...)
	data := join(opening, headerFrames(block))

	var p Parser
	if at := settle(t, &p, data); at < 0 || !p.TooLarge() {
		t.Fatalf("%v at %d of %d bytes: %v", p.state, at, len(data), p.Err())
	}
	if n, most := len(p.fields), DefaultMaxHeaderListSize/DefaultTableSize; n > most {
		t.Errorf("kept %d fields, want at most %d", n, most)
	}
}

// Not parallel, because it counts allocations.
func TestParserStopsDecoding(t *testing.T) {
	block := append(bytes.Repeat([]byte{0x82}, 3), bytes.Repeat([]byte{0x00, 2, 'a', 'a', 2, 'b', 'b'}, 2000)...)
	data := join(opening, frame(http2.FrameHeaders, endHeaders, 1, block...))
	p := Parser{MaxHeaderListSize: 100}
	if n := testing.AllocsPerRun(10, func() {
		p.Reset()
		p.Parse(data)
	}); n > 100 {
		t.Errorf("%v allocations for %v", n, p.Err())
	}
}

func TestParserReset(t *testing.T) {
	t.Parallel()
	parse := func(p *Parser, frames ...[]byte) result {
		p.Parse(join(opening, join(frames...)))
		return resultOf(p)
	}
	indexed := frame(http2.FrameHeaders, endHeaders, 1, 0xbe)
	resized := frame(http2.FrameHeaders, endHeaders, 1, 0x20)
	literal := frame(http2.FrameHeaders, endHeaders, 1, 0x40, 1, 'a', 1, 'b', 0xbe)
	tests := []struct {
		name          string
		first, second []byte
	}{
		{"dynamic table", literal, indexed},
		{"dynamic table size", resized, literal},
		{"size update after a block", literal, frame(http2.FrameHeaders, endHeaders, 1, 0x20, 0x3f, 0xe1, 0x1f, 0x82)},
		{"decoding error", frame(http2.FrameHeaders, endHeaders, 1, 0x40, 1, 'a', 1, 'b', 0x80), indexed},
		{"truncated block", frame(http2.FrameHeaders, endHeaders, 1, 0x40), literal},
		{"list too large", headerFrames(bytes.Repeat([]byte{0x82}, 2000)), literal},
		{"unfinished block", frame(http2.FrameHeaders, 0, 1, 0x40), literal},
		{"split block", join(frame(http2.FrameHeaders, 0, 1, 0x40, 1, 'a'), frame(http2.FrameContinuation, endHeaders, 1, 1, 'b')), indexed},
		{"window", windowUpdate(0, 1<<31-1-65535), join(windowUpdate(0, 1<<31-1-65535), get)},
		{"protocol error", frame(http2.FrameData, 0, 1), get},
		{"half a frame header", get[:5], get},
		{"half a frame", get[:10], literal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var p, fresh Parser
			parse(&p, tt.first)
			p.Reset()
			if diff := cmp.Diff(result{}, resultOf(&p)); diff != "" {
				t.Errorf("after Reset (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(parse(&fresh, tt.second), parse(&p, tt.second)); diff != "" {
				t.Errorf("fresh (-) and reset (+) differ:\n%s", diff)
			}
		})
	}

	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		p := Parser{MaxFrames: 5, MaxHeaderListSize: 50000}
		p.Parse(join(opening, frame(http2.FrameHeaders, endHeaders, 1, bytes.Repeat([]byte{0x82}, 1000)...)))
		if len(p.Fields()) != 1000 {
			t.Fatalf("%v with %d fields: %v", p.state, len(p.Fields()), p.Err())
		}
		p.Reset()
		if cap(p.fields) > 1000/2 {
			t.Errorf("Reset kept memory for %d fields", cap(p.fields))
		}
		if p.MaxFrames != 5 || p.MaxHeaderListSize != 50000 {
			t.Errorf("Reset changed the limits to %d, %d", p.MaxFrames, p.MaxHeaderListSize)
		}

		p.Parse(join(opening, frame(http2.FrameHeaders, 0, 1, 0x82), frame(http2.FrameContinuation, endHeaders, 1)))
		p.Reset()
		if p.block.tail != nil {
			t.Error("Reset kept the buffer of a split block")
		}

		p.Parse(join(opening, get))
		fields := p.Fields()
		p.Reset()
		if fields[0] != (hpack.HeaderField{}) {
			t.Errorf("Reset kept %v", fields[0])
		}
	})
}

// TestParserFieldsEarly checks that each field is known with its last byte, and that those before it are not forgotten,
// wherever frames and reads are cut.
func TestParserFieldsEarly(t *testing.T) {
	t.Parallel()
	want := []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":path", Value: "/" + strings.Repeat("a", 200)},
		{Name: "cookie", Value: strings.Repeat("c", 20_000)},
		{Name: "x", Value: ""},
		{Name: strings.Repeat("n", 20_000), Value: strings.Repeat("\x00", 20_000)},
		{Name: "x", Value: "", Sensitive: true},
	}
	var block []byte
	ends := []int{} // of the fields, in the block
	for _, f := range want {
		block = append(block, encode(f)...) // with an encoder of its own, so without the dynamic table
		ends = append(ends, len(block))
	}
	block = append([]byte{0x3f, 0xe1, 0x1f}, block...) // RFC 7541, Section 6.3
	for _, size := range []int{1000, 4096, DefaultMaxFrameSize - 8} {
		var data []byte
		at := make([]int, len(block)) // where each byte of the block is
		for start := 0; start < len(block); start += size {
			typ, flags, payload := http2.FrameContinuation, http2.Flags(0), block[start:min(start+size, len(block))]
			if start == 0 {
				typ, flags, payload = http2.FrameHeaders, padded, join([]byte{7}, payload, make([]byte, 7))
			}
			if start+size >= len(block) {
				flags |= endHeaders
			}
			begin := len(opening) + len(data) + FrameHeaderLen
			if start == 0 {
				begin++
			}
			for i := range min(size, len(block)-start) {
				at[start+i] = begin + i
			}
			data = append(data, frame(typ, flags, 1, payload...)...)
		}
		data = join(opening, data)
		p := Parser{MaxHeaderListSize: 1 << 20}
		for n := range len(data) + 1 {
			p.Parse(data[:n:n])
			known := 0
			for _, end := range ends {
				if at[end+3-1] < n {
					known++
				}
			}
			if got := p.Fields(); len(got) != known {
				t.Fatalf("frames of %d: %d fields after %d bytes, want %d: %v", size, len(got), n, known, p.Err())
			}
		}
		if diff := cmp.Diff(want, p.Fields()); p.State() != Complete || diff != "" {
			t.Errorf("frames of %d: %v, %v (-want +got):\n%s", size, p.State(), p.Err(), diff)
		}
		if p.Held() < 60_000 {
			t.Errorf("frames of %d: %d bytes held", size, p.Held())
		}
	}
}

// The caller may reuse the buffer between calls, and a Parser that waits for its next connection must not keep the
// buffer of the last one alive.
func TestParserReleasesData(t *testing.T) {
	t.Parallel()
	tests := map[string][]byte{
		"Complete":         join(opening, get),
		"literal":          join(opening, frame(http2.FrameHeaders, endHeaders, 1, 0x40, 1, 'a', 1, 'b')),
		"split block":      join(opening, frame(http2.FrameHeaders, 0, 1, 0x82), frame(http2.FrameContinuation, endHeaders, 1)),
		"Incomplete":       join(opening, get[:len(get)-1]),
		"unfinished block": join(opening, frame(http2.FrameHeaders, 0, 1, 0x82)),
		"decoding error":   join(opening, frame(http2.FrameHeaders, endHeaders, 1, 0x80, 0, 0, 0)),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p Parser
			buf := slices.Clone(data)
			w := weak.Make(&buf[0])
			p.Parse(buf)
			runtime.GC()
			if w.Value() != nil {
				t.Error("the parser keeps the data")
			}
			runtime.KeepAlive(&p)
		})
	}
}

func TestConnError(t *testing.T) {
	t.Parallel()
	err := error(&ConnError{http2.ErrCodeProtocol, "reason"})
	if got, want := err.Error(), "http2: connection error: PROTOCOL_ERROR: reason"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStateString(t *testing.T) {
	t.Parallel()
	want := []string{"Incomplete", "Complete", "NotHTTP2", "Error", "State(4)"}
	for s, want := range want {
		if got := State(s).String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// capture is what a client of testdata/captures sent.
type capture struct {
	name  string
	first []byte // before the server said anything
	all   []byte
}

func captures(t testing.TB) []capture {
	t.Helper()
	paths, err := filepath.Glob("../../testdata/captures/*.1.bin")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	var cs []capture
	for _, path := range paths {
		first, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		second, err := os.ReadFile(strings.TrimSuffix(path, ".1.bin") + ".2.bin")
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		cs = append(cs, capture{
			name:  strings.TrimSuffix(filepath.Base(path), ".1.bin"),
			first: first,
			all:   join(first, second),
		})
	}
	return cs
}

func TestParserCaptures(t *testing.T) {
	t.Parallel()

	request := func(streamID uint32, endStream bool, fields ...string) result {
		r := result{State: Complete, Preface: true, StreamID: streamID, EndStream: endStream}
		for i := 0; i < len(fields); i += 2 {
			r.Fields = append(r.Fields, hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return r
	}
	notHTTP2 := result{State: NotHTTP2}
	tests := map[string]struct {
		at   int // how many bytes settle it
		want result
	}{
		"chromium-http1":        {1, notHTTP2},
		"chromium-tls":          {1, notHTTP2},
		"curl-h2c-upgrade":      {1, notHTTP2},
		"curl-h2c-upgrade-post": {2, notHTTP2},
		"curl-http1":            {1, notHTTP2},
		"nghttp-h2c-upgrade":    {1, notHTTP2},
		"openssl-tls12-noalpn":  {1, notHTTP2},
		"openssl-tls13":         {1, notHTTP2},
		"curl-h2c-prior": {109, request(1, true,
			":method", "GET", ":path", "/hello", ":scheme", "http", ":authority", "127.0.0.1:9100",
			"user-agent", "curl/7.88.1", "accept", "*/*")},
		"nghttp-h2c-prior": {168, request(13, true,
			":method", "GET", ":path", "/hello", ":scheme", "http", ":authority", "127.0.0.1:9100",
			"accept", "*/*", "accept-encoding", "gzip, deflate", "user-agent", "nghttp2/1.52.0")},
		"node-http2": {63, request(1, true,
			":path", "/hello", ":method", "GET", ":authority", "127.0.0.1:9100", ":scheme", "http")},
		"grpc-go": {33 + 9 + 9 + 73, request(1, false,
			":method", "POST", ":scheme", "http", ":path", "/grpc.health.v1.Health/Check", ":authority", "127.0.0.1:9100",
			"content-type", "application/grpc", "user-agent", "grpc-go/1.85.0", "te", "trailers")},
		"grpc-js": {39 + 9 + 9 + 134, request(1, false,
			":authority", "127.0.0.1:9100", ":method", "POST", ":path", "/grpc.health.v1.Health/Check", ":scheme", "http",
			"grpc-accept-encoding", "identity,deflate,gzip", "accept-encoding", "identity",
			"grpc-timeout", "2583m", "user-agent", "grpc-node-js/1.14.7",
			"content-type", "application/grpc", "te", "trailers")},
	}
	cs := captures(t)
	if len(cs) != len(tests) {
		t.Errorf("%d captures, want %d", len(cs), len(tests))
	}
	for _, c := range cs {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tt, ok := tests[c.name]
			if !ok {
				t.Fatal("no expectation")
			}
			var p Parser
			if at := settle(t, &p, c.all); at != tt.at {
				t.Errorf("settled at %d bytes, want %d", at, tt.at)
			}
			if diff := cmp.Diff(tt.want, resultOf(&p)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for n := range len(c.all) + 1 {
				p.Reset()
				want := result{Preface: n >= len(Preface) && tt.want.Preface}
				if n >= tt.at {
					want = tt.want
				}
				p.Parse(c.all[:n:n])
				if diff := cmp.Diff(want, resultOf(&p)); diff != "" {
					t.Fatalf("%d bytes (-want +got):\n%s", n, diff)
				}
			}
			p.Reset()
			strict := strings.HasPrefix(c.name, "grpc-")
			if got := p.Parse(c.first); (got == Incomplete) != strict {
				t.Errorf("before the server's SETTINGS: %v", got)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, c := range captures(b) {
		b.Run(c.name, func(b *testing.B) {
			var p Parser
			b.SetBytes(int64(len(c.all)))
			b.ReportAllocs()
			for b.Loop() {
				p.Reset()
				p.Parse(c.all)
			}
		})
	}
}

// TestParserBlock checks that the first header block is found again if it is in one frame, wherever reads are cut.
func TestParserBlock(t *testing.T) {
	t.Parallel()
	block := []byte{0x82, 0x40, 1, 'a', 1, 'b'}
	tests := []struct {
		name   string
		frames []byte
		want   []byte
	}{
		{"plain", frame(http2.FrameHeaders, endHeaders, 1, block...), block},
		{"padded", frame(http2.FrameHeaders, endHeaders|padded, 1, join([]byte{2}, block, []byte{0, 0})...), block},
		{"with priority", frame(http2.FrameHeaders, endHeaders|priority, 1, join(make([]byte, 5), block)...), block},
		{"behind other frames", join(windowUpdate(0, 1), frame(http2.FrameHeaders, endHeaders, 1, block...)), block},
		{"in two frames", join(frame(http2.FrameHeaders, 0, 1, block[:3]...), frame(http2.FrameContinuation, endHeaders, 1, block[3:]...)), nil},
		{"in front of an empty frame", join(frame(http2.FrameHeaders, 0, 1, block...), frame(http2.FrameContinuation, endHeaders, 1)), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data := join(opening, tt.frames)
			var p Parser
			for n := range len(data) + 1 {
				p.Parse(data[:n])
			}
			if p.State() != Complete {
				t.Fatalf("%v: %v", p.State(), p.Err())
			}
			if got := p.Block(data); !bytes.Equal(got, tt.want) {
				t.Errorf("got % x, want % x", got, tt.want)
			}
			p.Reset()
			if data := join(opening, get); p.Parse(data) != Complete || !bytes.Equal(p.Block(data), getBlock) {
				t.Errorf("after Reset, %v with % x", p.State(), p.Block(data))
			}
		})
	}
}
