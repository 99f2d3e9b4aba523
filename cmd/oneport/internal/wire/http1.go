package wire

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
)

// MaxBody is how much of a response's content the probe reads.
const MaxBody = 32 << 10

// A Request is a request of HTTP/1.
type Request struct {
	Method, Path, Proto string
	Fields              [][2]string
	Body                string
}

// A Response is what came of a request.
type Response struct {
	*http.Response
	Content []byte // the start of it
}

// RoundTrip sends a request and reads the final response. The error may come with a response whose content is
// incomplete.
func (c *Conn) RoundTrip(br *bufio.Reader, r Request) (*Response, error) {
	if err := c.SendRequest(r); err != nil {
		return nil, err
	}
	for {
		res, err := c.ReadResponse(br, r.Method)
		if err != nil || res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			return res, err
		}
	}
}

// SendRequest sends a request of HTTP/1.
func (c *Conn) SendRequest(r Request) error {
	var b strings.Builder
	line := fmt.Sprintf("%s %s %s", r.Method, r.Path, r.Proto)
	fmt.Fprintf(&b, "%s\r\n", line)
	var details []string
	for _, f := range r.Fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f[0], f[1])
		details = append(details, f[0]+": "+f[1])
	}
	b.WriteString("\r\n" + r.Body)
	c.log.Add(Sent, line, details...)
	_, err := io.WriteString(c, b.String())
	return err
}

// ReadResponse reads a response and the start of its content.
func (c *Conn) ReadResponse(br *bufio.Reader, method string) (*Response, error) {
	res, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	c.log.Add(Received, res.Proto+" "+res.Status, fieldLines(res.Header)...)
	out := &Response{Response: res}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return out, nil
	}
	out.Content, err = io.ReadAll(io.LimitReader(res.Body, MaxBody))
	if len(out.Content) > 0 {
		c.log.Add(Received, fmt.Sprintf("%d bytes of content", len(out.Content)), firstLine(out.Content))
	}
	return out, err
}

func fieldLines(h http.Header) []string {
	var lines []string
	for name, values := range h {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	sort.Strings(lines)
	return lines
}

// firstLine is what a log shows of content.
func firstLine(b []byte) string {
	s, _, more := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if len(s) > 100 {
		s, more = s[:100], true
	}
	if more {
		s += "…"
	}
	return s
}
