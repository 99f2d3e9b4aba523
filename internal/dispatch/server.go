package dispatch

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/netconn"
)

// A Conn is a server's side of a client connection: an HTTP/2 connection with the streams for this server only.
type Conn struct {
	c       *conn
	target  *Target
	expires instant // in the queue of target

	// In passing, what is read from the socket and not delivered. The first clear bytes can be.
	rmu   sync.Mutex // one Read at a time
	buf   []byte
	clear int
	ackAt int               // how far behind the client's preface the early SETTINGS were acknowledged, before the first Read
	lent  *[heldBuffer]byte // the memory of buf, where that is not larger

	socket *socket // for ReadReady, or nil

	over  atomic.Bool // nothing is left to be read
	begun atomic.Bool // the server has read something

	wmu sync.Mutex // one Write at a time

	// The following is guarded by c.mu.

	// What the server writes.
	out  parser
	held []byte // what is too short to be looked at
	dec  blockDecoder

	closed        bool
	leaving       bool // it has sent GOAWAY
	connect       bool // it has set SETTINGS_ENABLE_CONNECT_PROTOCOL
	hasSet        bool // in passing, the client was sent a SETTINGS frame of it
	readDeadline  deadline
	writeDeadline deadline

	owes  []*clientFrame  // SETTINGS frames that the server has to acknowledge; nil if the client is not to know
	first [1]*clientFrame // the memory of owes, mostly

	lastID uint32 // the last stream that the server takes

	// What the server has set.
	maxStreams uint32
	maxList    uint32 // SETTINGS_MAX_HEADER_LIST_SIZE, or 0
	tableSize  uint32
	maxFrame   int
	window     int64 // SETTINGS_INITIAL_WINDOW_SIZE

	open int // streams

	*splitServer // in splitting
}

// splitServer is what a Conn has once the connection is split.
type splitServer struct {
	readable sync.Cond
	writable sync.Cond

	written []byte // what the server has written and nobody has taken
	fault   error  // that of what it has written

	cur  *stream // the stream of the DATA frame in which out is
	enc  blockEncoder
	in   byteQueue    // what the server is to read
	next nextSettings // for the server, waiting until it has acknowledged earlier ones
	late [][]byte     // SETTINGS of the server that have to wait for the client to acknowledge earlier ones
	uploadServer
	downloadServer
}

// startSplitting gives the server what it needs when the connection is split.
func (v *Conn) startSplitting() {
	v.splitServer = new(splitServer)
	v.readable.L, v.writable.L = &v.c.mu, &v.c.mu
}

// tlsConn is a Conn of a TLS connection, for servers that take what has this method for one.
type tlsConn struct {
	*Conn
	state func() tls.ConnectionState
}

// ConnectionState returns the state of the client's TLS connection.
func (c *tlsConn) ConnectionState() tls.ConnectionState { return c.state() }

// outer returns what a server gets.
func (v *Conn) outer(hideTLS bool) net.Conn {
	if t, ok := v.c.sock.(netconn.Secured); ok && !hideTLS {
		return &tlsConn{v, t.ConnectionState}
	}
	return v
}

// newServer makes the connection for a target's server, which has none. The caller holds mu.
func (c *conn) newServer(target int) *Conn {
	v := &Conn{
		c:          c,
		target:     c.d.all()[target],
		maxFrame:   h2.DefaultMaxFrameSize,
		maxStreams: math.MaxUint32,
		tableSize:  h2.DefaultTableSize,
		window:     h2.DefaultWindow,
		lastID:     h2.MaxStreamID,
		out:        parser{from: h2.FromServer, maxFrame: h2.LargestFrameSize, maxBlock: maxServerBlock, maxContinuations: maxServerBlock / 1024},
	}
	v.owes = v.first[:0]
	if c.mode == splitting {
		v.startSplitting()
	}
	v.dec.init(maxServerBlock)
	v.dec.allow(c.setting(http2.SettingHeaderTableSize, h2.DefaultTableSize))
	c.updateWindows()
	c.servers[target] = v
	c.joined = append(c.joined, v)
	return v
}

// maxServerBlock bounds the header blocks and lists of servers.
const maxServerBlock = 16 << 20

// appendPreface appends what a server has to read first: the preface, and the client's SETTINGS as they are.
func (c *conn) appendPreface(b []byte) []byte {
	list := []http2.Setting{{ID: http2.SettingEnablePush, Val: 0}} // so that no server opens streams
	for _, s := range c.settings {
		if s.ID != http2.SettingEnablePush {
			list = append(list, s)
		}
	}
	return h2.AppendSettings(append(b, h2.Preface...), list...)
}

// join begins what a server reads that joins a connection later.
func (v *Conn) join() {
	b := v.c.appendPreface(v.in.b)
	v.owes = append(v.owes, nil)
	v.downloadServer.init(v.c, &b)
	v.in.b = b
	v.enc.init(v.tableSize, true)
	v.uploadServer.credit = h2.DefaultWindow
}

