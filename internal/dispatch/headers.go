package dispatch

import (
	"bytes"
	"errors"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// A blockDecoder decodes the header blocks of one direction of a connection. It has to see all of them, in order, since
// each changes the table that the next is decoded with (RFC 7541, Section 2.2).
type blockDecoder struct {
	dec     *hpack.Decoder
	fields  []hpack.HeaderField
	size    int
	maxList int    // in bytes, as RFC 9113, Section 6.5.2 counts
	allowed uint32 // the largest table that the peer may use
}

func (d *blockDecoder) init(maxList int) {
	d.maxList, d.allowed = maxList, h2.DefaultTableSize
	d.dec = hpack.NewDecoder(h2.DefaultTableSize, d.emit)
	d.dec.SetMaxStringLength(maxList)
}

func (d *blockDecoder) emit(f hpack.HeaderField) {
	d.size += int(f.Size())
	if d.size > d.maxList {
		d.dec.SetEmitEnabled(false)
		return
	}
	d.fields = append(d.fields, f)
}

// decode decodes a block. The fields are valid until the next call.
func (d *blockDecoder) decode(block []byte) ([]hpack.HeaderField, *h2.ConnError) {
	clear(d.fields) // the strings are not kept longer than needed
	d.fields, d.size = d.fields[:0], 0
	d.dec.SetEmitEnabled(true)
	err := d.write(block)
	if d.size > d.maxList || errors.Is(err, hpack.ErrStringLength) {
		return nil, h2.EnhanceYourCalm("header list too large") // RFC 9113, Section 10.5.1
	}
	if err != nil {
		return nil, h2.CompressionError(err)
	}
	return d.fields, nil
}

// follow decodes a block for its effect on the table alone.
func (d *blockDecoder) follow(block []byte) *h2.ConnError {
	d.dec.SetEmitEnabled(false)
	if err := d.write(block); err != nil {
		return h2.CompressionError(err)
	}
	return nil
}

func (d *blockDecoder) write(block []byte) error {
	_, err := d.dec.Write(block)
	return errors.Join(err, d.dec.Close())
}

// A blockEncoder encodes the header blocks of one direction of a connection.
type blockEncoder struct {
	enc *hpack.Encoder
	buf bytes.Buffer
}

// init makes an encoder whose table has at most the size limit, and no more than RFC 7541 starts with. If the peer's
// table is not empty, since somebody else has encoded for it so far, the first block empties it (RFC 7541, Sections 4.2
// and 6.3).
func (e *blockEncoder) init(limit uint32, empty bool) {
	e.enc = hpack.NewEncoder(&e.buf)
	if !empty {
		e.enc.SetMaxDynamicTableSize(0)
		e.enc.SetMaxDynamicTableSize(h2.DefaultTableSize)
	}
	if limit < h2.DefaultTableSize {
		e.limit(limit)
	}
}

// limit obeys the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *blockEncoder) limit(size uint32) {
	size = min(size, h2.DefaultTableSize)
	e.enc.SetMaxDynamicTableSizeLimit(size)
	e.enc.SetMaxDynamicTableSize(size)
}

// encode returns the block of the fields, which is valid until the next call.
func (e *blockEncoder) encode(fields []hpack.HeaderField) []byte {
	e.buf.Reset()
	for _, f := range fields {
		e.enc.WriteField(f) // to a buffer, which does not fail
	}
	return e.buf.Bytes()
}

// allow has the decoder take table sizes up to what its peer was told, if that is more than before.
func (d *blockDecoder) allow(tableSize uint32) {
	if tableSize > d.allowed {
		d.allowed = tableSize
		d.dec.SetAllowedMaxDynamicTableSize(tableSize)
	}
}
