package dispatch

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// What a client can send before its first request. All of it is kept for the server.
const (
	maxOpeningBytes  = 16 << 10
	maxOpeningFrames = 100
)

// An opener reads the first flight of a connection.
type opener struct {
	*conn
	b         []byte // what has been read and not been taken
	preface   bool   // the preface is taken
	settled   bool   // a SETTINGS frame is taken
	frames    int
	replay    []byte         // what the first server has to read before the first request, but for SETTINGS and PING
	pings     [][8]byte      // that have not been answered
	unacked   []*clientFrame // SETTINGS that have not been acknowledged
	acked     int            // SETTINGS that have
	answering []byte
}

// open reads until the first request has come, and answers where the client may be waiting for that.
func (c *conn) open() {
	lent := heldBuffers.Get().(*[heldBuffer]byte)
	defer heldBuffers.Put(lent)
	o := &opener{conn: c, b: lent[:0]}
	start := time.Now()
	c.sock.SetReadDeadline(start.Add(c.d.Limits.OpenTimeout))
	for {
		done, err := o.take()
		if done {
			return
		}
		if err == nil && !o.requesting() {
			if o.more() {
				continue
			}
			err = o.answer()
		}
		if err != nil {
			o.refuse(err)
			return
		}
		limit := c.d.Limits.OpenTimeout
		if o.settled {
			limit = max(limit, c.d.Limits.IdleTimeout)
		}
		c.sock.SetReadDeadline(start.Add(limit))
		if c.d.isClosed() {
			o.refuse(errClosed)
			return
		}
		if err := o.read(); err != nil {
			o.refuse(err)
			return
		}
	}
}

// dismiss tells a client that no server has had a request of to go elsewhere.
func (c *conn) dismiss(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.mode == opening:
		c.sock.SetReadDeadline(aLongTimeAgo) // open says the rest
	case c.live == 0 && !c.closing && !c.dead:
		c.end(http2.ErrCodeNo, why)
	}
}

var errClosed = errors.New("no server accepts connections any more")

// read reads more.
func (o *opener) read() error {
	o.b = grow(o.b)
	n, err := o.sock.Read(o.b[len(o.b):cap(o.b)])
	o.b = o.b[:len(o.b)+n]
	if n > 0 {
		return nil // an error will come again
	}
	return err
}

// more reads what has come already, and reports whether there was any. A read from a connection with TLS takes one record,
// and clients put the frames of their first flight into several: whether they wait for SETTINGS is not known before. Without
// time to wait crypto/tls gives what it has read and not looked at.
func (o *opener) more() bool {
	if _, secured := o.sock.(interface{ ConnectionState() tls.ConnectionState }); !secured || o.spoken {
		return false
	}
	o.sock.SetReadDeadline(aLongTimeAgo)
	before := len(o.b)
	o.read() // an error comes again, if it is not that of the deadline
	return len(o.b) > before
}

// grow returns b with room behind it.
func grow(b []byte) []byte {
	if len(b) < cap(b) {
		return b
	}
	return append(make([]byte, 0, max(4096, 2*cap(b))), b...)
}

// requesting reports whether the client has begun to send a request, so that it does not wait for anything.
func (o *opener) requesting() bool {
	return !o.preface || len(o.b) > 3 && http2.FrameType(o.b[3]) == http2.FrameHeaders
}

// take takes what is at hand. It reports whether the connection is open, and this goroutine has no more to do.
func (o *opener) take() (done bool, err error) {
	if !o.preface {
		n := min(len(o.b), len(h2.Preface))
		if string(o.b[:n]) != h2.Preface[:n] {
			return false, errNotHTTP2
		}
		if n < len(h2.Preface) {
			return false, nil
		}
		o.preface = true
		o.b = o.b[n:]
	}
	for {
		it, n, ferr := o.in.next(o.b)
		if ferr != nil {
			return false, &ferr.ConnError
		}
		if n == 0 {
			return false, nil
		}
		raw := o.b[:n]
		o.b = o.b[n:]
		if o.frames++; o.frames > maxOpeningFrames || n > maxOpeningBytes+o.in.maxBlock {
			return false, h2.EnhanceYourCalm("too many frames before the first request")
		}
		if it.kind == blockItem {
			if !o.settled {
				return false, errNoSettings
			}
			return o.request(it, raw)
		}
		if cerr := o.frame(it, raw); cerr != nil {
			return false, cerr
		}
		if len(o.replay) > maxOpeningBytes {
			return false, h2.EnhanceYourCalm("too many bytes before the first request")
		}
	}
}

