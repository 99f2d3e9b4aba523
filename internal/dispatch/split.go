package dispatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

var errEOF = io.EOF

// startSplitting goes over from opening or passing to splitting, between two frames of the client. The caller holds mu,
// and has readLoop read what follows.
func (c *conn) startSplitting() {
	v := c.pass
	c.mode, c.splitConn = splitting, new(splitConn)
	if v != nil {
		v.startSplitting()
	}
	c.countShared(1)
	if !c.spoken {
		c.out = c.appendEarlySettings(c.out)
	}
	c.out = c.appendDrain(c.endWithholding(c.out))
	c.startDownload()
	c.startUpload()
	c.acknowledge()
	if v != nil {
		// The deadlines are the server's, not those of the client's connection.
		c.sock.SetDeadline(time.Time{})
		v.readDeadline.set(v, v.readDeadline.at, (*Conn).endRead)
		v.writeDeadline.set(v, v.writeDeadline.at, (*Conn).endWrite)
	}
	if v == nil {
		idle := c.d.Limits.IdleTimeout
		c.alone = time.AfterFunc(idle, func() { c.dismiss(ErrIdle) })
	}
	c.reading = true
	go c.writeLoop()
}

// readLoop reads from the client, from the split to the end of the connection. It begins with b.
func (c *conn) readLoop(b []byte) {
	defer c.endReading()
	socket := newSocket(c.sock)
	var lender bufferLender
	defer lender.Put()
	for {
		rest, ok := c.takeFrames(b)
		if !ok {
			return
		}
		var n int
		var err error
		if len(rest) == 0 && socket != nil {
			lender.Put()
			b, n, err = socket.read(&lender)
			b = b[:0]
		} else {
			b = makeRoom(b, rest)
			n, err = c.sock.Read(b[len(b):cap(b)])
		}
		if n == 0 && err != nil {
			c.clientEnded(err)
			return
		}
		b = append(b, c.skip.from(b[len(b):len(b)+n])...)
	}
}

// endReading ends readLoop.
func (c *conn) endReading() {
	c.dropReader()
	c.lock()
	defer c.mu.Unlock()
	c.reading = false
	c.wake.Broadcast()
}

// makeRoom returns what is left of b, at the start of its memory or of another if b has no room for more, or too much.
func makeRoom(b, rest []byte) []byte {
	switch most := 2 * len(rest); {
	case cap(b) < readBuffer, len(rest) == cap(b), most < readBuffer && cap(b) > readBuffer:
		return append(make([]byte, 0, max(readBuffer, most)), rest...)
	case len(rest) < len(b):
		return append(b[:0], rest...)
	}
	return b
}

const readBuffer = 32 << 10

// A bufferLender lends the memory to read into.
type bufferLender struct{ lent *[readBuffer]byte }

var readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// Get returns the memory.
func (l *bufferLender) Get() []byte {
	if l.lent == nil {
		l.lent = readBuffers.Get().(*[readBuffer]byte)
	}
	return l.lent[:]
}

// Put takes it back.
func (l *bufferLender) Put() {
	if l.lent != nil {
		readBuffers.Put(l.lent)
		l.lent = nil
	}
}

// takeFrames takes the frames in b, and returns what is left of it. It reports false when the client is not read from
// any more.
func (c *conn) takeFrames(b []byte) (rest []byte, ok bool) {
	c.lock()
	defer c.mu.Unlock()
	c.applyAdvertised()
	it := &item{examined: new(examined)}
	for {
		for c.stalled() {
			c.unread.Wait()
		}
		if c.closing || c.dead {
			return nil, false
		}
		n, ferr := c.in.next(it, b)
		if it.kind == blockItem && n > 0 {
			c.mu.Unlock()
			c.examine(it) // which asks the matchers
			c.lock()
		}
		cerr := it.fault
		switch {
		case c.closing || c.dead:
			return nil, false
		case ferr != nil:
			cerr = &ferr.ConnError
		case n == 0:
			return b, true
		case cerr == nil:
			cerr = c.take(it)
			c.settle()
		}
		if it.kind == blockItem {
			c.shrink()
		}
		if cerr != nil {
			c.fail(cerr)
			return nil, false
		}
		b = b[n:]
	}
}

// stalled reports whether so much waits to be read by a server, or by the client, that nothing more is read from the
// client.
func (c *conn) stalled() bool {
	if c.closing || c.dead {
		return false
	}
	if len(c.out) > 2*maxOut {
		return true
	}
	for _, v := range c.joined {
		if v.in.len() > maxUnread {
			v.writable.Broadcast() // see mustWait
			return true
		}
	}
	return false
}

