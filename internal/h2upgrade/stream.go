package h2upgrade

import (
	"encoding/binary"
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// streamID is the stream of the request that was upgraded (RFC 7540, Section 3.2).
const streamID = 1

// MaxLen returns the most bytes, from the first of the connection, that [Request.Parse] needs for its answer.
func (r *Request) MaxLen() int {
	return r.Len() + len(h2.Preface) + h2.FrameHeaderLen + h2.DefaultMaxFrameSize
}

// Parse goes on to the end of the client's first SETTINGS frame. The data starts at the first byte of the connection,
// that is with the head of the request, and between calls it only grows, though it need not be in the same memory.
// Nothing behind the frame is looked at.
//
// The state is Error, at the first byte that shows it, if a client connection preface with its SETTINGS (RFC 9113,
// Section 3.4) does not come. A client that is at fault before it can have seen [SwitchingProtocols], as one that
// pipelines its requests is, had better not get it: the connection is HTTP/1.1 still.
func (r *Request) Parse(data []byte) (h2.State, *h2.ConnError) {
	if r.ending > 0 {
		return h2.Complete, nil
	}
	if len(data) <= r.Len() {
		return h2.Incomplete, nil
	}
	flight := data[r.Len():]
	end := len(h2.Preface) + h2.FrameHeaderLen // of the first frame's header
	if len(flight) >= end {
		end = len(h2.Preface) + h2.FrameLen(h2.ParseFrameHeader(flight[len(h2.Preface):]))
	}
	switch r.parser.Parse(flight[:min(len(flight), end)]) {
	case h2.NotHTTP2:
		return h2.Error, h2.ProtocolError("no client preface after the upgrade")
	case h2.Error:
		return h2.Error, r.parser.Err()
	}
	if r.parser.SettingsFrames() == 0 {
		return h2.Incomplete, nil
	}
	r.ending = r.Len() + end
	return h2.Complete, nil
}

// Translate appends to dst what the server reads in place of data up to rest, once Parse has said Complete of data.
// From rest on it reads what the client sends.
//
// The settings of HTTP2-Settings and those of the client's SETTINGS frame become one frame, so that the server
// acknowledges once: RFC 7540, Section 3.2.1 has the ones in force without acknowledgement, and the client waits for
// that of its frame. Clients say the same in both, and the frame has each parameter once, since servers such as
// net/http's take a parameter that is there twice for PROTOCOL_ERROR. Of two header table sizes, it has the lower one: a
// client that has raised the size must still be told of the lower one (RFC 7541, Section 4.2), and a server need not use
// the whole table. The header block uses no dynamic table, whose state has to remain that which the client knows.
func (r *Request) Translate(dst, data []byte) (first []byte, rest int) {
	settings := data[r.Len()+len(h2.Preface)+h2.FrameHeaderLen : r.ending]
	before := h2.MergeSettings(nil, r.settings)
	list := h2.MergeSettings(slices.Clone(before), settings) // which has the same parameters first
	for i, s := range before {
		if s.ID == http2.SettingHeaderTableSize {
			list[i].Val = min(list[i].Val, s.Val)
		}
	}
	dst = append(dst, h2.Preface...)
	dst = h2.AppendSettings(dst, list...)
	dst = r.appendHeaders(dst)
	dst = appendData(dst, data[r.headLen:r.Len()])
	return dst, r.ending
}

// appendHeaders appends the request's field block.
func (r *Request) appendHeaders(dst []byte) []byte {
	var block []byte
	for _, f := range r.fields {
		block = appendField(block, f)
	}
	return h2.AppendHeaders(dst, streamID, r.contentLen == 0, nil, block, h2.DefaultMaxFrameSize)
}

// appendData appends the content, if there is any (RFC 9113, Section 6.1).
func appendData(dst, content []byte) []byte {
	for len(content) > 0 {
		n := min(len(content), h2.DefaultMaxFrameSize)
		flags := http2.Flags(0)
		if n == len(content) {
			flags = http2.FlagDataEndStream
		}
		dst = h2.AppendFrame(dst, http2.FrameData, flags, streamID, content[:n])
		content = content[n:]
	}
	return dst
}

// appendField appends a literal with a literal name, which is in no table and enters none (RFC 7541, Sections 6.2.2 and
// 6.2.3). [hpack.Encoder] has no way to leave its dynamic table alone but to tell the decoder to do without, which the
// client's encoder has not agreed to.
func appendField(dst []byte, f hpack.HeaderField) []byte {
	first := byte(0)
	if f.Sensitive {
		first = 0x10 // never indexed
	}
	dst = append(dst, first)
	dst = appendString(dst, f.Name)
	return appendString(dst, f.Value)
}

// appendString appends a string without Huffman coding (RFC 7541, Section 5.2), its length as an integer of a 7-bit
// prefix (5.1).
func appendString(dst []byte, s string) []byte {
	const prefix = 1<<7 - 1
	n := len(s)
	if n < prefix {
		dst = append(dst, byte(n))
	} else {
		dst = binary.AppendUvarint(append(dst, prefix), uint64(n-prefix)) // which is that encoding
	}
	return append(dst, s...)
}
