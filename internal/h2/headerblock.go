package h2

import (
	"cmp"
	"errors"

	"golang.org/x/net/http2/hpack"
)

// tableSizeUpdate is a header block with nothing but a dynamic table size
// update to DefaultTableSize (RFC 7541, Section 6.3).
var tableSizeUpdate = []byte{0x3f, 0xe1, 0x1f}

// decode decodes the header block at p.fragments into p.fields.
func (p *Parser) decode(data []byte) *ConnError {
	if p.decoder == nil {
		// The first header block comes before the client can have acknowledged
		// another table size (RFC 9113, Section 4.3.1).
		p.decoder = hpack.NewDecoder(DefaultTableSize, p.emit)
	}
	p.decoder.SetMaxStringLength(p.maxHeaderListSize())
	err := p.decodeFragments(data)
	if err != nil || len(p.fragments) > 1 {
		// After an error the decoder is in no defined state, and after a field
		// split over fragments it holds a buffer that may be large.
		p.decoder = nil
		return err
	}
	// The next block is that of another connection, so it must find the table
	// of a new one. The size update undoes what this client may have changed,
	// and makes the decoder, which keeps hold of the last slice it was given,
	// let go of data. It cannot fail.
	p.decoder.SetMaxDynamicTableSize(0)
	p.decoder.Write(tableSizeUpdate)
	p.decoder.Close()
	return nil
}

func (p *Parser) decodeFragments(data []byte) *ConnError {
	for _, s := range p.fragments {
		_, err := p.decoder.Write(data[s.start:s.end])
		if p.listSize > p.maxHeaderListSize() || errors.Is(err, hpack.ErrStringLength) {
			// RFC 9113, Section 10.5.1.
			return EnhanceYourCalm("header list too large")
		}
		if err != nil {
			return CompressionError(err)
		}
	}
	if err := p.decoder.Close(); err != nil {
		return CompressionError(err)
	}
	return nil
}

// emit receives each field from the decoder.
func (p *Parser) emit(f hpack.HeaderField) {
	p.listSize += int(f.Size())
	if p.listSize > p.maxHeaderListSize() {
		// Nothing can stop the decoder before the end of the fragment, but once
		// silenced it expands nothing more of it.
		p.decoder.SetEmitEnabled(false)
		return
	}
	p.fields = append(p.fields, f)
}

func (p *Parser) maxHeaderListSize() int {
	return cmp.Or(p.MaxHeaderListSize, DefaultMaxHeaderListSize)
}
