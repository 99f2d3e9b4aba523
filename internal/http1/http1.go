// Package http1 recognizes the head of an HTTP/1.x request in the first bytes of a connection.
//
// The parser consumes nothing. [Parser.Parse] is called with all bytes that have arrived so far, any number of times,
// and reports at the earliest byte possible whether they are a request head, complete or not. The parsed part of the
// head is available before the rest arrives.
//
// The grammar is that of RFC 9112, as lenient and as strict as net/http, which usually gets the connection next: a head
// that net/http accepts is never [Invalid], except for the method PRI.
package http1

import "golang.org/x/net/http/httpguts"

// State says what the bytes seen so far are.
type State uint8

// The states of a [Parser]. [Complete] and [Invalid] are final.
const (
	// Incomplete means that the bytes may yet become a request head, or go on as one.
	Incomplete State = iota
	// Complete means that the empty line that ends the head was seen.
	Complete
	// Invalid means that no HTTP/1.x request starts like this. [Parser.Err] says why.
	Invalid
)

// Span is a part of the data given to [Parser.Parse]: a pair of offsets, so that it holds for every buffer that starts
// with the same bytes.
type Span struct{ Start, End int }

// Of returns the bytes of data that s covers.
func (s Span) Of(data []byte) []byte { return data[s.Start:s.End] }

// Field is a field line of the head.
type Field struct {
	// Name is the field name as it was sent. Compare it with [EqualName].
	Name Span
	// Value is the field value without the whitespace around it. Where the line is continued by obs-fold, RFC 9112,
	// Section 5.2, it has line terminators in it, which [Unfold] replaces. Empty lines that continue a value that has
	// begun are a part of it, as in net/http.
	Value Span
}

// Error says why the bytes are not the head of an HTTP/1.x request.
type Error struct {
	// Status is what a server should answer: 400 or 505, or 0 when the bytes are not HTTP/1 at all, so that an HTTP
	// response would not be understood.
	Status int
	// Reason is a short text for logs.
	Reason string
}

// Error implements the error interface.
func (e *Error) Error() string { return "http1: " + e.Reason }

const (
	statusNone                = 0
	statusBadRequest          = 400 // RFC 9110, Section 15.5.1
	statusVersionNotSupported = 505 // RFC 9110, Section 15.6.6
)

var (
	errMethod       = &Error{statusNone, "malformed method"}
	errPreface      = &Error{statusNone, "method PRI is reserved for the HTTP/2 connection preface"}
	errTarget       = &Error{statusBadRequest, "malformed request-target"}
	errNoVersion    = &Error{statusBadRequest, "request line without an HTTP version"}
	errVersion      = &Error{statusBadRequest, "malformed HTTP version"}
	errMajor        = &Error{statusVersionNotSupported, "HTTP version other than 1.x"}
	errAfterVersion = &Error{statusBadRequest, "request line goes on after the HTTP version"}
	errBareCR       = &Error{statusBadRequest, "CR not followed by LF"}
	errSpaceFirst   = &Error{statusBadRequest, "whitespace before the first field line"}
	errName         = &Error{statusBadRequest, "malformed field name"}
	errSpaceColon   = &Error{statusBadRequest, "whitespace between field name and colon"}
	errValue        = &Error{statusBadRequest, "control character in a field value"}
)

// step names the part of the head that the next byte belongs to. The steps are in the order of the head.
type step uint8

const (
	stepStart   step = iota // the first byte
	stepEmptyLF             // after a CR in front of the request line
	stepMethod
	stepTargetStart // the first byte of the request-target
	stepAsterisk    // after the "*" of asterisk-form
	stepScheme      // the scheme of absolute-form
	stepTarget      // the rest of the request-target
	stepVersion
	stepVersionEnd
	stepRequestLF // after a CR at the end of the request line
	stepFirstLine // the first byte after the request line
	stepName
	stepValue
	stepValueLF  // after a CR at the end of a field line
	stepNextLine // the first byte after a field line
	stepHeadLF   // after a CR at the start of a line
)