var (
	errNotHTTP2   = errors.New("it does not start with the preface of HTTP/2")
	errNoSettings = h2.ProtocolError("client preface without SETTINGS") // RFC 9113, 3.4
)

// frame takes a frame before the first request.
func (o *opener) frame(it item, raw []byte) *h2.ConnError {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.settled && (it.Type != http2.FrameSettings || it.ack()) {
		return errNoSettings
	}
	switch it.Type {
	case http2.FrameSettings:
		o.settled = true
		if it.ack() {
			o.acknowledged()
			return nil
		}
		if err := h2.CheckSettings(it.payload); err != nil {
			return err
		}
		o.unacked = append(o.unacked, o.noteSettings(it.payload))
		return nil
	case http2.FramePing:
		if !it.ack() {
			o.pings = append(o.pings, [8]byte(it.payload))
		}
		return nil
	case http2.FrameWindowUpdate:
		if it.StreamID != 0 {
			return h2.ProtocolError("WINDOW_UPDATE frame on an idle stream") // RFC 9113, 5.1
		}
		if err := o.download.grow(int64(it.value())); err != nil {
			return err
		}
	case http2.FrameData, http2.FrameRSTStream:
		return h2.ProtocolError(it.Type.String() + " frame on an idle stream") // RFC 9113, 5.1
	case http2.FramePriority:
		if err := h2.CheckIdlePriority(it.FrameHeader, it.payload); err != nil {
			return err
		}
	}
	if it.kind == skipItem {
		return nil
	}
	o.replay = append(o.replay, raw...)
	return nil
}

// answer says what a client that has no request yet may be waiting for: SETTINGS, and the answers to SETTINGS and PING.
func (o *opener) answer() error {
	b := o.answering[:0]
	o.mu.Lock()
	if !o.spoken {
		b = o.appendEarlySettings(b)
	}
	for range o.unacked {
		b = h2.AppendSettingsACK(b)
		o.acked++
	}
	if len(o.unacked) > 0 {
		o.tableSize = o.unacked[len(o.unacked)-1].tableSize
	}
	o.unacked, o.fromClient = nil, nil
	o.mu.Unlock()
	for _, p := range o.pings {
		b = h2.AppendPingACK(b, p)
	}
	o.pings = nil
	o.answering = b
	if len(b) == 0 {
		return nil
	}
	o.sock.SetWriteDeadline(time.Now().Add(o.d.Limits.OpenTimeout))
	defer o.sock.SetWriteDeadline(time.Time{})
	_, err := o.sock.Write(b)
	return err
}

// appendEarlySettings appends the SETTINGS frame that begins what the client is sent while no server has spoken to it.
func (c *conn) appendEarlySettings(b []byte) []byte {
	c.spoken, c.early = true, true
	f := &serverFrame{}
	for _, s := range c.d.EarlySettings {
		c.noteTold(f, s.ID, s.Val)
	}
	c.sentToClient(f)
	return h2.AppendSettings(b, c.d.EarlySettings...)
}

// sentToClient takes note of a SETTINGS frame that is sent to the client.
func (c *conn) sentToClient(f *serverFrame) {
	f.most = int(min(c.told.maxStreams, h2.MaxStreamID))
	c.toClient = append(c.toClient, f)
}

