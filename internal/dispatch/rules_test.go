package dispatch

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// TestSameRules checks that a frame of a client's is judged alike by the parser of the opening, by a dispatcher whose
// connection has no request yet, and by one that shares a connection among servers. The column bare is the verdict of
// http2.Framer, with which net/http and grpc-go read.
func TestSameRules(t *testing.T) {
	const (
		ok          = http2.ErrCodeNo
		protocol    = http2.ErrCodeProtocol
		frameSize   = http2.ErrCodeFrameSize
		flowControl = http2.ErrCodeFlowControl
	)
	frame := func(typ http2.FrameType, flags http2.Flags, id uint32, payload ...byte) []byte {
		return h2.AppendFrame(nil, typ, flags, id, payload)
	}
	settings := func(n int) []byte {
		list := make([]http2.Setting, n)
		for i := range list {
			list[i] = http2.Setting{ID: http2.SettingID(0x1000 + i), Val: 1}
		}
		return h2.AppendSettings(nil, list...)
	}
	for _, tt := range []struct {
		name                string
		frame               []byte
		bare                http2.ErrCode
		parser, dispatchers http2.ErrCode
	}{
		// RFC 9113, Section 6.3 makes a stream error of a wrong length, where Framer ends the connection. A server that has
		// the stream gets the frame and judges it; otherwise it is ignored.
		{"PRIORITY", frame(http2.FramePriority, 0, 9, 0, 0, 0, 1, 0), ok, ok, ok},
		{"PRIORITY, empty", frame(http2.FramePriority, 0, 9), frameSize, ok, ok},
		{"PRIORITY of length 3", frame(http2.FramePriority, 0, 9, 0, 0, 1), frameSize, ok, ok},
		{"PRIORITY of length 6", frame(http2.FramePriority, 0, 9, 0, 0, 0, 1, 0, 0), frameSize, ok, ok},
		{"PRIORITY of length 16384", frame(http2.FramePriority, 0, 9, make([]byte, 16384)...), frameSize, ok, ok},
		{"PRIORITY of length 16385", frame(http2.FramePriority, 0, 9, make([]byte, 16385)...), frameSize, frameSize, frameSize},
		{"PRIORITY on stream 0", frame(http2.FramePriority, 0, 0, 0, 0, 0, 1, 0), protocol, protocol, protocol},

		// RFC 7540, Section 5.3.1 makes a stream error of this, and the stream cannot be reset since it is idle. RFC 9113 has
		// taken the rule out. Framer leaves it to its caller.
		{"PRIORITY of itself", frame(http2.FramePriority, 0, 9, 0, 0, 0, 9, 0), ok, protocol, protocol},
		{"PRIORITY of itself, too short", frame(http2.FramePriority, 0, 9, 0, 0, 0, 9), frameSize, ok, ok},

		// RFC 9113, Section 6.5 bounds the number of settings by the length of a frame alone.
		{"101 settings", settings(101), ok, ok, ok},
		{"2730 settings", settings(2730), ok, ok, ok},
		{"2731 settings", settings(2731), frameSize, frameSize, frameSize},
		{
			// Framer leaves the values to its caller, who reports the first fault.
			"SETTINGS with two faults",
			h2.AppendSettings(nil, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}, http2.Setting{ID: http2.SettingEnablePush, Val: 2}),
			flowControl, flowControl, flowControl,
		},
		{
			"SETTINGS with two faults, in the other order",
			h2.AppendSettings(nil, http2.Setting{ID: http2.SettingEnablePush, Val: 2}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}),
			ok, protocol, protocol,
		},
		{"SETTINGS acknowledgment with a payload", frame(http2.FrameSettings, http2.FlagSettingsAck, 0, make([]byte, 6)...), frameSize, frameSize, frameSize},

		// RFC 9113, Section 6.2.
		{"HEADERS on stream 0", frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, 0x82), protocol, protocol, protocol},
		{"HEADERS on an even stream", frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2, 0x82), ok, protocol, protocol},
		{"HEADERS without Weight", frame(http2.FrameHeaders, http2.FlagHeadersPriority, 9, 0, 0, 0, 1), frameSize, frameSize, frameSize},
		{"HEADERS with more padding than payload", frame(http2.FrameHeaders, http2.FlagHeadersPadded, 9, 2, 0), ok, protocol, protocol},
		{
			"HEADERS with padding over the priority fields",
			frame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersPriority, 9, 1, 0, 0, 0, 1, 0),
			ok, protocol, protocol,
		},

		// RFC 9113, Sections 6.10 and 4.2.
		{
			"CONTINUATION of another stream",
			slices.Concat(frame(http2.FrameHeaders, 0, 9, 0x82), frame(http2.FrameContinuation, 0, 11)),
			protocol, protocol, protocol,
		},
		{
			"long CONTINUATION",
			slices.Concat(frame(http2.FrameHeaders, 0, 9, 0x82), frame(http2.FrameContinuation, 0, 9, make([]byte, 16385)...)),
			frameSize, frameSize, frameSize,
		},
		{"CONTINUATION without HEADERS", frame(http2.FrameContinuation, 0, 9), protocol, protocol, protocol},

		// RFC 9113, Sections 6.7, 6.8 and 8.4.
		{"PING of length 7", frame(http2.FramePing, 0, 0, make([]byte, 7)...), frameSize, frameSize, frameSize},
		{"GOAWAY of length 7", frame(http2.FrameGoAway, 0, 0, make([]byte, 7)...), frameSize, frameSize, frameSize},
		{"GOAWAY with debug data", frame(http2.FrameGoAway, 0, 0, make([]byte, 1000)...), ok, ok, ok},
		{"PUSH_PROMISE on stream 0", frame(http2.FramePushPromise, 0, 0, 0, 0, 0, 2), protocol, protocol, protocol},
		{"PUSH_PROMISE", frame(http2.FramePushPromise, 0, 1, 0, 0, 0, 2), ok, protocol, protocol},

		// RFC 9113, Section 6.9.
		{"WINDOW_UPDATE by 0", frame(http2.FrameWindowUpdate, 0, 0, 0, 0, 0, 0), protocol, protocol, protocol},
		{"WINDOW_UPDATE by too much", frame(http2.FrameWindowUpdate, 0, 0, 0x7f, 0xff, 0xff, 0xff), ok, flowControl, flowControl},
		{"WINDOW_UPDATE of length 3", frame(http2.FrameWindowUpdate, 0, 0, 0, 0, 1), frameSize, frameSize, frameSize},

		// Frames that break two rules, of which RFC 9113 does not say which to report. The parser of the opening reports that
		// the stream is idle, which it sees first.
		{"padded DATA of length 0 on an idle stream", frame(http2.FrameData, http2.FlagDataPadded, 9), frameSize, protocol, frameSize},
		{"RST_STREAM of length 3 on an idle stream", frame(http2.FrameRSTStream, 0, 9, 0, 0, 0), frameSize, protocol, frameSize},
		{"WINDOW_UPDATE of length 3 on an idle stream", frame(http2.FrameWindowUpdate, 0, 9, 0, 0, 1), frameSize, protocol, frameSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := framerVerdict(tt.frame); got != tt.bare {
				t.Errorf("Framer: %v, want %v", got, tt.bare)
			}
			var p h2.Parser
			p.Parse(append(h2.AppendSettings([]byte(h2.Preface)), tt.frame...))
			got := ok
			if err := p.Err(); err != nil {
				got = err.Code
			}
			if got != tt.parser {
				t.Errorf("h2.Parser: %v, want %v", got, tt.parser)
			}

			inWorld(t, newDispatcher(1), func(w *world) {
				w.client.Write(tt.frame)
				if got := verdict(w.client.got()); got != tt.parser {
					t.Errorf("opening: %v, want %v", got, tt.parser)
				}
			})
			d := newDispatcher(1)
			d.AlwaysSplit = true
			inWorld(t, d, func(w *world) {
				w.client.request(1, "0", false)
				a := w.accept(0, "HEADERS 1 :method=GET :path=/0")
				defer a.close()
				w.client.Write(tt.frame)
				if got := verdict(w.client.got()); got != tt.dispatchers {
					t.Errorf("splitting: %v, want %v", got, tt.dispatchers)
				}
			})
		})
	}
}