// clientEnded ends what the servers read. A client that has ended its side may still read, but neither net/http nor
// grpc-go go on with a connection then: they close it, and when all have the connection ends.
func (c *conn) clientEnded(err error) {
	c.lock()
	defer c.mu.Unlock()
	if c.closing || c.dead {
		return
	}
	c.ended = true
	for _, v := range slices.Clone(c.joined) {
		// A server that has not accepted its side will not close it.
		if v.target.queue.Remove(func(q *Conn) bool { return q == v }) != nil {
			v.close()
		}
	}
	switch {
	case c.closing || c.dead:
	case !errors.Is(err, io.EOF):
		c.kill()
	case len(c.joined) == 0:
		c.close(lingerTime)
	default:
		c.wakeAll()
	}
}

// fail ends the connection with a connection error (RFC 9113, Section 5.4.1). The caller holds mu.
func (c *conn) fail(err *h2.ConnError) {
	if c.closing || c.dead {
		return
	}
	c.ends(err)
	c.end(err.Code, err.Reason)
}

// end sends GOAWAY and closes the connection when that is written. Requests that no server has begun to read are reset
// with REFUSED_STREAM first, after which a client may try them again (RFC 9113, Section 8.7). Nothing comes behind
// GOAWAY: to a client of gRPC, streams that are open when the connection closes are UNAVAILABLE, those that are reset
// INTERNAL.
func (c *conn) end(code http2.ErrCode, debug string) {
	for _, s := range c.streams {
		if !s.begun() && !s.removed {
			c.out = h2.AppendRSTStream(c.out, s.id, http2.ErrCodeRefusedStream)
		}
	}
	c.out = h2.AppendGoAway(c.out, min(c.lastID, c.maxID), code, debug)
	c.goAway = true
	patience := lingerTime // for a client that is at fault, or refused
	if code == http2.ErrCodeNo && c.served {
		patience = c.d.Limits.WriteTimeout
	}
	c.close(patience)
}

// close closes the connection when what is in out is written, or after some time. The caller holds mu.
func (c *conn) close(patience time.Duration) {
	c.closing = true
	c.sock.SetWriteDeadline(time.Now().Add(patience))
	c.drop()
	c.wakeAll()
}

// attached ends the waiting for a first server.
func (c *conn) attached() {
	if c.alone != nil {
		c.alone.Stop()
		c.alone = nil
	}
}

// settle ends the connection when nothing is left to do on it.
func (c *conn) settle() {
	if c.finish && len(c.streams) == 0 && c.mode == splitting && !c.closing && !c.dead && c.rawFrom == nil {
		c.end(http2.ErrCodeNo, "")
	}
}

// lingerTime is how long a client that is at fault, or refused, is given to take what is written last.
const lingerTime = time.Second

// dismiss ends a connection that no server has accepted.
func (c *conn) dismiss(why error) {
	c.lock()
	defer c.mu.Unlock()
	if !c.served && len(c.joined) == 0 && !c.closing && !c.dead {
		c.why = why
		c.end(http2.ErrCodeNo, why.Error())
	}
}

// accepted notes that a server has accepted its side.
func (c *conn) accepted() {
	c.lock()
	defer c.mu.Unlock()
	if !c.served && !c.dead {
		c.served = true
		c.countShared(1)
		c.owner.Accepted()
	}
}

// countShared counts a connection that has a server and is split.
func (c *conn) countShared(n int64) {
	if !c.served || c.mode != splitting {
		return
	}
	c.d.shared.Add(n)
	if n > 0 {
		c.d.split.Add(1)
	}
}

// ends notes why the connection ends, if that is not known yet. The caller holds mu.
func (c *conn) ends(why error) {
	if c.why == nil {
		c.why = why
	}
}

