// Package h2 has the rules of HTTP/2 frames, and recognizes an HTTP/2 connection by the first bytes that its client
// sends, up to the end of the first header block.
//
// The rules are those that a single frame can break ([CheckFrameHeader], [CheckContinuation]), from client or server.
// Rules that depend on the state of a connection belong to the packages that keep that state.
//
// A [Parser] is for a connection multiplexer, which chooses a server by the first bytes and hands the connection over
// with all of them. So the parser consumes nothing, and rejects only connection errors (RFC 9113, Section 5.4.1). The
// server answers malformed requests and other stream errors.
package h2

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Preface is what every HTTP/2 client sends first (RFC 9113, Section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// The limits of a [Parser] whose fields do not set others.
const (
	DefaultMaxFrames         = 100
	DefaultMaxHeaderListSize = 64 << 10
)

// State is what a [Parser] makes of the bytes it has seen.
type State uint8

// Every state but Incomplete is final.
const (
	// Incomplete: the bytes are the start of an HTTP/2 connection, or may yet become that, and the first header block
	// has not ended.
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

// A Parser reads the first flight of one client. The zero Parser is ready for use, and must not be copied after that.
type Parser struct {
	// MaxFrames is how many frames there can be up to and including the one that ends the first header block. Zero
	// means DefaultMaxFrames.
	MaxFrames int

	// MaxHeaderListSize is the largest header list accepted, by the accounting of RFC 9113, Section 6.5.2: name, value
	// and 32 bytes for each field. A string whose encoding alone is longer is over the limit too. Zero means
	// DefaultMaxHeaderListSize.
	MaxHeaderListSize int

	// SettingsOptional accepts a client whose first frame is not SETTINGS.
	SettingsOptional bool

	state State
	err   *ConnError

	// offset is where the part not yet understood starts: within the preface, or at a frame header.
	offset int
	// frame is the header of the frame at offset, once inFrame.
	frame   FrameHeader
	inFrame bool
	frames  int
	// granted is the sum of the increments to the connection window.
	granted int64

	streamID       uint32 // of the first header block, once it has begun
	endStream      bool
	acknowledged   bool
	settingsFrames int
	settingsEnd    int // where the first frame ends, if it is one of SETTINGS
	settings       []http2.Setting
	pings          [][8]byte
	inBlock        bool // the HEADERS frame is complete

	block    fieldBlock
	decoder  *hpack.Decoder
	fields   []hpack.HeaderField
	listSize int
}

// span is a range of the connection's bytes.
type span struct{ start, end int }

// Reset makes p ready for another connection. It keeps the limits, and memory for reuse: the slice that Fields returned
// is no longer valid.
func (p *Parser) Reset() {
	// One client with many fields is no reason to hold their memory forever.
	const maxRetained = 128

	p.renewDecoder()
	clear(p.fields)
	fields := p.fields[:0]
	if cap(fields) > maxRetained {
		fields = nil
	}
	*p = Parser{
		MaxFrames:         p.MaxFrames,
		MaxHeaderListSize: p.MaxHeaderListSize,
		SettingsOptional:  p.SettingsOptional,
		settings:          p.settings[:0],
		pings:             p.pings[:0],
		decoder:           p.decoder,
		fields:            fields,
	}
}

// Parse reports what data is. data starts at the first byte of the connection, and between calls it only grows, though
// it need not be in the same memory. Nothing behind the end of the first header block is looked at.
//
// The answer comes with the first byte that settles it. Where a frame is at fault this is the last byte of the frame
// header if the fault is visible there, and the last byte of the frame if it is not.
func (p *Parser) Parse(data []byte) State {
	if p.state == Incomplete {
		p.state, p.err = p.parse(data)
	}
	return p.state
}

// State returns the answer of the last call of Parse.
func (p *Parser) State() State { return p.state }

// PrefaceSeen reports whether the whole client connection preface is there.
func (p *Parser) PrefaceSeen() bool { return p.offset >= len(Preface) }

// Fields returns the header list of the first header block in its order, as far as it has come: while the state is
// Incomplete, others may follow. It is valid until Reset, and nil if the state is Error, but for a list that is
// TooLarge.
func (p *Parser) Fields() []hpack.HeaderField {
	if p.state == Error && !p.TooLarge() {
		return nil
	}
	return p.fields
}

// Held returns how many bytes of memory the fields and what belongs to them take, by the accounting of RFC 9113,
// Section 6.5.2.
func (p *Parser) Held() int { return p.listSize + cap(p.block.tail) }

// Block returns the first header block, if it is in one frame, and else nothing. The state must be Complete, and data is
// what Parse was given.
func (p *Parser) Block(data []byte) []byte { return data[p.block.whole.start:p.block.whole.end] }

// TakeDecoder returns the decoder that has decoded the first header block, for the blocks that follow. The state must
// be Complete. It can be called once.
func (p *Parser) TakeDecoder() *hpack.Decoder {
	d := p.decoder
	p.decoder = nil
	return d
}

// StreamID returns the stream of the first header block, or 0 before that has begun.
func (p *Parser) StreamID() uint32 { return p.streamID }

// EndStream reports whether the request has nothing after its first header block, once that has begun.
func (p *Parser) EndStream() bool { return p.endStream }

// TooLarge reports whether the state is Error because the header list is over MaxHeaderListSize, and for no other
// reason.
func (p *Parser) TooLarge() bool { return p.err == errListSize }

// Acknowledged reports whether the client has acknowledged a SETTINGS frame (RFC 9113, Section 6.5.3).
func (p *Parser) Acknowledged() bool { return p.acknowledged }

// SettingsFrames returns how many SETTINGS frames want an acknowledgement, those included that the caller has
// acknowledged meanwhile.
func (p *Parser) SettingsFrames() int { return p.settingsFrames }

// SettingsEnd returns the offset behind the first SETTINGS frame that wants an acknowledgement, or 0 if there is none.
func (p *Parser) SettingsEnd() int { return p.settingsEnd }

// Settings returns what the SETTINGS frames have set, each parameter once. It is valid until Reset.
func (p *Parser) Settings() []http2.Setting { return p.settings }

// Pings returns the payloads of the PING frames that want an answer, in order, those included that the caller has
// answered meanwhile. It is valid until Reset.
func (p *Parser) Pings() [][8]byte { return p.pings }

// Requesting reports whether a HEADERS frame has begun.
func (p *Parser) Requesting() bool {
	return p.inBlock || p.inFrame && p.frame.Type == http2.FrameHeaders
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
		if p.frame.Type == http2.FrameHeaders || p.frame.Type == http2.FrameContinuation {
			if err := p.readFragment(data, span{start, end}); err != nil {
				return Error, err
			}
		}
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
			return Complete, nil
		}
	}
}

