package dispatch

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

const (
	// Frames of unknown type up to this length are seen whole, for PRIORITY_UPDATE (RFC 9218, Section 7.1), and those of
	// PRIORITY, whose length can be wrong. Longer ones are skipped.
	maxUnknownLen = 256
)

// frameError is a connection error (RFC 9113, Section 5.4.1) in the bytes that the parser was shown, of which the frame
// at fault ends at end.
type frameError struct {
	h2.ConnError
	end int
}

type itemKind uint8

const (
	frameItem itemKind = iota // a whole frame
	blockItem                 // a header block: HEADERS and all its CONTINUATION frames
	dataItem                  // a part of a DATA frame
	skipItem                  // a part of a frame that nobody needs to see: padding, and long frames of unknown type
)

// An item is what a parser finds. Its payload is valid until the next call.
type item struct {
	kind        itemKind
	first       bool // the part of the DATA frame with its header
	last        bool // nothing of the content of the DATA frame follows
	prioritized bool // the HEADERS frame has a priority
	h2.FrameHeader
	payload  []byte // of the frame; the part of the content of the DATA frame; the header block
	priority [h2.PriorityLen]byte
}

// A clientItem is an item of the client's, and what examine finds out about it if it is a header block. Its fields are
// valid as long as its payload.
type clientItem struct {
	item
	examined
}

// examined is what examine finds out about a header block.
type examined struct {
	*headerList // nil if there is a fault
	fault       *h2.ConnError
	opens       bool // a stream
}

// begin makes it an item of a frame, of which nothing else is known.
func (it *item) begin(kind itemKind, h h2.FrameHeader, payload []byte) {
	it.kind, it.FrameHeader, it.payload = kind, h, payload
	it.first, it.last, it.prioritized = false, false, false
}

func (it *item) ack() bool       { return h2.IsACK(it.FrameHeader) }
func (it *item) endStream() bool { return it.Flags.Has(http2.FlagDataEndStream) }
func (it *item) value() uint32   { return binary.BigEndian.Uint32(it.payload) & h2.MaxStreamID }
func (it *item) code() http2.ErrCode {
	return http2.ErrCode(binary.BigEndian.Uint32(it.payload))
}

// A parser takes the frames of one direction apart. What it finds it finds in contiguous bytes: what it has not taken
// it is shown again with more behind it. Only DATA, which can be long, is taken in parts.
type parser struct {
	from             h2.Direction
	begun            bool // the first frame was seen, which from a server has to be SETTINGS (RFC 9113, Section 3.4)
	maxFrame         int  // the longest frame
	maxBlock         int  // the longest header block, compressed
	maxContinuations int

	hdr       h2.FrameHeader // of the frame in which the parser is
	left, pad int            // what is left of its content, and of its padding behind that

	// A header block of several frames that has begun: what of its frames is joined already, their length, and how many
	// they are.
	joined []byte
	pos    int
	frames int
}

// shrink gives back the memory of a header block that has been taken, if it is much.
func (p *parser) shrink() {
	if cap(p.joined) > maxKept {
		p.joined = nil
	}
}

// inFrame reports whether a part of a DATA frame was taken, and another is to come.
func (p *parser) inFrame() bool { return p.left > 0 || p.pad > 0 }

// next sets it to the item with which b begins, and returns its length. The length is 0 if b is too short for it.
func (p *parser) next(it *item, b []byte) (n int, err *frameError) {
	if p.inFrame() {
		if len(b) == 0 {
			return 0, nil
		}
		return p.part(it, b), nil
	}
	if len(b) < h2.FrameHeaderLen {
		return 0, nil
	}
	h := h2.ParseFrameHeader(b)
	end := h2.FrameLen(h)
	if p.from == h2.FromServer && !p.begun && (h.Type != http2.FrameSettings || h2.IsACK(h)) {
		return 0, faultAt(end, notSettings(b))
	}
	p.begun = true
	e := h2.CheckFrameHeader(h, p.from, p.maxFrame)
	if e == nil {
		e = p.tooMuch(h)
	}
	if e != nil {
		return 0, faultAt(end, e)
	}
	switch {
	case h.Type == http2.FrameData:
		return p.data(it, h, b)
	case h.Length > maxUnknownLen && (h.Type > http2.FrameContinuation || h.Type == http2.FramePriority):
		p.hdr, p.left = h, int(h.Length)
		it.begin(skipItem, h, nil)
		it.first = true
		return h2.FrameHeaderLen, nil
	case len(b) < end:
		return 0, nil
	case h.Type == http2.FrameHeaders:
		return p.block(it, h, b)
	}
	it.begin(frameItem, h, b[h2.FrameHeaderLen:end])
	return end, nil
}

// faultAt returns the fault of a frame that ends at end.
//
//go:noinline // see Conn.Write
func faultAt(end int, e *h2.ConnError) *frameError { return &frameError{*e, end} }

func notSettings(b []byte) *h2.ConnError {
	return h2.ProtocolError(fmt.Sprintf("the first frame is not SETTINGS, but %.32q", b))
}

