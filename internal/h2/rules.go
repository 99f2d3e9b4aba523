package h2

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// Direction says who has sent a frame.
type Direction uint8

// The directions.
const (
	FromClient Direction = iota
	FromServer
)

// CheckFrameHeader checks what the header of a frame alone can break, outside a field block ([CheckContinuation] is for
// the frames inside). maxFrameSize is the SETTINGS_MAX_FRAME_SIZE that the sender goes by.
//
// It reports connection errors only. A PRIORITY frame whose length is wrong is none: that is a stream error (RFC 9113,
// Section 6.3), though net/http and grpc-go end the connection, and so it is up to whoever has the stream.
//
// Where a frame breaks several rules RFC 9113 does not say which of them to report. It is the size that any frame may
// have first, then the stream, then the size of the type.
func CheckFrameHeader(h FrameHeader, from Direction, maxFrameSize int) *ConnError {
	if err := checkLength(h, maxFrameSize); err != nil {
		return err
	}
	switch h.Type {
	case http2.FrameData: // RFC 9113, Section 6.1.
		switch {
		case h.StreamID == 0:
			return noStream(h)
		case h.Flags.Has(http2.FlagDataPadded) && h.Length == 0:
			// RFC 9113, Section 4.2.
			return FrameSizeError("DATA frame too short for its flags")
		}
	case http2.FrameHeaders: // RFC 9113, Section 6.2.
		switch {
		case h.StreamID == 0:
			return noStream(h)
		case from == FromClient && h.StreamID%2 == 0:
			// RFC 9113, Section 5.1.1.
			return ProtocolError("HEADERS frame on a stream that a client cannot open")
		case int(h.Length) < headersFixedLen(h):
			// RFC 9113, Section 4.2.
			return FrameSizeError("HEADERS frame too short for its flags")
		}
	case http2.FramePriority: // RFC 9113, Section 6.3.
		if h.StreamID == 0 {
			return noStream(h)
		}
	case http2.FrameRSTStream: // RFC 9113, Section 6.4.
		if h.StreamID == 0 {
			return noStream(h)
		}
		return checkFixedLength(h, RSTStreamLen)
	case http2.FrameSettings: // RFC 9113, Section 6.5.
		switch {
		case h.StreamID != 0:
			return onStream(h)
		case IsACK(h) && h.Length != 0:
			return FrameSizeError("SETTINGS acknowledgment with a payload")
		case h.Length%SettingLen != 0:
			return errPartialSetting()
		}
	case http2.FramePushPromise: // RFC 9113, Section 6.6.
		switch {
		case h.StreamID == 0:
			return noStream(h)
		case from == FromClient:
			// RFC 9113, Section 8.4.
			return ProtocolError("PUSH_PROMISE frame from a client")
		}
		// RFC 9113, Section 6.6: servers are told so.
		return ProtocolError("PUSH_PROMISE frame, though SETTINGS_ENABLE_PUSH is 0")
	case http2.FramePing: // RFC 9113, Section 6.7.
		if h.StreamID != 0 {
			return onStream(h)
		}
		return checkFixedLength(h, PingLen)
	case http2.FrameGoAway: // RFC 9113, Section 6.8.
		switch {
		case h.StreamID != 0:
			return onStream(h)
		case h.Length < GoAwayLen:
			return FrameSizeError("GOAWAY frame too short")
		}
	case http2.FrameWindowUpdate: // RFC 9113, Section 6.9.
		return checkFixedLength(h, WindowUpdateLen)
	case http2.FrameContinuation: // RFC 9113, Section 6.10.
		return ProtocolError("CONTINUATION frame without HEADERS")
	}
	// The receiver discards frames of a type it does not know, whatever they hold (RFC 9113, Section 5.5).
	// PRIORITY_UPDATE (RFC 9218, Section 7.1) is such an extension, and only the server knows whether it supports it.
	return nil
}

func noStream(h FrameHeader) *ConnError {
	return ProtocolError(h.Type.String() + " frame on stream 0")
}

func onStream(h FrameHeader) *ConnError {
	return ProtocolError(h.Type.String() + " frame on a stream")
}

// CheckContinuation checks the header of a frame that comes where only a CONTINUATION frame can: after HEADERS or
// CONTINUATION on the stream without the flag END_HEADERS (RFC 9113, Section 6.10, and for unknown types Section 5.5).
func CheckContinuation(h FrameHeader, streamID uint32, maxFrameSize int) *ConnError {
	if h.Type != http2.FrameContinuation || h.StreamID != streamID {
		return ProtocolError(h.Type.String() + " frame in a header block")
	}
	return checkLength(h, maxFrameSize)
}

// checkLength is RFC 9113, Section 4.2.
func checkLength(h FrameHeader, maxFrameSize int) *ConnError {
	if int(h.Length) > maxFrameSize {
		return FrameSizeError(h.Type.String() + " frame longer than SETTINGS_MAX_FRAME_SIZE")
	}
	return nil
}

func checkFixedLength(h FrameHeader, want uint32) *ConnError {
	if h.Length != want {
		return FrameSizeError(h.Type.String() + " frame of the wrong length")
	}
	return nil
}

// headersFixedLen returns the length of what comes before the field block fragment in the HEADERS frame h (RFC 9113,
// Section 6.2).
func headersFixedLen(h FrameHeader) int {
	n := 0
	if h.Flags.Has(http2.FlagHeadersPadded) {
		n++
	}
	if h.Flags.Has(http2.FlagHeadersPriority) {
		n += PriorityLen
	}
	return n
}

// Fragment returns where the field block fragment is in the payload of a HEADERS frame whose header was checked (RFC
// 9113, Section 6.2). If the frame has the PRIORITY flag, the PriorityLen bytes before start are the priority fields.
func Fragment(h FrameHeader, payload []byte) (start, end int, err *ConnError) {
	start, end = headersFixedLen(h), len(payload)
	if h.Flags.Has(http2.FlagHeadersPadded) {
		end -= int(payload[0])
	}
	// Padding may leave nothing for the fragment, but not less than nothing.
	if start > end {
		return 0, 0, ProtocolError("HEADERS frame with more padding than payload")
	}
	return start, end, nil
}

// CheckIdlePriority checks a PRIORITY frame on a stream that does not exist yet: a stream cannot depend on itself (RFC
// 7540, Section 5.3.1). That is an error of the stream, which cannot be reset, so it is made one of the connection. A
// frame of a wrong length is not judged; see [CheckFrameHeader].
func CheckIdlePriority(h FrameHeader, payload []byte) *ConnError {
	if len(payload) == PriorityLen && binary.BigEndian.Uint32(payload)&MaxStreamID == h.StreamID {
		return ProtocolError("PRIORITY frame that makes a stream depend on itself")
	}
	return nil
}

// GrowWindow returns the flow-control window of a connection after a WINDOW_UPDATE frame.
func GrowWindow(window, increment int64) (int64, *ConnError) {
	if increment == 0 {
		// RFC 9113, Section 6.9.
		return window, ProtocolError("WINDOW_UPDATE frame without an increment")
	}
	if window += increment; window > MaxWindow {
		// RFC 9113, Section 6.9.1.
		return window, FlowControlError("connection flow-control window too large")
	}
	return window, nil
}
