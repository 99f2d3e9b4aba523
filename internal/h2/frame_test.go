package h2

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
)

// TestAppend checks that the append functions write what http2.Framer writes.
func TestAppend(t *testing.T) {
	t.Parallel()
	payload := [PingLen]byte{1, 2, 3, 4, 5, 6, 7, 8}
	block := bytes.Repeat([]byte{0x82}, 100)
	fields := http2.PriorityParam{StreamDep: 3, Exclusive: true, Weight: 7}
	tests := []struct {
		name   string
		append func(dst []byte) []byte
		write  func(fr *http2.Framer)
	}{
		{
			"frame",
			func(dst []byte) []byte { return AppendFrame(dst, 0xfa, 0x55, 9, []byte("payload")) },
			func(fr *http2.Framer) { fr.WriteRawFrame(0xfa, 0x55, 9, []byte("payload")) },
		},
		{
			"RST_STREAM",
			func(dst []byte) []byte { return AppendRSTStream(dst, 5, http2.ErrCodeCancel) },
			func(fr *http2.Framer) { fr.WriteRSTStream(5, http2.ErrCodeCancel) },
		},
		{
			"SETTINGS",
			func(dst []byte) []byte { return AppendSettings(dst, http2.Setting{ID: 4, Val: 1 << 30}) },
			func(fr *http2.Framer) { fr.WriteSettings(http2.Setting{ID: 4, Val: 1 << 30}) },
		},
		{
			"SETTINGS acknowledgment",
			AppendSettingsACK,
			func(fr *http2.Framer) { fr.WriteSettingsAck() },
		},
		{
			"PING",
			func(dst []byte) []byte { return AppendPing(dst, payload) },
			func(fr *http2.Framer) { fr.WritePing(false, payload) },
		},
		{
			"PING acknowledgment",
			func(dst []byte) []byte { return AppendPingACK(dst, payload) },
			func(fr *http2.Framer) { fr.WritePing(true, payload) },
		},
		{
			"GOAWAY",
			func(dst []byte) []byte { return AppendGoAway(dst, 7, http2.ErrCodeNo, "bye") },
			func(fr *http2.Framer) { fr.WriteGoAway(7, http2.ErrCodeNo, []byte("bye")) },
		},
		{
			"WINDOW_UPDATE",
			func(dst []byte) []byte { return AppendWindowUpdate(dst, 3, MaxWindow) },
			func(fr *http2.Framer) { fr.WriteWindowUpdate(3, MaxWindow) },
		},
		{
			"empty HEADERS",
			func(dst []byte) []byte { return AppendHeaders(dst, 1, false, nil, nil, 40) },
			func(fr *http2.Framer) { fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true}) },
		},
		{
			"HEADERS as long as a frame",
			func(dst []byte) []byte { return AppendHeaders(dst, 1, true, nil, block, len(block)) },
			func(fr *http2.Framer) {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: block})
			},
		},
		{
			"HEADERS and CONTINUATION",
			func(dst []byte) []byte { return AppendHeaders(dst, 1, true, nil, block, 50) },
			func(fr *http2.Framer) {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: block[:50]})
				fr.WriteContinuation(1, true, block[50:])
			},
		},
		{
			"HEADERS with priority, and CONTINUATION",
			func(dst []byte) []byte {
				return AppendHeaders(dst, 1, false, []byte{0x80, 0, 0, 3, 7}, block, 40)
			},
			func(fr *http2.Framer) {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, Priority: fields, BlockFragment: block[:35]})
				fr.WriteContinuation(1, false, block[35:75])
				fr.WriteContinuation(1, true, block[75:])
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := bytes.NewBufferString("dst")
			tt.write(http2.NewFramer(want, nil))
			if got := tt.append([]byte("dst")); !bytes.Equal(got, want.Bytes()) {
				t.Errorf("got %x, Framer writes %x", got, want)
			}
		})
	}
}

func TestFrameHeader(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		b    []byte
		len  int
		ack  bool
	}{
		{"SETTINGS", settings, 9, false},
		{"SETTINGS acknowledgment", AppendSettingsACK(nil), 9, true},
		{"PING", AppendPing(nil, [PingLen]byte{}), 17, false},
		{"PING acknowledgment", AppendPingACK(nil, [PingLen]byte{}), 17, true},
		{"HEADERS with END_STREAM, which is the same bit", get, 12, false},
		{"longest", []byte{0xff, 0xff, 0xff, 0, 0, 0x80, 0, 0, 1}, FrameHeaderLen + LargestFrameSize, false},
	}
	for _, tt := range tests {
		h := ParseFrameHeader(tt.b)
		want, err := http2.ReadFrameHeader(bytes.NewReader(tt.b))
		if err != nil || h != (FrameHeader{want.Length, want.Type, want.Flags, want.StreamID}) {
			t.Errorf("%s: got %+v, want %v, %v", tt.name, h, want, err)
		}
		if FrameLen(h) != tt.len || IsACK(h) != tt.ack {
			t.Errorf("%s: length %d, acknowledgment %v", tt.name, FrameLen(h), IsACK(h))
		}
	}
}
