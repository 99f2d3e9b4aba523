package dispatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// A blockDecoder decodes the header blocks of one direction of a connection. It has to see all of them, in order, since
// each changes the table that the next is decoded with (RFC 7541, Section 2.2).
//
// Most connections never need that table again. As long as the blocks that have changed it are short, they are kept in
// its place, and a decoder is lent for one that has to be decoded after all. It is given the kept ones first.
type blockDecoder struct {
	dec     *hpack.Decoder // or nil, if its table can be made from kept
	kept    []byte         // the blocks that have changed the table, each behind its length in two bytes
	known   knownLists
	list    *headerList // of the block decoded last, if it is not remembered
	block   int         // the length of the block decoded last
	maxList int         // in bytes, as RFC 9113, Section 6.5.2 counts
	allowed uint32      // the largest table that the peer may use
	lent    uint8       // how often dec was lent for one block
}

func (d *blockDecoder) init(maxList int) { d.maxList, d.allowed = maxList, h2.DefaultTableSize }

// goOn is init behind a first block, which dec has decoded. If KeepsBlock(block), dec can be nil.
func (d *blockDecoder) goOn(block []byte, dec *hpack.Decoder, maxList int) {
	d.init(maxList)
	if KeepsBlock(block) {
		d.keep(block)
	} else {
		d.use(dec)
	}
}

// KeepsBlock reports whether a first header block takes the place of the decoder that has decoded it.
func KeepsBlock(block []byte) bool { return len(block) > 0 && 2+len(block) <= maxKeptBlocks }

// maxKeptBlocks is how many bytes are kept at most, about as many as a decoder with an empty table takes. It is more than
// a client or server of gRPC mostly needs if all calls of the connection are alike.
const maxKeptBlocks = 256

// keep keeps a block that may have changed the table. It reports false if that is too much.
func (d *blockDecoder) keep(block []byte) bool {
	if len(d.kept)+2+len(block) > maxKeptBlocks {
		return false
	}
	if d.kept == nil {
		d.kept = make([]byte, 0, max(64, 2+len(block))) // a server of gRPC sends two short ones
	}
	d.kept = binary.BigEndian.AppendUint16(d.kept, uint16(len(block)))
	d.kept = append(d.kept, block...)
	return true
}

// use sets the decoder.
func (d *blockDecoder) use(dec *hpack.Decoder) {
	d.dec = dec
	dec.SetEmitFunc(d.emit)
	// A list that is too large is decoded to its end, for the table's sake, so no string of a block of maxList bytes may
	// be too long. Huffman coding makes it shorter by 5 to 8 (RFC 7541, Appendix B).
	dec.SetMaxStringLength(2 * d.maxList)
}

