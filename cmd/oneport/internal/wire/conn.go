// Package wire holds the connections of the probe. They bound what a server can make the probe read, take the time of
// the first byte, and keep a decoded log of what passes in both directions.
package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MaxBytes is how much a Conn reads from the server before it gives up.
const MaxBytes = 1 << 20

// ErrTooMuch is the error of reading from a server that has sent MaxBytes.
var ErrTooMuch = errors.New("the server sends more than the probe reads")

// A Conn is a connection to the server, or the stream inside TLS on one.
type Conn struct {
	net.Conn
	log *Log

	mu        sync.Mutex
	first     []byte // goes out with the first write
	left      int
	head      []byte        // of what the server has sent
	wrote     time.Time     // of the first write
	firstByte time.Duration // from there to the first byte that came
	got       bool
}

// NewConn makes a Conn of c. Reads and writes that are recorded elsewhere, such as those of TLS, are not logged.
func NewConn(c net.Conn, log *Log) *Conn {
	return &Conn{Conn: c, log: log, left: MaxBytes, wrote: time.Now()}
}

// WriteFirst makes the first Write send b before its own bytes. It must be called before the connection is used.
func (c *Conn) WriteFirst(b []byte) { c.first = b }

// Log returns the log of the connection.
func (c *Conn) Log() *Log { return c.log }

// Read reads from the server, until it has sent more than MaxBytes.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	left := c.left
	c.mu.Unlock()
	if left == 0 {
		return 0, ErrTooMuch
	}
	n, err := c.Conn.Read(p[:min(len(p), left)])
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left -= n
	if n > 0 {
		if !c.got {
			c.got, c.firstByte = true, time.Since(c.wrote)
		}
		if room := 256 - len(c.head); room > 0 {
			c.head = append(c.head, p[:min(n, room)]...)
		}
	}
	return n, err
}

// Write writes to the server. The time to the first byte counts from the first write.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if !c.got {
		c.wrote = time.Now()
	}
	first := c.first
	c.first = nil
	c.mu.Unlock()
	if len(first) == 0 {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(append(first, p...))
	return max(0, n-len(first)), err
}

// FirstByte returns how long the first byte from the server took, and whether one has come.
func (c *Conn) FirstByte() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.firstByte, c.got
}

// Head returns the first bytes that the server has sent.
func (c *Conn) Head() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.head)
}

// CloseWrite ends the client's side of the connection.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// An Ending says how reading from a connection came to an end.
type Ending string

const (
	Closed      Ending = "closed"      // in an orderly way
	Truncated   Ending = "truncated"   // closed in the middle of a TLS stream or of a message
	Reset       Ending = "reset"       // by RST
	TimedOut    Ending = "timed out"   // the server has neither sent nor closed
	TooMuch     Ending = "too much"    // the server has sent more than the probe reads
	Interrupted Ending = "interrupted" // the probe was told to stop
	Broken      Ending = "broken"      // anything else
)

// The numbers of Windows for ECONNABORTED and ECONNRESET.
const (
	wsaConnAborted = syscall.Errno(10053)
	wsaConnReset   = syscall.Errno(10054)
)

// EndingOf classifies an error of reading or writing.
func EndingOf(err error) Ending {
	switch {
	case errors.Is(err, ErrTooMuch):
		return TooMuch
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	case errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return Interrupted
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED),
		errors.Is(err, wsaConnReset), errors.Is(err, wsaConnAborted):
		return Reset
	case errors.Is(err, io.EOF):
		return Closed
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Truncated
	}
	return Broken
}

// Words says what the ending was, after "the server" or "then".
func (e Ending) Words() string {
	switch e {
	case Closed:
		return "closed"
	case Truncated:
		return "closed in the middle"
	case Reset:
		return "reset"
	case TimedOut:
		return "nothing more"
	case TooMuch:
		return fmt.Sprintf("more than %d KiB, given up", MaxBytes>>10)
	case Interrupted:
		return "interrupted"
	}
	return "an error"
}

// A Language is what the first bytes of a server look like.
type Language string

const (
	Nothing     Language = ""
	HTTP1       Language = "HTTP/1"
	HTTP2       Language = "HTTP/2"
	TLSAlert    Language = "TLS alert"
	TLSRecord   Language = "TLS"
	SSH         Language = "SSH"
	OtherText   Language = "text"
	OtherBinary Language = "binary"
)

// LanguageOf classifies the first bytes that a server has sent.
func LanguageOf(b []byte) Language {
	switch {
	case len(b) == 0:
		return Nothing
	case bytes.HasPrefix(b, []byte("HTTP/1.")):
		return HTTP1
	case bytes.HasPrefix(b, []byte("SSH-")):
		return SSH
	case len(b) >= 3 && b[0] == 0x15 && b[1] == 3 && b[2] <= 4:
		return TLSAlert
	case len(b) >= 3 && b[0] == 0x16 && b[1] == 3 && b[2] <= 4:
		return TLSRecord
	case len(b) >= 9 && b[0] == 0 && b[3] == 4 && b[4] <= 1 && bytes.Equal(b[5:9], make([]byte, 4)):
		return HTTP2 // a SETTINGS frame
	}
	for _, x := range b {
		if x >= 0x7f || x < ' ' && !strings.ContainsRune("\r\n\t", rune(x)) {
			return OtherBinary
		}
	}
	return OtherText
}

// Words names the language in a sentence about what came.
func (l Language) Words() string {
	switch l {
	case Nothing:
		return "nothing"
	case HTTP1:
		return "an HTTP/1 response"
	case HTTP2:
		return "HTTP/2 SETTINGS"
	case TLSAlert:
		return "a TLS alert"
	case TLSRecord:
		return "a TLS record"
	case SSH:
		return "an SSH banner"
	case OtherText:
		return "text that is not HTTP"
	}
	return "bytes of no protocol that the probe knows"
}

// Linger waits, up to d, for the server to end the connection, and says how it did. What still comes is discarded.
func (c *Conn) Linger(d time.Duration) Ending {
	c.SetReadDeadline(time.Now().Add(d))
	_, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	if err == nil {
		err = io.EOF
	}
	return EndingOf(err)
}
