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
	owed int // the credit that is still to be taken out

	skip int // bytes to be passed before the next frame header
	part [h2.FrameHeaderLen + h2.WindowUpdateLen - 1]byte
	n    int // bytes in part
}

// WindowFilter returns the filter for what the server writes, from its first byte on.
func (r *Request) WindowFilter() WindowFilter { return WindowFilter{owed: r.contentLen} }

// Done reports whether the rest of the stream is to pass as it is.
func (f *WindowFilter) Done() bool { return f.owed == 0 }

// Held returns the beginning of a frame that Filter kept back, to be put in front of the bytes that follow.
func (f *WindowFilter) Held() []byte { return f.part[:f.n] }

// Filter goes over b, what is held and the next bytes of the stream behind it, and takes out the credit in place. It
// returns how many bytes of b to deliver. Held back are an incomplete frame header and an incomplete WINDOW_UPDATE frame,
// on which nobody can act.
func (f *WindowFilter) Filter(b []byte) (n int) {
	f.n = 0
	for i := 0; i < len(b); {
		rest := b[i:]
		switch {
		case f.skip > 0:
			k := min(f.skip, len(rest))
			n += copy(b[n:], rest[:k])
			i, f.skip = i+k, f.skip-k
		case f.Done():
			return n + copy(b[n:], rest)
		case len(rest) < h2.FrameHeaderLen:
			f.n = copy(f.part[:], rest)
			return n
		case !updatesConnection(h2.ParseFrameHeader(rest)):
			f.skip = h2.FrameLen(h2.ParseFrameHeader(rest))
		case len(rest) < h2.FrameHeaderLen+h2.WindowUpdateLen:
			f.n = copy(f.part[:], rest)
			return n
		default:
			payload := rest[h2.FrameHeaderLen:]
			increment := int(binary.BigEndian.Uint32(payload) & h2.MaxStreamID)
			taken := min(increment, f.owed)
			f.owed -= taken
			if taken < increment {
				binary.BigEndian.PutUint32(payload, uint32(increment-taken))
				f.skip = h2.FrameHeaderLen + h2.WindowUpdateLen
			} else {
				i += h2.FrameHeaderLen + h2.WindowUpdateLen // an increment of nothing would be an error (RFC 9113, Section 6.9)
			}
		}
	}
	return n
}

// updatesConnection reports whether h is the header of a WINDOW_UPDATE frame for the connection.
func updatesConnection(h http2.FrameHeader) bool {
	return h.Type == http2.FrameWindowUpdate && h.StreamID == 0 && h.Length == h2.WindowUpdateLen
}
