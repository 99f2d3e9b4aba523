package dispatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// What the servers send, in splitting.

// takeFrames takes the frames that a server writes.
func (v *Conn) takeFrames(b []byte) error {
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
		l, cerr := v.dec.decode(it.payload)
		switch {
		case cerr != nil:
			return cerr
		case l.large:
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
			c.enqueue(s, queued{block: true, fields: slices.Clone(l.fields), end: it.endStream()})
		default:
			c.emitBlock(s, c.enc.recode(l), it.endStream())
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
		if v.awaitsACK() {
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
	v.owes, v.first[0] = nil, nil
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
	var f serverFrame
	for _, s := range list {
		c.noteAdvertised(&f, s.ID, s.Val)
	}
	c.sentToClient(f)
	c.emit(h2.AppendSettings(c.out, list...))
	return nil
}

// awaitsACK reports whether a SETTINGS frame of the server passed through that the client has not acknowledged.
func (v *Conn) awaitsACK() bool {
	return slices.ContainsFunc(v.c.toClient, func(f serverFrame) bool { return f.server == v })
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
