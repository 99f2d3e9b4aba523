package dispatch

import (
	"bytes"
	"io"
	"slices"
	"sync"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// readPassing is Read while the connection passes through: it reads from the socket, and delivers what has been looked
// at. What cannot be judged yet, a part of a frame header or of a header block, is held back. It returns with 0 and
// without an error when the connection is being split. The caller holds rmu.
func (v *Conn) readPassing(l lazily) (int, error) {
	c := v.c
	for {
		if v.clear > 0 {
			return v.deliver(l.buffer()), nil
		}
		c.mu.Lock()
		if c.mode != passing || c.closing || c.dead {
			c.mu.Unlock()
			return 0, nil
		}
		if c.ended { // it was drained
			c.mu.Unlock()
			return 0, io.EOF
		}
		c.mu.Unlock()

		var b []byte
		var n int
		var err error
		held := len(v.buf)
		if held > 0 {
			v.buf = grow(v.buf)
			b = v.buf[:cap(v.buf)]
			l.release()
			n, err = c.sock.Read(b[held:])
		} else {
			b, n, err = v.readSocket(l)
		}
		if n == 0 && err != nil {
			return 0, v.readError(err)
		}
		n = copy(b[held:], c.skip.from(b[held:held+n]))
		b = b[:held+n]
		c.mu.Lock()
		if c.mode != passing || c.closing || c.dead { // ended from outside
			c.mu.Unlock()
			return 0, nil
		}
		c.applyAdvertised()
		clear, n, split := c.scanClient(v, b)
		c.endPassing()
		c.mu.Unlock()
		if held > 0 {
			v.buf, v.clear = b[:n], clear
			if split {
				v.buf = v.buf[:clear]
			}
			continue
		}
		if !split && clear < n {
			v.lent = heldBuffers.Get().(*[heldBuffer]byte)
			v.buf = append(v.lent[:0], b[clear:n]...)
		}
		if clear > 0 {
			return clear, nil
		}
	}
}

// readError returns what a Read of the server fails with, while the connection passes through.
func (v *Conn) readError(err error) error {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	if v.c.ended {
		return io.EOF // as for a client that has gone
	}
	return err
}

// deliver delivers from the buffer.
func (v *Conn) deliver(p []byte) int {
	n := copy(p, v.buf[:v.clear])
	v.clear -= n
	if v.buf = v.buf[n:]; len(v.buf) == 0 {
		v.buf = nil
		if v.lent != nil {
			heldBuffers.Put(v.lent)
			v.lent = nil
		}
	}
	return n
}

// grow returns b with room behind it.
func grow(b []byte) []byte {
	if len(b) < cap(b) {
		return b
	}
	return append(make([]byte, 0, max(4096, 2*cap(b))), b...)
}

// heldBuffers lends memory for what is held back. Servers that read a frame header alone, as net/http does, need it for
// each request, and few bytes of it.
var heldBuffers = sync.Pool{New: func() any { return new([heldBuffer]byte) }}

const heldBuffer = 4 << 10

// scanClient looks at what the client has sent while the connection passes through to v. The first clear bytes of b are
// v's; those up to n have to be shown again with more behind them. If split is set, the connection has been split, and
// what follows clear has been taken care of. The caller holds rmu of v, and mu, which is not held all the time.
func (c *conn) scanClient(v *Conn, b []byte) (clear, n int, split bool) {
	n = len(b)
	it := new(clientItem)
	var at instant // when b was read, if it has requests
	for clear < n {
		if c.dropping || c.ended { // it was drained, and what follows will not be answered
			return clear, clear, false
		}
		m, ferr := c.in.next(&it.item, b[clear:n])
		examine := it.kind == blockItem && m > 0 && !c.recall(it)
		if examine {
			c.mu.Unlock()
			c.examine(it) // which asks the matchers
			c.mu.Lock()
			if c.mode != passing || c.dead {
				return clear, clear, true // ended meanwhile
			}
			if c.ended {
				return clear, clear, false
			}
		}
		if ferr != nil {
			if ferr.Code == http2.ErrCodeEnhanceYourCalm {
				c.startSplitting()
				c.fail(&ferr.ConnError)
				go c.readLoop(nil)
				return clear, clear, true
			}
			clear = c.leaveFault(clear+ferr.end, n)
			continue
		}
		if m == 0 {
			break
		}
		var cerr *h2.ConnError
		switch it.kind {
		case blockItem:
			if cerr = it.fault; cerr != nil && cerr.Code != http2.ErrCodeEnhanceYourCalm {
				clear = c.leaveFault(clear+m, n)
				continue
			}
			if cerr != nil {
				break
			}
			if !it.opens {
				if s := c.passed.find(it.StreamID); s != nil && it.endStream() {
					c.passed.endClient(s)
				}
				break
			}
			late := c.shutdown == drained && it.StreamID > c.lastID
			if it.target == v.target.index && !late && c.passed.open < c.d.Limits.MaxStreams {
				c.maxID = it.StreamID
				if at == 0 {
					at = now()
				}
				s := c.passed.add(it.StreamID)
				s.opened, s.grpc, s.clientEnded = at, it.grpc, it.endStream()
				v.target.requests.Add(1)
				if !it.endStream() && c.withheld.withholds() {
					go c.sendWithheld() // see withhold; whoever reads does not write
				}
				break
			}
			c.startSplitting()
			if cerr := c.newRequest(it); cerr != nil {
				c.fail(cerr)
			}
			c.shrink()
			go c.readLoop(bytes.Clone(b[clear+m : n]))
			return clear, clear, true
		case dataItem:
			cerr = c.scanClientData(&it.item)
		case frameItem:
			if it.Type == http2.FrameSettings && !it.ack() && len(v.owes) > 0 && c.skip.settings == 0 {
				// Two to be acknowledged at once are ambiguous: net/http acknowledges several with one frame. Once the
				// connection is split, each waits for the acknowledgement of the one before.
				c.startSplitting()
				if cerr := c.take(it); cerr != nil {
					c.fail(cerr)
				}
				go c.readLoop(bytes.Clone(b[clear+m : n]))
				return clear, clear, true
			}
			var drop bool
			drop, cerr = c.scanClientFrame(v, &it.item)
			if drop {
				if it.Type == http2.FrameSettings && it.ack() && !v.begun.Load() {
					v.ackAt = clear
				}
				n = clear + copy(b[clear:], b[clear+m:n])
				m = 0
			}
		case skipItem:
			if it.first {
				cerr = c.spendControl()
			}
			if it.Type == faultyFrame && !c.in.inFrame() {
				c.dropping = true
			}
		}
		if cerr != nil {
			c.startSplitting()
			c.fail(cerr)
			go c.readLoop(nil)
			return clear, clear, true
		}
		if examine {
			c.shrink()
		}
		clear += m
	}
	return clear, n, false
}

// leaveFault leaves a fault of the client's to the server, which answers it in its own way: what follows it, from end
// on, is not delivered.
func (c *conn) leaveFault(end, n int) (clear int) {
	if end > n {
		c.in.hdr, c.in.left, c.in.pad = h2.FrameHeader{Type: faultyFrame}, end-n, 0
		return n
	}
	c.dropping = true
	return end
}

// faultyFrame stands for the type of a frame behind which nothing is delivered.
const faultyFrame http2.FrameType = 0xff

func (c *conn) scanClientData(it *item) *h2.ConnError {
	if it.first {
		c.upload.credit -= int64(it.Length)
		if it.Length == 0 && !it.endStream() {
			if cerr := c.spendControl(); cerr != nil {
				return cerr
			}
		}
	}
	s := c.passed.find(it.StreamID)
	if s == nil {
		return nil
	}
	if it.first {
		s.upload -= int64(it.Length)
	}
	if it.last && it.endStream() {
		c.passed.endClient(s)
	}
	return nil
}

// scanClientFrame takes note of a frame. With drop, it is not for v.
func (c *conn) scanClientFrame(v *Conn, it *item) (drop bool, cerr *h2.ConnError) {
	if c.skip.frame(it) {
		return true, nil
	}
	switch it.Type {
	case http2.FrameSettings:
		if it.ack() {
			return c.acknowledged() == nil, nil
		}
		forbidPush(it.payload)
		f := c.noteSettings(it.payload)
		f.waiting++
		v.owes = append(v.owes, f)
		v.dec.allow(c.setting(http2.SettingHeaderTableSize, h2.DefaultTableSize))
		return false, c.spendControl()
	case http2.FramePing:
		if it.ack() {
			if c.takeDrainACK(it) {
				return true, nil
			}
			if c.asked > 0 {
				c.asked--
			}
			return false, nil
		}
		c.rawPings++
		return false, c.spendControl()
	case http2.FrameWindowUpdate:
		if it.StreamID == 0 {
			c.download.credit += int64(it.value()) // too much of it is for the server to answer
		} else if s := c.passed.find(it.StreamID); s != nil {
			s.download += int64(it.value())
		}
	case http2.FrameRSTStream:
		if s := c.passed.find(it.StreamID); s != nil {
			early := s.early()
			if c.passed.reset(s); early {
				return false, c.spendReset()
			}
		}
	case http2.FrameGoAway:
	default:
		return false, c.spendControl()
	}
	return false, nil
}

// scanServer looks at what v writes while the connection passes through to it. It returns what has to be written to the
// client now.
func (v *Conn) scanServer(p []byte) (b []byte, cerr *h2.ConnError) {
	b = p
	if len(v.held) > 0 {
		v.held = append(v.held, p...)
		b = v.held
	}
	pass := 0
	it := new(item)
	for pass < len(b) {
		n, ferr := v.out.next(it, b[pass:])
		if ferr != nil {
			return nil, &ferr.ConnError
		}
		if n == 0 {
			break
		}
		switch it.kind {
		case blockItem:
			if cerr = v.scanServerBlock(it); cerr != nil {
				return nil, cerr
			}
		case dataItem:
			if it.first {
				v.scanServerData(it)
			}
		case frameItem:
			if it.Type != http2.FrameSettings {
				v.scanServerFrame(it)
			} else if v.scanServerSettings(it) {
				b, n = without(b, pass, n), 0
			}
		}
		pass += n
	}
	v.hold(b[pass:])
	return b[:pass], nil
}

// without returns b without n bytes at some place.
//
//go:noinline // see Conn.Write
func without(b []byte, at, n int) []byte { return slices.Concat(b[:at], b[at+n:]) }

// scanServerBlock takes note of a header block.
func (v *Conn) scanServerBlock(it *item) *h2.ConnError {
	c := v.c
	c.controls.forgive()
	cerr := v.dec.follow(it.payload)
	v.out.shrink()
	if s := c.passed.find(it.StreamID); s != nil {
		if !s.answered {
			s.answered = true
			c.resets.forgive()
		}
		if it.endStream() {
			c.passed.endServer(s)
		}
	}
	return cerr
}

// scanServerData takes note of a DATA frame.
func (v *Conn) scanServerData(it *item) {
	c := v.c
	c.controls.forgive()
	c.download.credit -= int64(it.Length)
	if s := c.passed.find(it.StreamID); s != nil {
		s.download -= int64(it.Length)
		if it.endStream() {
			c.passed.endServer(s)
		}
	}
}

// hold keeps the rest of what is held, or else was written, until more is written.
//
//go:noinline // see Conn.Write
func (v *Conn) hold(rest []byte) {
	switch {
	case len(v.held) == 0:
		v.held = append(v.held, rest...)
	case len(rest) < len(v.held):
		v.held = bytes.Clone(rest) // what was before it may be on its way to the client
	}
}

// scanServerSettings takes note of a SETTINGS frame. With drop, it is not for the client.
func (v *Conn) scanServerSettings(it *item) (drop bool) {
	c := v.c
	if !it.ack() {
		f := serverFrame{server: v}
		drop = v.isKnown(it.payload) && v.answerSettings()
		v.noteSettings(&f, it.payload)
		if drop {
			if f.hasWindow {
				v.setWindow(f.window)
			}
			return true
		}
		c.spoken, v.hasSet = true, true
		c.sentToClient(f)
		return false
	}
	if len(v.owes) == 0 {
		return true
	}
	f := v.owes[0]
	v.owes[0] = nil
	v.owes = v.owes[1:]
	if f == nil {
		return true // the client has had it
	}
	f.waiting--
	c.tableSize = c.acknowledgedByServers().tableSize
	return false
}

// noteSettings takes note of what a server sets with f, which the client is sent as it is.
func (v *Conn) noteSettings(f *serverFrame, payload []byte) {
	for s := range h2.Settings(payload) {
		v.noteSetting(s.ID, s.Val)
		v.c.noteAdvertised(f, s.ID, s.Val)
	}
}

// scanServerFrame takes note of a frame.
func (v *Conn) scanServerFrame(it *item) {
	c := v.c
	switch it.Type {
	case http2.FramePing:
		if !it.ack() {
			if c.asked == 0 {
				c.askedAt = now()
			}
			c.asked++
		} else if c.rawPings > 0 {
			c.rawPings--
		}
	case http2.FrameWindowUpdate:
		if it.StreamID == 0 {
			c.upload.credit += int64(it.value())
		} else if s := c.passed.find(it.StreamID); s != nil {
			s.upload += int64(it.value())
		}
	case http2.FrameRSTStream:
		if s := c.passed.find(it.StreamID); s != nil {
			// The server knows its closed streams itself. Only what may still come for this one must be known later.
			if !s.clientEnded {
				c.gone.add(s.id, byServer)
			}
			c.passed.reset(s)
		}
	case http2.FrameGoAway:
		c.goAway, v.leaving = true, true
		c.lastID = min(c.lastID, it.value())
		v.lastID = c.lastID
	}
}

// noteSetting takes note of what a server sets for what it is sent, but for SETTINGS_INITIAL_WINDOW_SIZE.
func (v *Conn) noteSetting(id http2.SettingID, val uint32) {
	switch id {
	case http2.SettingMaxConcurrentStreams:
		v.maxStreams = val
	case http2.SettingMaxHeaderListSize:
		v.maxList = val
	case http2.SettingMaxFrameSize:
		if val >= h2.DefaultMaxFrameSize && val <= h2.LargestFrameSize {
			v.maxFrame = int(val)
		}
	case http2.SettingHeaderTableSize:
		v.tableSize = val
		if v.splitServer != nil && v.enc.enc != nil {
			v.enc.limit(val)
		}
	case http2.SettingEnableConnectProtocol:
		v.connect = val == 1
	}
}