// take takes an item of the client's.
func (c *conn) take(it *item) *h2.ConnError {
	switch it.kind {
	case dataItem:
		return c.takeData(it)
	case blockItem:
		if it.opens {
			return c.newRequest(it)
		}
		return c.takeTrailers(it)
	case skipItem:
		if it.first {
			return c.spendControl()
		}
		return nil
	}

	if c.skip.frame(it) {
		return nil
	}
	switch it.Type {
	case http2.FrameSettings:
		if it.ack() {
			c.takeACK()
			return nil
		}
		return c.takeSettings(it)
	case http2.FramePing:
		if it.ack() {
			if !c.takeDrainACK(it) {
				c.takePingACK(it)
			}
			return nil
		}
		c.emit(h2.AppendPingACK(c.out, [8]byte(it.payload)))
		return c.spendControl()
	case http2.FrameWindowUpdate:
		return c.takeWindowUpdate(it)
	case http2.FrameRSTStream:
		return c.takeReset(it)
	case http2.FrameGoAway:
		for _, v := range c.joined {
			v.push(h2.AppendFrame(v.in.room(), it.Type, 0, 0, it.payload))
		}
		return nil
	case http2.FramePriority:
		if s := c.streams.find(it.StreamID); s != nil {
			s.server.pass(it)
		} else if cerr := h2.CheckIdlePriority(it.FrameHeader, it.payload); cerr != nil {
			return cerr
		}
	case http2.FramePriorityUpdate:
		if len(it.payload) >= 4 {
			if s := c.streams.find(it.value()); s != nil {
				s.server.pass(it)
			}
		}
	}
	return c.spendControl()
}

// pass has the server read a frame as it is.
func (v *Conn) pass(it *item) {
	if !v.closed {
		v.push(h2.AppendFrame(v.in.room(), it.Type, it.Flags, it.StreamID, it.payload))
	}
}

// idle reports whether nobody has opened the stream yet (RFC 9113, Section 5.1).
func (c *conn) idle(id uint32) bool { return id > c.maxID || id%2 == 0 }

func idleError(it *item) *h2.ConnError {
	return h2.ProtocolError(it.Type.String() + " frame on an idle stream")
}

func (c *conn) takeData(it *item) *h2.ConnError {
	if it.first {
		n := int64(it.Length)
		if c.upload.credit -= n; c.upload.credit < 0 && n > 0 {
			// RFC 9113, Section 6.9.1.
			return h2.FlowControlError("more DATA than the connection's window allows")
		}
		c.refund(n - int64(c.in.left+len(it.payload))) // padding
		if n == 0 && !it.endStream() {
			if cerr := c.spendControl(); cerr != nil {
				return cerr
			}
		}
		var cerr *h2.ConnError
		if c.cur, cerr = c.dataStream(it); cerr != nil {
			return cerr
		}
	}
	c.begun = int64(c.in.left)
	s := c.cur
	if s == nil || s.removed {
		c.refund(int64(len(it.payload)))
		return nil
	}
	end := it.last && it.endStream()
	if end {
		s.clientEnded = true
	}
	if len(it.payload) > 0 || end {
		c.uploaded(s, it.payload, end)
		if !end && it.first {
			c.topUpIfLow(s)
		}
	}
	if end {
		c.endIfDone(s)
	}
	return nil
}

// dataStream finds the stream of a DATA frame, which is nil if the frame is to be ignored.
func (c *conn) dataStream(it *item) (*stream, *h2.ConnError) {
	s := c.streams.find(it.StreamID)
	if s == nil {
		if c.idle(it.StreamID) {
			return nil, idleError(it)
		}
		if why, ok := c.gone.find(it.StreamID); ok && why != byServer {
			// RFC 9113, Section 5.1: the client has closed the stream itself.
			c.emit(h2.AppendRSTStream(c.out, it.StreamID, http2.ErrCodeStreamClosed))
			return nil, c.spendReset()
		}
		return nil, nil
	}
	if s.clientEnded {
		c.reset(s, http2.ErrCodeStreamClosed)
		return nil, c.spendReset()
	}
	if s.toClient -= int64(it.Length); s.toClient+c.unackedWindow() < 0 && it.Length > 0 {
		return nil, h2.FlowControlError("more DATA than the stream's window allows")
	}
	return s, nil
}

// unackedWindow returns by how much the client may go beyond its windows because of SETTINGS that it has not
// acknowledged. It applies them first, and may send DATA before the acknowledgement: net/http's client has one
// goroutine for each.
func (c *conn) unackedWindow() (most int64) {
	for _, f := range c.toClient {
		if f.hasWindow {
			most = max(most, f.window-c.window)
		}
	}
	return most
}

// reset resets a stream towards both sides.
func (c *conn) reset(s *stream, code http2.ErrCode) {
	v := s.server
	if !v.closed {
		v.push(h2.AppendRSTStream(v.in.room(), s.id, http2.ErrCodeCancel))
	}
	c.emit(h2.AppendRSTStream(c.out, s.id, code))
	c.remove(s, byServer)
}