// checkFrameHeader checks what the header of a frame alone can break. The sequence of frames comes before the rules
// that hold for each frame.
func (p *Parser) checkFrameHeader() *ConnError {
	h := p.frame
	switch {
	case p.frames > cmp.Or(p.MaxFrames, DefaultMaxFrames):
		// RFC 9113, Section 10.5: all these frames have their use, and in number they are an attack.
		return EnhanceYourCalm("too many frames before the end of the first header block")
	case p.frames == 1 && !p.SettingsOptional && (h.Type != http2.FrameSettings || IsACK(h)):
		// RFC 9113, Section 3.4.
		return ProtocolError("client preface without SETTINGS")
	case p.inBlock:
		return CheckContinuation(h, p.streamID, DefaultMaxFrameSize)
	}
	if err := checkLength(h, DefaultMaxFrameSize); err != nil {
		return err
	}
	switch h.Type {
	case http2.FrameData, http2.FrameRSTStream:
		// RFC 9113, Section 5.1; stream 0 by Sections 6.1 and 6.4.
		return ProtocolError(h.Type.String() + " frame before any HEADERS")
	case http2.FrameWindowUpdate:
		if h.StreamID != 0 {
			// RFC 9113, Section 5.1: every stream is idle still.
			return ProtocolError("WINDOW_UPDATE frame on an idle stream")
		}
	}
	return CheckFrameHeader(h, FromClient, DefaultMaxFrameSize)
}

// readPayload reads the complete frame p.frame, whose payload is at s, and reports whether it ends the header block.
func (p *Parser) readPayload(data []byte, s span) (ended bool, err *ConnError) {
	payload := data[s.start:s.end]
	switch p.frame.Type {
	case http2.FrameSettings:
		if IsACK(p.frame) {
			p.acknowledged = true
			return false, nil
		}
		p.settingsFrames++
		if p.settingsEnd == 0 {
			p.settingsEnd = s.end
		}
		if err := CheckSettings(payload); err != nil {
			return false, err
		}
		p.settings = MergeSettings(p.settings, payload)
		return false, nil
	case http2.FramePing:
		if !IsACK(p.frame) {
			p.pings = append(p.pings, [8]byte(payload))
		}
		return false, nil
	case http2.FramePriority:
		return false, CheckIdlePriority(p.frame, payload)
	case http2.FrameWindowUpdate:
		increment := int64(binary.BigEndian.Uint32(payload) & MaxStreamID)
		window, err := GrowWindow(DefaultWindow+p.granted, increment)
		p.granted = window - DefaultWindow
		return false, err
	case http2.FrameHeaders, http2.FrameContinuation:
		p.inBlock = true
		// END_HEADERS is the same bit in both frames (RFC 9113, Sections 6.2 and 6.10).
		if p.frame.Flags.Has(http2.FlagHeadersEndHeaders) {
			return true, p.endBlock()
		}
	}
	return false, nil
}
