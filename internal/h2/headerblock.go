package h2

import (
	"cmp"
	"errors"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// fieldBlock is how far the header block has been decoded. Each field representation is given to the decoder when it is
// whole, so that fields are known as soon as they can be, and the work is linear in the bytes however they are cut up.
type fieldBlock struct {
	begun   bool // the decoder is in the middle of the block
	over    bool // the decoder has had all of it
	scanned int  // the end of what the scanner has seen, in the connection's bytes
	decoded int  // the end of what the decoder has
	scanner scanner
	tail    []byte // a representation that began in an earlier frame
	whole   span   // the block, if it is in one frame
}

// maxRetainedTail is the largest capacity that is kept between representations that are split over frames.
const maxRetainedTail = 1 << 10

var (
	// tableSizeUpdate is a header block with nothing but a dynamic table size update to DefaultTableSize (RFC 7541,
	// Section 6.3).
	tableSizeUpdate = []byte{0x3f, 0xe1, 0x1f}

	// staticField is a representation that changes nothing but what is emitted.
	staticField = []byte{0x82}

	// errListSize is RFC 9113, Section 10.5.1.
	errListSize = EnhanceYourCalm("header list too large")
)

// readFragment decodes as much of the field block fragment in the HEADERS or CONTINUATION frame p.frame, whose payload
// is at s, as is there and was not decoded before.
func (p *Parser) readFragment(data []byte, s span) *ConnError {
	if p.frame.Type == http2.FrameHeaders {
		fixed := headersFixedLen(p.frame)
		if len(data) < s.start+fixed {
			return nil
		}
		pad := 0
		if p.frame.Flags.Has(http2.FlagHeadersPadded) {
			pad = int(data[s.start])
		}
		if s.start, s.end = s.start+fixed, s.end-pad; s.start > s.end {
			return ProtocolError("HEADERS frame with more padding than payload")
		}
		p.streamID = p.frame.StreamID
		p.endStream = p.frame.Flags.Has(http2.FlagHeadersEndStream)
	}
	b := &p.block
	if !b.begun {
		b.begun, b.scanner.maxString = true, p.maxHeaderListSize()
		p.beginBlock()
	}
	if b.scanned < s.start {
		b.scanned, b.decoded = s.start, s.start
	}
	if p.frame.Type == http2.FrameHeaders && p.frame.Flags.Has(http2.FlagHeadersEndHeaders) {
		b.whole = s
	}
	end := min(s.end, len(data))
	if b.scanned >= end {
		return nil
	}
	if end == s.end && p.frame.Flags.Has(http2.FlagHeadersEndHeaders) {
		// The usual case: nothing of the block is still to come.
		b.scanned = end
		return p.write(data, end)
	}
	if n := b.scanner.scan(data[b.scanned:end]); n > 0 {
		if err := p.write(data, b.scanned+n); err != nil {
			return err
		}
		p.letGo()
	}
	if b.scanned = end; end == s.end {
		b.tail = append(b.tail, data[b.decoded:end]...)
		b.decoded = end
	}
	return nil
}

func (p *Parser) beginBlock() {
	if p.decoder == nil {
		// The first header block comes before the client can have acknowledged another table size (RFC 9113, Section
		// 4.3.1).
		p.decoder = hpack.NewDecoder(DefaultTableSize, p.emit)
	}
	p.decoder.SetMaxStringLength(p.maxHeaderListSize())
	p.decoder.SetEmitEnabled(true)
}

// endBlock ends the header block.
func (p *Parser) endBlock() *ConnError {
	err := p.decoder.Close()
	if len(p.block.tail) > 0 {
		err = errTruncated // the last frame has brought no more of it
	}
	if err != nil {
		p.decoder = nil
		return CompressionError(err)
	}
	p.block.begun, p.block.over = false, true
	p.letGo()
	p.decoder.Close()
	return nil
}

// letGo makes the decoder let go of the last slice it was given, which is data.
func (p *Parser) letGo() {
	p.decoder.SetEmitEnabled(false)
	p.decoder.Write(staticField)
	p.decoder.SetEmitEnabled(true)
}

// renewDecoder makes the decoder ready for the first block of another connection, which must find the table of a new
// one.
func (p *Parser) renewDecoder() {
	switch {
	case p.block.begun:
		p.decoder = nil // it is in the middle of a block
	case p.block.over && p.decoder != nil:
		RenewDecoder(p.decoder)
	}
}

// RenewDecoder makes a decoder ready for another connection: its table is empty, and can have DefaultTableSize. Its memory
// is kept, and so are its function and its string length. It must have reached the end of a block without an error.
func RenewDecoder(d *hpack.Decoder) {
	d.SetAllowedMaxDynamicTableSize(DefaultTableSize)
	d.SetMaxDynamicTableSize(0)
	d.SetEmitEnabled(true)
	d.Write(tableSizeUpdate) // which undoes a size that was set, and lets go of the block
	d.Close()
}

var errTruncated = errors.New("truncated header block")

// write gives the decoder what it has not had, up to end.
func (p *Parser) write(data []byte, end int) *ConnError {
	b := &p.block
	rest := data[b.decoded:end]
	b.decoded = end
	if len(b.tail) > 0 {
		rest = append(b.tail, rest...)
		if b.tail = rest[:0]; cap(rest) > maxRetainedTail {
			b.tail = nil
		}
	}
	_, err := p.decoder.Write(rest)
	switch {
	case err == nil && p.listSize <= p.maxHeaderListSize():
		return nil
	case p.listSize > p.maxHeaderListSize(), errors.Is(err, hpack.ErrStringLength):
		p.decoder = nil // it is in no defined state, and holds data
		return errListSize
	}
	p.decoder = nil
	return CompressionError(err)
}

// emit receives each field from the decoder.
func (p *Parser) emit(f hpack.HeaderField) {
	p.listSize += int(f.Size())
	if p.listSize > p.maxHeaderListSize() {
		// Nothing can stop the decoder before the end of what it was given, but once silenced it expands nothing more
		// of it.
		p.decoder.SetEmitEnabled(false)
		return
	}
	p.fields = append(p.fields, f)
}

func (p *Parser) maxHeaderListSize() int {
	return cmp.Or(p.MaxHeaderListSize, DefaultMaxHeaderListSize)
}

// A scanner finds the ends of field representations (RFC 7541, Section 6) without decoding them. A representation that
// the decoder cannot take, since an integer or a string in it is too long, ends where that shows.
type scanner struct {
	maxString int

	step  scanStep
	value uint64 // of the integer that is being read
	shift uint
	left  int // of the string that is being skipped
}

// scanStep is what the next byte belongs to.
type scanStep uint8

const (
	scanStart       scanStep = iota // the first byte of a representation
	scanInteger                     // the rest of the integer of one without strings
	scanNameIndex                   // the rest of the index of a literal's name
	scanNameStart                   // the first byte of a name's length
	scanNameLength                  // the rest of it
	scanName                        // the name
	scanValueStart                  // the first byte of a value's length
	scanValueLength                 // the rest of it
	scanValue                       // the value
)

// scan goes on with b, and returns the end of the last representation that ends in it, or 0.
func (s *scanner) scan(b []byte) (whole int) {
	for i := 0; i < len(b); {
		c := b[i]
		i++
		switch s.step {
		case scanStart:
			switch {
			case c&0x80 != 0: // indexed
				s.begin(c, 0x7f, scanInteger, scanStart)
			case c&0xe0 == 0x20: // dynamic table size update
				s.begin(c, 0x1f, scanInteger, scanStart)
			case c&0xc0 == 0x40: // literal with incremental indexing
				s.beginLiteral(c, 0x3f)
			default: // literal without indexing
				s.beginLiteral(c, 0x0f)
			}
		case scanInteger:
			s.goOn(c, scanStart)
		case scanNameIndex:
			s.goOn(c, scanValueStart)
		case scanNameStart:
			s.begin(c, 0x7f, scanNameLength, scanName)
		case scanNameLength:
			s.goOn(c, scanName)
		case scanValueStart:
			s.begin(c, 0x7f, scanValueLength, scanValue)
		case scanValueLength:
			s.goOn(c, scanValue)
		case scanName, scanValue:
			n := min(s.left, len(b)-i+1)
			i += n - 1
			if s.left -= n; s.left == 0 {
				s.enter(s.step + 1)
			}
		}
		if s.step == scanStart {
			whole = i
		}
	}
	return whole
}

func (s *scanner) beginLiteral(c, mask byte) {
	if c&mask == 0 {
		s.step = scanNameStart
		return
	}
	s.begin(c, mask, scanNameIndex, scanValueStart)
}

// begin reads the first byte of an integer (RFC 7541, Section 5.1).
func (s *scanner) begin(c, mask byte, rest, then scanStep) {
	s.value, s.shift = uint64(c&mask), 0
	if c&mask == mask {
		s.step = rest
		return
	}
	s.enter(then)
}

// goOn reads another byte of an integer.
func (s *scanner) goOn(c byte, then scanStep) {
	s.value += uint64(c&0x7f) << s.shift
	s.shift += 7
	switch {
	case c&0x80 == 0:
		s.enter(then)
	case s.shift >= 63:
		s.step = scanStart
	}
}

// enter begins a step. The value is the length of the string, if it is one.
func (s *scanner) enter(step scanStep) {
	switch {
	case step > scanValue:
		step = scanStart
	case step != scanName && step != scanValue:
	case s.value > uint64(s.maxString):
		step = scanStart
	case s.value == 0:
		s.step = step
		s.enter(step + 1)
		return
	default:
		s.left = int(s.value)
	}
	s.step = step
}