// refuse answers a request that no server gets.
func (c *conn) refuse(it *item) {
	c.d.refused.Add(1)
	c.gone.add(it.StreamID, byServer)
	c.emit(h2.AppendRSTStream(c.out, it.StreamID, http2.ErrCodeRefusedStream))
}

// notFound answers a request that is for no server.
func (c *conn) notFound(it *item) {
	c.d.notFound.Add(1)
	c.ends(ErrUnmatched)
	c.answer(it, []hpack.HeaderField{{Name: ":status", Value: "404"}, {Name: "content-length", Value: "0"}})
}

// tooLarge answers a request whose header list is too large (RFC 6585, Section 5).
func (c *conn) tooLarge(it *item) {
	if it.grpc {
		c.answer(it, grpcStatus(false, grpcResourceExhausted, "header list too large"))
	} else {
		c.answer(it, []hpack.HeaderField{{Name: ":status", Value: "431"}, {Name: "content-length", Value: "0"}})
	}
}

// answer answers a request in the place of a server, which it can before the end of the request (RFC 9113, Section
// 8.1).
func (c *conn) answer(it *item, fields []hpack.HeaderField) {
	c.gone.add(it.StreamID, byServer)
	block := c.enc.encode(fields)
	c.emit(h2.AppendHeaders(c.out, it.StreamID, true, nil, block, h2.DefaultMaxFrameSize))
	if !it.endStream() {
		c.emit(h2.AppendRSTStream(c.out, it.StreamID, http2.ErrCodeNo))
	}
}

// newRequest opens a stream.
func (c *conn) newRequest(it *item) *h2.ConnError {
	id, target, before := it.StreamID, it.target, c.maxID
	c.maxID = id
	if c.alone != nil {
		c.alone.Reset(c.d.Limits.IdleTimeout)
	}
	switch {
	case len(c.streams) >= c.most:
		// Bare servers refuse any number of these, too, but the client knows better (RFC 9113, Section 5.1.2).
		c.refuse(it)
		return c.spendControl()
	case id > c.lastID || len(c.streams) >= c.d.Limits.MaxStreams:
		c.refuse(it)
		return nil
	case it.large:
		c.tooLarge(it)
		return nil
	case target == NotFound:
		c.notFound(it)
		return nil
	case target < 0 || target >= len(c.servers):
		c.refuse(it)
		return nil
	}
	v := c.servers[target]
	if v == nil {
		c.maxID = before // until a server has it
		v = c.joinServer(id, target)
		c.maxID = id
		switch {
		case c.closing || c.dead:
			return nil
		case v == nil:
			c.refuse(it)
			return nil
		}
	}
	if id > v.lastID || v.open >= int(min(v.maxStreams, h2.MaxStreamID)) {
		c.refuse(it)
		return nil
	}
	if v.maxList != 0 && it.size > int(v.maxList) {
		c.tooLarge(it) // to net/http it can be a connection error
		return nil
	}
	s := c.newStream(id, v, it.endStream(), now())
	s.grpc = it.grpc
	s.requestAt = v.uploadServer.read + int64(v.in.len())
	v.push(h2.AppendHeaders(v.in.room(), id, it.endStream(), it.priority, v.enc.encode(it.fields), v.maxFrame))
	if !s.clientEnded {
		c.topUpIfLow(s)
	}
	return nil
}

// joinServer has the server of a target join the connection for a request. It returns nil if that has no place for it,
// or if the connection has ended, or was drained, meanwhile: the owner is told without mu.
func (c *conn) joinServer(id uint32, target int) *Conn {
	queue := &c.d.all()[target].queue
	if !queue.Reserve(c.d.Limits.QueueLength) {
		return nil
	}
	c.mu.Unlock()
	c.owner.Joined(target)
	c.lock()
	if c.closing || c.dead || id > c.lastID {
		queue.Unreserve()
		return nil
	}
	v := c.newServer(target)
	v.join()
	if !v.target.push(v, &c.d.Limits) {
		v.closed = true
		c.part(v)
		return nil
	}
	c.attached()
	return v
}

