package dispatch

import (
	"encoding/binary"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

const (
	headerLen   = h2.FrameHeaderLen
	settingLen  = 6
	priorityLen = 5 // what the PRIORITY flag adds to a HEADERS frame (RFC 9113, 6.2)

	defaultWindow    = 1<<16 - 1 // of the connection and of streams, before anything changes them (RFC 9113, 6.9.2)
	maxWindow        = 1<<31 - 1 // RFC 9113, 6.9.1
	defaultFrameSize = 1 << 14   // SETTINGS_MAX_FRAME_SIZE at first, and at least (RFC 9113, 6.5.2)
	largestFrameSize = 1<<24 - 1
	defaultTableSize = 4096 // SETTINGS_HEADER_TABLE_SIZE at first (RFC 9113, 6.5.2)
	maxStreamID      = 1<<31 - 1

	// Frames of unknown type up to this length are seen whole, for PRIORITY_UPDATE (RFC 9218, 7.1); longer ones are skipped.
	maxUnknownLen = 256
)

func appendFrame(dst []byte, typ http2.FrameType, flags http2.Flags, id uint32, payload []byte) []byte {
	return append(h2.AppendFrameHeader(dst, len(payload), typ, flags, id), payload...)
}

func appendWindowUpdate(dst []byte, id uint32, n int64) []byte {
	dst = h2.AppendFrameHeader(dst, 4, http2.FrameWindowUpdate, 0, id)
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

func appendReset(dst []byte, id uint32, code http2.ErrCode) []byte {
	dst = h2.AppendFrameHeader(dst, 4, http2.FrameRSTStream, 0, id)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

// appendBlock appends a header block as a HEADERS frame and as many CONTINUATION frames as it needs.
func appendBlock(dst []byte, id uint32, endStream bool, priority, block []byte, maxFrame int) []byte {
	var flags http2.Flags
	if endStream {
		flags |= http2.FlagHeadersEndStream
	}
	if len(priority) > 0 {
		flags |= http2.FlagHeadersPriority
	}
	n := min(len(block), maxFrame-len(priority))
	if n == len(block) {
		flags |= http2.FlagHeadersEndHeaders
	}
	dst = h2.AppendFrameHeader(dst, len(priority)+n, http2.FrameHeaders, flags, id)
	dst = append(append(dst, priority...), block[:n]...)
	for block = block[n:]; len(block) > 0; block = block[n:] {
		n, flags = min(len(block), maxFrame), 0
		if n == len(block) {
			flags = http2.FlagContinuationEndHeaders
		}
		dst = appendFrame(dst, http2.FrameContinuation, flags, id, block[:n])
	}
	return dst
}

// frameError is a connection error (RFC 9113, 5.4.1) in the bytes that the parser was shown, of which the frame at fault
// ends at end.
type frameError struct {
	h2.ConnError
	end int
}

func protocolError(reason string) *h2.ConnError {
	return &h2.ConnError{Code: http2.ErrCodeProtocol, Reason: reason}
}

func frameSizeError(reason string) *h2.ConnError {
	return &h2.ConnError{Code: http2.ErrCodeFrameSize, Reason: reason}
}

func calm(reason string) *h2.ConnError {
	return &h2.ConnError{Code: http2.ErrCodeEnhanceYourCalm, Reason: reason}
}

type itemKind uint8

const (
	frameItem itemKind = iota // a whole frame
	blockItem                 // a header block: HEADERS and all its CONTINUATION frames
	dataItem                  // a part of a DATA frame
	skipItem                  // a part of a frame that nobody needs to see: padding, and long frames of unknown type
)

// An item is what a parser finds. Its slices are valid until the next call.
type item struct {
	kind itemKind
	http2.FrameHeader
	payload  []byte // of the frame; the part of the content of the DATA frame; the header block
	priority []byte // of HEADERS, if it has the PRIORITY flag
	first    bool   // the part of the DATA frame with its header
	last     bool   // nothing of the content of the DATA frame follows

	// What examine finds out about a header block of the client's.
	fields []hpack.HeaderField
	fault  *h2.ConnError
	size   int  // of the header list (RFC 9113, Section 6.5.2)
	large  bool // fields are the front of a list that is too large
	grpc   bool // the request is one of gRPC
	opens  bool // a stream,
	target int  // which is for this target
}

func (it *item) ack() bool       { return it.Flags.Has(http2.FlagSettingsAck) } // the same bit in PING
func (it *item) endStream() bool { return it.Flags.Has(http2.FlagDataEndStream) }
func (it *item) value() uint32   { return binary.BigEndian.Uint32(it.payload) & maxStreamID }
func (it *item) code() http2.ErrCode {
	return http2.ErrCode(binary.BigEndian.Uint32(it.payload))
}

// A parser takes the frames of one direction apart. What it finds it finds in contiguous bytes: what it has not taken it
// is shown again with more behind it. Only DATA, which can be long, is taken in parts.
type parser struct {
	fromClient       bool
	maxFrame         int // the longest frame
	maxBlock         int // the longest header block, compressed
	maxContinuations int

	hdr       http2.FrameHeader // of the frame in which the parser is
	left, pad int               // what is left of its content, and of its padding behind that

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

// next finds the item with which b begins, and its length. The length is 0 if b is too short for it.
func (p *parser) next(b []byte) (it item, n int, err *frameError) {
	if p.inFrame() {
		if len(b) == 0 {
			return it, 0, nil
		}
		it, n = p.part(b)
		return it, n, nil
	}
	if len(b) < headerLen {
		return it, 0, nil
	}
	h := h2.ParseFrameHeader(b)
	end := headerLen + int(h.Length)
	if e := p.check(h); e != nil {
		return it, 0, &frameError{*e, end}
	}
	switch {
	case h.Type == http2.FrameData:
		return p.data(h, b)
	case h.Type > http2.FrameContinuation && h.Length > maxUnknownLen:
		p.hdr, p.left = h, int(h.Length)
		return item{kind: skipItem, FrameHeader: h, first: true}, headerLen, nil
	case len(b) < end:
		return it, 0, nil
	case h.Type == http2.FrameHeaders:
		return p.block(h, b)
	}
	return item{kind: frameItem, FrameHeader: h, payload: b[headerLen:end]}, end, nil
}

// data begins a DATA frame (RFC 9113, 6.1).
func (p *parser) data(h http2.FrameHeader, b []byte) (it item, n int, err *frameError) {
	n, pad := headerLen, 0
	left := int(h.Length)
	if h.Flags.Has(http2.FlagDataPadded) {
		if len(b) == headerLen {
			return it, 0, nil
		}
		pad = int(b[headerLen])
		n++
		if left -= 1 + pad; left < 0 {
			return it, 0, &frameError{*protocolError("DATA frame with more padding than payload"), headerLen + int(h.Length)}
		}
	}
	p.hdr, p.left, p.pad = h, left, pad
	m := min(left, len(b)-n)
	p.left -= m
	return item{kind: dataItem, FrameHeader: h, payload: b[n : n+m], first: true, last: p.left == 0}, n + m, nil
}

// part takes more of the frame that has begun.
func (p *parser) part(b []byte) (it item, n int) {
	it = item{kind: dataItem, FrameHeader: p.hdr}
	if p.hdr.Type != http2.FrameData || p.left == 0 {
		it.kind = skipItem
	}
	if p.left == 0 {
		n = min(p.pad, len(b))
		p.pad -= n
		return it, n
	}
	n = min(p.left, len(b))
	p.left -= n
	it.payload, it.last = b[:n], p.left == 0
	return it, n
}

// block finds a header block (RFC 9113, 4.3), of whose HEADERS frame all is there.
func (p *parser) block(h http2.FrameHeader, b []byte) (it item, n int, err *frameError) {
	n = headerLen + int(h.Length)
	payload := b[headerLen:n]
	it = item{kind: blockItem, FrameHeader: h}
	if h.Flags.Has(http2.FlagHeadersPadded) {
		pad := int(payload[0])
		payload = payload[1:]
		if pad > len(payload) {
			return it, 0, &frameError{*protocolError("HEADERS frame with more padding than payload"), n}
		}
		payload = payload[:len(payload)-pad]
	}
	if h.Flags.Has(http2.FlagHeadersPriority) {
		if len(payload) < priorityLen {
			return it, 0, &frameError{*protocolError("HEADERS frame with more padding than payload"), n}
		}
		it.priority, payload = payload[:priorityLen], payload[priorityLen:]
	}
	it.payload = payload
	if h.Flags.Has(http2.FlagHeadersEndHeaders) {
		return it, n, nil
	}
	if p.pos == 0 {
		p.joined, p.pos, p.frames = append(p.joined[:0], payload...), n, 1
	}
	for ; ; p.frames++ {
		if len(b) < p.pos+headerLen {
			return it, 0, nil
		}
		c := h2.ParseFrameHeader(b[p.pos:])
		end := p.pos + headerLen + int(c.Length)
		switch {
		case c.Type != http2.FrameContinuation || c.StreamID != h.StreamID:
			// RFC 9113, 6.10.
			return it, 0, &frameError{*protocolError(c.Type.String() + " frame in a header block"), end}
		case int(c.Length) > p.maxFrame:
			return it, 0, &frameError{*frameSizeError("CONTINUATION frame longer than SETTINGS_MAX_FRAME_SIZE"), end}
		case p.frames > p.maxContinuations:
			return it, 0, &frameError{*calm("too many CONTINUATION frames in a header block"), end}
		case len(p.joined)+int(c.Length) > p.maxBlock:
			return it, 0, &frameError{*calm("header block too large"), end}
		case len(b) < end:
			return it, 0, nil
		}
		p.joined = append(p.joined, b[p.pos+headerLen:end]...)
		p.pos = end
		if c.Flags.Has(http2.FlagContinuationEndHeaders) {
			p.pos = 0
			it.payload = p.joined
			return it, end, nil
		}
	}
}

// check checks what the header of a frame alone can break.
func (p *parser) check(h http2.FrameHeader) *h2.ConnError {
	if int(h.Length) > p.maxFrame {
		return frameSizeError(h.Type.String() + " frame longer than SETTINGS_MAX_FRAME_SIZE") // RFC 9113, 4.2
	}
	switch h.Type {
	case http2.FrameData, http2.FrameHeaders, http2.FramePriority, http2.FrameRSTStream, http2.FramePushPromise:
		if h.StreamID == 0 {
			return protocolError(h.Type.String() + " frame on stream 0") // RFC 9113, 6.1 to 6.4, 6.6
		}
	case http2.FrameSettings, http2.FramePing, http2.FrameGoAway:
		if h.StreamID != 0 {
			return protocolError(h.Type.String() + " frame on a stream") // RFC 9113, 6.5, 6.7, 6.8
		}
	}
	fixed := 0
	switch h.Type {
	case http2.FrameData:
		if h.Flags.Has(http2.FlagDataPadded) && h.Length == 0 {
			return frameSizeError("DATA frame too short for its flags")
		}
		return nil
	case http2.FrameHeaders:
		if p.fromClient && h.StreamID%2 == 0 {
			return protocolError("HEADERS frame on a stream that a client cannot open") // RFC 9113, 5.1.1
		}
		if h.Flags.Has(http2.FlagHeadersPadded) {
			fixed++
		}
		if h.Flags.Has(http2.FlagHeadersPriority) {
			fixed += priorityLen
		}
		if int(h.Length) < fixed {
			return frameSizeError("HEADERS frame too short for its flags") // RFC 9113, 4.2
		}
		if int(h.Length)-fixed > p.maxBlock+maxPadding {
			return calm("header block too large")
		}
		return nil
	case http2.FrameContinuation:
		return protocolError("CONTINUATION frame without HEADERS") // RFC 9113, 6.10
	case http2.FramePushPromise:
		if p.fromClient {
			return protocolError("PUSH_PROMISE frame from a client") // RFC 9113, 8.4
		}
		return protocolError("PUSH_PROMISE frame, though SETTINGS_ENABLE_PUSH is 0")
	case http2.FrameSettings:
		switch {
		case h.Flags.Has(http2.FlagSettingsAck) && h.Length != 0:
			return frameSizeError("SETTINGS acknowledgment with a payload") // RFC 9113, 6.5
		case h.Length%settingLen != 0:
			return frameSizeError("SETTINGS frame with a partial setting")
		case h.Length > maxSettingsLen:
			return calm("SETTINGS frame with too many settings")
		}
		return nil
	case http2.FrameGoAway:
		if h.Length < 8 {
			return frameSizeError("GOAWAY frame too short") // RFC 9113, 6.8
		}
		if h.Length > defaultFrameSize {
			return calm("GOAWAY frame too long")
		}
		return nil
	case http2.FramePriority:
		fixed = priorityLen // RFC 9113, 6.3
	case http2.FrameRSTStream, http2.FrameWindowUpdate:
		fixed = 4 // RFC 9113, 6.4, 6.9
	case http2.FramePing:
		fixed = 8 // RFC 9113, 6.7
	default:
		return nil
	}
	if int(h.Length) != fixed {
		return frameSizeError(h.Type.String() + " frame of the wrong length")
	}
	return nil
}

const (
	maxPadding     = 1<<8 - 1
	maxSettingsLen = 100 * settingLen
)

// settings calls f for each setting in a payload, in order.
func settings(payload []byte, f func(id http2.SettingID, val uint32)) {
	for ; len(payload) >= settingLen; payload = payload[settingLen:] {
		f(http2.SettingID(binary.BigEndian.Uint16(payload)), binary.BigEndian.Uint32(payload[2:]))
	}
}

// checkSettings checks the values in the payload of a SETTINGS frame (RFC 9113, 6.5.2).
func checkSettings(payload []byte) (err *h2.ConnError) {
	settings(payload, func(id http2.SettingID, val uint32) {
		switch id {
		case http2.SettingEnablePush, http2.SettingEnableConnectProtocol, http2.SettingNoRFC7540Priorities:
			if val > 1 {
				err = protocolError("SETTINGS_" + id.String() + " other than 0 or 1")
			}
		case http2.SettingInitialWindowSize:
			if val > maxWindow {
				err = &h2.ConnError{Code: http2.ErrCodeFlowControl, Reason: "SETTINGS_INITIAL_WINDOW_SIZE too large"}
			}
		case http2.SettingMaxFrameSize:
			if val < defaultFrameSize || val > largestFrameSize {
				err = protocolError("SETTINGS_MAX_FRAME_SIZE out of range")
			}
		}
	})
	return err
}

// forbidPush sets SETTINGS_ENABLE_PUSH to 0 wherever a payload sets it, so that no server opens streams.
func forbidPush(payload []byte) {
	for ; len(payload) >= settingLen; payload = payload[settingLen:] {
		if http2.SettingID(binary.BigEndian.Uint16(payload)) == http2.SettingEnablePush {
			binary.BigEndian.PutUint32(payload[2:], 0)
		}
	}
}
