// Package h2 recognises an HTTP/2 connection by the first bytes that its
// client sends, up to the end of the first header block.
//
// It serves a connection multiplexer, which decides by these bytes what server
// gets the connection and then hands the bytes on with it. So nothing is
// consumed, and only a connection error (RFC 9113 5.4.1) is held against the
// client: a malformed request or any other stream error is for the server to
// answer.
package h2

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Preface is what every HTTP/2 client sends first (RFC 9113 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// The limits of a [Parser] whose fields do not set others.
const (
	DefaultMaxFrames         = 100
	DefaultMaxHeaderListSize = 64 << 10
)

const (
	// initialWindow is the connection flow-control window of the server
	// before any WINDOW_UPDATE. Settings cannot change it (RFC 9113 6.9.2).
	initialWindow = 1<<16 - 1

	// maxWindow is what no flow-control window may exceed (RFC 9113 6.9.1).
	maxWindow = 1<<31 - 1

	// priorityLen is the length of the fields that the PRIORITY flag adds to
	// a HEADERS frame (RFC 9113 6.2).
	priorityLen = 5
)

// State is what a [Parser] makes of the bytes it has seen.
type State uint8

// Every state but Incomplete is final.
const (
	// Incomplete: the bytes are the start of an HTTP/2 connection, or may yet
	// become that, and the first header block has not ended.
	Incomplete State = iota
	// Complete: the first header block has ended.
	Complete
	// NotHTTP2: the bytes differ from the client connection preface.
	NotHTTP2
	// Error: the client speaks HTTP/2, but broke the protocol or a limit.
	Error
)

// String returns the name of s.
func (s State) String() string {
	switch s {
	case Incomplete:
		return "Incomplete"
	case Complete:
		return "Complete"
	case NotHTTP2:
		return "NotHTTP2"
	case Error:
		return "Error"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// ConnError is a connection error (RFC 9113 5.4.1).
type ConnError struct {
	Code   http2.ErrCode
	Reason string
}

// Error returns the name of the code, and the reason.
func (e *ConnError) Error() string {
	return fmt.Sprintf("http2: connection error: %v: %s", e.Code, e.Reason)
}

func protocolError(reason string) *ConnError {
	return &ConnError{http2.ErrCodeProtocol, reason}
}

func frameSizeError(reason string) *ConnError {
	return &ConnError{http2.ErrCodeFrameSize, reason}
}

// A Parser reads the first flight of one client. The zero Parser is ready for
// use, and must not be copied after that.
type Parser struct {
	// MaxFrames is how many frames there can be up to and including the one
	// that ends the first header block. Zero means DefaultMaxFrames.
	MaxFrames int

	// MaxHeaderListSize is the largest header list accepted, by the
	// accounting of RFC 9113 6.5.2: name, value and 32 bytes for each field.
	// A string whose encoding alone is longer is over the limit too. Zero
	// means DefaultMaxHeaderListSize.
	MaxHeaderListSize int

	// SettingsOptional accepts a client whose first frame is not SETTINGS.
	SettingsOptional bool

	state State
	err   *ConnError

	// offset is where the part not yet understood starts: within the preface,
	// or at a frame header.
	offset int
	// frame is the header of the frame at offset, once inFrame.
	frame   http2.FrameHeader
	inFrame bool
	frames  int
	// granted is the sum of the increments to the connection window.
	granted int64

	streamID       uint32
	endStream      bool
	acknowledged   bool
	settingsFrames int
	settings       []http2.Setting
	pings          [][8]byte
	// fragments is where the header block is found so far. It has an element
	// for the HEADERS frame and one for each CONTINUATION.
	fragments []span

	decoder  *hpack.Decoder
	fields   []hpack.HeaderField
	listSize int
}

// span is a range of the connection's bytes.
type span struct{ start, end int }

// Reset makes p ready for another connection. It keeps the limits, and memory
// for reuse: the slice that Fields returned is no longer valid.
func (p *Parser) Reset() {
	// One client with many fields is no reason to hold their memory forever.
	const maxRetained = 128

	clear(p.fields)
	fields := p.fields[:0]
	if cap(fields) > maxRetained {
		fields = nil
	}
	*p = Parser{
		MaxFrames:         p.MaxFrames,
		MaxHeaderListSize: p.MaxHeaderListSize,
		SettingsOptional:  p.SettingsOptional,
		fragments:         p.fragments[:0],
		settings:          p.settings[:0],
		pings:             p.pings[:0],
		decoder:           p.decoder,
		fields:            fields,
	}
}

// Parse reports what data is. data starts at the first byte of the connection,
// and between calls it only grows, though it need not be in the same memory.
// Nothing behind the end of the first header block is looked at.
//
// The answer comes with the first byte that settles it. Where a frame is at
// fault this is the last byte of the frame header if the fault is visible
// there, and the last byte of the frame if it is not.
func (p *Parser) Parse(data []byte) State {
	if p.state == Incomplete {
		p.state, p.err = p.parse(data)
	}
	return p.state
}

// PrefaceSeen reports whether the whole client connection preface is there.
func (p *Parser) PrefaceSeen() bool { return p.offset >= len(Preface) }

// Fields returns the header list of the first header block in its order, once
// the state is Complete. It is valid until Reset.
func (p *Parser) Fields() []hpack.HeaderField {
	if p.state != Complete {
		return nil
	}
	return p.fields
}

// StreamID returns the stream of the first header block, once the state is
// Complete.
func (p *Parser) StreamID() uint32 { return p.streamID }

// EndStream reports whether the request has nothing after its first header
// block, once the state is Complete.
func (p *Parser) EndStream() bool { return p.endStream }

// Acknowledged reports whether the client has acknowledged a SETTINGS frame
// (RFC 9113 6.5.3).
func (p *Parser) Acknowledged() bool { return p.acknowledged }

// SettingsFrames returns how many SETTINGS frames want an acknowledgement,
// those included that the caller has acknowledged meanwhile.
func (p *Parser) SettingsFrames() int { return p.settingsFrames }

// Settings returns what the SETTINGS frames have set, each parameter once. It
// is valid until Reset.
func (p *Parser) Settings() []http2.Setting { return p.settings }

// Pings returns the payloads of the PING frames that want an answer, in
// order, those included that the caller has answered meanwhile. It is valid
// until Reset.
func (p *Parser) Pings() [][8]byte { return p.pings }

// Requesting reports whether a HEADERS frame has begun.
func (p *Parser) Requesting() bool {
	return len(p.fragments) > 0 || p.inFrame && p.frame.Type == http2.FrameHeaders
}

// Err returns what the client did wrong, if the state is Error, or else nil.
func (p *Parser) Err() *ConnError { return p.err }

func (p *Parser) parse(data []byte) (State, *ConnError) {
	for ; p.offset < len(Preface); p.offset++ {
		if p.offset >= len(data) {
			return Incomplete, nil
		}
		if data[p.offset] != Preface[p.offset] {
			return NotHTTP2, nil
		}
	}
	for {
		start := p.offset + FrameHeaderLen
		if len(data) < start {
			return Incomplete, nil
		}
		if !p.inFrame {
			p.frame = ParseFrameHeader(data[p.offset:])
			p.inFrame = true
			p.frames++
			if err := p.checkFrameHeader(); err != nil {
				return Error, err
			}
		}
		end := start + int(p.frame.Length)
		if len(data) < end {
			return Incomplete, nil
		}
		ended, err := p.readPayload(data, span{start, end})
		if err != nil {
			return Error, err
		}
		p.offset = end
		p.inFrame = false
		if ended {
			if err := p.decode(data); err != nil {
				return Error, err
			}
			return Complete, nil
		}
	}
}

// checkFrameHeader checks what the header of a frame alone can break. Where a
// frame breaks several rules RFC 9113 does not say which of them to report. It
// is the sequence of frames first, then the size that any frame may have, the
// stream, and the size of the type.
func (p *Parser) checkFrameHeader() *ConnError {
	f := p.frame
	ack := f.Type == http2.FrameSettings && f.Flags.Has(http2.FlagSettingsAck)
	switch {
	case p.frames > cmp.Or(p.MaxFrames, DefaultMaxFrames):
		// RFC 9113 10.5: all these frames have their use, and in number they
		// are an attack.
		return &ConnError{http2.ErrCodeEnhanceYourCalm, "too many frames before the end of the first header block"}
	case p.frames == 1 && !p.SettingsOptional && (f.Type != http2.FrameSettings || ack):
		// RFC 9113 3.4.
		return protocolError("client preface without SETTINGS")
	case len(p.fragments) > 0 && (f.Type != http2.FrameContinuation || f.StreamID != p.streamID):
		// RFC 9113 6.10, and 5.5 for unknown types.
		return protocolError(f.Type.String() + " frame in a header block")
	case f.Length > maxFrameSize:
		// RFC 9113 4.2.
		return frameSizeError(f.Type.String() + " frame longer than SETTINGS_MAX_FRAME_SIZE")
	}

	switch f.Type {
	case http2.FrameSettings: // RFC 9113 6.5.
		switch {
		case f.StreamID != 0:
			return protocolError("SETTINGS frame on a stream")
		case ack && f.Length != 0:
			return frameSizeError("SETTINGS acknowledgment with a payload")
		case f.Length%settingLen != 0:
			return frameSizeError("SETTINGS frame with a partial setting")
		}
	case http2.FrameHeaders:
		switch {
		case f.StreamID%2 == 0:
			// RFC 9113 5.1.1; stream 0 also by 6.2.
			return protocolError("HEADERS frame on a stream that a client cannot open")
		case int(f.Length) < fixedLen(f):
			// RFC 9113 4.2.
			return frameSizeError("HEADERS frame too short for its flags")
		}
	case http2.FrameContinuation:
		if len(p.fragments) == 0 {
			// RFC 9113 6.10.
			return protocolError("CONTINUATION frame without HEADERS")
		}
	case http2.FramePriority:
		// RFC 9113 6.3. A wrong length is a mere stream error.
		if f.StreamID == 0 {
			return protocolError("PRIORITY frame on stream 0")
		}
	case http2.FramePing: // RFC 9113 6.7.
		switch {
		case f.StreamID != 0:
			return protocolError("PING frame on a stream")
		case f.Length != 8:
			return frameSizeError("PING frame of a length other than 8")
		}
	case http2.FrameGoAway: // RFC 9113 6.8.
		switch {
		case f.StreamID != 0:
			return protocolError("GOAWAY frame on a stream")
		case f.Length < 8:
			return frameSizeError("GOAWAY frame too short")
		}
	case http2.FrameWindowUpdate:
		switch {
		case f.StreamID != 0:
			// RFC 9113 5.1: every stream is idle still.
			return protocolError("WINDOW_UPDATE frame on an idle stream")
		case f.Length != 4:
			// RFC 9113 6.9.
			return frameSizeError("WINDOW_UPDATE frame of a length other than 4")
		}
	case http2.FrameData, http2.FrameRSTStream:
		// RFC 9113 5.1; stream 0 by 6.1 and 6.4.
		return protocolError(f.Type.String() + " frame before any HEADERS")
	case http2.FramePushPromise:
		// RFC 9113 8.4.
		return protocolError("PUSH_PROMISE frame from a client")
	}
	// The receiver discards frames of a type it does not know, whatever they
	// hold (RFC 9113 5.5). PRIORITY_UPDATE (RFC 9218 7.1) is such an extension,
	// and only the server knows whether it supports it.
	return nil
}

// fixedLen returns the length of what comes before the header block fragment
// in the HEADERS frame f (RFC 9113 6.2).
func fixedLen(f http2.FrameHeader) int {
	n := 0
	if f.Flags.Has(http2.FlagHeadersPadded) {
		n++
	}
	if f.Flags.Has(http2.FlagHeadersPriority) {
		n += priorityLen
	}
	return n
}

// readPayload reads the complete frame p.frame, whose payload is at s, and
// reports whether it ends the header block.
func (p *Parser) readPayload(data []byte, s span) (ended bool, err *ConnError) {
	payload := data[s.start:s.end]
	switch p.frame.Type {
	case http2.FrameSettings:
		if p.frame.Flags.Has(http2.FlagSettingsAck) {
			p.acknowledged = true
			return false, nil
		}
		p.settingsFrames++
		if err := CheckSettings(payload); err != nil {
			return false, err
		}
		p.applySettings(payload)
		return false, nil
	case http2.FramePing:
		if !p.frame.Flags.Has(http2.FlagPingAck) {
			p.pings = append(p.pings, [8]byte(payload))
		}
		return false, nil
	case http2.FramePriority:
		// RFC 7540 5.3.1. This is an error of a stream that does not exist
		// yet, so it is made one of the connection. RFC 9113 6.3 leaves a
		// frame of another length to the server.
		if len(payload) == priorityLen && binary.BigEndian.Uint32(payload)&streamIDMask == p.frame.StreamID {
			return false, protocolError("PRIORITY frame that makes a stream depend on itself")
		}
		return false, nil
	case http2.FrameWindowUpdate:
		return false, p.growWindow(binary.BigEndian.Uint32(payload) & streamIDMask)
	case http2.FrameHeaders:
		s.start += fixedLen(p.frame)
		if p.frame.Flags.Has(http2.FlagHeadersPadded) {
			s.end -= int(payload[0])
		}
		// RFC 9113 6.2: padding may leave nothing for the fragment, but not
		// less than nothing.
		if s.start > s.end {
			return false, protocolError("HEADERS frame with more padding than payload")
		}
		p.streamID = p.frame.StreamID
		p.endStream = p.frame.Flags.Has(http2.FlagHeadersEndStream)
	case http2.FrameContinuation:
	default:
		return false, nil
	}
	p.fragments = append(p.fragments, s)
	// END_HEADERS is the same bit in both frames (RFC 9113 6.2, 6.10).
	return p.frame.Flags.Has(http2.FlagHeadersEndHeaders), nil
}

// CheckSettings checks the payload of a SETTINGS frame: its length, and the
// values of the settings that are defined.
func CheckSettings(payload []byte) *ConnError {
	if len(payload)%settingLen != 0 {
		// RFC 9113 6.5.
		return frameSizeError("SETTINGS frame with a partial setting")
	}
	for ; len(payload) > 0; payload = payload[settingLen:] {
		s := firstSetting(payload)
		switch s.ID {
		case http2.SettingEnablePush, // RFC 9113 6.5.2.
			http2.SettingEnableConnectProtocol, // RFC 8441 3.
			http2.SettingNoRFC7540Priorities:   // RFC 9218 2.1.
			if s.Val > 1 {
				return protocolError("SETTINGS_" + s.ID.String() + " other than 0 or 1")
			}
		case http2.SettingInitialWindowSize: // RFC 9113 6.5.2.
			if s.Val > maxWindow {
				return &ConnError{http2.ErrCodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE too large"}
			}
		case http2.SettingMaxFrameSize: // RFC 9113 6.5.2.
			if s.Val < maxFrameSize || s.Val > largestFrameSize {
				return protocolError("SETTINGS_MAX_FRAME_SIZE out of range")
			}
		}
	}
	return nil
}

// firstSetting decodes the setting that b begins with (RFC 9113 6.5.1).
func firstSetting(b []byte) http2.Setting {
	return http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(b)), Val: binary.BigEndian.Uint32(b[2:])}
}

// MergeSettings returns what the payloads of SETTINGS frames, which were checked,
// set one after the other, each parameter once, as [Parser.Settings] does.
func MergeSettings(payloads ...[]byte) []http2.Setting {
	var p Parser
	for _, payload := range payloads {
		p.applySettings(payload)
	}
	return p.settings
}

// applySettings takes note of the settings in a payload that was checked.
func (p *Parser) applySettings(payload []byte) {
	for ; len(payload) > 0; payload = payload[settingLen:] {
		p.set(firstSetting(payload))
	}
}

// set takes note of a setting. A later value replaces an earlier one
// (RFC 9113 6.5).
func (p *Parser) set(s http2.Setting) {
	for i := range p.settings {
		if p.settings[i].ID == s.ID {
			p.settings[i] = s
			return
		}
	}
	// More than these are not known to any server, which ignores them
	// (RFC 9113 6.5.2).
	const most = 32
	if len(p.settings) < most {
		p.settings = append(p.settings, s)
	}
}

// growWindow accounts for a WINDOW_UPDATE of the connection.
func (p *Parser) growWindow(increment uint32) *ConnError {
	if increment == 0 {
		// RFC 9113 6.9.
		return protocolError("WINDOW_UPDATE frame without an increment")
	}
	p.granted += int64(increment)
	if initialWindow+p.granted > maxWindow {
		// RFC 9113 6.9.1.
		return &ConnError{http2.ErrCodeFlowControl, "connection flow-control window too large"}
	}
	return nil
}
