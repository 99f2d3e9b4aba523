package oneport

import (
	"net"
	"sync"

	"golang.org/x/net/http2/hpack"
)

// showStream makes p the preview of one request of the HTTP/2 connection c. The fields are the request's header list,
// with its pseudo-header fields (RFC 9113, Section 8.3); p keeps them.
func (p *Preview) showStream(c net.Conn, fields []hpack.HeaderField) {
	if fields == nil {
		fields = []hpack.HeaderField{}
	}
	p.facts = facts{conn: c, stream: fields}
}

// matchRequest returns the index of the first of the routes that takes a request of the HTTP/2 connection c, or -1.
func matchRequest(c net.Conn, fields []hpack.HeaderField, routes []*requestRoute) int {
	p := requestPreviews.Get().(*Preview)
	p.showStream(c, fields)
	defer func() {
		p.facts = facts{}
		requestPreviews.Put(p)
	}()
	for i, rt := range routes {
		for _, m := range rt.matchers {
			if m.Match(p) == Yes {
				return i
			}
		}
	}
	return -1
}

// requestPreviews lends a Preview for each request.
var requestPreviews = sync.Pool{New: func() any { return new(Preview) }}