const (
	// typicalFields saves most connections the growing of the fields slice.
	typicalFields = 16
	// maxRetainedFields is the largest capacity that Reset keeps, lest one extravagant head pin its memory for the life
	// of a pooled Parser.
	maxRetainedFields = 256
)

// Parser recognizes an HTTP/1.x request head incrementally. The zero value is ready to use. A Parser must not be used
// concurrently.
//
// It has no limits of its own: whoever bounds the bytes bounds the work, which is linear in them however they are cut
// up, and the memory.
//
// After Invalid the accessors still return what was understood before the offending byte.
type Parser struct {
	state  State
	step   step
	pos    int // the first byte not yet looked at
	start  int // where the request line begins
	method Span
	target Span
	minor  int
	field  Field // the field line being read
	folded bool  // in a line that continues it, of which only whitespace was seen
	fields []Field
	err    *Error
}

// Reset makes p ready for another connection. It keeps the memory of the fields, so the result of an earlier
// [Parser.Fields] is void.
func (p *Parser) Reset() {
	fields := p.fields[:0]
	if cap(fields) > maxRetainedFields {
		fields = nil
	}
	*p = Parser{fields: fields}
}

// Parse goes on with the head. The data must start at the first byte of the connection and be at least as long as in
// the call before, with the same bytes, although not necessarily in the same memory: p holds on to no part of data.
//
// The state is Invalid at the first byte that no HTTP/1.x request could have there, and Complete at the LF of the empty
// line that ends the head, whatever follows.
func (p *Parser) Parse(data []byte) State {
	for p.state == Incomplete && p.pos < len(data) {
		c := data[p.pos]
		switch p.step {
		case stepStart:
			p.readStart(c)
		case stepEmptyLF:
			p.readEmptyLF(c)
		case stepMethod:
			p.readMethod(data)
		case stepTargetStart:
			p.readTargetStart(data)
		case stepAsterisk:
			p.endTarget(c)
		case stepScheme:
			p.readScheme(c)
		case stepTarget:
			p.readTarget(data)
		case stepVersion:
			p.readVersion(c)
		case stepVersionEnd:
			p.endVersion(c)
		case stepRequestLF:
			p.readLF(c, stepFirstLine)
		case stepFirstLine:
			p.readFirstLine(c)
		case stepName:
			p.readName(data)
		case stepValue:
			p.readValue(data)
		case stepValueLF:
			p.readLF(c, stepNextLine)
		case stepNextLine:
			p.readNextLine(c)
		case stepHeadLF:
			p.endHead(c)
		}
	}
	return p.state
}

// Method returns the method. It is known once the space after it was seen.
func (p *Parser) Method() (method Span, ok bool) { return p.method, p.method.End > 0 }

// Target returns the request-target, for [SplitTarget] to take apart. It is known once the space after it was seen.
func (p *Parser) Target() (target Span, ok bool) { return p.target, p.target.End > 0 }

// Version returns the minor version of HTTP/1. It is known once the line terminator after it was seen.
func (p *Parser) Version() (minor int, ok bool) { return p.minor, p.step > stepRequestLF }

// Fields returns the field lines complete so far, in the order in which they were sent. A field line is complete only
// when the first byte of the next line shows that it is not continued there, RFC 9112, Section 5.2.
//
// The slice is good until [Parser.Reset] and must not be modified. Later calls of [Parser.Parse] only ever add to the
// fields that it has.
func (p *Parser) Fields() []Field { return p.fields }

// HeadLen returns the length of the head, with the empty line that ends it. It is 0 unless the head is Complete.
func (p *Parser) HeadLen() int {
	if p.state != Complete {
		return 0
	}
	return p.pos
}

// Err says why the head is Invalid. It is nil in the other states, and must not be modified.
func (p *Parser) Err() *Error { return p.err }

// next steps over the byte at p.pos.
func (p *Parser) next(s step) {
	p.pos++
	p.step = s
}

func (p *Parser) complete() {
	p.pos++
	p.state = Complete
}

