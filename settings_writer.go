package oneport

import (
	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// DefaultEarlySettings returns what the early SETTINGS frame holds where [Mux.EarlySettings] is nil: the one parameter
// SETTINGS_NO_RFC7540_PRIORITIES = 1.
//
// The frame must promise nothing that the server behind will not keep, so every parameter stays at its initial value
// (RFC 9113, Section 6.5.2) until the server's own SETTINGS frame, which follows as an ordinary second one, changes it. The
// exception is this parameter, which a server may not change after its first SETTINGS frame (RFC 9218, Section 2.1): a
// server that sends 1 later agrees with it, one that omits it changes nothing, and if the early frame left it out, a
// server that sends 1 later would have clients such as Chrome and nghttp2 end the connection with PROTOCOL_ERROR.
func DefaultEarlySettings() []Setting {
	return []Setting{{ID: settingNoRFC7540Priorities, Value: 1}}
}

// settingNoRFC7540Priorities is SETTINGS_NO_RFC7540_PRIORITIES (RFC 9218, Section 2.1).
const settingNoRFC7540Priorities = 0x9

// Setting is a parameter of a SETTINGS frame (RFC 9113, Section 6.5.1).
type Setting struct {
	ID    uint16
	Value uint32
}

// String returns the name of the parameter, if it has one, and its value.
func (s Setting) String() string { return s.setting().String() }

func (s Setting) setting() http2.Setting {
	return http2.Setting{ID: http2.SettingID(s.ID), Val: s.Value}
}

// frameHeaderLen is the size of a frame header (RFC 9113, Section 4.1).
const frameHeaderLen = h2.FrameHeaderLen

// standIn returns how the connection of a client whose SETTINGS were acknowledged in the server's place goes on with a
// server: what the server reads first, instead of the client's preface and of the SETTINGS frames that were acknowledged,
// and what is taken out of either stream. The SETTINGS frames become one, so that it is known what to take out of what the
// server writes: a server may acknowledge several at once, as net/http does.
func standIn(settings []http2.Setting, acks, pings int) (first []byte, fromClient, toClient *frameFilter) {
	first = h2.AppendSettings([]byte(h2.Preface), settings...)
	return first, &frameFilter{drop: len(h2.Preface), settings: acks, acks: 1, pings: pings}, &frameFilter{acks: 1}
}

// A frameFilter takes frames out of a stream that the peer at its end must not see: from a client's, the acknowledgement
// of SETTINGS that the server has not sent, and SETTINGS and PING frames that were answered for it; from a server's,
// acknowledgements that were sent for it. Acknowledgements come in the order of the SETTINGS frames (RFC 9113, Section 6.5.3), so
// those that are one too many are the first.
type frameFilter struct {
	settings, acks, pings int // how many are still to be taken out

	skip, drop int // bytes to be passed and then taken out before the next frame header
	part       [frameHeaderLen - 1]byte
	n          int // bytes in part
}

// Done reports whether the rest of the stream is to pass as it is.
func (f *frameFilter) Done() bool {
	return f.settings == 0 && f.acks == 0 && f.pings == 0 && f.drop == 0
}

// Held returns the beginning of a frame header that Filter kept back, to be put in front of the bytes that follow.
func (f *frameFilter) Held() []byte { return f.part[:f.n] }

// Filter goes over b, the next bytes of the stream behind what is held, and takes the frames out in place. It returns how
// many bytes of b to deliver. An incomplete frame header at the end of b is held back, which delays nothing: nobody can
// act on part of one.
func (f *frameFilter) Filter(b []byte) (n int) {
	f.n = 0
	for i := 0; i < len(b); {
		rest := b[i:]
		switch {
		case f.skip > 0:
			k := min(f.skip, len(rest))
			n += copy(b[n:], rest[:k])
			i, f.skip = i+k, f.skip-k
		case f.drop > 0:
			k := min(f.drop, len(rest))
			i, f.drop = i+k, f.drop-k
		case f.Done():
			return n + copy(b[n:], rest)
		case len(rest) < frameHeaderLen:
			f.n = copy(f.part[:], rest)
			return n
		default:
			h := h2.ParseFrameHeader(rest)
			switch ack := h2.IsACK(h); {
			case h.Type == http2.FrameSettings && !ack && f.settings > 0:
				f.settings--
				f.drop = h2.FrameLen(h)
			case h.Type == http2.FrameSettings && ack && h.Length == 0 && f.acks > 0:
				f.acks--
				f.drop = h2.FrameLen(h)
			case h.Type == http2.FramePing && !ack && f.pings > 0:
				f.pings--
				f.drop = h2.FrameLen(h)
			default:
				f.skip = h2.FrameLen(h)
			}
		}
	}
	return n
}