// framerVerdict returns the connection error that http2.Framer makes of the last of the frames.
func framerVerdict(frames []byte) http2.ErrCode {
	r := bytes.NewReader(frames)
	fr := http2.NewFramer(nil, r)
	fr.SetMaxReadFrameSize(h2.DefaultMaxFrameSize)
	for r.Len() > 0 {
		switch _, err := fr.ReadFrame(); err := err.(type) {
		case nil, http2.StreamError:
		case http2.ConnectionError:
			return http2.ErrCode(err)
		default: // ErrFrameTooLarge, or io.ErrUnexpectedEOF for a frame without room for its fields
			return http2.ErrCodeFrameSize
		}
	}
	return http2.ErrCodeNo
}

// verdict returns the code of the GOAWAY frame with which the lines end, or NO_ERROR.
func verdict(lines []string) http2.ErrCode {
	if len(lines) == 0 || !strings.HasPrefix(lines[len(lines)-1], "GOAWAY ") {
		return http2.ErrCodeNo
	}
	for code := range http2.ErrCodeHTTP11Required + 1 {
		if strings.Contains(lines[len(lines)-1], " "+code.String()+" ") {
			return code
		}
	}
	return 1<<32 - 1
}

// TestPriorityOfWrongLength checks that a server judges a PRIORITY frame on its own stream.
func TestPriorityOfWrongLength(t *testing.T) {
	for _, split := range []bool{false, true} {
		t.Run(fmt.Sprintf("split %t", split), func(t *testing.T) {
			t.Parallel()
			d := newDispatcher(2)
			d.AlwaysSplit = split
			inWorld(t, d, func(w *world) {
				w.client.request(1, "0", false)
				a := w.accept(0, "HEADERS 1 :method=GET :path=/0")
				defer a.close()
				a.got()
				w.client.fr.WriteRawFrame(http2.FramePriority, 0, 1, make([]byte, 4))
				a.got()
				a.mu.Lock()
				defer a.mu.Unlock()
				if a.err == nil || !strings.Contains(a.err.Error(), "FRAME_SIZE_ERROR") {
					t.Errorf("the server reads %v, %v", a.lines, a.err)
				}
			})
		})
	}
}

