package dispatch

import (
	"bytes"

	"golang.org/x/net/http2/hpack"
)

// Most requests, and most responses, are like others before them. Their header blocks then consist of indexed fields
// alone: such a block changes no table, so as long as nothing else does, the same block says the same, and is encoded in
// the same way for the other side of a shared connection (RFC 7541, Section 2.2). These blocks are remembered, with all
// that was found out about them.

// A headerList is what a header block says, or as much of it as is not too large.
type headerList struct {
	fields   []hpack.HeaderField
	size     int  // in bytes, as RFC 9113, Section 6.5.2 counts
	large    bool // it is larger than it may be, and fields are the front of it
	borrowed bool // the memory of fields is somebody else's

	decided // of a client's block

	// If it is remembered.
	block   []byte // the block
	recoded []byte // what recode has made of it
	state   uint64 // of the encoder, then
}

// decided is what was found out about a request.
type decided struct {
	target  int
	grpc    bool // it is one of gRPC
	lasting bool // it is the same for the next one with the same fields
}

// isIndexed reports whether a block consists of indexed fields, each in a single byte (RFC 7541, Section 6.1), and can
// be remembered. After the first ones on its connection, a call of gRPC mostly begins with such a block, and is answered
// with two.
func isIndexed(block []byte) bool { return len(block) <= maxKnownFields && onlyIndexed(block) }

// onlyIndexed reports whether a block consists of indexed fields, each in a single byte.
func onlyIndexed(block []byte) bool {
	for _, b := range block {
		if b <= 0x80 || b == 0xff {
			return false
		}
	}
	return true
}

// knownLists are the blocks of one direction that are remembered.
type knownLists []*headerList

const (
	maxKnown       = 8  // blocks that are remembered
	maxKnownFields = 64 // of all of them, each of which takes a byte in its block
)

// find returns what a block says, or nil if it is not remembered.
func (k knownLists) find(block []byte) *headerList {
	for _, l := range k {
		if bytes.Equal(l.block, block) {
			return l
		}
	}
	return nil
}

// add remembers what an indexed block says. If that is too much, the others are forgotten.
func (k *knownLists) add(block []byte, said *headerList) *headerList {
	n := len(block)
	for _, l := range *k {
		n += len(l.block)
	}
	if n > maxKnownFields || len(*k) == maxKnown {
		k.forget()
	}
	if n = len(*k); n < cap(*k) {
		*k = (*k)[:n+1]
	} else {
		*k = append(*k, nil)
	}
	l := (*k)[n]
	if l == nil {
		l = new(headerList)
		(*k)[n] = l
	}
	l.fields, l.size, l.large = append(l.fields[:0], said.fields...), said.size, said.large
	l.block = append(l.block[:0], block...)
	l.decided, l.state = decided{}, 0
	return l
}

// forget forgets all. The memory of one list is left for the next, so that nothing is allocated where blocks are
// forgotten one by one.
func (k *knownLists) forget() {
	if len(*k) == 0 {
		return
	}
	clear((*k)[0].fields)
	clear((*k)[1:])
	*k = (*k)[:0]
}

// recode returns the block that says what a block of the other side does. It is valid until the next call.
func (e *blockEncoder) recode(l *headerList) []byte {
	if l.state == e.state {
		return l.recoded
	}
	before := e.state
	b := e.encode(l.fields)
	if e.state == before && len(l.block) > 0 && len(b) <= maxKnownFields {
		l.recoded, l.state = append(l.recoded[:0], b...), e.state
	}
	return b
}