// Read reads what the client has sent to the server.
func (v *Conn) Read(p []byte) (int, error) {
	v.rmu.Lock()
	defer v.unlockRead()
	if len(p) == 0 {
		return 0, nil
	}
	return v.read(lazily{p: p})
}

// unlockRead ends a Read.
func (v *Conn) unlockRead() {
	v.rmu.Unlock()
	if v.over.Load() {
		v.dropRead()
	}
}

// dropRead drops what is kept between one Read and the next, when there is nothing more to be read. While a Read is
// under way, this is left to its end.
func (v *Conn) dropRead() {
	v.over.Store(true)
	if !v.rmu.TryLock() {
		return
	}
	defer v.rmu.Unlock()
	v.buf, v.clear, v.socket = nil, 0, nil
	if v.lent != nil {
		heldBuffers.Put(v.lent)
		v.lent = nil
	}
	if c := v.c; v == c.pass && c.mode == passing { // which only a holder of rmu changes
		c.dropReader()
	}
}

// read is Read, and ReadReady, for a caller that holds rmu.
func (v *Conn) read(l lazily) (n int, err error) {
	if v.clear > 0 {
		n = v.deliver(l.buffer())
	} else if n, err = v.readPassing(l); n == 0 && err == nil {
		n, err = v.readSplit(l)
	}
	if n > 0 && !v.begun.Load() {
		v.begun.Store(true)
	}
	return n, err
}

// readSplit is Read in splitting, and when nothing more passes through.
func (v *Conn) readSplit(l lazily) (int, error) {
	c := v.c
	c.lock()
	defer c.mu.Unlock()
	for {
		switch {
		case v.closed:
			return 0, v.opError("read", net.ErrClosed)
		case v.readDeadline.passed():
			return 0, v.opError("read", os.ErrDeadlineExceeded)
		case c.mode == splitting && v.in.len() > 0:
			full := v.in.len() > maxUnread
			n := copy(l.buffer(), v.in.bytes())
			v.in.skip(n)
			v.uploadServer.read += int64(n)
			c.pumpUploads(v)
			c.settle()
			if full && v.in.len() <= maxUnread {
				c.unread.Broadcast()
			}
			return n, nil
		case c.ended || c.closing || c.dead:
			return 0, io.EOF
		}
		l.release()
		v.readable.Wait()
		c.takeWritten()
	}
}

var errNoSettings = errors.New("it has read the client's preface, and closed the connection without SETTINGS")

func (v *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "http2", Source: v.LocalAddr(), Addr: v.RemoteAddr(), Err: err}
}

// Close ends the server's side. Its streams are reset; what it has written is still sent. When no server is left, the
// client's connection ends.
func (v *Conn) Close() error {
	v.c.lock()
	defer v.c.mu.Unlock()
	if v.closed {
		return v.opError("close", net.ErrClosed)
	}
	if c := v.c; v.begun.Load() && !v.out.begun && !c.ended && !c.dead && !c.closing && !v.target.IsClosed() {
		v.logServerFault(errNoSettings)
	}
	v.close()
	return nil
}

func (v *Conn) close() {
	c := v.c
	if v.closed {
		return
	}
	v.closed = true
	c.part(v)
	switch {
	case c.mode == passing && c.ended && !c.closing && !c.dead: // it was drained
		c.closing = true
		go c.lingerPassing()
	case c.mode == passing:
		c.kill()
	default:
		c.unread.Broadcast()
		v.leave(http2.ErrCodeInternal)
	}
	v.drop()
}

// part takes a server out of those that have joined. The caller holds mu.
func (c *conn) part(v *Conn) {
	c.joined = slices.DeleteFunc(c.joined, func(j *Conn) bool { return j == v })
	if c.memory.joined[0] == v {
		c.memory.joined[0] = nil // if joined is elsewhere
	}
	if c.servers[v.target.index] == v {
		c.servers[v.target.index] = nil
	}
}

// drop drops what is held for the server to read, and what of it has been written in part. The caller holds mu.
func (v *Conn) drop() {
	v.readDeadline.stop()
	v.writeDeadline.stop()
	v.out, v.held, v.dec, v.owes, v.first[0] = parser{}, nil, blockDecoder{}, nil, nil
	if v.splitServer != nil {
		v.wakeAll()
		v.in, v.enc, v.cur, v.written = byteQueue{}, blockEncoder{}, nil, nil
		v.next, v.late = nextSettings{}, nil
		v.holding, v.uploadServer.held, v.uploadServer.trailers = nil, 0, 0
	}
	v.dropRead()
}

// reject ends the server's side of a connection that no server has accepted.
func (v *Conn) reject(why error) {
	v.rmu.Lock()
	defer v.rmu.Unlock()
	v.rejectLocked(why)
}

