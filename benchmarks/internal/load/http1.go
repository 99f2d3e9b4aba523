package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
)

// http1Client is a client of HTTP/1.1 with one connection at a time.
type http1Client struct {
	conn net.Conn
	in   *bufio.Reader

	requests []*request // made one after the other, and again from the first
	heads    [][]byte
	next     int
}

func newHTTP1(authority string, requests ...*request) *http1Client {
	c := &http1Client{in: bufio.NewReader(nil), requests: requests}
	for _, r := range requests {
		c.heads = append(c.heads, r.http1(authority))
	}
	return c
}

// open goes on with a new connection.
func (c *http1Client) open(conn net.Conn) {
	c.conn = conn
	c.in.Reset(conn)
	c.next = 0
}

// roundTrip makes the next request and waits for the answer.
func (c *http1Client) roundTrip() error {
	req, head := c.requests[c.next], c.heads[c.next]
	c.next = (c.next + 1) % len(c.requests)
	if _, err := c.conn.Write(head); err != nil {
		return err
	}
	for range req.repeat {
		if _, err := c.conn.Write(req.chunk); err != nil {
			return err
		}
	}
	n, err := c.readResponse()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("reading the response to %s %s: %w", req.method, req.path, err)
	}
	if req.want != anySize && n != req.want {
		return fmt.Errorf("the body of the response to %s %s has %d bytes, want %d", req.method, req.path, n, req.want)
	}
	return nil
}

// readResponse reads a response to its end (RFC 9112, Section 6.3), and returns the length of its body.
func (c *http1Client) readResponse() (int, error) {
	line, err := c.readLine()
	if err != nil {
		return 0, err
	}
	// HTTP/1.1 200 OK
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[9] != '2' && line[9] != '3' {
		return 0, fmt.Errorf("its status line is %q", line)
	}
	length, chunked := -1, false
	for {
		line, err := c.readLine()
		if err != nil {
			return 0, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 {
				return 0, fmt.Errorf("its Content-Length is %q", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		}
	}
	switch {
	case chunked:
		n, err := io.Copy(io.Discard, httputil.NewChunkedReader(c.in))
		if err != nil {
			return 0, err
		}
		for { // the trailer section
			line, err := c.readLine()
			if err != nil {
				return 0, err
			}
			if len(line) == 0 {
				return int(n), nil
			}
		}
	case length >= 0:
		return c.in.Discard(length)
	}
	return 0, errors.New("it has neither Content-Length nor chunked coding")
}

// readLine reads a line without its end. It is valid until the next read.
func (c *http1Client) readLine() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
