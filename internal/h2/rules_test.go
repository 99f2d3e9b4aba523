package h2

import (
	"testing"

	"golang.org/x/net/http2"
)

func TestCheckFrameHeader(t *testing.T) {
	t.Parallel()
	const (
		ok        = http2.ErrCodeNo
		protocol  = http2.ErrCodeProtocol
		frameSize = http2.ErrCodeFrameSize

		ack     = http2.FlagSettingsAck
		longest = DefaultMaxFrameSize
	)
	tests := []struct {
		name                   string
		typ                    http2.FrameType
		flags                  http2.Flags
		streamID               uint32
		length                 uint32
		fromClient, fromServer http2.ErrCode
	}{
		// RFC 9113, Section 4.2.
		{"longest DATA", http2.FrameData, 0, 1, longest, ok, ok},
		{"long DATA", http2.FrameData, 0, 1, longest + 1, frameSize, frameSize},
		{"long HEADERS", http2.FrameHeaders, 0, 1, longest + 1, frameSize, frameSize},
		{"long PRIORITY", http2.FramePriority, 0, 1, longest + 1, frameSize, frameSize},
		{"long SETTINGS", http2.FrameSettings, 0, 0, longest + 2, frameSize, frameSize},
		{"long GOAWAY", http2.FrameGoAway, 0, 0, longest + 1, frameSize, frameSize},
		{"long unknown frame", 0xfa, 0, 1, longest + 1, frameSize, frameSize},
		{"long frame on a wrong stream", http2.FrameData, 0, 0, longest + 1, frameSize, frameSize},

		// RFC 9113, Section 6.1.
		{"DATA", http2.FrameData, 0, 1, 0, ok, ok},
		{"DATA on an even stream", http2.FrameData, 0, 2, 0, ok, ok},
		{"DATA on stream 0", http2.FrameData, 0, 0, 0, protocol, protocol},
		{"padded DATA", http2.FrameData, padded, 1, 1, ok, ok},
		{"padded DATA without Pad Length", http2.FrameData, padded, 1, 0, frameSize, frameSize},

		// RFC 9113, Sections 6.2 and 5.1.1.
		{"empty HEADERS", http2.FrameHeaders, endHeaders, 1, 0, ok, ok},
		{"HEADERS on stream 0", http2.FrameHeaders, endHeaders, 0, 1, protocol, protocol},
		{"HEADERS on an even stream", http2.FrameHeaders, endHeaders, 2, 1, protocol, ok},
		{"HEADERS on the last stream", http2.FrameHeaders, endHeaders, MaxStreamID, 1, ok, ok},
		{"HEADERS with Pad Length", http2.FrameHeaders, padded, 1, 1, ok, ok},
		{"HEADERS without Pad Length", http2.FrameHeaders, padded, 1, 0, frameSize, frameSize},
		{"HEADERS with priority", http2.FrameHeaders, priority, 1, 5, ok, ok},
		{"HEADERS without Weight", http2.FrameHeaders, priority, 1, 4, frameSize, frameSize},
		{"HEADERS with Pad Length and priority", http2.FrameHeaders, padded | priority, 1, 6, ok, ok},
		{"HEADERS without Weight after Pad Length", http2.FrameHeaders, padded | priority, 1, 5, frameSize, frameSize},

		// RFC 9113, Section 6.3.
		{"PRIORITY", http2.FramePriority, 0, 1, 5, ok, ok},
		{"PRIORITY on stream 0", http2.FramePriority, 0, 0, 5, protocol, protocol},
		{"PRIORITY of length 4", http2.FramePriority, 0, 1, 4, ok, ok},
		{"PRIORITY of length 6", http2.FramePriority, 0, 1, 6, ok, ok},

		// RFC 9113, Section 6.4.
		{"RST_STREAM", http2.FrameRSTStream, 0, 1, 4, ok, ok},
		{"RST_STREAM on stream 0", http2.FrameRSTStream, 0, 0, 4, protocol, protocol},
		{"RST_STREAM of length 3", http2.FrameRSTStream, 0, 1, 3, frameSize, frameSize},
		{"RST_STREAM of length 5", http2.FrameRSTStream, 0, 1, 5, frameSize, frameSize},

		// RFC 9113, Section 6.5.
		{"empty SETTINGS", http2.FrameSettings, 0, 0, 0, ok, ok},
		{"longest SETTINGS", http2.FrameSettings, 0, 0, longest / SettingLen * SettingLen, ok, ok},
		{"SETTINGS on a stream", http2.FrameSettings, 0, 1, 6, protocol, protocol},
		{"SETTINGS with a partial setting", http2.FrameSettings, 0, 0, 7, frameSize, frameSize},
		{"SETTINGS acknowledgment", http2.FrameSettings, ack, 0, 0, ok, ok},
		{"SETTINGS acknowledgment with a payload", http2.FrameSettings, ack, 0, 6, frameSize, frameSize},
		{"SETTINGS acknowledgment on a stream, with a payload", http2.FrameSettings, ack, 1, 6, protocol, protocol},

		// RFC 9113, Sections 6.6 and 8.4.
		{"PUSH_PROMISE", http2.FramePushPromise, endHeaders, 1, 4, protocol, protocol},
		{"PUSH_PROMISE on stream 0", http2.FramePushPromise, endHeaders, 0, 4, protocol, protocol},

		// RFC 9113, Section 6.7.
		{"PING", http2.FramePing, 0, 0, 8, ok, ok},
		{"PING on a stream", http2.FramePing, 0, 1, 8, protocol, protocol},
		{"PING of length 7", http2.FramePing, 0, 0, 7, frameSize, frameSize},
		{"PING acknowledgment of length 9", http2.FramePing, ack, 0, 9, frameSize, frameSize},

		// RFC 9113, Section 6.8.
		{"GOAWAY", http2.FrameGoAway, 0, 0, 8, ok, ok},
		{"GOAWAY with debug data", http2.FrameGoAway, 0, 0, longest, ok, ok},
		{"GOAWAY on a stream", http2.FrameGoAway, 0, 1, 8, protocol, protocol},
		{"GOAWAY of length 7", http2.FrameGoAway, 0, 0, 7, frameSize, frameSize},

		// RFC 9113, Section 6.9.
		{"WINDOW_UPDATE", http2.FrameWindowUpdate, 0, 1, 4, ok, ok},
		{"WINDOW_UPDATE of the connection", http2.FrameWindowUpdate, 0, 0, 4, ok, ok},
		{"WINDOW_UPDATE of length 3", http2.FrameWindowUpdate, 0, 0, 3, frameSize, frameSize},
		{"WINDOW_UPDATE of a stream, of length 5", http2.FrameWindowUpdate, 0, 1, 5, frameSize, frameSize},

		// RFC 9113, Sections 6.10 and 5.5.
		{"CONTINUATION", http2.FrameContinuation, endHeaders, 1, 1, protocol, protocol},
		{"PRIORITY_UPDATE", http2.FramePriorityUpdate, 0, 0, 4, ok, ok},
		{"PRIORITY_UPDATE on a stream, too short", http2.FramePriorityUpdate, 0, 1, 3, ok, ok},
		{"unknown frame", 0xfa, 0xff, 2, longest, ok, ok},
	}
	for _, tt := range tests {
		h := FrameHeader{Type: tt.typ, Flags: tt.flags, StreamID: tt.streamID, Length: tt.length}
		for from, want := range []http2.ErrCode{FromClient: tt.fromClient, FromServer: tt.fromServer} {
			if got := codeOf(CheckFrameHeader(h, Direction(from), longest)); got != want {
				t.Errorf("%s, direction %d: got %v, want %v", tt.name, from, got, want)
			}
		}
	}
}

