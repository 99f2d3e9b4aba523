package oneport

import (
	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// DefaultEarlySettings returns the default of [Mux.EarlySettings]: SETTINGS_NO_RFC7540_PRIORITIES = 1 and nothing else.
//
// The early frame must not promise anything that the server does not keep. All other parameters keep their initial
// values (RFC 9113, Section 6.5.2) until the server's own SETTINGS frame changes them. SETTINGS_NO_RFC7540_PRIORITIES
// must not change after the first SETTINGS frame (RFC 9218, Section 2.1), so a server that sends 1 later needs a 1 in
// the early frame: otherwise clients such as Chrome and nghttp2 close the connection with PROTOCOL_ERROR. A server that
// does not send the parameter changes nothing.
func DefaultEarlySettings() []Setting {
	return []Setting{{ID: settingNoRFC7540Priorities, Value: 1}}
}

// settingNoRFC7540Priorities is SETTINGS_NO_RFC7540_PRIORITIES (RFC 9218, Section 2.1).
const settingNoRFC7540Priorities = 0x9

// Setting is a parameter of an HTTP/2 SETTINGS frame (RFC 9113, Section 6.5.1).
type Setting struct {
	ID    uint16
	Value uint32
}

// String returns the parameter as "[NAME = value]".
func (s Setting) String() string { return s.setting().String() }

func (s Setting) setting() http2.Setting {
	return http2.Setting{ID: http2.SettingID(s.ID), Val: s.Value}
}

// standIn returns how the connection of a client whose SETTINGS were acknowledged in the server's place goes on with a
// server: what the server reads first, instead of the client's preface and of the SETTINGS frames that were
// acknowledged, and what is taken out of either stream. The SETTINGS frames become one, so that it is known what to
// take out of what the server writes: a server may acknowledge several at once, as net/http does.
func standIn(settings []http2.Setting, acks, pings int) (first []byte, fromClient, toClient *frameFilter) {
	first = h2.AppendSettings([]byte(h2.Preface), settings...)
	fromClient = &frameFilter{settings: acks, acks: 1, pings: pings}
	fromClient.walker.Drop(len(h2.Preface))
	return first, fromClient, &frameFilter{acks: 1}
}

// A frameFilter takes frames out of a stream that the peer at its end must not see: from a client's, the
// acknowledgement of SETTINGS that the server has not sent, and SETTINGS and PING frames that were answered for it;
// from a server's, acknowledgements that were sent for it. Acknowledgements come in the order of the SETTINGS frames
// (RFC 9113, Section 6.5.3), so those that are one too many are the first.
type frameFilter struct {
	walker                h2.FrameWalker
	settings, acks, pings int // how many are still to be taken out
}

// newFrameFilter returns a filter for a client's stream, whose preface passes.
func newFrameFilter(acks int) *frameFilter {
	f := &frameFilter{acks: acks}
	f.walker.Pass(len(h2.Preface))
	return f
}

// Filter goes over the next bytes of the stream behind those held, and takes the frames out in place. It returns how
// many bytes to deliver.
func (f *frameFilter) Filter(b []byte) int { return f.walker.Walk(b, f) }

// Held returns the bytes that Filter has kept back.
func (f *frameFilter) Held() []byte { return f.walker.Held() }

// Done reports whether the rest of the stream passes as it is.
func (f *frameFilter) Done() bool {
	return f.settings == 0 && f.acks == 0 && f.pings == 0 && !f.walker.Dropping()
}

// Needs asks for no payload.
func (f *frameFilter) Needs(h2.FrameHeader) int { return 0 }

// Takes reports whether the frame is one that is still to be taken out.
func (f *frameFilter) Takes(h h2.FrameHeader, _ []byte) bool {
	var n *int
	switch ack := h2.IsACK(h); {
	case h.Type == http2.FrameSettings && !ack:
		n = &f.settings
	case h.Type == http2.FrameSettings && h.Length == 0:
		n = &f.acks
	case h.Type == http2.FramePing && !ack:
		n = &f.pings
	default:
		return false
	}
	if *n == 0 {
		return false
	}
	*n--
	return true
}
