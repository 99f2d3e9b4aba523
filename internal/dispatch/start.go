package dispatch

import (
	"bytes"
	"net"
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// Opened is an HTTP/2 connection of a client whose first request has come, and that no server has spoken on.
type Opened struct {
	Conn     net.Conn
	Received []byte // what was taken out of Conn, from the preface on; the rest is there. Valid until Start returns

	// Of the first request.
	StreamID uint32
	Fields   []hpack.HeaderField // valid until Start returns
	Block    []byte              // its header block, or nothing if that is in several frames; valid until Start returns
	Decoder  *hpack.Decoder      // has decoded the block, and is Start's then; may be nil if KeepsBlock(Block)

	Settings    []http2.Setting // what the client has set, each parameter once; valid until Start returns
	SettingsEnd int             // where its first SETTINGS frame ends, or the preface if that is not the first frame

	// What was said in the server's place.
	Early        bool // EarlySettings were sent
	Acknowledged int  // how many of the client's SETTINGS frames were acknowledged
	Answered     int  // how many of its PING frames were answered
}

// An Owner is told what becomes of a connection. But for Joined and Linger, it may be told while the connection is
// locked, so that it must not call the methods of the Client.
type Owner interface {
	// Started gives the connection, before any other method is called. If queued is false, no server has it.
	Started(c Client, queued bool)
	// Joined says that the first request for a target is on its way to its server, which does not have it yet.
	Joined(target int)
	// Accepted says that a server has accepted its side of the connection.
	Accepted()
	// Linger closes the client's connection so that the client can read what was written last.
	Linger(net.Conn)
	// Ended says that the connection has ended, and why. It is called once, last.
	Ended(error)
}

// A Client is a connection whose requests are dispatched. Its methods may be called by several goroutines at once.
type Client interface {
	// Dismiss ends the connection if no server has ever accepted it. The client is told the reason.
	Dismiss(reason string)
	// Drain tells the client to go elsewhere with new requests, and ends the connection when those that it has made were
	// answered. It returns when the client's connection has taken that.
	Drain()
	// Close ends the connection at once.
	Close()
}

// Start begins to dispatch the requests of a connection.
func (d *Dispatcher) Start(o Opened, owner Owner) {
	c := newConn(d, &o, owner)
	c.firstID, c.firstTarget, c.firstFields = o.StreamID, d.decide(o.Conn, o.Fields), o.Fields
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settings = append([]http2.Setting(nil), o.Settings...)
	c.skip.bytes, c.skip.settings, c.skip.pings = o.SettingsEnd, max(o.Acknowledged-1, 0), o.Answered
	if o.Early {
		c.noteEarlySettings()
	}
	received := c.skip.from(o.Received)
	target := c.firstTarget
	resized := o.Acknowledged > 1 && c.has(http2.SettingHeaderTableSize)
	if target < 0 || target >= len(c.servers) || resized || d.AlwaysSplit {
		if o.Acknowledged == 0 {
			c.fromClient = append(c.fromClient, c.newClientFrame())
		} else {
			c.tableSize = c.setting(http2.SettingHeaderTableSize, h2.DefaultTableSize)
		}
		owner.Started(c, false)
		c.firstFields = slices.Clone(o.Fields)
		c.startSplitting()
		if resized {
			// One of the values that were acknowledged may have been lower than the last. That has to be said to the
			// client in the first header block (RFC 7541, Section 4.2), which no server would do: it learns the last alone.
			c.enc.clear()
		}
		go c.readLoop(bytes.Clone(received))
		return
	}

	v := c.newServer(target)
	v.rmu.Lock() // until all that is at hand has been scanned
	defer v.rmu.Unlock()
	c.mode, c.pass = passing, v
	if o.Acknowledged > 0 {
		c.tableSize = c.setting(http2.SettingHeaderTableSize, h2.DefaultTableSize)
		v.owes = append(v.owes, nil)
	} else {
		f := c.newClientFrame()
		f.waiting = 1
		c.fromClient = append(c.fromClient, f)
		v.owes = append(v.owes, f)
	}
	v.lent = heldBuffers.Get().(*[heldBuffer]byte)
	v.buf = c.appendPreface(v.lent[:0])
	v.clear = len(v.buf)
	owner.Started(c, true)
	if len(received) > 0 {
		// Here, so that no server's goroutine grows its stack for it.
		v.buf = append(v.buf, received...)
		c.applyAdvertised()
		clear, n, split := c.scanClient(v, v.buf[v.clear:])
		if split {
			n = clear
		}
		v.buf = v.buf[:v.clear+n]
		v.clear += clear
	}
	c.firstFields = slices.Clone(c.firstFields) // if it was split before the request
	c.mu.Unlock()
	queued := v.target.queue.Reserve(d.Limits.QueueLength)
	if queued {
		owner.Joined(target) // nobody else waits for rmu before the server has v
		queued = v.target.push(v, &d.Limits)
	}
	if !queued {
		why := ErrTargetFull
		if v.target.IsClosed() {
			why = ErrTargetClosed
		}
		v.rejectLocked(why)
	}
	c.mu.Lock()
}

// skipped is what the servers do not read of what the client sends, since it was taken care of before there was a
// server.
type skipped struct {
	bytes    int // at the beginning
	settings int // SETTINGS frames behind that
	pings    int // PING frames
}

// from returns b without what is to be skipped at the beginning.
func (s *skipped) from(b []byte) []byte {
	n := min(s.bytes, len(b))
	s.bytes -= n
	return b[n:]
}

// frame reports whether a frame is to be skipped.
func (s *skipped) frame(it *item) bool {
	var n *int
	switch {
	case it.ack():
		return false
	case it.Type == http2.FrameSettings:
		n = &s.settings
	case it.Type == http2.FramePing:
		n = &s.pings
	default:
		return false
	}
	if *n == 0 {
		return false
	}
	*n--
	return true
}

// appendEarlySettings appends the SETTINGS frame that begins what the client is sent while no server has spoken to it.
func (c *conn) appendEarlySettings(b []byte) []byte {
	c.noteEarlySettings()
	return h2.AppendSettings(b, c.d.EarlySettings...)
}

// noteEarlySettings takes note that the client was sent that frame.
func (c *conn) noteEarlySettings() {
	c.spoken = true
	var f serverFrame
	for _, s := range c.d.EarlySettings {
		c.noteAdvertised(&f, s.ID, s.Val)
	}
	c.sentToClient(f)
}

// sentToClient takes note of a SETTINGS frame that is sent to the client.
func (c *conn) sentToClient(f serverFrame) {
	f.most = int(min(c.advertised.maxStreams, h2.MaxStreamID))
	c.toClient = append(c.toClient, f)
}

// noteAdvertised takes note of a setting that is sent to the client with f.
func (c *conn) noteAdvertised(f *serverFrame, id http2.SettingID, val uint32) {
	switch id {
	case http2.SettingInitialWindowSize:
		f.hasWindow, f.window = true, int64(val)
		c.advertised.window = val
	case http2.SettingMaxConcurrentStreams:
		c.advertised.maxStreams = val
	case http2.SettingMaxHeaderListSize:
		c.advertised.maxList = val
	case http2.SettingEnableConnectProtocol:
		c.advertised.connect = val == 1
	case http2.SettingMaxFrameSize:
		// The client may use it as soon as it knows. A lower one holds only once it has acknowledged it, and is left to
		// the server.
		c.advertised.maxFrame = max(c.advertised.maxFrame, val)
	case http2.SettingHeaderTableSize:
		c.advertised.tableSize = max(c.advertised.tableSize, val)
	}
}
