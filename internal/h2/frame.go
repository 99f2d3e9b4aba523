package h2

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// The lengths of what frames consist of.
const (
	FrameHeaderLen  = 9 // the header that begins every frame (RFC 9113, Section 4.1)
	PriorityLen     = 5 // a PRIORITY frame's payload, and what the PRIORITY flag adds to HEADERS (RFC 9113, Sections 6.3 and 6.2)
	RSTStreamLen    = 4 // a RST_STREAM frame's payload (RFC 9113, Section 6.4)
	SettingLen      = 6 // one setting in a SETTINGS frame (RFC 9113, Section 6.5.1)
	PingLen         = 8 // a PING frame's payload (RFC 9113, Section 6.7)
	GoAwayLen       = 8 // a GOAWAY frame's payload without debug data (RFC 9113, Section 6.8)
	WindowUpdateLen = 4 // a WINDOW_UPDATE frame's payload (RFC 9113, Section 6.9)
)

const (
	// MaxStreamID is the largest stream identifier. As a mask it removes the reserved bit in front of a stream
	// identifier or a window increment, which the receiver ignores (RFC 9113, Sections 4.1 and 6.9).
	MaxStreamID = 1<<31 - 1

	// DefaultMaxFrameSize is the initial value of SETTINGS_MAX_FRAME_SIZE, and its minimum. Every peer accepts frames
	// of this size (RFC 9113, Sections 4.2 and 6.5.2).
	DefaultMaxFrameSize = 1 << 14

	// LargestFrameSize is the maximum of SETTINGS_MAX_FRAME_SIZE (RFC 9113, Section 6.5.2).
	LargestFrameSize = 1<<24 - 1

	// DefaultTableSize is the initial value of SETTINGS_HEADER_TABLE_SIZE (RFC 9113, Section 6.5.2).
	DefaultTableSize = 4096

	// DefaultWindow is the initial flow-control window of a connection, which SETTINGS cannot change, and of a stream
	// (RFC 9113, Section 6.9.2).
	DefaultWindow = 1<<16 - 1

	// MaxWindow is the largest flow-control window (RFC 9113, Section 6.9.1).
	MaxWindow = 1<<31 - 1
)

// A FrameHeader is the header of a frame (RFC 9113, Section 4.1). Unlike [http2.FrameHeader], which has a field more, it
// is passed in registers.
type FrameHeader struct {
	Length   uint32 // of the payload
	Type     http2.FrameType
	Flags    http2.Flags
	StreamID uint32
}

// ParseFrameHeader decodes the frame header that b begins with. b must hold at least FrameHeaderLen bytes.
func ParseFrameHeader(b []byte) FrameHeader {
	return FrameHeader{
		Length:   uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		Type:     http2.FrameType(b[3]),
		Flags:    http2.Flags(b[4]),
		StreamID: binary.BigEndian.Uint32(b[5:]) & MaxStreamID,
	}
}

// FrameLen returns the length of the frame with the header h, including the header.
func FrameLen(h FrameHeader) int { return FrameHeaderLen + int(h.Length) }

// IsACK reports whether h is the header of an acknowledgment, of SETTINGS or of PING (RFC 9113, Sections 6.5 and 6.7).
func IsACK(h FrameHeader) bool {
	// The flag is the same bit in both types.
	return (h.Type == http2.FrameSettings || h.Type == http2.FramePing) && h.Flags.Has(http2.FlagSettingsAck)
}

// AppendFrameHeader appends the header of a frame to dst (RFC 9113, Section 4.1).
func AppendFrameHeader(dst []byte, length int, typ http2.FrameType, flags http2.Flags, streamID uint32) []byte {
	dst = append(dst, byte(length>>16), byte(length>>8), byte(length), byte(typ), byte(flags))
	return binary.BigEndian.AppendUint32(dst, streamID)
}

