package dispatch

import (
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

type mode uint8

const (
	starting mode = iota
	passing
	splitting
)

// A conn is a client connection.
//
// Whatever reads from sock has the client's frames to itself: first the Read of the server that the connection passes
// through to, then the goroutine of readLoop. It alone uses in and dec, and sets maxID. When it has read for the last
// time it drops them.
type conn struct {
	d     *Dispatcher
	sock  net.Conn
	owner Owner

	// The first request, which was decoded and whose target was decided before the connection came here.
	firstID     uint32
	firstTarget int
	firstFields []hpack.HeaderField // until the block is examined

	in  parser
	dec blockDecoder // of the client's header blocks

	mu     sync.Mutex // guards what follows
	mode   mode
	skip   skipped
	served bool  // a server has accepted the connection
	why    error // why it has ended

	servers  []*Conn // by target; nil where there is none
	joined   []*Conn // all that have not closed their side
	pass     *Conn   // the server that the connection passes through to
	withheld withheld
	draining

	passed  passedStreams // open, in passing
	streams streamTable   // open, in splitting
	maxID   uint32        // the highest that the client has used
	gone    recent        // streams that are closed

	// SETTINGS of the client.
	settings   []http2.Setting // the last value of each parameter
	fromClient []*clientFrame  // frames that have not been acknowledged, oldest first
	tableSize  uint32          // SETTINGS_HEADER_TABLE_SIZE, acknowledged

	// SETTINGS towards the client.
	spoken     bool          // a SETTINGS frame was sent
	toClient   []serverFrame // frames that the client has not acknowledged, oldest first
	advertised advertised    // what was sent last
	window     int64         // SETTINGS_INITIAL_WINDOW_SIZE that the client goes by
	most       int           // SETTINGS_MAX_CONCURRENT_STREAMS that the client goes by

	rawPings int     // PING frames of the client that passed through and have not been answered
	asked    int     // PING frames of pass that passed through and have not been answered
	askedAt  instant // the first of these

	resets, controls bucket

	upload
	download
	*splitConn // in splitting

	// The memory of slices that are mostly short.
	memory struct {
		servers    [2]*Conn
		joined     [1]*Conn
		fromClient [1]*clientFrame
	}
}

// splitConn is what a conn has once it is split.
type splitConn struct {
	alone   *time.Timer // until the connection has its first server
	reading bool        // readLoop is at work
	cur     *stream     // the stream of the DATA frame in which in is
	begun   int64       // what is still to come of the content of the frame that cur is for
	written []*Conn     // servers that have written what nobody has taken
	pings   pings
	splitUpload
	splitDownload
}

// draining is what is known of the connection's end.
type draining struct {
	goAway    bool        // GOAWAY was sent to the client
	lastID    uint32      // the last stream that it takes, no more than what GOAWAY has said
	closing   bool        // no frame is taken from anybody any more; the socket is closed when out is written
	dead      bool        // the socket is closed
	ended     bool        // the client has ended its side
	finish    bool        // the connection ends when it has no stream left
	patience  *time.Timer // ends the connection if the client does not take what a server has left behind
	dropping  bool        // pass is left to answer a fault; it reads nothing more
	shutdown  shutdown
	pingTimer *time.Timer // ends the waiting for the answer to its PING
	inFrame   bool        // pass has written a part of a frame
}

// advertised are the settings that the client has been sent.
type advertised struct {
	maxStreams uint32
	maxList    uint32 // SETTINGS_MAX_HEADER_LIST_SIZE, or 0
	window     uint32
	connect    bool

	// The most, which the reader obeys when it has read what came after it.
	maxFrame  uint32
	tableSize uint32
}

// clientFrame is a SETTINGS frame of the client that has not been acknowledged.
type clientFrame struct {
	waiting   int    // servers that have not acknowledged it
	tableSize uint32 // SETTINGS_HEADER_TABLE_SIZE as of this frame
	window    int64  // SETTINGS_INITIAL_WINDOW_SIZE as of this frame
}

// serverFrame is a SETTINGS frame that the client has not acknowledged.
type serverFrame struct {
	server    *Conn // whose frame passed through, or nil
	hasWindow bool
	window    int64 // SETTINGS_INITIAL_WINDOW_SIZE
	most      int   // SETTINGS_MAX_CONCURRENT_STREAMS as of this frame
}

func newConn(d *Dispatcher, o *Opened, owner Owner) *conn {
	l := &d.Limits
	c := &conn{
		d:         d,
		sock:      o.Conn,
		owner:     owner,
		tableSize: h2.DefaultTableSize,
		window:    h2.DefaultWindow,
		most:      h2.MaxStreamID,
		in: parser{
			from:             h2.FromClient,
			maxFrame:         h2.DefaultMaxFrameSize,
			maxBlock:         l.MaxHeaderListBytes,
			maxContinuations: l.MaxContinuations,
		},
	}
	c.advertised = advertised{maxStreams: math.MaxUint32, window: h2.DefaultWindow, maxFrame: h2.DefaultMaxFrameSize, tableSize: h2.DefaultTableSize}
	c.servers, c.joined, c.fromClient = c.memory.servers[:], c.memory.joined[:0], c.memory.fromClient[:0]
	if n := len(d.all()); n <= len(c.servers) {
		c.servers = c.servers[:n]
	} else {
		c.servers = make([]*Conn, n)
	}
	c.lastID = h2.MaxStreamID
	c.dec.goOn(o.Block, o.Decoder, l.MaxHeaderListBytes)
	c.upload.credit = h2.DefaultWindow
	c.download.credit, c.sendWindow, c.ackedWindow = h2.DefaultWindow, h2.DefaultWindow, h2.DefaultWindow
	c.wake.L = &c.mu
	return c
}

// examine decodes a header block of the client's, and decides where it goes. It is for the one that reads, without mu,
// since it can take long.
func (c *conn) examine(it *clientItem) {
	it.examined = examined{}
	if c.firstFields != nil {
		it.headerList = c.dec.given(c.firstFields)
		c.firstFields = nil
	} else {
		it.headerList, it.fault = c.dec.decode(it.payload)
	}
	if it.fault != nil || it.StreamID <= c.maxID {
		return
	}
	it.opens = true
	if !it.lasting {
		it.decided = c.decide(it)
	}
}

// recall is examine for a request like an earlier one, of which all is remembered. It reports false for any other block,
// which it leaves to examine.
func (c *conn) recall(it *clientItem) bool {
	l := c.dec.known.find(it.payload)
	if l == nil || !l.lasting || it.StreamID <= c.maxID {
		return false
	}
	it.examined = examined{headerList: l, opens: true}
	return true
}

// decide decides where a request goes that opens a stream.
func (c *conn) decide(it *clientItem) decided {
	d := decided{grpc: isGRPC(it.fields)}
	switch {
	case it.large:
		d.target = Refuse
	case it.StreamID == c.firstID:
		d.target = c.firstTarget
	default:
		d.target = c.d.decide(c.sock, it.fields)
		d.lasting = c.d.Lasting != nil && c.d.Lasting(d.target)
	}
	return d
}

// shrink gives back what the header block looked at last has taken. It is for the one that reads.
func (c *conn) shrink() {
	c.in.shrink()
	c.dec.shrink()
	if c.mode != splitting {
		return
	}
	c.enc.shrink()
	for _, v := range c.joined {
		v.enc.shrink()
	}
}

// applyAdvertised applies what the client has been told. It is for the one that reads, with mu.
func (c *conn) applyAdvertised() {
	c.in.maxFrame = int(c.advertised.maxFrame)
	c.dec.allow(c.advertised.tableSize)
}

// remove takes a stream out of the table, in splitting.
func (c *conn) remove(s *stream, why reason) {
	if s.removed {
		return
	}
	s.removed = true
	c.streams.remove(s)
	if !s.resetQueued {
		s.server.open--
	}
	c.dropHeld(s)
	c.dropQueued(s)
	c.gone.add(s.id, why)
}

// endIfDone removes a stream that has ended on both sides.
func (c *conn) endIfDone(s *stream) {
	if s.clientEnded && s.serverEnded && !s.isHeld {
		c.remove(s, byEnd)
	}
}

// newStream puts a stream of a server into the table, in splitting.
func (c *conn) newStream(v *Conn, state streamState) *stream {
	s := &stream{streamState: state, server: v}
	s.toClient = c.window
	s.toServer = v.window
	s.downloadStream.window = c.sendWindow
	c.streams.add(s)
	v.open++
	return s
}

// noteSettings takes note of what a SETTINGS frame of the client says.
func (c *conn) noteSettings(payload []byte) *clientFrame {
	c.updateWindows() // with ackedWindow from before
	c.settings = h2.MergeSettings(c.settings, payload)
	f := c.newClientFrame()
	c.fromClient = append(c.fromClient, f)
	c.updateWindows()
	return f
}

// newClientFrame returns a SETTINGS frame of the client with what is set as of it.
func (c *conn) newClientFrame() *clientFrame {
	return &clientFrame{
		tableSize: c.setting(http2.SettingHeaderTableSize, h2.DefaultTableSize),
		window:    int64(c.setting(http2.SettingInitialWindowSize, h2.DefaultWindow)),
	}
}

// has reports whether the client has set a parameter.
func (c *conn) has(id http2.SettingID) bool {
	return slices.ContainsFunc(c.settings, func(s http2.Setting) bool { return s.ID == id })
}

func (c *conn) setting(id http2.SettingID, def uint32) uint32 {
	for _, s := range c.settings {
		if s.ID == id {
			return s.Val
		}
	}
	return def
}

// acknowledgedByServers removes the oldest SETTINGS frame of the client, and applies what it has set.
func (c *conn) acknowledgedByServers() *clientFrame {
	f := c.fromClient[0]
	c.fromClient[0] = nil
	c.fromClient = c.fromClient[1:]
	c.ackedWindow = f.window
	c.updateWindows()
	return f
}

// acknowledged applies the oldest SETTINGS frame that the client had not acknowledged (RFC 9113, Section 6.5.3). It
// returns the server whose frame it is, or nil.
func (c *conn) acknowledged() *Conn {
	if len(c.toClient) == 0 {
		return nil
	}
	f := c.toClient[0]
	if c.toClient = c.toClient[1:]; len(c.toClient) == 0 {
		c.toClient = nil // most connections have no others
	}
	c.most = f.most
	if f.hasWindow {
		// RFC 9113, Section 6.9.2: the windows of all streams change with it.
		delta := f.window - c.window
		c.window = f.window
		for _, s := range c.streams {
			s.toClient += delta
		}
	}
	if f.server != nil && f.hasWindow {
		f.server.setWindow(f.window)
	}
	return f.server
}

// setWindow applies the SETTINGS_INITIAL_WINDOW_SIZE of the server.
func (v *Conn) setWindow(window int64) {
	delta := window - v.window
	v.window = window
	if delta == 0 {
		return
	}
	for _, s := range v.c.streams {
		if s.server == v {
			s.toServer += delta
		}
	}
}

// spendReset counts a stream that the client has reset early, or that had to be reset for a fault of the client's.
func (c *conn) spendReset() *h2.ConnError {
	if !c.resets.spend(c.d.Limits.ResetBurst, c.d.Limits.ResetRate) {
		return h2.EnhanceYourCalm("too many streams reset early")
	}
	return nil
}

// resetByClient removes a stream that the client has reset, and counts it if that was early: the server has not
// answered, and the client has not waited for as long as those do that lose patience.
func (c *conn) resetByClient(s *stream) *h2.ConnError {
	early := s.early() && !s.resetQueued
	c.remove(s, byClient)
	if early {
		return c.spendReset()
	}
	return nil
}

// spendControl counts a frame that does nothing for a request.
func (c *conn) spendControl() *h2.ConnError {
	if !c.controls.spend(c.d.Limits.ControlBurst, c.d.Limits.ControlRate) {
		return h2.EnhanceYourCalm("too many frames that do nothing for a request")
	}
	return nil
}

// reason says how a stream came to its end.
type reason uint8

const (
	byEnd    reason = iota // both sides had ended it
	byClient               // the client has reset it
	byServer               // it was reset towards the client, which may not know yet
)

// recent remembers the streams closed last. What the client sends although it has closed the stream itself is an error;
// what it may have sent before it knew is ignored, and so is what it sends on a stream that is forgotten (RFC 9113,
// Section 5.1).
type recent struct {
	ids  []uint32
	whys []reason
	next int
}

const maxRecent = 256

func (r *recent) add(id uint32, why reason) {
	if len(r.ids) < maxRecent {
		r.ids, r.whys = append(r.ids, id), append(r.whys, why)
		return
	}
	r.ids[r.next], r.whys[r.next] = id, why
	r.next = (r.next + 1) % maxRecent
}

func (r *recent) find(id uint32) (why reason, ok bool) {
	if i := slices.Index(r.ids, id); i >= 0 {
		return r.whys[i], true
	}
	return 0, false
}

// reset takes note that the client has reset a stream that was closed. It reports false if it had already, or if the
// stream is forgotten.
func (r *recent) reset(id uint32) bool {
	i := slices.Index(r.ids, id)
	if i < 0 || r.whys[i] == byClient {
		return false
	}
	r.whys[i] = byClient
	return true
}

// A deadline wakes those who wait for something up at a time.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

// set sets the deadline of v; wake is called, with c.mu held, when it has passed.
func (d *deadline) set(v *Conn, t time.Time, wake func(*Conn)) {
	c := v.c
	d.stop()
	d.at = t
	if t.IsZero() || c.mode != splitting || c.closing || c.dead {
		return
	}
	d.timer = time.AfterFunc(time.Until(t), func() {
		c.lock()
		defer c.mu.Unlock()
		wake(v)
	})
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