// data begins a DATA frame (RFC 9113, Section 6.1).
func (p *parser) data(it *item, h h2.FrameHeader, b []byte) (n int, err *frameError) {
	n, pad := h2.FrameHeaderLen, 0
	left := int(h.Length)
	if h.Flags.Has(http2.FlagDataPadded) {
		if len(b) == h2.FrameHeaderLen {
			return 0, nil
		}
		pad = int(b[h2.FrameHeaderLen])
		n++
		if left -= 1 + pad; left < 0 {
			return 0, faultAt(h2.FrameLen(h), h2.ProtocolError("DATA frame with more padding than payload"))
		}
	}
	p.hdr, p.left, p.pad = h, left, pad
	m := min(left, len(b)-n)
	p.left -= m
	it.begin(dataItem, h, b[n:n+m])
	it.first, it.last = true, p.left == 0
	return n + m, nil
}

// part takes more of the frame that has begun.
func (p *parser) part(it *item, b []byte) (n int) {
	if p.left == 0 {
		it.begin(skipItem, p.hdr, nil)
		n = min(p.pad, len(b))
		p.pad -= n
		return n
	}
	n = min(p.left, len(b))
	p.left -= n
	it.begin(dataItem, p.hdr, b[:n])
	if p.hdr.Type != http2.FrameData {
		it.kind = skipItem
	}
	it.last = p.left == 0
	return n
}

// block finds a header block (RFC 9113, Section 4.3), of whose HEADERS frame all is there.
func (p *parser) block(it *item, h h2.FrameHeader, b []byte) (n int, err *frameError) {
	n = h2.FrameLen(h)
	payload := b[h2.FrameHeaderLen:n]
	it.begin(blockItem, h, payload)
	if h.Flags&(http2.FlagHeadersPadded|http2.FlagHeadersPriority) != 0 {
		start, stop, cerr := h2.Fragment(h, payload)
		if cerr != nil {
			return 0, faultAt(n, cerr)
		}
		if h.Flags.Has(http2.FlagHeadersPriority) {
			it.priority, it.prioritized = [h2.PriorityLen]byte(payload[start-h2.PriorityLen:]), true
		}
		it.payload = payload[start:stop]
	}
	if h.Flags.Has(http2.FlagHeadersEndHeaders) {
		return n, nil
	}
	return p.joinBlock(it, h, b, n)
}

// joinBlock is block for a header block of several frames, of which the first has its fragment in it and ends at n.
func (p *parser) joinBlock(it *item, h h2.FrameHeader, b []byte, n int) (int, *frameError) {
	if p.pos == 0 {
		p.joined, p.pos, p.frames = append(p.joined[:0], it.payload...), n, 1
	}
	for ; ; p.frames++ {
		if len(b) < p.pos+h2.FrameHeaderLen {
			return 0, nil
		}
		c := h2.ParseFrameHeader(b[p.pos:])
		end := p.pos + h2.FrameLen(c)
		cerr := h2.CheckContinuation(c, h.StreamID, p.maxFrame)
		switch {
		case cerr != nil:
		case p.frames > p.maxContinuations:
			cerr = h2.EnhanceYourCalm("too many CONTINUATION frames in a header block")
		case len(p.joined)+int(c.Length) > p.maxBlock:
			cerr = h2.EnhanceYourCalm("header block too large")
		case len(b) < end:
			return 0, nil
		}
		if cerr != nil {
			return 0, faultAt(end, cerr)
		}
		p.joined = append(p.joined, b[p.pos+h2.FrameHeaderLen:end]...)
		p.pos = end
		if c.Flags.Has(http2.FlagContinuationEndHeaders) {
			p.pos = 0
			it.payload = p.joined
			return end, nil
		}
	}
}

// tooMuch checks that what has to be held of a frame is not too long.
//
//go:noinline // see Conn.Write
func (p *parser) tooMuch(h h2.FrameHeader) *h2.ConnError {
	switch n := int(h.Length); h.Type {
	case http2.FrameHeaders:
		if n > p.maxBlock+maxAroundBlock {
			return h2.EnhanceYourCalm("header block too large")
		}
	case http2.FrameSettings:
		// As much is held for a header block, too.
		if n > max(p.maxBlock, h2.DefaultMaxFrameSize) {
			return h2.EnhanceYourCalm("SETTINGS frame with too many settings")
		}
	case http2.FrameGoAway:
		// It is passed on to servers that accept no longer frames than these.
		if n > h2.DefaultMaxFrameSize {
			return h2.EnhanceYourCalm("GOAWAY frame too long")
		}
	}
	return nil
}

// maxAroundBlock is the most that a HEADERS frame has beside its field block fragment: Pad Length, the priority fields
// and the padding (RFC 9113, Section 6.2).
const maxAroundBlock = 1 + h2.PriorityLen + 1<<8 - 1

// forbidPush sets SETTINGS_ENABLE_PUSH to 0 wherever a payload sets it, so that no server opens streams.
func forbidPush(payload []byte) {
	for ; len(payload) >= h2.SettingLen; payload = payload[h2.SettingLen:] {
		if http2.SettingID(binary.BigEndian.Uint16(payload)) == http2.SettingEnablePush {
			binary.BigEndian.PutUint32(payload[2:], 0)
		}
	}
}
