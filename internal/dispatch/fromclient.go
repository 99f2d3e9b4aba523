package dispatch

import (
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// What the client sends, in splitting.

// take takes an item of the client's.
func (c *conn) take(it *clientItem) *h2.ConnError {
	switch it.kind {
	case dataItem:
		return c.takeData(&it.item)
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

	if c.skip.frame(&it.item) {
		return nil
	}
	switch it.Type {
	case http2.FrameSettings:
		if it.ack() {
			c.takeACK()
			return nil
		}
		return c.takeSettings(&it.item)
	case http2.FramePing:
		if it.ack() {
			if !c.takeDrainACK(&it.item) {
				c.takePingACK(&it.item)
			}
			return nil
		}
		c.emit(h2.AppendPingACK(c.out, [8]byte(it.payload)))
		return c.spendControl()
	case http2.FrameWindowUpdate:
		return c.takeWindowUpdate(&it.item)
	case http2.FrameRSTStream:
		return c.takeReset(&it.item)
	case http2.FrameGoAway:
		for _, v := range c.joined {
			v.push(h2.AppendFrame(v.in.room(), it.Type, 0, 0, it.payload))
		}
		return nil
	case http2.FramePriority:
		if s := c.streams.find(it.StreamID); s != nil {
			s.server.pass(&it.item)
		} else if cerr := h2.CheckIdlePriority(it.FrameHeader, it.payload); cerr != nil {
			return cerr
		}
	case http2.FramePriorityUpdate:
		if len(it.payload) >= 4 {
			if s := c.streams.find(it.value()); s != nil {
				s.server.pass(&it.item)
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
func (c *conn) tooLarge(it *clientItem) {
	if it.grpc {
		c.answer(&it.item, grpcStatus(false, grpcResourceExhausted, "header list too large"))
	} else {
		c.answer(&it.item, []hpack.HeaderField{{Name: ":status", Value: "431"}, {Name: "content-length", Value: "0"}})
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
func (c *conn) newRequest(it *clientItem) *h2.ConnError {
	id, target, before := it.StreamID, it.target, c.maxID
	c.maxID = id
	if c.alone != nil {
		c.alone.Reset(c.d.Limits.IdleTimeout)
	}
	switch {
	case len(c.streams) >= c.most:
		// Bare servers refuse any number of these, too, but the client knows better (RFC 9113, Section 5.1.2).
		c.refuse(&it.item)
		return c.spendControl()
	case id > c.lastID || len(c.streams) >= c.d.Limits.MaxStreams:
		c.refuse(&it.item)
		return nil
	case it.large:
		c.tooLarge(it)
		return nil
	case target == NotFound:
		c.notFound(&it.item)
		return nil
	case target < 0 || target >= len(c.servers):
		c.refuse(&it.item)
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
			c.refuse(&it.item)
			return nil
		}
	}
	if id > v.lastID || v.open >= int(min(v.maxStreams, h2.MaxStreamID)) {
		c.refuse(&it.item)
		return nil
	}
	if v.maxList != 0 && it.size > int(v.maxList) {
		c.tooLarge(it) // to net/http it can be a connection error
		return nil
	}
	s := c.newStream(v, streamState{id: id, opened: now(), grpc: it.grpc, clientEnded: it.endStream()})
	v.target.requests.Add(1)
	s.requestAt = v.uploadServer.read + int64(v.in.len())
	var priority []byte
	if it.prioritized {
		priority = it.priority[:]
	}
	v.push(h2.AppendHeaders(v.in.room(), id, it.endStream(), priority, v.enc.recode(it.headerList), v.maxFrame))
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
func (c *conn) takeTrailers(it *clientItem) *h2.ConnError {
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
	c.uploadedTrailers(s, it.headerList)
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
		f := c.acknowledgedByServers()
		if f.tableSize != c.tableSize {
			c.tableSize = f.tableSize
			c.enc.limit(f.tableSize)
		}
		c.emit(h2.AppendSettingsACK(c.out))
	}
}

// takeACK takes the client's acknowledgement of SETTINGS.
func (c *conn) takeACK() {
	if len(c.toClient) == 0 {
		return // of nothing; to some servers that is an error, and harmless
	}
	if v := c.acknowledged(); v != nil && !v.closed {
		v.push(h2.AppendSettingsACK(v.in.room()))
		if !v.awaitsACK() {
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