// catchUp makes the decoder, if there is none, and has it decode what is kept.
func (d *blockDecoder) catchUp() error {
	if d.dec != nil {
		return nil
	}
	d.use(decoders.Get().(*hpack.Decoder))
	d.dec.SetAllowedMaxDynamicTableSize(d.allowed)
	d.dec.SetEmitEnabled(false)
	for rest := d.kept; len(rest) > 0; {
		n := 2 + int(binary.BigEndian.Uint16(rest))
		if err := d.write(rest[2:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// giveBack gives back the decoder that was lent for a block. If it was lent too often, or there is too much to keep, it
// stays.
func (d *blockDecoder) giveBack(block []byte) {
	if d.lent++; d.lent > maxLent || !onlyIndexed(block) && !d.keep(block) {
		d.kept = nil
		return
	}
	h2.RenewDecoder(d.dec)
	d.dec.SetEmitFunc(ignore)
	decoders.Put(d.dec)
	d.dec, d.block = nil, 0
}

// maxLent is how often a decoder is lent, at the cost of decoding again what is kept. Blocks that are like an earlier one
// are remembered, so that on most connections it happens once, if at all.
const maxLent = 4

// decoders lends decoders whose table is empty.
var decoders = sync.Pool{New: func() any { return hpack.NewDecoder(h2.DefaultTableSize, ignore) }}

func ignore(hpack.HeaderField) {}

func (d *blockDecoder) emit(f hpack.HeaderField) {
	l := d.list
	l.size += int(f.Size())
	if l.size > d.maxList {
		l.large = true
		d.dec.SetEmitEnabled(false)
		return
	}
	l.fields = append(l.fields, f)
}

// decode decodes a block. The list is valid until the next call of decode or shrink.
func (d *blockDecoder) decode(block []byte) (*headerList, *h2.ConnError) {
	d.endList()
	if l := d.known.find(block); l != nil {
		return l, nil
	}
	indexed := isIndexed(block)
	if !indexed {
		d.known.forget()
	}
	l := headerLists.Get().(*headerList)
	d.list = l
	lend := d.dec == nil
	err := d.catchUp()
	if err == nil {
		d.dec.SetEmitEnabled(true)
		err = d.write(block)
	}
	if err != nil {
		return nil, h2.CompressionError(err)
	}
	if lend {
		d.giveBack(block)
	}
	if indexed {
		l = d.known.add(block, l)
	}
	return l, nil
}

// given returns the list of a block that somebody else has decoded. It is valid as long as one of decode.
func (d *blockDecoder) given(fields []hpack.HeaderField) *headerList {
	d.endList()
	d.list = headerLists.Get().(*headerList)
	*d.list = headerList{fields: fields, size: listSize(fields), borrowed: true}
	return d.list
}

// headerLists lends memory for what is not remembered.
var headerLists = sync.Pool{New: func() any { return new(headerList) }}

// endList gives back the list of the block decoded last.
func (d *blockDecoder) endList() {
	l := d.list
	if l == nil {
		return
	}
	d.list = nil
	fields := l.fields[:0]
	switch {
	case l.borrowed, cap(fields) > keptFields:
		fields = nil
	default:
		clear(l.fields)
	}
	*l = headerList{fields: fields}
	headerLists.Put(l)
}

// follow takes a block for its effect on the table alone, and keeps little of it. Few blocks are kept undecoded, since
// most connections never need them decoded: their errors are found later, or never.
func (d *blockDecoder) follow(block []byte) *h2.ConnError {
	if onlyIndexed(block) {
		return nil
	}
	d.known.forget()
	if d.dec == nil && d.keep(block) {
		return nil
	}
	err := d.catchUp()
	if err == nil {
		d.kept = nil
		d.dec.SetEmitEnabled(false)
		err = d.write(block)
	}
	d.shrink()
	if err != nil {
		return h2.CompressionError(err)
	}
	return nil
}

// shrink gives back what the block decoded last has taken, if it is much. Its list is not valid any more.
func (d *blockDecoder) shrink() {
	d.endList()
	if d.block > maxKept {
		// The decoder refers to what it was given last. Let that be less: the first byte of a block that ends there.
		d.dec.Write([]byte{0})
		d.dec.Close()
		d.dec.Close() // the one before has reported the fault, this one ends the block
		d.block = 0
	}
}

const keptFields = 64

func (d *blockDecoder) write(block []byte) error {
	d.block = len(block)
	_, err := d.dec.Write(block)
	return errors.Join(err, d.dec.Close())
}

// A blockEncoder encodes the header blocks of one direction of a connection.
type blockEncoder struct {
	enc   *hpack.Encoder
	buf   bytes.Buffer
	state uint64 // another one whenever the table has changed, and for each encoder
}

// states numbers the states of all encoders.
var states atomic.Uint64

// changed takes note that the table has changed.
func (e *blockEncoder) changed() { e.state = states.Add(1) }

// init makes an encoder whose table has at most the size limit, and no more than RFC 7541 starts with. If the peer's
// table is not empty, since somebody else has encoded for it so far, the first block empties it (RFC 7541, Sections 4.2
// and 6.3).
func (e *blockEncoder) init(limit uint32, empty bool) {
	e.enc = hpack.NewEncoder(&e.buf)
	e.changed()
	if !empty {
		e.clear()
	}
	if limit < h2.DefaultTableSize {
		e.limit(limit)
	}
}

// clear empties the table, and has the next block empty that of the peer.
func (e *blockEncoder) clear() {
	size := e.enc.MaxDynamicTableSize()
	e.enc.SetMaxDynamicTableSize(0)
	e.enc.SetMaxDynamicTableSize(size)
	e.changed()
}

// limit obeys the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *blockEncoder) limit(size uint32) {
	size = min(size, h2.DefaultTableSize)
	e.enc.SetMaxDynamicTableSizeLimit(size)
	e.enc.SetMaxDynamicTableSize(size)
	e.changed()
}

// encode returns the block of the fields, which is valid until the next call.
func (e *blockEncoder) encode(fields []hpack.HeaderField) []byte {
	e.buf.Reset()
	for _, f := range fields {
		e.enc.WriteField(f) // to a buffer, which does not fail
	}
	b := e.buf.Bytes()
	if !onlyIndexed(b) {
		e.changed()
	}
	return b
}

// shrink gives back the memory of the block encoded last, if it is much.
func (e *blockEncoder) shrink() {
	if e.buf.Cap() > maxKept {
		e.buf = bytes.Buffer{}
	}
}

// allow has the decoder take table sizes up to what its peer was told, if that is more than before.
func (d *blockDecoder) allow(tableSize uint32) {
	if tableSize > d.allowed {
		d.allowed = tableSize
		if d.dec != nil {
			d.dec.SetAllowedMaxDynamicTableSize(tableSize)
		}
	}
}

// listSize returns the size of a header list (RFC 9113, Section 6.5.2).
func listSize(fields []hpack.HeaderField) (n int) {
	for _, f := range fields {
		n += int(f.Size())
	}
	return n
}

// isGRPC reports whether a request is one of gRPC, by the fields in front of its header list.
func isGRPC(fields []hpack.HeaderField) bool {
	for _, f := range fields {
		if f.Name == "content-type" {
			rest, ok := strings.CutPrefix(f.Value, "application/grpc")
			return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
		}
	}
	return false
}

// Status codes of gRPC.
const (
	grpcResourceExhausted = "8"
	grpcUnavailable       = "14"
)

// grpcStatus returns the fields that end a call of gRPC, after the header list of the response or in its place.
func grpcStatus(answered bool, code, message string) []hpack.HeaderField {
	trailers := []hpack.HeaderField{{Name: "grpc-status", Value: code}, {Name: "grpc-message", Value: message}}
	if answered {
		return trailers
	}
	return append([]hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}}, trailers...)
}
