package oneport

import (
	"net"

	"golang.org/x/net/http2/hpack"
)

// NewStreamPreview returns a Preview of one request of the HTTP/2 connection c, for packages that dispatch by request,
// such as streams, and for tests of matchers. The fields are the request's header list, with its pseudo-header fields
// (RFC 9113, 8.3); the Preview keeps them.
//
// Its Protocol is ProtocolHTTP2, its Request is complete, and the matchers that go by header fields, host or path decide
// by it. Bytes is empty, so matchers that go by those do not match; Ended is false.
func NewStreamPreview(c net.Conn, fields []hpack.HeaderField) *Preview {
	if fields == nil {
		fields = []hpack.HeaderField{}
	}
	return &Preview{facts: facts{conn: c, stream: fields}}
}