// takeTrailers takes a header block on a stream that is not new.
func (c *conn) takeTrailers(it *item) *h2.ConnError {
	s := c.streams.find(it.StreamID)
	if s == nil {
		switch why, ok := c.gone.find(it.StreamID); {
		case !ok && (!it.endStream() || slices.ContainsFunc(it.fields, hpack.HeaderField.IsPseudo)):
			// RFC 9113, Section 5.1.1. Trailers can be those of a stream that is forgotten.
			return h2.ProtocolError("HEADERS frame on a stream that cannot be opened any more")
		case !ok || why == byServer:
			return nil
		}
		return &h2.ConnError{Code: http2.ErrCodeStreamClosed, Reason: "HEADERS frame on a closed stream"} // RFC 9113, Section 5.1
	}
	if s.clientEnded {
		c.reset(s, http2.ErrCodeStreamClosed)
		return c.spendReset()
	}
	if !it.endStream() {
		c.reset(s, http2.ErrCodeProtocol) // RFC 9113, Section 8.1
		return c.spendReset()
	}
	if it.large || s.server.maxList != 0 && it.size > int(s.server.maxList) {
		c.reset(s, http2.ErrCodeEnhanceYourCalm)
		return c.spendReset()
	}
	s.clientEnded = true
	c.uploadedTrailers(s, it.fields, it.size)
	c.endIfDone(s)
	return nil
}

func (c *conn) takeReset(it *item) *h2.ConnError {
	s := c.streams.find(it.StreamID)
	if s == nil {
		if c.idle(it.StreamID) {
			return idleError(it)
		}
		if c.gone.reset(it.StreamID) {
			return nil // it has crossed the end of the stream
		}
		return c.spendControl()
	}
	if !s.resetQueued {
		s.server.pass(it)
	}
	return c.resetByClient(s)
}

func (c *conn) takeWindowUpdate(it *item) *h2.ConnError {
	if it.StreamID == 0 {
		cerr := c.download.grow(int64(it.value()))
		c.wake.Broadcast()
		return cerr
	}
	s := c.streams.find(it.StreamID)
	switch {
	case s == nil && c.idle(it.StreamID):
		return idleError(it)
	case s == nil:
		return nil
	case !s.resetQueued:
		s.server.pass(it)
	}
	c.grow(s, int64(it.value()))
	return nil
}

// takeSettings has all servers obey the client's settings, and acknowledges them when they have.
func (c *conn) takeSettings(it *item) *h2.ConnError {
	if cerr := h2.CheckSettings(it.payload); cerr != nil {
		return cerr
	}
	if len(c.fromClient) >= maxUnacknowledged {
		return h2.EnhanceYourCalm("too many SETTINGS frames that are not acknowledged")
	}
	forbidPush(it.payload)
	f := c.noteSettings(it.payload)
	for _, v := range c.joined {
		v.dec.allow(c.setting(http2.SettingHeaderTableSize, h2.DefaultTableSize))
		if v.leaving && v.open == 0 {
			continue // it needs none any more, and may not acknowledge them
		}
		f.waiting++
		v.next.add(f, it.payload)
		v.passSettings()
	}
	c.acknowledge()
	return c.spendControl()
}

// maxUnacknowledged is how many SETTINGS frames of a client can wait for servers to acknowledge them. The servers may
// not because they wait for the client to read.
const maxUnacknowledged = 1000

// nextSettings are frames of the client that wait for a server, as one.
type nextSettings struct {
	frames []*clientFrame
	values []http2.Setting
}

func (n *nextSettings) add(f *clientFrame, payload []byte) {
	n.frames = append(n.frames, f)
	n.values = h2.MergeSettings(n.values, payload)
}

// passSettings has a server obey what has waited, if it has acknowledged what went before: net/http acknowledges
// several SETTINGS frames that it finds at once only once.
func (v *Conn) passSettings() {
	if len(v.owes) > 0 || len(v.next.frames) == 0 {
		return
	}
	v.push(h2.AppendSettings(v.in.room(), v.next.values...))
	v.owes, v.next = v.next.frames, nextSettings{}
}

// acknowledge acknowledges the client's SETTINGS frames that all servers have.
func (c *conn) acknowledge() {
	for len(c.fromClient) > 0 && c.fromClient[0].waiting == 0 {
		f := c.fromClient[0]
		c.fromClient = c.fromClient[1:]
		c.ackedWindow = f.window
		c.updateWindows()
		if f.tableSize != c.tableSize {
			c.tableSize = f.tableSize
			c.enc.limit(f.tableSize)
		}
		c.emit(h2.AppendSettingsACK(c.out))
	}
}

