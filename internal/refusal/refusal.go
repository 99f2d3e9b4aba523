// Package refusal answers a client that no server answers, in its own protocol, and closes the connection so that the
// client can read the answer.
package refusal

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/netconn"
)

// HTTP1 is a response of HTTP/1.1 (RFC 9112, Section 4).
type HTTP1 struct {
	Status   int
	Header   string // further field lines, each with its line ending
	Sentence string // the content, without its line ending
	NoBody   bool   // the request was HEAD (RFC 9110, Section 9.3.2)
}

// Append appends the response, of the given time (RFC 9110, Section 6.6.1).
func (r HTTP1) Append(b []byte, now time.Time) []byte {
	b = fmt.Appendf(b, "HTTP/1.1 %d %s\r\n", r.Status, http.StatusText(r.Status))
	b = fmt.Appendf(b, "Date: %s\r\n", now.UTC().Format(http.TimeFormat))
	b = fmt.Appendf(b, "%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
		r.Header, len(r.Sentence)+1)
	if r.NoBody {
		return b
	}
	return append(append(b, r.Sentence...), '\n')
}

// HTTP2 is SETTINGS, which must be a server's first frame (RFC 9113, Section 3.4), if none was sent, and GOAWAY (Section
// 6.8). A client may send requests on streams above LastStream again, on another connection.
type HTTP2 struct {
	Started    bool // a SETTINGS frame was sent
	LastStream uint32
	Code       http2.ErrCode
	Sentence   string
}

// Append appends the frames.
func (r HTTP2) Append(b []byte) []byte {
	if !r.Started {
		b = h2.AppendSettings(b)
	}
	return h2.AppendGoAway(b, r.LastStream, r.Code, r.Sentence)
}

// The alerts of RFC 8446, Section 6.2.
const (
	AlertHandshakeFailure = 40
	AlertInternalError    = 80
)

// AppendAlert appends a fatal alert of TLS in a plaintext record (RFC 8446, Sections 5.1 and 6).
func AppendAlert(b []byte, alert uint8) []byte { return append(b, 21, 3, 3, 0, 2, 2, alert) }

// AppendCloseNotify appends the alert close_notify of TLS in a plaintext record (RFC 8446, Section 6.1).
func AppendCloseNotify(b []byte) []byte { return append(b, 21, 3, 3, 0, 2, 1, 0) }

// The bounds on what a client is granted to read its answer.
const (
	LingerTime  = time.Second
	LingerBytes = 256 << 10
)

// Send writes the answer, which may be empty, and closes the connection so that the client can read it. Closing a socket
// with unread bytes, or one to which more come, sends a RST that makes the client's system discard what it has not read
// yet (RFC 9112, Section 9.6). So Send closes the writing side only, and reads what the client still sends into buf until
// that ends too, for LingerTime and LingerBytes at most.
func Send(c net.Conn, answer, buf []byte) {
	defer c.Close()
	if c.SetDeadline(time.Now().Add(LingerTime)) != nil {
		return
	}
	if len(answer) > 0 {
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
	if netconn.CloseWrite(c) != nil {
		return
	}
	for total := 0; total < LingerBytes; {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		total += n
	}
}
