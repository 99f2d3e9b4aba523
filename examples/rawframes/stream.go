package main

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// stream is a request and its response. It ends when both have ended.
type stream struct {
	id            uint32
	sendWindow    outWindow
	receiveWindow inWindow

	length int64 // what content-length says is still to come of the request's content; -1 if it says nothing
	ended  bool  // the request has ended

	pending []byte // what is still to be sent of the response's content
	echo    bool   // the request's content is added to pending
}

// received reports whether content of this length agrees with content-length.
func (s *stream) received(n int, last bool) bool {
	if s.length < 0 {
		return true
	}
	s.length -= int64(n)
	return s.length == 0 || s.length > 0 && !last
}

// A request is a parsed header list.
type request struct {
	method, path string
	length       int64 // content-length, or -1
}

// parseRequest reports whether the fields make a valid request. The framer has checked names, values and the order of
// fields.
func parseRequest(f *http2.MetaHeadersFrame) (request, bool) {
	r := request{
		method: f.PseudoValue("method"),
		path:   f.PseudoValue("path"),
		length: -1,
	}
	for _, field := range f.PseudoFields() {
		if field.Name == ":status" || field.Name == ":protocol" { // RFC 9113, Section 8.3.1; RFC 8441, Section 4 is not offered here
			return r, false
		}
	}
	// RFC 9113, Sections 8.3.1 and 8.5.
	connect := r.method == "CONNECT"
	if r.method == "" || connect != (f.PseudoValue("scheme") == "") || connect != (r.path == "") {
		return r, false
	}
	for _, field := range f.RegularFields() {
		switch field.Name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade": // RFC 9113, Section 8.2.2
			return r, false
		case "te":
			if field.Value != "trailers" {
				return r, false
			}
		case "content-length":
			n, err := strconv.ParseUint(field.Value, 10, 63)
			if err != nil || r.length >= 0 && r.length != int64(n) {
				return r, false
			}
			r.length = int64(n)
		}
	}
	return r, true
}

var (
	hello = []byte("Hello, frame by frame.\n")
	large = bytes.Repeat([]byte("A line of a response that is larger than any initial window.\n"), 1<<14)
)

// open starts a stream: it answers as far as the header list allows.
func (c *conn) open(f *http2.MetaHeadersFrame) error {
	r, ok := parseRequest(f)
	if ok && f.StreamEnded() {
		ok = r.length <= 0 // RFC 9113, Section 8.1.1
	}
	if !ok && !f.Truncated {
		return c.reset(f.StreamID, http2.ErrCodeProtocol) // a malformed request (RFC 9113, Section 8.1.1)
	}
	s := &stream{
		id:            f.StreamID,
		sendWindow:    outWindow(c.initialSendWindow),
		receiveWindow: inWindow{left: initialWindow},
		length:        r.length,
		ended:         f.StreamEnded(),
	}
	c.streams = append(c.streams, s)

	path, _, _ := strings.Cut(r.path, "?")
	get := r.method == "GET" || r.method == "HEAD"
	switch {
	case f.Truncated:
		return c.respond(s, r, 431, []byte("The header list is too large.\n"))
	case path == "/" && get:
		return c.respond(s, r, 200, hello)
	case path == "/large" && get:
		return c.respond(s, r, 200, large)
	case path == "/echo" && r.method == "POST":
		s.echo = true
		return c.writeHeaders(s, false,
			hpack.HeaderField{Name: ":status", Value: "200"},
			hpack.HeaderField{Name: "content-type", Value: "application/octet-stream"})
	case slices.Contains([]string{"/", "/large", "/echo"}, path):
		return c.respond(s, r, 405, []byte("The method is not allowed here.\n"))
	}
	return c.respond(s, r, 404, []byte("There is nothing here.\n"))
}

// respond sends a header list, and starts sending the content.
func (c *conn) respond(s *stream, r request, status int, content []byte) error {
	if r.method != "HEAD" {
		s.pending = content
	}
	err := c.writeHeaders(s, len(s.pending) == 0,
		// Pseudo-header fields come first (RFC 9113, Section 8.3), and a response has this one, which is not "status"
		// and has no reason phrase (RFC 9113, Section 8.3.2). All names are in lower case (RFC 9113, Section 8.2).
		hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)},
		hpack.HeaderField{Name: "content-type", Value: "text/plain; charset=utf-8"},
		hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(len(content))},
	)
	if err == nil && len(s.pending) == 0 {
		return c.finish(s)
	}
	return err
}

// writeHeaders writes a header block, which here is small enough for one frame. It goes on the stream of the request.
func (c *conn) writeHeaders(s *stream, last bool, fields ...hpack.HeaderField) error {
	c.block.Reset()
	for _, f := range fields {
		if err := c.enc.WriteField(f); err != nil {
			return err
		}
	}
	return c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID:      s.id,
		BlockFragment: c.block.Bytes(),
		EndHeaders:    true,
		EndStream:     last,
	})
}

// sendData sends what the windows allow, a frame of each stream in turn.
func (c *conn) sendData() error {
	for sent := true; sent; {
		sent = false
		for _, s := range slices.Clone(c.streams) {
			ok, err := c.sendFrame(s)
			if err != nil {
				return err
			}
			sent = sent || ok
		}
	}
	return nil
}

// sendFrame sends a DATA frame, if there is content and the windows allow it.
func (c *conn) sendFrame(s *stream) (bool, error) {
	n := min(len(s.pending), maxFrame, max(int(min(c.sendWindow, s.sendWindow)), 0))
	last := n == len(s.pending) && (s.ended || !s.echo)
	if n == 0 && !last { // an empty frame that ends the stream needs no window
		return false, nil
	}
	if err := c.framer.WriteData(s.id, last, s.pending[:n]); err != nil {
		return false, err
	}
	c.sendWindow -= outWindow(n)
	s.sendWindow -= outWindow(n)
	s.pending = s.pending[n:]
	if s.echo {
		if err := c.consumed(s, n); err != nil {
			return false, err
		}
	}
	if last {
		return true, c.finish(s)
	}
	return true, nil
}

// finish ends a stream whose response has been sent. If the request has not ended, the client is told to stop sending
// it, which is not an error (RFC 9113, Section 8.1).
func (c *conn) finish(s *stream) error {
	if !s.ended {
		return c.reset(s.id, http2.ErrCodeNo)
	}
	return c.forget(s.id)
}

// endRequest records that the request has ended.
func (c *conn) endRequest(s *stream) error {
	if s.length > 0 {
		return c.reset(s.id, http2.ErrCodeProtocol) // RFC 9113, Section 8.1.1
	}
	s.ended = true
	return nil
}