// takeACK takes the client's acknowledgement of SETTINGS.
func (c *conn) takeACK() {
	f := c.acknowledged()
	if f == nil {
		return // of nothing; to some servers that is an error, and harmless
	}
	if v := f.server; v != nil && !v.closed {
		v.push(h2.AppendSettingsACK(v.in.room()))
		if !slices.ContainsFunc(c.toClient, func(f *serverFrame) bool { return f.server == v }) {
			for _, payload := range v.late {
				if err := v.takeSettings(payload); err != nil {
					v.logServerFault(err)
					v.close()
					break
				}
			}
			v.late = nil
		}
	}
	for _, s := range c.streams {
		c.topUpIfLow(s)
	}
}

// takePingACK hands the answer to a PING frame to the server that has asked.
func (c *conn) takePingACK(it *item) {
	payload := [8]byte(it.payload)
	v := c.pass
	if asked, ok := c.pings.answered(payload); ok {
		v, payload = asked.server, asked.payload
	} else if c.asked > 0 {
		c.asked--
	} else {
		return
	}
	if !v.closed {
		v.push(h2.AppendPingACK(v.in.room(), payload))
	}
}

// split takes the frames that a server writes.
func (v *Conn) split(b []byte) error {
	if len(v.held) > 0 {
		v.held = append(v.held, b...)
		b = v.held
	}
	it := new(item)
	for {
		raw := v.c.rawFrom == v
		n, ferr := v.out.next(it, b)
		if ferr != nil {
			return &ferr.ConnError
		}
		if n == 0 {
			break
		}
		if raw {
			v.c.raw = append(v.c.raw, b[:n]...)
			if !v.out.inFrame() {
				v.c.rawFrom = nil
			}
			v.c.wake.Broadcast()
		} else if err := v.take(it); err != nil {
			return err
		}
		b = b[n:]
	}
	v.hold(b)
	return nil
}

// stream finds a stream of the server's that is open.
func (v *Conn) stream(id uint32) *stream {
	if s := v.c.streams.find(id); s != nil && s.server == v && !s.serverEnded && !s.resetQueued {
		return s
	}
	return nil
}

// take takes an item of the server's.
func (v *Conn) take(it *item) error {
	c := v.c
	switch it.kind {
	case dataItem:
		return v.takeData(it)
	case blockItem:
		fields, _, cerr := v.dec.decode(it.payload)
		switch {
		case cerr != nil:
			return cerr
		case v.dec.tooLarge():
			return errors.New("header list too large")
		}
		s := v.stream(it.StreamID)
		if s != nil && !s.answered {
			s.answered = true
			c.resets.forgive()
		}
		switch {
		case s == nil:
		case len(s.queue) > 0:
			c.enqueue(s, queued{block: true, fields: slices.Clone(fields), end: it.endStream()})
		default:
			c.emitBlock(s, fields, it.endStream())
		}
		v.out.shrink()
		v.dec.shrink()
		c.enc.shrink()
		return nil
	case skipItem:
		return nil
	}

	switch it.Type {
	case http2.FrameSettings:
		if it.ack() {
			v.takeACK()
			return nil
		}
		if slices.ContainsFunc(c.toClient, func(f *serverFrame) bool { return f.server == v }) {
			v.late = append(v.late, slices.Clone(it.payload)) // what was sent first applies first
			return nil
		}
		return v.takeSettings(it.payload)
	case http2.FramePing:
		v.takePing(it)
	case http2.FrameWindowUpdate:
		n := int64(it.value())
		if it.StreamID == 0 {
			v.uploadServer.credit += n
			c.pumpUploads(v)
		} else if s := c.streams.find(it.StreamID); s != nil && s.server == v {
			s.toServer += n
			c.pumpUploads(v)
			c.topUp(s)
		}
	case http2.FrameRSTStream:
		if s := c.streams.find(it.StreamID); s != nil && s.server == v {
			c.resetByServer(s, it.code())
		}
	case http2.FrameGoAway:
		v.takeGoAway(it)
	}
	return nil
}

func (v *Conn) takeData(it *item) error {
	c := v.c
	if it.first {
		if v.downloadServer.credit -= int64(it.Length); v.downloadServer.credit < 0 {
			return fmt.Errorf("it has sent more DATA than its window allows")
		}
		v.cur = v.stream(it.StreamID)
		if padding := int64(it.Length) - int64(v.out.left+len(it.payload)); padding > 0 {
			// The client does not get it, so it gives no credit for it.
			v.sent(padding)
			if v.cur != nil && !it.endStream() {
				v.push(h2.AppendWindowUpdate(v.in.room(), it.StreamID, uint32(padding)))
			}
		}
	}
	s := v.cur
	if s == nil || s.removed || s.resetQueued {
		v.sent(int64(len(it.payload)))
		return nil
	}
	if end := it.last && it.endStream(); len(it.payload) > 0 || end {
		c.downloaded(s, it.payload, end)
	}
	return nil
}

