package main

import (
	"errors"
	"slices"

	"golang.org/x/net/http2"
)

// take handles a frame, or returns the error that it is.
func (c *conn) take(f http2.Frame, err error, first bool) error {
	if settings, ok := f.(*http2.SettingsFrame); first && (!ok || settings.IsAck()) {
		if _, ok := errors.AsType[http2.StreamError](err); ok || err == nil {
			return &connError{http2.ErrCodeProtocol, "the first frame is not SETTINGS"} // RFC 9113, Section 3.4
		}
	}
	if err != nil {
		return c.takeError(err)
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return c.takeSettings(f)
	case *http2.MetaHeadersFrame:
		return c.takeHeaders(f)
	case *http2.DataFrame:
		return c.takeData(f)
	case *http2.WindowUpdateFrame:
		return c.takeWindowUpdate(f)
	case *http2.RSTStreamFrame:
		return c.takeReset(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.PushPromiseFrame:
		return &connError{http2.ErrCodeProtocol, "PUSH_PROMISE from a client"} // RFC 9113, Section 8.4
	}
	// PRIORITY is deprecated (RFC 9113, Section 5.3), GOAWAY asks for nothing where no streams are pushed, and frames
	// of unknown types are discarded (RFC 9113, Section 5.5).
	return nil
}

// takeError handles an error that the framer has found.
func (c *conn) takeError(err error) error {
	switch err := err.(type) {
	case http2.StreamError:
		// With a cause it is a malformed header list (RFC 9113, Section 8.1.1), and its frame opens a stream like any other.
		if c.idle(err.StreamID) {
			if err.Cause == nil || err.StreamID%2 == 0 {
				return &connError{http2.ErrCodeProtocol, "a frame on an idle stream"}
			}
			if !c.opened(err.StreamID) {
				return nil
			}
		}
		return c.reset(err.StreamID, err.Code)
	case http2.ConnectionError:
		reason := "malformed frame"
		if detail := c.framer.ErrorDetail(); detail != nil {
			reason = detail.Error()
		}
		return &connError{http2.ErrCode(err), reason}
	}
	if err == http2.ErrFrameTooLarge {
		return &connError{http2.ErrCodeFrameSize, "the frame is larger than SETTINGS_MAX_FRAME_SIZE"} // RFC 9113, Section 4.2
	}
	return err
}

func (c *conn) takeSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil // nothing here waits for it
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			code := http2.ErrCodeProtocol
			if ce, ok := err.(http2.ConnectionError); ok {
				code = http2.ErrCode(ce)
			}
			return &connError{code, "bad value of " + s.ID.String()}
		}
		switch s.ID {
		case http2.SettingHeaderTableSize:
			// This is an upper bound for the encoder's table. More than the initial size gains nothing here.
			c.enc.SetMaxDynamicTableSize(min(s.Val, 4096))
		case http2.SettingInitialWindowSize:
			// It changes the windows of the open streams too (RFC 9113, Section 6.9.2), but not the connection's.
			delta := int64(s.Val) - c.initialSendWindow
			c.initialSendWindow = int64(s.Val)
			for _, st := range c.streams {
				if !st.sendWindow.add(delta) {
					return &connError{http2.ErrCodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE makes a window too large"}
				}
			}
		}
		// A larger SETTINGS_MAX_FRAME_SIZE only permits larger frames.
		return nil
	})
	if err != nil {
		return err
	}
	return c.framer.WriteSettingsAck() // RFC 9113, Section 6.5.3: one for each frame, once its values are in force
}

func (c *conn) takeHeaders(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	if s := c.stream(id); s != nil { // trailers, which end the stream (RFC 9113, Section 8.1)
		switch {
		case s.ended:
			return c.reset(id, http2.ErrCodeStreamClosed) // RFC 9113, Section 5.1
		case !f.StreamEnded() || len(f.PseudoFields()) > 0:
			return c.reset(id, http2.ErrCodeProtocol)
		}
		return c.endRequest(s)
	}
	switch {
	case id%2 == 0:
		return &connError{http2.ErrCodeProtocol, "HEADERS on a stream that a client cannot open"} // RFC 9113, Section 5.1.1
	case !c.idle(id) && c.discards(id):
		return nil // trailers that were on their way
	case !c.idle(id):
		return &connError{http2.ErrCodeProtocol, "HEADERS on a stream that is closed"} // RFC 9113, Section 5.1.1
	case !c.opened(id):
		return nil
	}
	if len(c.streams) >= maxStreams {
		return c.reset(id, http2.ErrCodeRefusedStream) // RFC 9113, Section 5.1.2; the client may try again
	}
	return c.open(f)
}

