package h2upgrade

import (
	"encoding/binary"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// A WindowFilter keeps the two ends at one about the connection's flow-control window. The server counts the content of
// the request, which it gets as DATA, against the window, and gives the credit back as it reads. The client, which sent
// the content before there was a window, counts nothing: each byte that is given back to it would let it send one more
// than the server takes, and the server would end a later request, or the connection, with FLOW_CONTROL_ERROR
// (RFC 9113, Section 6.9.1).
//
// So as much credit as there is content is taken out of the WINDOW_UPDATE frames that the server writes for the
// connection. Stream 1 needs no such care: the client is done with it.
//
// What remains is the time until the server has given that much credit. A client that has filled the whole initial
// window by then breaks it. The server of net/http gives the credit in its first flight, before it reads.
type WindowFilter struct {
	walker h2.FrameWalker
	owed   int // the credit that is still to be taken out
}

// WindowFilter returns the filter for what the server writes, from its first byte on.
func (r *Request) WindowFilter() WindowFilter { return WindowFilter{owed: r.contentLen} }

// Filter goes over the next bytes that the server writes behind those held, and takes the credit out in place. It
// returns how many to deliver.
func (f *WindowFilter) Filter(b []byte) int { return f.walker.Walk(b, f) }

// Held returns the bytes that Filter has kept back.
func (f *WindowFilter) Held() []byte { return f.walker.Held() }

// Done reports whether the rest of the stream passes as it is.
func (f *WindowFilter) Done() bool { return f.owed == 0 }

// Needs asks for the increment of a WINDOW_UPDATE frame for the connection.
func (f *WindowFilter) Needs(h h2.FrameHeader) int {
	if h.Type == http2.FrameWindowUpdate && h.StreamID == 0 && h.Length == h2.WindowUpdateLen {
		return h2.WindowUpdateLen
	}
	return 0
}

// Takes takes as much as possible of what is owed out of the increment, or the frame if nothing is left of it: an
// increment of nothing would be an error (RFC 9113, Section 6.9).
func (f *WindowFilter) Takes(_ h2.FrameHeader, payload []byte) bool {
	if len(payload) == 0 {
		return false
	}
	increment := int(binary.BigEndian.Uint32(payload) & h2.MaxStreamID) // less the reserved bit
	taken := min(increment, f.owed)
	f.owed -= taken
	binary.BigEndian.PutUint32(payload, uint32(increment-taken))
	return taken == increment
}