// takeACK takes the server's acknowledgement of the client's SETTINGS: of one frame, or of all that had passed through
// to it before the split.
func (v *Conn) takeACK() {
	v.acknowledgeAll()
	v.passSettings()
	v.c.acknowledge()
}

// acknowledgeAll acknowledges what the server owes.
func (v *Conn) acknowledgeAll() {
	for _, f := range v.owes {
		if f != nil {
			f.waiting--
		}
	}
	v.owes = nil
}

// takeSettings obeys the settings of a server, and sends the client what it has to know of them. Where servers differ
// it is sent the least.
func (v *Conn) takeSettings(payload []byte) error {
	c := v.c
	if cerr := h2.CheckSettings(payload); cerr != nil {
		return cerr
	}
	window := v.window
	for s := range h2.Settings(payload) {
		if s.ID == http2.SettingInitialWindowSize {
			window = int64(s.Val)
		}
		v.noteSetting(s.ID, s.Val)
	}
	v.setWindow(window)
	v.push(h2.AppendSettingsACK(v.in.room()))
	c.pumpUploads(v)
	for _, s := range c.streams {
		if s.server == v {
			c.topUpIfLow(s)
		}
	}

	least := uint32(min(c.d.Limits.MaxStreams, h2.MaxStreamID))
	maxList := uint32(min(int64(c.d.Limits.MaxHeaderListBytes), math.MaxUint32))
	for _, v := range c.servers {
		if v != nil {
			least = min(least, v.maxStreams)
			if v.maxList != 0 {
				maxList = min(maxList, v.maxList)
			}
		}
	}
	var list []http2.Setting
	if least != c.advertised.maxStreams {
		list = append(list, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: least})
	}
	if maxList < c.advertised.maxList || c.advertised.maxList == 0 {
		list = append(list, http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxList})
	}
	if v.window < int64(c.advertised.window) {
		list = append(list, http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(v.window)})
	}
	if v.connect && !c.advertised.connect {
		list = append(list, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}) // RFC 8441, 3
	}
	if len(list) == 0 || c.closing {
		return nil
	}
	f := &serverFrame{}
	for _, s := range list {
		c.noteAdvertised(f, s.ID, s.Val)
	}
	c.sentToClient(f)
	c.emit(h2.AppendSettings(c.out, list...))
	return nil
}

// takePing asks the client in the server's place, or passes on the answer to what the client had asked before the
// split.
func (v *Conn) takePing(it *item) {
	c := v.c
	payload := [8]byte(it.payload)
	if it.ack() {
		if v == c.pass && c.rawPings > 0 {
			c.rawPings--
			c.emit(h2.AppendPingACK(c.out, payload))
		}
		return
	}
	if token, ok := c.pings.ask(v, payload); ok {
		c.emit(h2.AppendPing(c.out, token))
	}
}

// takeGoAway takes the announcement of a server that it takes no more streams. Streams that it has not taken are reset,
// and what else it means depends on why:
//
//   - NO_ERROR from a server without a stream, while others are there and it accepts connections, is its idle timeout. The
//     next request for it gets a new connection; the client has nothing to do with that.
//   - NO_ERROR else: the server is shut down or wants the client to connect again. The client is told, and goes elsewhere
//     with new requests; those for other servers that it makes meanwhile are served.
//   - INTERNAL_ERROR is the server's own fault. The next request for it gets a new connection, too.
//   - All others blame the client, which is told, and no request is taken any more. Streams come to their end.
func (v *Conn) takeGoAway(it *item) {
	c := v.c
	first := !v.leaving
	v.leaving = true
	v.lastID = min(v.lastID, it.value())
	code := http2.ErrCode(binary.BigEndian.Uint32(it.payload[4:]))
	for _, s := range slices.Clone(c.streams) {
		if s.server == v && s.id > v.lastID {
			c.resetByServer(s, http2.ErrCodeRefusedStream)
		}
	}
	replaced := c.servers[v.target.index] != v
	switch {
	case code == http2.ErrCodeInternal,
		code == http2.ErrCodeNo && first && v.open == 0 && c.othersStay() && !v.target.IsClosed():
		if !replaced {
			c.servers[v.target.index] = nil
		}
		return
	case code != http2.ErrCodeNo:
		c.lastID = min(c.lastID, c.maxID)
		c.finish = true
	case c.goAway || replaced:
		return
	}
	c.goAway = true
	c.emit(h2.AppendGoAway(c.out, c.lastID, code, string(it.payload[8:])))
}

