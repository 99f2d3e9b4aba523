// Package clienthello recognizes the TLS ClientHello at the start of a connection and reads from it what a connection
// can be routed by: the server name, the application protocols and the protocol versions the client offers.
//
// The parser consumes nothing: the server that gets the connection reads the same bytes and validates the whole
// ClientHello. So this package rejects only a message that it cannot parse, or whose fields would be ambiguous.
package clienthello

import (
	"bytes"
	"encoding/binary"
	"sync"
)

const (
	recordHeaderLen  = 5
	messageHeaderLen = 4

	contentTypeHandshake = 22      // RFC 8446, Section 5.1
	messageClientHello   = 1       // RFC 8446, Section 4
	majorVersion         = 3       // of SSL 3.0 and every TLS since
	maxPlaintext         = 1 << 14 // RFC 8446, Section 5.1

	// maxMessage bounds the ClientHello's body. The protocol would allow 16 MB, but no client comes near and crypto/tls
	// draws the line here as well.
	maxMessage = 65536
)

// A State is what is known of a connection from the bytes seen so far.
type State uint8

const (
	// Incomplete means that the bytes may yet become a ClientHello.
	Incomplete State = iota
	// Complete means that the whole ClientHello was seen and understood.
	Complete
	// NotTLS means that the bytes do not start a TLS handshake.
	NotTLS
	// Invalid means that the bytes start a TLS handshake with a ClientHello, but that it is malformed.
	Invalid
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Incomplete:
		return "Incomplete"
	case Complete:
		return "Complete"
	case NotTLS:
		return "NotTLS"
	default:
		return "Invalid"
	}
}

// A Parser follows a connection from its first byte until it is clear whether that is a ClientHello and what it says.
// The zero value is ready to use.
//
// A Parser keeps offsets and at most the four bytes of a header: a peer that stays silent halfway through its
// ClientHello costs no more than what the caller buffers.
type Parser struct {
	state      State
	recordSeen bool

	record int                    // offset of the first record that is not wholly read
	seen   int                    // bytes of the message in the records before it
	header [messageHeaderLen]byte // the message's header, its first seen bytes valid

	hello *Hello
	err   *Error
}

// Reset makes p ready for another connection. A Hello or Error that p gave out stays valid.
func (p *Parser) Reset() { *p = Parser{} }

// Parse looks at data, everything received so far on the connection, and reports what is known by now. From one call to
// the next data may only grow, but need not be in the same place. Once Parse has returned anything but Incomplete it
// keeps to that, and bytes after the ClientHello are not looked at.
//
// Records that an earlier call saw in full are not read again until the ClientHello is complete, so that parsing a
// connection byte by byte takes time linear in its length.
func (p *Parser) Parse(data []byte) State {
	for p.state == Incomplete && p.parseRecord(data) {
	}
	return p.state
}

// RecordSeen reports whether the connection began with the header of a handshake record and the type of a ClientHello.
// These six bytes are all that tells TLS from other protocols; after them the state can no longer become NotTLS.
func (p *Parser) RecordSeen() bool { return p.recordSeen }

// Hello returns what the ClientHello says, or nil if the state is not Complete.
func (p *Parser) Hello() *Hello { return p.hello }

// Err returns what is wrong with the ClientHello, or nil if the state is not Invalid.
func (p *Parser) Err() *Error { return p.err }

// parseRecord reads the record at p.record as far as data goes. It reports whether to go on with the next one.
func (p *Parser) parseRecord(data []byte) bool {
	record := data[p.record:]
	switch err := checkRecordHeader(record); {
	case p.record == 0 && (err != nil || !beginsClientHello(record)):
		p.state = NotTLS
		return false
	case err != nil:
		p.fail(err)
		return false
	}
	if len(record) <= recordHeaderLen {
		return false
	}
	p.recordSeen = true

	length := fragmentLen(record)
	fragment := record[recordHeaderLen:min(recordHeaderLen+length, len(record))]

	// Even the message's header may be spread over records (RFC 8446, Section 5.1).
	if p.seen < messageHeaderLen {
		copy(p.header[p.seen:], fragment)
	}
	if received := p.seen + len(fragment); received >= messageHeaderLen {
		// The first byte is the message's type, the length is a uint24.
		body := int(binary.BigEndian.Uint32(p.header[:]) & 0xffffff)
		if body > maxMessage {
			p.fail(errMessageTooLong)
			return false
		}
		if received >= messageHeaderLen+body {
			p.complete(data, messageHeaderLen+body)
			return false
		}
	}
	if len(fragment) < length {
		return false
	}
	p.seen += length
	p.record += recordHeaderLen + length
	return true
}

// complete parses the message of the given size, header included, whose last byte is in the record at p.record.
func (p *Parser) complete(data []byte, size int) {
	message := data[recordHeaderLen:]
	if p.record > 0 {
		buf := messages.Get().(*bytes.Buffer)
		defer messages.Put(buf)
		buf.Reset()
		for buf.Len() < size {
			n := min(recordHeaderLen+fragmentLen(data), len(data))
			buf.Write(data[recordHeaderLen:n])
			data = data[n:]
		}
		message = buf.Bytes()
	}
	hello, err := parseHello(message[messageHeaderLen:size])
	if err != nil {
		p.fail(err)
		return
	}
	p.hello, p.state = hello, Complete
}

func (p *Parser) fail(err *Error) { p.err, p.state = err, Invalid }

// messages holds buffers for ClientHellos that span records. The limits on a message and on a record keep them small
// enough to be kept.
var messages = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// fragmentLen returns the length that a whole record header gives.
func fragmentLen(record []byte) int { return int(binary.BigEndian.Uint16(record[3:])) }

// checkRecordHeader checks the header of a plaintext handshake record, possibly cut short, by RFC 8446, Section 5.1,
// which has the version ignored. It judges each byte on arrival, so that a connection for another server does not wait
// for more.
func checkRecordHeader(b []byte) *Error {
	switch {
	case len(b) > 0 && b[0] != contentTypeHandshake:
		return errInterrupted
	case len(b) > 3 && b[3] > maxPlaintext>>8,
		len(b) > 4 && fragmentLen(b) > maxPlaintext:
		return errRecordTooLong
	case len(b) > 4 && fragmentLen(b) == 0:
		return errEmptyRecord
	}
	return nil
}

// beginsClientHello reports whether b, a connection's first record, possibly cut short, has the version and the message
// type of a ClientHello.
func beginsClientHello(b []byte) bool {
	// A ClientHello may come in a record of version {3, anything} (RFC 5246, Appendix E.1). Ignoring the major version
	// as well would let other protocols pass for TLS, which has never used another.
	if len(b) > 1 && b[1] != majorVersion {
		return false
	}
	return len(b) <= recordHeaderLen || b[recordHeaderLen] == messageClientHello
}