// AppendFrame appends a frame to dst.
func AppendFrame(dst []byte, typ http2.FrameType, flags http2.Flags, streamID uint32, payload []byte) []byte {
	return append(AppendFrameHeader(dst, len(payload), typ, flags, streamID), payload...)
}

// AppendHeaders appends a field block to dst, in a HEADERS frame and as many CONTINUATION frames as it needs (RFC 9113,
// Sections 6.2 and 6.10). If priority is not empty it is the PriorityLen bytes of the HEADERS frame's priority fields.
func AppendHeaders(dst []byte, streamID uint32, endStream bool, priority, block []byte, maxFrameSize int) []byte {
	var flags http2.Flags
	if endStream {
		flags |= http2.FlagHeadersEndStream
	}
	if len(priority) > 0 {
		flags |= http2.FlagHeadersPriority
	}
	n := min(len(block), maxFrameSize-len(priority))
	if n == len(block) {
		flags |= http2.FlagHeadersEndHeaders
	}
	dst = AppendFrameHeader(dst, len(priority)+n, http2.FrameHeaders, flags, streamID)
	dst = append(append(dst, priority...), block[:n]...)
	for block = block[n:]; len(block) > 0; block = block[n:] {
		n, flags = min(len(block), maxFrameSize), 0
		if n == len(block) {
			flags = http2.FlagContinuationEndHeaders
		}
		dst = AppendFrame(dst, http2.FrameContinuation, flags, streamID, block[:n])
	}
	return dst
}

// AppendRSTStream appends a RST_STREAM frame to dst (RFC 9113, Section 6.4).
func AppendRSTStream(dst []byte, streamID uint32, code http2.ErrCode) []byte {
	dst = AppendFrameHeader(dst, RSTStreamLen, http2.FrameRSTStream, 0, streamID)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

// AppendSettings appends a SETTINGS frame to dst (RFC 9113, Section 6.5). The settings must fit a frame that any peer
// accepts: at most 2730 of them do.
func AppendSettings(dst []byte, settings ...http2.Setting) []byte {
	dst = AppendFrameHeader(dst, len(settings)*SettingLen, http2.FrameSettings, 0, 0)
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint16(dst, uint16(s.ID))
		dst = binary.BigEndian.AppendUint32(dst, s.Val)
	}
	return dst
}

// AppendSettingsACK appends the acknowledgment of a SETTINGS frame to dst (RFC 9113, Section 6.5.3).
func AppendSettingsACK(dst []byte) []byte {
	return AppendFrameHeader(dst, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
}

// AppendPing appends a PING frame to dst (RFC 9113, Section 6.7).
func AppendPing(dst []byte, payload [PingLen]byte) []byte {
	return append(AppendFrameHeader(dst, PingLen, http2.FramePing, 0, 0), payload[:]...)
}

// AppendPingACK appends the response to a PING frame with the payload to dst (RFC 9113, Section 6.7).
func AppendPingACK(dst []byte, payload [PingLen]byte) []byte {
	return append(AppendFrameHeader(dst, PingLen, http2.FramePing, http2.FlagPingAck, 0), payload[:]...)
}

// AppendGoAway appends a GOAWAY frame to dst (RFC 9113, Section 6.8). Debug data longer than fits a frame that any peer
// accepts is cut short.
func AppendGoAway(dst []byte, lastStreamID uint32, code http2.ErrCode, debug string) []byte {
	debug = debug[:min(len(debug), DefaultMaxFrameSize-GoAwayLen)]
	dst = AppendFrameHeader(dst, GoAwayLen+len(debug), http2.FrameGoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, lastStreamID&MaxStreamID)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}

// AppendWindowUpdate appends a WINDOW_UPDATE frame to dst (RFC 9113, Section 6.9).
func AppendWindowUpdate(dst []byte, streamID, increment uint32) []byte {
	dst = AppendFrameHeader(dst, WindowUpdateLen, http2.FrameWindowUpdate, 0, streamID)
	return binary.BigEndian.AppendUint32(dst, increment)
}
