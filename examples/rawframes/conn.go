package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// maxStreams is SETTINGS_MAX_CONCURRENT_STREAMS.
	maxStreams = 100
	// maxHeaderList is SETTINGS_MAX_HEADER_LIST_SIZE.
	maxHeaderList = 16 << 10
	// idleTimeout bounds the time without a frame from the client. A client that waits for a long response can send PING.
	idleTimeout = time.Minute
	// writeTimeout bounds the time of a write, which lasts as long as the client reads nothing.
	writeTimeout = 10 * time.Second
	// lingerTime is the time for the client to read the last frames, which a reset would discard.
	lingerTime = time.Second
	// maxFrame is the initial SETTINGS_MAX_FRAME_SIZE, which this side leaves as it is (RFC 9113, Section 6.5.2).
	maxFrame = 1 << 14
)

// conn is one HTTP/2 connection. Its goroutine reads a frame, handles it, writes what can be written, and reads the
// next frame. Content waits in its stream until the windows allow it, so nothing but the socket blocks.
type conn struct {
	nc     net.Conn
	in     *bufio.Reader
	framer *http2.Framer

	mu    sync.Mutex // guards what follows, and with it the order of the frames that are written
	out   *bufio.Writer
	enc   *hpack.Encoder // writes to block, in the order in which the header blocks are sent (RFC 9113, Section 4.3)
	block bytes.Buffer

	lastID  uint32 // the highest stream that the client has opened
	takenID uint32 // the highest that was looked at, which is what GOAWAY names
	streams []*stream
	goAway  bool // a GOAWAY frame was sent

	resets  [maxStreams]uint32 // the streams that were reset here last
	nResets int

	sendWindow    outWindow
	receiveWindow inWindow

	initialSendWindow int64 // the client's SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, Section 6.5.2)
}

func newConn(nc net.Conn) *conn {
	c := &conn{
		nc:                nc,
		in:                bufio.NewReader(nc),
		out:               bufio.NewWriter(nc),
		sendWindow:        initialWindow,
		receiveWindow:     inWindow{left: initialWindow},
		initialSendWindow: initialWindow,
	}
	c.enc = hpack.NewEncoder(&c.block)
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.SetMaxReadFrameSize(maxFrame)
	// The framer joins HEADERS and CONTINUATION and decodes them. It must decode all of them in order, even those of
	// streams that are refused, since all streams of a connection share the compression state.
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.MaxHeaderListSize = maxHeaderList
	return c
}

// connError is a connection error (RFC 9113, Section 5.4.1).
type connError struct {
	code   http2.ErrCode
	reason string
}

func (e *connError) Error() string { return fmt.Sprintf("%v: %s", e.code, e.reason) }

// errFinished ends a connection whose streams have ended after GOAWAY.
var errFinished = errors.New("finished")

// serve serves the connection to its end. An error is the client's fault, or the network's.
func (c *conn) serve() error {
	defer c.nc.Close()
	err := c.readAll()
	ce, isConnError := errors.AsType[*connError](err)
	switch {
	case isConnError:
		c.end(ce.code, ce.reason)
		return err
	case err == errFinished, errors.Is(err, os.ErrDeadlineExceeded):
		c.end(http2.ErrCodeNo, "nothing left to do")
	case err != io.EOF: // which is the client's leaving, between two frames
		return err
	}
	return nil
}

// readAll reads and handles frames until the connection has to end.
func (c *conn) readAll() error {
	// The server's preface is a SETTINGS frame, which does not have to wait for the client's (RFC 9113, Section 3.4).
	// If the mux has sent an early SETTINGS frame, this one is an ordinary second frame for the client. The mux drops the
	// acknowledgement of the first.
	err := c.write(func() error {
		return c.framer.WriteSettings(
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList},
		)
	})
	if err != nil {
		return err
	}
	if err := c.wait(); err != nil {
		return err
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.in, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return &connError{http2.ErrCodeProtocol, "no client preface"}
	}
	for first := true; ; first = false {
		if err := c.wait(); err != nil {
			return err
		}
		f, readErr := c.framer.ReadFrame()
		err := c.write(func() error {
			if err := c.take(f, readErr, first); err != nil {
				return err
			}
			return c.sendData()
		})
		if err != nil {
			return err
		}
	}
}

// wait sets the time to wait for the next frame, if there is anything to wait for.
func (c *conn) wait() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.goAway && len(c.streams) == 0 {
		return errFinished
	}
	return c.nc.SetReadDeadline(time.Now().Add(idleTimeout))
}

// write calls f, and sends what it has written.
func (c *conn) write(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	err := f()
	if flushErr := c.out.Flush(); err == nil {
		err = flushErr
	}
	return err
}

// shutdown tells the client that no more streams are accepted. The connection ends when the open streams have ended.
// The client can send a request whose stream is above the last one in GOAWAY again on another connection (RFC 9113,
// Section 6.8).
func (c *conn) shutdown() {
	c.write(func() error {
		if c.goAway {
			return nil
		}
		c.goAway = true
		if len(c.streams) == 0 {
			c.nc.SetReadDeadline(time.Now()) // wakes the goroutine that reads
		}
		return c.framer.WriteGoAway(c.takenID, http2.ErrCodeNo, nil)
	})
}

// end sends GOAWAY, if that was not sent yet, and closes the connection so that the client can read it. Closing a
// socket that still receives data would reset the connection, and the client's system would drop what it has not read
// yet.
func (c *conn) end(code http2.ErrCode, debug string) {
	err := c.write(func() error {
		if c.goAway && code == http2.ErrCodeNo {
			return nil
		}
		c.goAway = true
		return c.framer.WriteGoAway(c.takenID, code, []byte(debug))
	})
	cw, ok := c.nc.(interface{ CloseWrite() error })
	if err != nil || !ok || cw.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	io.Copy(io.Discard, c.in)
}