// TestManySettings checks that a server is told of every known parameter, however many unknown ones a client sends in
// front of it, in its first SETTINGS frame or later.
func TestManySettings(t *testing.T) {
	many := make([]http2.Setting, 2720)
	for i := range many {
		many[i] = http2.Setting{ID: http2.SettingID(0x1000 + i), Val: 1}
	}
	known := []http2.Setting{
		{ID: http2.SettingHeaderTableSize, Val: 100}, {ID: http2.SettingMaxConcurrentStreams, Val: 3},
		{ID: http2.SettingInitialWindowSize, Val: 10}, {ID: http2.SettingMaxFrameSize, Val: 20_000},
		{ID: http2.SettingMaxHeaderListSize, Val: 6}, {ID: http2.SettingEnableConnectProtocol, Val: 1},
		{ID: http2.SettingNoRFC7540Priorities, Val: 1},
	}
	want := make(map[http2.SettingID]uint32)
	for _, s := range slices.Concat(many[:h2.MaxUnknownSettings], known) {
		want[s.ID] = s.Val
	}

	t.Run("opening", func(t *testing.T) {
		t.Parallel()
		inWorld(t, newDispatcher(1), func(w *world) {
			w.client.fr.WriteSettings(many...)
			w.client.fr.WriteSettings(known...)
			w.client.request(1, "0", true)
			c, err := w.d.all()[0].Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			checkGreeting(t, c, want)
		})
	})
	t.Run("splitting", func(t *testing.T) {
		t.Parallel()
		d := newDispatcher(2)
		d.AlwaysSplit = true
		inWorld(t, d, func(w *world) {
			w.client.request(1, "0", false)
			a := w.accept(0, "HEADERS 1 :method=GET :path=/0")
			defer a.close()
			w.client.fr.WriteSettings(many...)
			w.client.fr.WriteSettings(known...)
			lines := strings.Join(a.got(), "\n")
			a.fr.WriteSettingsAck()
			lines += strings.Join(a.got(), "\n")
			for _, s := range known {
				if !strings.Contains(lines, s.String()) {
					t.Errorf("the first server is not told %v", s)
				}
			}
			w.client.request(3, "1", true)
			c, err := d.all()[1].Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			checkGreeting(t, c, want)
		})
	})
}

// checkGreeting checks what a server's first SETTINGS frame says, beside SETTINGS_ENABLE_PUSH.
func checkGreeting(t *testing.T, c net.Conn, want map[http2.SettingID]uint32) {
	t.Helper()
	b := make([]byte, len(h2.Preface)+h2.FrameHeaderLen)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, h2.ParseFrameHeader(b[len(h2.Preface):]).Length)
	if _, err := io.ReadFull(c, payload); err != nil {
		t.Fatal(err)
	}
	got := make(map[http2.SettingID]uint32)
	for s := range h2.Settings(payload) {
		got[s.ID] = s.Val
	}
	if got[http2.SettingEnablePush] != 0 {
		t.Error("a server may push")
	}
	delete(got, http2.SettingEnablePush)
	for id, val := range want {
		if v, ok := got[id]; !ok || v != val {
			t.Errorf("the server is told %v, %v of %v, want %d", v, ok, id, val)
		}
		delete(got, id)
	}
	if len(got) > 0 {
		t.Errorf("the server is also told %v", got)
	}
}
