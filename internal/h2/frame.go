package h2

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// FrameHeaderLen is the length of the header that begins every frame
// (RFC 9113 4.1).
const FrameHeaderLen = 9

const (
	// maxFrameSize is the initial value of SETTINGS_MAX_FRAME_SIZE, and the
	// least it can be: each side accepts frames of this size, and neither may
	// send larger ones before it has seen the other's SETTINGS (RFC 9113 4.2,
	// 6.5.2).
	maxFrameSize = 1 << 14

	// largestFrameSize is the most that SETTINGS_MAX_FRAME_SIZE can be
	// (RFC 9113 6.5.2).
	largestFrameSize = 1<<24 - 1

	// streamIDMask removes the reserved bit in front of a stream identifier
	// or a window increment, which the receiver ignores (RFC 9113 4.1, 6.9).
	streamIDMask = 1<<31 - 1

	// settingLen is the length of one setting in a SETTINGS frame
	// (RFC 9113 6.5.1).
	settingLen = 6
)

// ParseFrameHeader decodes the frame header that b begins with.
func ParseFrameHeader(b []byte) http2.FrameHeader {
	return http2.FrameHeader{
		Length:   uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		Type:     http2.FrameType(b[3]),
		Flags:    http2.Flags(b[4]),
		StreamID: binary.BigEndian.Uint32(b[5:]) & streamIDMask,
	}
}

// AppendFrameHeader appends the header of a frame to dst (RFC 9113 4.1).
func AppendFrameHeader(dst []byte, length int, typ http2.FrameType, flags http2.Flags, streamID uint32) []byte {
	dst = append(dst, byte(length>>16), byte(length>>8), byte(length), byte(typ), byte(flags))
	return binary.BigEndian.AppendUint32(dst, streamID)
}

// AppendSettings appends a SETTINGS frame to dst (RFC 9113 6.5). The settings
// must fit a frame that any peer accepts, which is to say that there are at
// most 2730 of them.
func AppendSettings(dst []byte, settings ...http2.Setting) []byte {
	dst = AppendFrameHeader(dst, len(settings)*settingLen, http2.FrameSettings, 0, 0)
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint16(dst, uint16(s.ID))
		dst = binary.BigEndian.AppendUint32(dst, s.Val)
	}
	return dst
}

// AppendSettingsACK appends the acknowledgement of a SETTINGS frame to dst
// (RFC 9113 6.5.3).
func AppendSettingsACK(dst []byte) []byte {
	return append(dst, 0, 0, 0, byte(http2.FrameSettings), byte(http2.FlagSettingsAck), 0, 0, 0, 0)
}

// AppendPingACK appends the answer to a PING frame with the payload to dst
// (RFC 9113 6.7).
func AppendPingACK(dst []byte, payload [8]byte) []byte {
	dst = append(dst, 0, 0, 8, byte(http2.FramePing), byte(http2.FlagPingAck), 0, 0, 0, 0)
	return append(dst, payload[:]...)
}

// AppendGoAway appends a GOAWAY frame to dst (RFC 9113 6.8). Debug data longer
// than fits a frame that any peer accepts is cut short.
func AppendGoAway(dst []byte, lastStreamID uint32, code http2.ErrCode, debug string) []byte {
	const fixedLen = 8
	debug = debug[:min(len(debug), maxFrameSize-fixedLen)]
	dst = AppendFrameHeader(dst, fixedLen+len(debug), http2.FrameGoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, lastStreamID&streamIDMask)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}
