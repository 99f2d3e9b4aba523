package oneport

import (
	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// DefaultEarlySettings returns what the early SETTINGS frame holds where [Mux.EarlySettings] is nil: the one parameter
// SETTINGS_NO_RFC7540_PRIORITIES = 1.
//
// The frame must promise nothing that the server behind will not keep, so every parameter stays at its initial value
// (RFC 9113, 6.5.2) until the server's own SETTINGS frame, which follows as an ordinary second one, changes it. The
// exception is this parameter, which a server may not change after its first SETTINGS frame (RFC 9218, 2.1): a
// server that sends 1 later agrees with it, one that omits it changes nothing, and if the early frame left it out, a
// server that sends 1 later would have clients such as Chrome and nghttp2 end the connection with PROTOCOL_ERROR.
func DefaultEarlySettings() []http2.Setting {
	return []http2.Setting{{ID: settingNoRFC7540Priorities, Val: 1}}
}

// settingNoRFC7540Priorities is SETTINGS_NO_RFC7540_PRIORITIES (RFC 9218, 2.1).
const settingNoRFC7540Priorities http2.SettingID = 0x9

// frameHeaderLen is the size of a frame header (RFC 9113, 4.1).
const frameHeaderLen = h2.FrameHeaderLen

// earlySettingsDue reports whether the client may wait for ever if the server does not speak now: it has sent the whole
// preface, so it is an HTTP/2 client; it has not sent a complete header block; and some route cannot decide without one.
// RFC 9113, 3.4 permits clients to send more at once, "without waiting to receive the server connection preface", and
// most do. A strict client, such as those of gRPC, waits for it first.
func earlySettingsDue(p *Preview) bool {
	return p.parseHTTP2() == h2.Incomplete && p.h2.PrefaceSeen()
}

// ackFilter finds the first SETTINGS acknowledgement (RFC 9113, 6.5) in a client's stream. The client acknowledges
// SETTINGS frames in the order in which they came (6.5.3), so the first one belongs to the early frame, of which the
// server knows nothing; net/http answers an acknowledgement too many with PROTOCOL_ERROR.
type ackFilter struct {
	skip int // bytes before the next frame header
	part [frameHeaderLen - 1]byte
	n    int // bytes in part
}

func newACKFilter() ackFilter { return ackFilter{skip: len(h2.Preface)} }

// held returns the beginning of a frame header that filter kept back, to be put in front of the bytes that follow.
func (f *ackFilter) held() []byte { return f.part[:f.n] }

// filter goes over b, the next bytes of the stream behind what is held. If b holds the acknowledgement, it takes it
// out, in place, and reports found; it must not be called again then. It returns how many bytes of b to deliver. An
// incomplete frame header at the end of b is held back, which delays nothing: no server can act on part of one.
func (f *ackFilter) filter(b []byte) (n int, found bool) {
	f.n = 0
	for i := 0; ; {
		k := min(f.skip, len(b)-i)
		i += k
		f.skip -= k
		rest := b[i:]
		if len(rest) < frameHeaderLen {
			f.n = copy(f.part[:], rest)
			return i, false
		}
		length := int(rest[0])<<16 | int(rest[1])<<8 | int(rest[2])
		if http2.FrameType(rest[3]) == http2.FrameSettings && http2.Flags(rest[4]).Has(http2.FlagSettingsAck) && length == 0 {
			return i + copy(rest, rest[frameHeaderLen:]), true
		}
		f.skip = frameHeaderLen + length
	}
}