// othersStay reports whether a server is there that has not sent GOAWAY.
func (c *conn) othersStay() bool {
	return slices.ContainsFunc(c.joined, func(v *Conn) bool { return !v.leaving })
}

// resetByServer resets a stream whose server has reset it or is gone: behind what is queued on it, since a server may
// reset a stream with NO_ERROR when its answer is complete (RFC 9113, Section 8.1).
func (c *conn) resetByServer(s *stream, code http2.ErrCode) {
	switch {
	case s.resetQueued:
	case len(s.queue) == 0:
		c.emit(h2.AppendRSTStream(c.out, s.id, code))
		c.remove(s, byServer)
	default:
		c.enqueue(s, queued{reset: true, code: code})
		s.resetQueued = true
		s.server.open--
		c.dropHeld(s)
	}
}

// leave takes a server that has closed its side out of the connection. Its streams end as retryable as is true: those
// that it has not taken, or not read, are reset with REFUSED_STREAM; calls of gRPC end with UNAVAILABLE, as they would
// if the connection ended (RST_STREAM with any other code is INTERNAL to some clients, or says what is not true); all
// others are reset with the code. A server that closes without GOAWAY while the client owes it the answer to a PING has
// found the client to be gone, and the connection ends for all.
func (v *Conn) leave(code http2.ErrCode) {
	c := v.c
	switch {
	case c.closing || c.dead:
		return
	case c.rawFrom == v || c.writer == v:
		c.kill() // in the middle of a frame, or of a Write, which must return
		return
	case !v.leaving && v.clientSilent():
		c.kill()
		return
	}
	maps.DeleteFunc(c.pings.sent, func(_ [8]byte, p ping) bool { return p.server == v })
	v.acknowledgeAll()
	v.owes, v.next = v.next.frames, nextSettings{}
	v.acknowledgeAll()
	c.acknowledge()
	if c.ended {
		// Nothing can be sent any more that the client gives no credit for, and bare servers drop the rest of it, too.
		for _, s := range slices.Clone(c.streams) {
			if s.server == v {
				c.remove(s, byServer)
			}
		}
		if len(c.joined) == 0 {
			c.close(lingerTime)
		}
		return
	}
	for _, s := range slices.Clone(c.streams) {
		if s.server != v {
			continue
		}
		switch {
		case s.id > v.lastID || !s.begun():
			c.resetByServer(s, http2.ErrCodeRefusedStream)
		case s.resetQueued:
		case s.serverEnded || s.endQueued():
			// RFC 9113, Section 8.1: the answer is complete, and the rest of the request is not needed.
			c.resetByServer(s, http2.ErrCodeNo)
		case s.grpc:
			c.cutOff(s)
		default:
			c.resetByServer(s, code)
		}
	}
	if len(c.joined) == 0 || c.goAway {
		c.finish = true
	}
	c.settle()
	if c.leftBehind() && !c.closing {
		c.stopPatience()
		c.patience = time.AfterFunc(c.d.Limits.IdleTimeout, func() {
			c.lock()
			defer c.mu.Unlock()
			if c.leftBehind() {
				c.kill() // no server is there that would lose patience
			}
		})
	}
}

// cutOff ends a call of gRPC whose server is gone.
func (c *conn) cutOff(s *stream) {
	fields := grpcStatus(s.answered, grpcUnavailable, "the server has closed the connection")
	if len(s.queue) > 0 {
		c.enqueue(s, queued{block: true, fields: fields, end: true})
	} else {
		c.emitBlock(s, fields, true)
	}
	if !s.removed {
		c.resetByServer(s, http2.ErrCodeNo) // RFC 9113, Section 8.1
	}
}

// leftBehind reports whether something waits to be sent whose server has closed its side.
func (c *conn) leftBehind() bool {
	if len(c.joined) == 0 {
		return true
	}
	for _, s := range c.streams {
		if s.server.closed {
			return true
		}
	}
	return false
}

func (c *conn) stopPatience() {
	if c.patience != nil {
		c.patience.Stop()
		c.patience = nil
	}
}

// endQueued reports whether the end of the answer is queued.
func (s *stream) endQueued() bool {
	return slices.ContainsFunc(s.queue, func(q queued) bool { return q.end })
}