// codeOf returns the code of err, or ErrCodeNo if there is none.
func codeOf(err *ConnError) http2.ErrCode {
	if err == nil {
		return http2.ErrCodeNo
	}
	return err.Code
}

func TestCheckContinuation(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		typ      http2.FrameType
		streamID uint32
		length   uint32
		want     http2.ErrCode
	}{
		{"CONTINUATION", http2.FrameContinuation, 3, 0, http2.ErrCodeNo},
		{"longest", http2.FrameContinuation, 3, 100, http2.ErrCodeNo},
		{"too long", http2.FrameContinuation, 3, 101, http2.ErrCodeFrameSize},
		{"another stream", http2.FrameContinuation, 1, 0, http2.ErrCodeProtocol},
		{"HEADERS", http2.FrameHeaders, 3, 0, http2.ErrCodeProtocol},
		{"unknown frame", 0xfa, 3, 0, http2.ErrCodeProtocol},
		{"PRIORITY, too long", http2.FramePriority, 3, 101, http2.ErrCodeProtocol},
	}
	for _, tt := range tests {
		h := FrameHeader{Type: tt.typ, StreamID: tt.streamID, Length: tt.length}
		if got := codeOf(CheckContinuation(h, 3, 100)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestFragment(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		flags      http2.Flags
		payload    []byte
		start, end int
		want       http2.ErrCode
	}{
		{"plain", 0, make([]byte, 5), 0, 5, http2.ErrCodeNo},
		{"empty", 0, nil, 0, 0, http2.ErrCodeNo},
		{"padding", padded, []byte{2, 0, 0, 0}, 1, 2, http2.ErrCodeNo},
		{"nothing but padding", padded, []byte{3, 0, 0, 0}, 1, 1, http2.ErrCodeNo},
		{"too much padding", padded, []byte{4, 0, 0, 0}, 0, 0, http2.ErrCodeProtocol},
		{"priority", priority, make([]byte, 7), 5, 7, http2.ErrCodeNo},
		{"priority and padding", padded | priority, []byte{1, 0, 0, 0, 0, 0, 0}, 6, 6, http2.ErrCodeNo},
		{"padding over the priority fields", padded | priority, []byte{2, 0, 0, 0, 0, 0, 0}, 0, 0, http2.ErrCodeProtocol},
	}
	for _, tt := range tests {
		h := FrameHeader{Type: http2.FrameHeaders, Flags: tt.flags, Length: uint32(len(tt.payload))}
		start, end, err := Fragment(h, tt.payload)
		if start != tt.start || end != tt.end || codeOf(err) != tt.want {
			t.Errorf("%s: got %d to %d, %v", tt.name, start, end, err)
		}
	}
}

func TestCheckIdlePriority(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		payload []byte
		want    http2.ErrCode
	}{
		{"another stream", []byte{0, 0, 0, 1, 0}, http2.ErrCodeNo},
		{"itself", []byte{0, 0, 0, 3, 0}, http2.ErrCodeProtocol},
		{"itself, exclusively", []byte{0x80, 0, 0, 3, 0}, http2.ErrCodeProtocol},
		{"itself, too short", []byte{0, 0, 0, 3}, http2.ErrCodeNo},
		{"itself, too long", []byte{0, 0, 0, 3, 0, 0}, http2.ErrCodeNo},
		{"nothing", nil, http2.ErrCodeNo},
	}
	for _, tt := range tests {
		h := FrameHeader{Type: http2.FramePriority, StreamID: 3, Length: uint32(len(tt.payload))}
		if got := codeOf(CheckIdlePriority(h, tt.payload)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestGrowWindow(t *testing.T) {
	t.Parallel()
	tests := []struct {
		window, increment, want int64
		code                    http2.ErrCode
	}{
		{DefaultWindow, 1, DefaultWindow + 1, http2.ErrCodeNo},
		{-5, 5, 0, http2.ErrCodeNo},
		{0, MaxWindow, MaxWindow, http2.ErrCodeNo},
		{1, MaxWindow, MaxWindow + 1, http2.ErrCodeFlowControl},
		{MaxWindow, 0, MaxWindow, http2.ErrCodeProtocol},
	}
	for _, tt := range tests {
		got, err := GrowWindow(tt.window, tt.increment)
		if got != tt.want || codeOf(err) != tt.code {
			t.Errorf("%d by %d: got %d, %v", tt.window, tt.increment, got, err)
		}
	}
}