func (p *Parser) fail(err *Error) {
	p.state = Invalid
	p.err = err
}

// readStart ignores an empty line before the request line, RFC 9112, Section 2.2. Some clients end the content of a
// request with one, and may do so on a connection that was handed on to others.
func (p *Parser) readStart(c byte) {
	switch c {
	case '\r':
		p.next(stepEmptyLF)
	case '\n':
		p.next(stepMethod)
		p.start = p.pos
	default:
		p.step = stepMethod
	}
}

func (p *Parser) readEmptyLF(c byte) {
	if c != '\n' {
		p.fail(errMethod)
		return
	}
	p.next(stepMethod)
	p.start = p.pos
}

// readMethod reads method SP, RFC 9112, Section 3.
func (p *Parser) readMethod(data []byte) {
	p.pos += tokenLen(data[p.pos:])
	if p.pos == len(data) {
		return
	}
	if data[p.pos] != ' ' || p.pos == p.start {
		p.fail(errMethod)
		return
	}
	p.method = Span{p.start, p.pos}
	// RFC 9113, Section 3.4: the preface was chosen so that HTTP/1 servers do not attempt to process it, and PRI was
	// registered for nothing else.
	if string(p.method.Of(data)) == "PRI" {
		p.fail(errPreface)
		return
	}
	p.next(stepTargetStart)
}

// readTargetStart tells the forms of request-target apart, RFC 9112, Section 3.2.
func (p *Parser) readTargetStart(data []byte) {
	c := data[p.pos]
	switch {
	case c == '/':
		p.next(stepTarget)
	case string(p.method.Of(data)) == "CONNECT" && isVisible(c):
		p.next(stepTarget)
	case c == '*':
		p.next(stepAsterisk)
	case isAlpha(c):
		p.next(stepScheme)
	default:
		p.failTarget(c)
	}
}

// readScheme reads the rest of a scheme, RFC 3986, Section 3.1.
func (p *Parser) readScheme(c byte) {
	switch {
	case isAlpha(c), isDigit(c), c == '+', c == '-', c == '.':
		p.pos++
	case c == ':':
		p.next(stepTarget)
	default:
		p.failTarget(c)
	}
}

// readTarget reads to the end of the request-target. It admits more than RFC 3986 does, as do net/url and other
// servers: browsers leave many a byte unencoded.
func (p *Parser) readTarget(data []byte) {
	p.pos += visibleLen(data[p.pos:])
	if p.pos < len(data) {
		p.endTarget(data[p.pos])
	}
}

func (p *Parser) endTarget(c byte) {
	if c != ' ' {
		p.failTarget(c)
		return
	}
	p.target = Span{p.method.End + len(" "), p.pos}
	p.next(stepVersion)
}

func (p *Parser) failTarget(c byte) {
	if c == '\r' || c == '\n' {
		p.fail(errNoVersion)
		return
	}
	p.fail(errTarget)
}

// readVersion reads HTTP-version, which is case-sensitive, RFC 9112, Section 2.3. Any minor version will do: RFC 9110,
// Section 2.5, makes them compatible with each other.
func (p *Parser) readVersion(c byte) {
	const prefix = "HTTP/1."
	i := p.pos - (p.target.End + len(" "))
	switch {
	case i == len(prefix) && isDigit(c):
		p.minor = int(c - '0')
		p.next(stepVersionEnd)
	case i < len(prefix) && c == prefix[i]:
		p.pos++
	case i == len("HTTP/") && isDigit(c):
		// RFC 9110, Section 15.6.6: it is the major version that 505 is about, and it will not change with what
		// follows.
		p.fail(errMajor)
	default:
		p.fail(errVersion)
	}
}

// endVersion reads the line terminator of the request line. RFC 9112, Section 2.2, lets a recipient take a lone LF for
// one, here and below.
func (p *Parser) endVersion(c byte) {
	switch c {
	case '\r':
		p.next(stepRequestLF)
	case '\n':
		p.next(stepFirstLine)
	default:
		p.fail(errAfterVersion)
	}
}