// rejectLocked is reject for a caller that holds rmu.
func (v *Conn) rejectLocked(why error) {
	c := v.c
	c.lock()
	defer c.mu.Unlock()
	c.ends(why)
	if c.mode == passing {
		c.startSplitting()
		go c.readLoop(v.buf[v.clear:])
		v.buf, v.clear, v.lent = nil, 0, nil
	}
	v.lastID = 0 // it has taken none of its streams
	v.close()
}

// kill closes the socket at once. The caller holds mu.
func (c *conn) kill() {
	if c.dead {
		return
	}
	c.dead = true
	c.countShared(-1)
	c.ends(errClientGone)
	c.owner.Ended(c.why)
	c.sock.Close()
	c.drop()
	if c.mode == splitting {
		c.out, c.spare, c.raw, c.rawFrom = nil, nil, nil, nil
	}
	c.wakeAll()
}

// drop drops all that a connection holds from which nothing is taken any more, but for what is to be written last. A
// server may keep its Conn, and so the conn, much longer. The caller holds mu.
func (c *conn) drop() {
	c.stopPatience()
	c.stopAnswer()
	c.endWithholding(nil)
	c.forgetWithheld()
	if c.mode == splitting {
		c.attached()
		for _, s := range c.streams {
			s.queue = nil
			d := &s.server.downloadServer
			d.waiting, d.bytes, d.memory = nil, 0, 0
		}
		c.cur, c.queues, c.written, c.enc, c.pings = nil, nil, nil, blockEncoder{}, pings{}
	}
	for _, v := range c.joined {
		v.drop()
	}
	c.passed, c.streams, c.gone = passedStreams{}, nil, recent{}
	c.settings, c.fromClient, c.memory.fromClient[0], c.toClient = nil, nil, nil, nil
}

// dropReader drops what the one that reads from the client needs. It is for that one, when it does not read any more.
func (c *conn) dropReader() { c.in, c.dec = parser{}, blockDecoder{} }

// wakeAll wakes up all who wait for anything. The caller holds mu.
func (c *conn) wakeAll() {
	c.wake.Broadcast()
	if c.mode == splitting {
		c.unread.Broadcast()
		for _, v := range c.joined {
			v.wakeAll()
		}
	}
}

// wakeAll wakes up the Read and the Write of a server.
func (v *Conn) wakeAll() {
	v.readable.Broadcast()
	v.writable.Broadcast()
}

// LocalAddr returns the local address of the client's connection.
func (v *Conn) LocalAddr() net.Addr { return v.c.sock.LocalAddr() }

// RemoteAddr returns the address of the client.
func (v *Conn) RemoteAddr() net.Addr { return v.c.sock.RemoteAddr() }

// NetConn returns the client's connection, which must be neither read from nor written to.
func (v *Conn) NetConn() net.Conn { return v.c.sock }

// SyscallConn gives access to the socket of the client's connection, also below TLS, for its options, if there is one.
// Otherwise the error is [errors.ErrUnsupported].
func (v *Conn) SyscallConn() (syscall.RawConn, error) {
	raw, err := netconn.SyscallConn(v.c.sock)
	if err != nil {
		return nil, fmt.Errorf("oneport: %w", err)
	}
	return raw, nil
}

// endWrite ends a Write at its deadline. If it has been in the socket since before the connection was split, the client
// has taken nothing from anybody all the time, and what is left of the Write could be in the middle of a frame: then
// the connection ends. The caller holds mu.
func (v *Conn) endWrite() {
	if v.c.writer == v {
		v.c.kill()
	}
	v.writable.Broadcast()
}

// endRead ends a Read at its deadline. The caller holds mu.
func (v *Conn) endRead() { v.readable.Broadcast() }

// SetDeadline sets both deadlines.
func (v *Conn) SetDeadline(t time.Time) error {
	return v.setDeadlines(t, true, true, net.Conn.SetDeadline)
}

// SetReadDeadline sets the deadline for Read, of this server alone.
func (v *Conn) SetReadDeadline(t time.Time) error {
	return v.setDeadlines(t, true, false, net.Conn.SetReadDeadline)
}

// SetWriteDeadline sets the deadline for Write, of this server alone.
func (v *Conn) SetWriteDeadline(t time.Time) error {
	return v.setDeadlines(t, false, true, net.Conn.SetWriteDeadline)
}

// setDeadlines sets deadlines of this server, and in passing those of the client's connection.
func (v *Conn) setDeadlines(t time.Time, read, write bool, set func(net.Conn, time.Time) error) error {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	if v.closed {
		return v.opError("set", net.ErrClosed)
	}
	if read {
		v.readDeadline.set(v, t, (*Conn).endRead)
	}
	if write {
		v.writeDeadline.set(v, t, (*Conn).endWrite)
	}
	if v.c.mode == passing {
		return set(v.c.sock, t)
	}
	v.wakeAll()
	return nil
}
