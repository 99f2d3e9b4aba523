package oneport

import (
	"net"
	"sync"

	"golang.org/x/net/http2/hpack"
)

// NewStreamPreview returns a Preview of one request of the HTTP/2 connection c, for packages that dispatch by request,
// such as streams, and for tests of matchers. The fields are the request's header list, with its pseudo-header fields
// (RFC 9113, 8.3); the Preview keeps them.
//
// Its Protocol is ProtocolHTTP2, its Request is complete, and the matchers that go by header fields, host or path decide
// by it. Bytes is empty, so matchers that go by those do not match; Ended is false.
func NewStreamPreview(c net.Conn, fields []hpack.HeaderField) *Preview {
	p := new(Preview)
	p.showStream(c, fields)
	return p
}

func (p *Preview) showStream(c net.Conn, fields []hpack.HeaderField) {
	if fields == nil {
		fields = []hpack.HeaderField{}
	}
	p.facts = facts{conn: c, stream: fields}
}

// MatchStream asks the matchers of routes, in order, about one request of the HTTP/2 connection c, by the Preview that
// [NewStreamPreview] would make, which is not made anew for each request. It returns the index of the first route of which a
// matcher matches, or -1. It may be called by several goroutines at once.
func MatchStream(c net.Conn, fields []hpack.HeaderField, routes [][]Matcher) int {
	p := streamPreviews.Get().(*Preview)
	p.showStream(c, fields)
	defer func() {
		p.facts = facts{}
		streamPreviews.Put(p)
	}()
	for i, matchers := range routes {
		for _, m := range matchers {
			if m.Match(p) == Match {
				return i
			}
		}
	}
	return -1
}

var streamPreviews = sync.Pool{New: func() any { return new(Preview) }}