// noteTold takes note of a setting that is sent to the client with f.
func (c *conn) noteTold(f *serverFrame, id http2.SettingID, val uint32) {
	switch id {
	case http2.SettingInitialWindowSize:
		f.hasWindow, f.window = true, int64(val)
		c.told.window = val
	case http2.SettingMaxConcurrentStreams:
		c.told.maxStreams = val
	case http2.SettingEnableConnectProtocol:
		c.told.connect = val == 1
	case http2.SettingMaxFrameSize:
		// The client may use it as soon as it knows. A lower one holds only once it has acknowledged it, and is left to
		// the server.
		c.told.maxFrame = max(c.told.maxFrame, int(val))
	case http2.SettingHeaderTableSize:
		c.told.tableSize = max(c.told.tableSize, val)
	}
}

// request takes the first request.
func (o *opener) request(it item, raw []byte) (done bool, err error) {
	if o.examine(&it); it.fault != nil {
		return false, it.fault
	}
	target := it.target
	o.sock.SetReadDeadline(time.Time{})
	if o.acked+len(o.unacked) > 1 {
		// The server gets one SETTINGS frame for all of them, and acknowledges one.
		if err := o.answer(); err != nil {
			return false, err
		}
	}
	o.mu.Lock()
	if target < 0 || target >= len(o.d.targets) || o.d.AlwaysSplit {
		defer o.mu.Unlock()
		o.startSplitting()
		for _, p := range o.pings {
			o.out = h2.AppendPingACK(o.out, p)
		}
		if cerr := o.newRequest(it); cerr != nil {
			o.fail(cerr)
		}
		if o.live == 0 && o.d.isClosed() {
			o.end(http2.ErrCodeNo, errClosed.Error())
		}
		go o.readLoop(bytes.Clone(o.b))
		return true, nil
	}

	o.d.forget(o.conn)
	v := o.newServer(target)
	v.rmu.Lock() // until all that is at hand has been scanned
	defer v.rmu.Unlock()
	o.mode, o.pass = passing, v
	if o.acked > 0 {
		v.owes = append(v.owes, nil)
	} else {
		f := o.unacked[0]
		f.waiting++
		v.owes = append(v.owes, f)
	}
	v.lent = heldBuffers.Get().(*[heldBuffer]byte)
	v.buf = append(o.appendGreeting(v.lent[:0]), o.replay...)
	for _, p := range o.pings {
		v.buf = h2.AppendPing(v.buf, p)
		o.rawPings++
	}
	v.buf = append(v.buf, raw...)
	o.maxID = it.StreamID
	o.newStream(it.StreamID, v, it.endStream())
	v.clear = len(v.buf)
	o.obeyTold()
	pass, n, split := o.scanClient(v, o.b)
	if split {
		n = pass
	}
	v.clear += pass
	v.buf = append(v.buf, o.b[:n]...)
	early := o.early
	o.mu.Unlock()
	o.d.joined(o.conn, target, early)
	if !o.d.targets[target].deliver(v) {
		v.rejectLocked()
	}
	return true, nil
}

func noRequest(idle time.Duration) string { return fmt.Sprintf("no request came in %v", idle) }

// refuse ends a connection that has no request.
func (o *opener) refuse(err error) {
	o.d.forget(o.conn)
	if o.preface {
		code, debug := http2.ErrCodeNo, err.Error()
		var cerr *h2.ConnError
		switch {
		case errors.As(err, &cerr):
			code, debug = cerr.Code, cerr.Reason
			if code == http2.ErrCodeEnhanceYourCalm {
				o.d.abuse(o.sock, cerr.Reason)
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			debug = noRequest(o.d.Limits.IdleTimeout)
			if o.d.isClosed() {
				debug = errClosed.Error()
			}
		}
		var b []byte
		if !o.spoken {
			b = o.appendEarlySettings(b)
		}
		b = h2.AppendGoAway(b, 0, code, debug)
		o.sock.SetWriteDeadline(time.Now().Add(o.d.Limits.OpenTimeout))
		o.sock.Write(b)
	}
	if !o.settled {
		o.d.log(slog.LevelDebug, "oneport: connection ended before its first request",
			slog.Any("remote", o.sock.RemoteAddr()), slog.Any("err", err))
	}
	linger(o.sock)
}