// readLF reads the LF that has to follow a CR: a bare CR makes the head invalid, RFC 9112, Section 2.2.
func (p *Parser) readLF(c byte, s step) {
	if c != '\n' {
		p.fail(errBareCR)
		return
	}
	p.next(s)
}

func (p *Parser) endHead(c byte) {
	if c != '\n' {
		p.fail(errBareCR)
		return
	}
	p.complete()
}

// readFirstLine reads the start of the line after the request line. There is nothing for it to continue, and RFC 9112,
// Section 2.2, has the message rejected, or the line ignored, which hides it from others.
func (p *Parser) readFirstLine(c byte) {
	if isOWS(c) {
		p.fail(errSpaceFirst)
		return
	}
	p.readLineStart(c)
}

// readNextLine reads the start of the line after a field line. With whitespace in front it is an obs-fold, RFC 9112,
// Section 5.2.
func (p *Parser) readNextLine(c byte) {
	if isOWS(c) {
		p.folded = true
		p.next(stepValue)
		return
	}
	p.folded = false
	if p.fields == nil {
		p.fields = make([]Field, 0, typicalFields)
	}
	p.fields = append(p.fields, p.field)
	p.readLineStart(c)
}

func (p *Parser) readLineStart(c byte) {
	switch c {
	case '\r':
		p.next(stepHeadLF)
	case '\n':
		p.complete()
	default:
		p.field.Name.Start = p.pos
		p.step = stepName
	}
}

// readName reads field-name ":", RFC 9112, Section 5. Whitespace between the two is not ignored: Section 5.1 has the
// request rejected with 400.
func (p *Parser) readName(data []byte) {
	p.pos += tokenLen(data[p.pos:])
	if p.pos == len(data) {
		return
	}
	c, empty := data[p.pos], p.pos == p.field.Name.Start
	switch {
	case c == ':' && !empty:
		p.field.Name.End = p.pos
		p.next(stepValue)
		p.field.Value = Span{p.pos, p.pos}
	case isOWS(c) && !empty:
		p.fail(errSpaceColon)
	default:
		p.fail(errName)
	}
}

// readValue reads to the end of the line. The whitespace around a value, and in front of an obs-fold, is no part of it,
// RFC 9112, Sections 5.1 and 5.2.
//
// RFC 9110, Section 5.5, has CR, LF and NUL rejected and leaves the other control characters to the recipient; net/http
// rejects them all.
func (p *Parser) readValue(data []byte) {
	value := &p.field.Value
	for p.pos < len(data) {
		if n := visibleLen(data[p.pos:]); n > 0 {
			if value.Start == value.End {
				value.Start = p.pos
			}
			p.pos += n
			value.End = p.pos
			p.folded = false
			continue
		}
		c := data[p.pos]
		if (c == '\r' || c == '\n') && p.folded && value.Start != value.End {
			value.End = p.pos
		}
		switch {
		case isOWS(c):
			p.pos++
		case c == '\r':
			p.next(stepValueLF)
			return
		case c == '\n':
			p.next(stepNextLine)
			return
		default:
			p.fail(errValue)
			return
		}
	}
}

// tokenLen returns the number of tchar at the start of b, RFC 9110, Section 5.6.2.
func tokenLen(b []byte) int {
	for i, c := range b {
		if !httpguts.IsTokenRune(rune(c)) {
			return i
		}
	}
	return len(b)
}

// visibleLen returns the number of visible bytes at the start of b.
func visibleLen(b []byte) int {
	for i, c := range b {
		if !isVisible(c) {
			return i
		}
	}
	return len(b)
}

// isVisible reports whether c is VCHAR or obs-text, RFC 9110, Section 5.5.
func isVisible(c byte) bool { return c > ' ' && c != 0x7f }

// isOWS reports whether c is whitespace, RFC 9110, Section 5.6.3.
func isOWS(c byte) bool { return c == ' ' || c == '\t' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
