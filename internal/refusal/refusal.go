// Package refusal answers a client that no server answers, in its own protocol, and closes the connection so that the
// client can read the answer.
package refusal

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

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

// HTTP2 is an answer in HTTP/2: SETTINGS, if none were sent, since they must be a server's first frame (RFC 9113,
// Section 3.4); the response to the request, if there is one; and GOAWAY (RFC 9113, Section 6.8). A client may retry
// requests on higher streams on another connection.
type HTTP2 struct {
	Started  bool    // a SETTINGS frame was sent
	Request  Request // to answer; none if its Stream is 0
	Status   int     // of the response,
	GRPC     uint32  // and to a gRPC client: a code other than 0
	Code     http2.ErrCode
	Sentence string
}

// Request is what is needed to answer an HTTP/2 request.
type Request struct {
	Stream uint32
	Ended  bool  // the client has sent all of it
	GRPC   bool  // it is a gRPC call
	NoBody bool  // it is HEAD
	Window int64 // SETTINGS_INITIAL_WINDOW_SIZE of the client
}

// The codes of gRPC.
const (
	GRPCResourceExhausted = 8
	GRPCUnimplemented     = 12
	GRPCInternal          = 13
	GRPCUnavailable       = 14
)

// Append appends the frames.
func (r HTTP2) Append(b []byte) []byte {
	if !r.Started {
		b = h2.AppendSettings(b)
	}
	if r.Request.Stream != 0 {
		b = r.appendResponse(b)
	}
	return h2.AppendGoAway(b, r.Request.Stream, r.Code, r.Sentence)
}

func (r HTTP2) appendResponse(b []byte) []byte {
	q := r.Request
	content := r.Sentence + "\n"
	fields := []string{
		":status", strconv.Itoa(r.Status),
		"content-type", "text/plain; charset=utf-8",
		"content-length", strconv.Itoa(len(content)),
	}
	if q.GRPC {
		// Trailers-Only: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses
		content = ""
		fields = []string{
			":status", "200", "content-type", "application/grpc",
			"grpc-status", strconv.Itoa(int(r.GRPC)), "grpc-message", grpcMessage(r.Sentence),
		}
	}
	if q.NoBody {
		content = ""
	}
	if int64(len(content)) > q.Window {
		content, fields = "", fields[:2]
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		// Never-indexed fields do not depend on the dynamic table, whatever size the client has set.
		enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true})
	}
	b = h2.AppendHeaders(b, q.Stream, content == "", nil, block.Bytes(), h2.DefaultMaxFrameSize)
	if content != "" {
		b = h2.AppendFrame(b, http2.FrameData, http2.FlagDataEndStream, q.Stream, []byte(content))
	}
	if !q.Ended {
		b = h2.AppendRSTStream(b, q.Stream, http2.ErrCodeNo) // RFC 9113, Section 8.1
	}
	return b
}

// grpcMessage encodes a message as the field grpc-message has it.
func grpcMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// The alerts of RFC 8446, Section 6.2.
const (
	AlertUnexpectedMessage = 10
	AlertHandshakeFailure  = 40
	AlertInternalError     = 80
)

// AppendAlert appends a fatal alert of TLS in a plaintext record (RFC 8446, Sections 5.1 and 6).
func AppendAlert(b []byte, alert uint8) []byte { return append(b, 21, 3, 3, 0, 2, 2, alert) }

// AppendCloseNotify appends the alert close_notify of TLS in a plaintext record (RFC 8446, Section 6.1).
func AppendCloseNotify(b []byte) []byte { return append(b, 21, 3, 3, 0, 2, 1, 0) }

// The time and the bytes that a client may use to read its answer.
const (
	LingerTime  = time.Second
	LingerBytes = 256 << 10
)

// Send writes the answer, which may be empty, and closes the connection so that the client can read it. Closing a
// socket with unread bytes, or one to which more come, sends a RST that makes the client's system discard what it has
// not read yet (RFC 9112, Section 9.6). So Send closes the writing side only, and reads what the client still sends
// into buf until that ends too, for LingerTime and LingerBytes at most.
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