func (c *conn) takeData(f *http2.DataFrame) error {
	n := int(f.Length) // of the whole payload, since padding counts too (RFC 9113, Section 6.9.1)
	if c.idle(f.StreamID) {
		return &connError{http2.ErrCodeProtocol, "DATA on an idle stream"} // RFC 9113, Section 5.1
	}
	if !c.receiveWindow.take(n) {
		return &connError{http2.ErrCodeFlowControl, "more DATA than the connection's window allows"}
	}
	s := c.stream(f.StreamID)
	reset := http2.ErrCodeNo
	switch {
	case c.discards(f.StreamID): // the frame was on its way
	case s == nil, s.ended:
		reset = http2.ErrCodeStreamClosed // RFC 9113, Section 6.1
	case !s.receiveWindow.take(n):
		reset = http2.ErrCodeFlowControl
	case !s.received(len(f.Data()), f.StreamEnded()):
		reset = http2.ErrCodeProtocol // RFC 9113, Section 8.1.1
	}
	if reset != http2.ErrCodeNo {
		if err := c.reset(f.StreamID, reset); err != nil {
			return err
		}
		s = nil
	}
	if s == nil {
		return c.consumed(nil, n) // the connection's window is given back whatever becomes of the stream
	}
	if f.StreamEnded() {
		if err := c.endRequest(s); err != nil {
			return err
		}
	}
	if s.echo {
		s.pending = append(s.pending, f.Data()...) // a copy: the framer will use its buffer again
		n -= len(f.Data())                         // which are consumed when they are sent
	}
	return c.consumed(s, n)
}

// consumed gives the client back what was taken out of the windows for n bytes of DATA. The stream is nil where only
// the connection's window matters any more.
func (c *conn) consumed(s *stream, n int) error {
	if increment := c.receiveWindow.give(n); increment > 0 {
		if err := c.framer.WriteWindowUpdate(0, uint32(increment)); err != nil {
			return err
		}
	}
	if s == nil || s.ended {
		return nil
	}
	if increment := s.receiveWindow.give(n); increment > 0 {
		return c.framer.WriteWindowUpdate(s.id, uint32(increment))
	}
	return nil
}

func (c *conn) takeWindowUpdate(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if !c.sendWindow.add(int64(f.Increment)) {
			return &connError{http2.ErrCodeFlowControl, "the connection's window is too large"} // RFC 9113, Section 6.9.1
		}
		return nil
	}
	if c.idle(f.StreamID) {
		return &connError{http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream"} // RFC 9113, Section 5.1
	}
	// On a closed stream it is ignored: it was on its way when the stream ended.
	if s := c.stream(f.StreamID); s != nil && !s.sendWindow.add(int64(f.Increment)) {
		return c.reset(s.id, http2.ErrCodeFlowControl)
	}
	return nil
}

func (c *conn) takeReset(f *http2.RSTStreamFrame) error {
	if c.idle(f.StreamID) {
		return &connError{http2.ErrCodeProtocol, "RST_STREAM on an idle stream"} // RFC 9113, Section 6.4
	}
	return c.forget(f.StreamID)
}

// opened records that the client has opened a stream, and reports whether the stream is accepted. After GOAWAY none is:
// the client had sent it before it knew.
func (c *conn) opened(id uint32) bool {
	c.lastID = id
	if !c.goAway {
		c.takenID = id
	}
	return !c.goAway
}

// idle reports whether the client has not opened the stream yet. Clients open streams in ascending order (RFC 9113,
// Section 5.1.1); streams with even numbers would be pushed, and this server pushes none.
func (c *conn) idle(id uint32) bool { return id%2 == 0 || id > c.lastID }

func (c *conn) stream(id uint32) *stream {
	for _, s := range c.streams {
		if s.id == id {
			return s
		}
	}
	return nil
}

// reset ends a stream by a stream error (RFC 9113, Section 5.4.2).
func (c *conn) reset(id uint32, code http2.ErrCode) error {
	if err := c.framer.WriteRSTStream(id, code); err != nil {
		return err
	}
	c.resets[c.nResets%len(c.resets)] = id
	c.nResets++
	return c.forget(id)
}

// discards reports whether frames on the stream, which is not idle, are ignored, because the stream was reset here or
// opened after GOAWAY. The client may send on it until it knows (RFC 9113, Sections 5.1 and 6.8). Only the last streams
// that were reset are remembered, which bounds the list. An earlier one counts as ended by the client, which then gets
// a second RST_STREAM and ignores it.
func (c *conn) discards(id uint32) bool {
	return id > c.takenID || slices.Contains(c.resets[:min(c.nResets, len(c.resets))], id)
}

// forget drops a stream, and returns the credit for content that will not be read.
func (c *conn) forget(id uint32) error {
	i := slices.IndexFunc(c.streams, func(s *stream) bool { return s.id == id })
	if i < 0 {
		return nil
	}
	s := c.streams[i]
	c.streams = slices.Delete(c.streams, i, i+1)
	if s.echo {
		return c.consumed(nil, len(s.pending))
	}
	return nil
}
