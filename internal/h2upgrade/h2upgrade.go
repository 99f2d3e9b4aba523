// Package h2upgrade translates the upgrade of an HTTP/1.1 connection to HTTP/2 (RFC 7540, Section 3.2) into the bytes
// that a client with prior knowledge would have sent.
//
// RFC 9113 has removed the mechanism, and servers have dropped it, but some clients know no other way to cleartext
// HTTP/2. After the translation any HTTP/2 server can take the connection:
//
//	the client sent                        the server reads
//	request, with HTTP2-Settings           preface
//	its content                            SETTINGS: those of the field, then those of the client's frame
//	preface                                HEADERS, and DATA, on stream 1
//	SETTINGS
//	what follows                           what follows, unchanged
//
// [Check] checks a request that asks for the upgrade, [Request.Parse] follows the client up to its first SETTINGS
// frame, [Request.Translate] returns the bytes for the server, and a [WindowFilter] makes both ends agree on the
// flow-control window. The package does no I/O.
package h2upgrade

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/http1"
)

// SwitchingProtocols is the response that accepts the upgrade (RFC 9110, Section 15.2.2). A client may take it while it
// is still sending its request, but not every client looks: it is best sent once [Request.Len] bytes have come.
const SwitchingProtocols = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

// MaxContent is how long the content of a request can be that is upgraded: the initial flow-control window of stream 1
// and of the connection (RFC 9113, Section 6.9.2), within which the server takes it without a word to the client.
const MaxContent = h2.DefaultWindow

// ErrNotAsked is the answer of [Check] to a request that says nothing of h2c.
var ErrNotAsked = errors.New("the request does not ask for an upgrade to h2c")

// Check says whether the request, whose head p has found complete at the beginning of data, is to be upgraded. If not,
// the error says why, and the request is one like any other of HTTP/1: a server may ignore what Upgrade asks for
// (RFC 9110, Section 7.8), and all that is wrong with the request otherwise is left to the server to answer.
//
// The result holds no part of data.
func Check(data []byte, p *http1.Parser) (*Request, error) {
	head := readHead(data, p)
	if !hasToken(head.upgrade, "h2c") {
		return nil, ErrNotAsked
	}
	minor, _ := p.Version()
	switch {
	case minor == 0:
		// RFC 9110, Section 7.8 has a server ignore Upgrade there.
		return nil, errors.New("the request is HTTP/1.0")
	case head.method == "CONNECT":
		// Its connection becomes a tunnel (RFC 9110, Section 9.3.6), which is none of HTTP/2's.
		return nil, errors.New("the method is CONNECT")
	case !hasToken(head.connection, "upgrade"):
		// RFC 9110, Section 7.8: without it the field may come from beyond a proxy that does not know it.
		return nil, errors.New("the field Connection does not name Upgrade")
	case !hasToken(head.connection, "http2-settings"):
		// RFC 7540, Section 3.2.1, likewise.
		return nil, errors.New("the field Connection does not name HTTP2-Settings")
	case head.expects:
		// RFC 9110, Section 7.8 has 100 sent before 101, and whether it is sent is the server's choice.
		return nil, errors.New("the request has Expect")
	case head.coded:
		// The server can take it as it is, in HTTP/1.1, at any length.
		return nil, errors.New("the request has Transfer-Encoding")
	}
	r := &Request{headLen: p.HeadLen()}
	var err error
	if r.settings, err = decodeSettings(head.settings); err != nil {
		return nil, err
	}
	if r.contentLen, err = contentLength(head.contentLength); err != nil {
		return nil, err
	}
	authority, path, err := head.splitTarget()
	if err != nil {
		return nil, err
	}
	r.fields = head.translate(authority, path)
	return r, nil
}

// decodeSettings decodes HTTP2-Settings (RFC 7540, Section 3.2.1).
func decodeSettings(values []string) ([]byte, error) {
	if len(values) != 1 {
		return nil, fmt.Errorf("HTTP2-Settings occurs %d times", len(values))
	}
	// There is no question whether padding is to be tolerated: a whole number of settings, at six bytes each, needs none.
	// Nor does the grammar permit an empty value, but it is what an empty SETTINGS frame, which is in order, comes to.
	payload, err := base64.RawURLEncoding.Strict().DecodeString(values[0])
	if err != nil {
		return nil, fmt.Errorf("HTTP2-Settings is malformed: %w", err)
	}
	if err := h2.CheckSettings(payload); err != nil {
		return nil, fmt.Errorf("HTTP2-Settings is malformed: %w", err)
	}
	return payload, nil
}

// contentLength returns the length of the content. The values may be several if they are the same (RFC 9112, Section
// 6.3).
func contentLength(values []string) (int, error) {
	if len(values) == 0 {
		return 0, nil
	}
	for _, v := range values {
		if v != values[0] {
			return 0, errors.New("Content-Length has different values")
		}
	}
	n, err := strconv.ParseUint(values[0], 10, 63)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return 0, errors.New("Content-Length is malformed")
	case err != nil || n > MaxContent:
		return 0, fmt.Errorf("the content is longer than the %d bytes of an initial flow-control window", MaxContent)
	}
	return int(n), nil
}

// hasToken reports whether one of the lists has the token, in any case (RFC 9110, Sections 5.6.1, 7.6.1 and 7.8).
func hasToken(values []string, token string) bool {
	return httpguts.HeaderValuesContainsToken(values, token)
}

// A Request is a request to be upgraded, and what follows it up to the client's first SETTINGS frame.
type Request struct {
	headLen    int
	contentLen int
	settings   []byte // the payload of HTTP2-Settings
	fields     []hpack.HeaderField

	parser h2.Parser // of what follows the request
	ending int       // where the SETTINGS frame ends, once Parse has said Complete
}

// Fields returns the header list of the request as it is in HTTP/2. It must not be modified.
func (r *Request) Fields() []hpack.HeaderField { return r.fields }

// ContentLen returns the length of the request's content.
func (r *Request) ContentLen() int { return r.contentLen }

// Len returns the length of the request, with its content: when as many bytes have come it is time for
// [SwitchingProtocols].
func (r *Request) Len() int { return r.headLen + r.contentLen }
