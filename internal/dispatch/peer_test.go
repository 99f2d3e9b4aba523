package dispatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// A peer is one end of an HTTP/2 connection.
type peer struct {
	t      *testing.T
	name   string
	server bool
	conn   net.Conn
	rng    *rand.Rand
	fr     *http2.Framer // reads
	behave behaviour
	onRead func()        // after each frame
	halt   chan struct{} // if not nil, nothing more is read until it is closed

	mu       sync.Mutex
	cond     sync.Cond
	out      bytes.Buffer // written by writeLoop
	fw       *http2.Framer
	enc      *hpack.Encoder
	encBuf   bytes.Buffer
	streams  map[uint32]*peerStream
	order    []uint32
	maxFrame int   // what the other end takes
	window   int64 // its SETTINGS_INITIAL_WINDOW_SIZE
	credit   int64 // to send on the connection
	given    int64 // to the other end, for the connection
	lastID   uint32
	closed   bool
	goAway   bool
	lastGood uint32  // the last stream that the GOAWAY says is taken
	toAck    int     // SETTINGS frames that are to be acknowledged, later
	drains   bool    // the server takes no more streams, and closes when it has none
	settings []int64 // SETTINGS_INITIAL_WINDOW_SIZE in frames that are not acknowledged, -1 for none
	initial  int64   // the one in force
	pings    int
	done     int
	stall    bool // no credit is given until it is false
	polite   bool // the client opens no stream after GOAWAY
}

type behaviour struct {
	initial    int64 // SETTINGS_INITIAL_WINDOW_SIZE
	conn       int64 // the connection's window
	frame      int   // SETTINGS_MAX_FRAME_SIZE
	table      int   // SETTINGS_HEADER_TABLE_SIZE, -1 for none
	noise      int   // one in so many frames sent is PING, PRIORITY, SETTINGS or of unknown type; 0 for never
	pad        bool
	slow       bool // gives credit late
	chunk      int  // the largest Write, and Read
	settle     bool // changes SETTINGS_INITIAL_WINDOW_SIZE as it goes
	lateACK    bool // acknowledges SETTINGS late, and a server several at once
	neverACK   bool // never acknowledges SETTINGS
	maxStreams uint32
	first      bool // writes its SETTINGS before it reads anything
}

// setNothing has a server begin as those of gRPC do, with SETTINGS that change nothing.
func (b *behaviour) setNothing() {
	b.initial, b.frame, b.table, b.maxStreams, b.first = h2.DefaultWindow, h2.DefaultMaxFrameSize, -1, 0, true
}

type peerStream struct {
	plan
	received, sent           int
	credit, given            int64
	headersSent              bool
	headers, trailers, hints int
	status                   string
	recvEnd, sendEnd, reset  bool
	gotReset                 http2.ErrCode
	wasReset                 bool
	consumed                 int64 // not given back yet
	completed                bool
}

func newPeer(t *testing.T, name string, server bool, conn net.Conn, seed uint64, b behaviour) *peer {
	p := &peer{
		t: t, name: name, server: server, conn: conn, behave: b,
		rng:      rand.New(rand.NewPCG(seed, 1)),
		streams:  make(map[uint32]*peerStream),
		maxFrame: h2.DefaultMaxFrameSize, window: h2.DefaultWindow, credit: h2.DefaultWindow, given: h2.DefaultWindow, initial: h2.DefaultWindow,
	}
	p.cond.L = &p.mu
	p.fw = http2.NewFramer(&p.out, nil)
	p.fw.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.encBuf)
	var r io.Reader = conn
	if b.chunk > 0 {
		r = &chunkReader{conn, rand.New(rand.NewPCG(seed, 2)), b.chunk}
	}
	p.fr = http2.NewFramer(nil, r)
	p.fr.SetMaxReadFrameSize(uint32(b.frame))
	p.fr.ReadMetaHeaders = hpack.NewDecoder(uint32(max(b.table, 4096)), nil)
	p.fr.MaxHeaderListSize = 1 << 20
	return p
}

type chunkReader struct {
	r   io.Reader
	rng *rand.Rand
	max int
}

func (c *chunkReader) Read(p []byte) (int, error) {
	return c.r.Read(p[:min(len(p), 1+c.rng.IntN(c.max))])
}

// start sends the preface.
func (p *peer) start() {
	p.writePreface()
	if p.behave.first {
		p.conn.Write(p.out.Bytes())
		p.out.Reset()
	}
}

func (p *peer) writePreface() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.server {
		p.out.WriteString(http2.ClientPreface)
	}
	s := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: uint32(p.behave.initial)}, {ID: http2.SettingMaxFrameSize, Val: uint32(p.behave.frame)}}
	if p.behave.table >= 0 {
		s = append(s, http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(p.behave.table)})
	}
	if p.behave.maxStreams > 0 {
		s = append(s, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: p.behave.maxStreams})
	}
	p.fw.WriteSettings(s...)
	p.settings = append(p.settings, p.behave.initial)
	if more := p.behave.conn - p.given; more > 0 {
		p.fw.WriteWindowUpdate(0, uint32(more))
		p.given += more
	}
}

func (p *peer) errorf(format string, args ...any) {
	p.t.Helper()
	p.t.Errorf(p.name+": "+format, args...)
}

// writeLoop writes what is in out, in pieces.
func (p *peer) writeLoop() {
	for {
		p.mu.Lock()
		for p.out.Len() == 0 && !p.closed {
			p.cond.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		n := p.out.Len()
		if p.behave.chunk > 0 {
			n = min(n, 1+p.rng.IntN(p.behave.chunk))
		}
		b := bytes.Clone(p.out.Next(n))
		p.cond.Broadcast()
		p.mu.Unlock()
		if _, err := p.conn.Write(b); err != nil {
			p.close()
			return
		}
	}
}

func (p *peer) close() {
	p.mu.Lock()
	p.closed = true
	p.cond.Broadcast()
	p.mu.Unlock()
	p.conn.Close()
}

// readLoop reads frames, checks and answers them.
func (p *peer) readLoop() {
	defer p.close()
	if p.server {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(p.conn, preface); err != nil || string(preface) != http2.ClientPreface {
			if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
				p.errorf("preface %q, %v", preface, err)
			}
			return
		}
	}
	for {
		p.mu.Lock()
		halt := p.halt
		p.mu.Unlock()
		if halt != nil {
			<-halt
		}
		f, err := p.fr.ReadFrame()
		if err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			if !p.closed && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
				p.errorf("reading: %v, %v", err, p.fr.ErrorDetail())
			}
			return
		}
		p.mu.Lock()
		p.take(f)
		p.cond.Broadcast()
		p.mu.Unlock()
		if p.onRead != nil {
			p.onRead()
		}
	}
}

func (p *peer) take(f http2.Frame) {
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			if len(p.settings) == 0 {
				p.errorf("SETTINGS ACK of nothing")
				return
			}
			if w := p.settings[0]; w >= 0 {
				for _, s := range p.streams {
					s.given += w - p.initial
				}
				p.initial = w
			}
			p.settings = p.settings[1:]
			return
		}
		f.ForeachSetting(func(s http2.Setting) error {
			switch s.ID {
			case http2.SettingInitialWindowSize:
				for _, st := range p.streams {
					st.credit += int64(s.Val) - p.window
				}
				p.window = int64(s.Val)
			case http2.SettingMaxFrameSize:
				p.maxFrame = int(s.Val)
			case http2.SettingHeaderTableSize:
				p.enc.SetMaxDynamicTableSizeLimit(s.Val)
				p.enc.SetMaxDynamicTableSize(min(s.Val, 8192))
			case http2.SettingEnablePush:
				if s.Val != 0 {
					p.errorf("SETTINGS_ENABLE_PUSH %d", s.Val)
				}
			}
			return nil
		})
		if p.toAck++; !p.behave.lateACK {
			p.acknowledge()
		}
	case *http2.PingFrame:
		if f.IsAck() {
			if p.pings--; p.pings < 0 {
				p.errorf("PING ACK of nothing")
			}
			if want := binary.BigEndian.Uint64(f.Data[:]); want>>32 != uint64(len(p.name)) {
				p.errorf("PING ACK with another's payload %x", f.Data)
			}
			return
		}
		p.fw.WritePing(true, f.Data)
	case *http2.WindowUpdateFrame:
		if id == 0 {
			p.credit += int64(f.Increment)
		} else if s := p.streams[id]; s != nil {
			s.credit += int64(f.Increment)
			if s.credit > h2.MaxWindow {
				p.errorf("stream %d: credit %d", id, s.credit)
			}
		} else if !p.drains {
			p.errorf("WINDOW_UPDATE for stream %d, which is not open", id)
		}
	case *http2.MetaHeadersFrame:
		p.takeHeaders(f)
	case *http2.DataFrame:
		n := int64(f.Length)
		if p.given -= n; p.given < 0 {
			p.errorf("stream %d: DATA exceeds the connection's credit by %d", id, -p.given)
		}
		s := p.streams[id]
		if s == nil {
			if !p.drains {
				p.errorf("DATA on stream %d, which is not open", id)
			} else if n > 0 {
				p.fw.WriteWindowUpdate(0, uint32(n))
				p.given += n
			}
			return
		}
		if !s.reset {
			// A frame without content needs no credit (RFC 9113, Section 6.9), of which a change of the settings may have left
			// less than none.
			if s.given -= n; n > 0 && s.given < 0 && len(p.settings) == 0 {
				p.errorf("stream %d: DATA exceeds the stream's credit by %d", id, -s.given)
			}
			if s.recvEnd {
				p.errorf("stream %d: DATA behind END_STREAM", id)
			}
			if want := fill(id, !p.server, s.received, len(f.Data())); !bytes.Equal(f.Data(), want) {
				p.errorf("stream %d: not what was sent, in the %d bytes from %d on", id, len(want), s.received)
			}
		}
		s.received += len(f.Data())
		s.recvEnd = s.recvEnd || f.StreamEnded()
		p.giveBack(s, n)
		p.progress(s)
	case *http2.RSTStreamFrame:
		s := p.streams[id]
		if s == nil {
			if !p.drains {
				p.errorf("RST_STREAM for stream %d, which is not open", id)
			}
			return
		}
		if !s.wasReset {
			s.wasReset, s.gotReset = true, f.ErrCode
		}
		p.progress(s)
	case *http2.GoAwayFrame:
		p.goAway, p.lastGood = true, f.LastStreamID
		if f.ErrCode != http2.ErrCodeNo {
			p.errorf("GOAWAY %v %q", f.ErrCode, f.DebugData())
		}
	case *http2.PriorityFrame:
	default:
		if typ := f.Header().Type; typ != 0xfa && (typ != http2.FramePriorityUpdate || !p.server) {
			p.errorf("unexpected %v", f)
		}
	}
}

// acknowledge acknowledges SETTINGS frames. A server does so with one frame, as net/http does.
func (p *peer) acknowledge() {
	if p.behave.neverACK {
		return
	}
	for ; p.toAck > 0; p.toAck-- {
		p.fw.WriteSettingsAck()
		if p.server {
			p.toAck = 1
		}
	}
}

func (p *peer) sawGoAway() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.goAway
}

// drain has a server take no more streams.
func (p *peer) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.drains && !p.closed {
		p.drains = true
		p.fw.WriteGoAway(p.lastID, http2.ErrCodeNo, nil)
		p.cond.Broadcast()
	}
}

// giveBack gives credit, at once or later.
func (p *peer) giveBack(s *peerStream, n int64) {
	s.consumed += n
	if p.stall || p.behave.slow && p.rng.IntN(8) != 0 {
		return
	}
	p.give(s)
}

func (p *peer) give(s *peerStream) {
	n := s.consumed
	if n == 0 {
		return
	}
	s.consumed = 0
	p.fw.WriteWindowUpdate(0, uint32(n))
	p.given += n
	if !s.recvEnd && !s.reset && !s.wasReset {
		p.fw.WriteWindowUpdate(s.id, uint32(n))
		s.given += n
	}
}

func (p *peer) takeHeaders(f *http2.MetaHeadersFrame) {
	id := f.StreamID
	s := p.streams[id]
	if s == nil {
		if !p.server {
			p.errorf("HEADERS on stream %d, which is not open", id)
			return
		}
		if id <= p.lastID {
			p.errorf("stream %d was opened after %d", id, p.lastID)
		}
		if p.drains {
			return // sent before the GOAWAY was read
		}
		p.lastID = id
		pl, err := parsePath(f.PseudoValue("path"))
		if err != nil || pl.id != id || fmt.Sprint(pl.server) != p.name[len("server "):] {
			p.errorf("stream %d with plan %+v, %v", id, pl, err)
			return
		}
		s = &peerStream{plan: pl, credit: p.window, given: p.initial, recvEnd: f.StreamEnded()}
		p.streams[id] = s
		p.order = append(p.order, id)
		p.checkFields(f, s)
		p.progress(s)
		return
	}
	if s.reset {
		return
	}
	if s.recvEnd {
		p.errorf("stream %d: HEADERS behind END_STREAM", id)
	}
	s.recvEnd = f.StreamEnded()
	if p.server || s.headers > 0 {
		s.trailers++
		if got := f.Fields; len(got) != 1 || got[0].Name != "x-trailer" || got[0].Value != fmt.Sprint(id) {
			p.errorf("stream %d: trailers %v", id, got)
		}
	} else if status := f.PseudoValue("status"); status == "103" {
		s.hints++
	} else {
		s.headers++
		s.status = status
		if status == "200" {
			p.checkFields(f, s)
		}
	}
	p.progress(s)
}

func (p *peer) checkFields(f *http2.MetaHeadersFrame, s *peerStream) {
	for _, hf := range f.RegularFields() {
		switch {
		case hf.Name == "x-fill" && len(hf.Value) == s.plan.headers && strings.Trim(hf.Value, "h") == "":
		case hf.Name == "x-stream" && hf.Value == fmt.Sprint(s.id):
		case hf.Name == "x-secret" && hf.Sensitive:
		default:
			p.errorf("stream %d: field %v", s.id, hf)
		}
	}
	if len(f.RegularFields()) != 3 {
		p.errorf("stream %d: fields %v", s.id, f.Fields)
	}
}

// progress notes what a stream has come to.
func (p *peer) progress(s *peerStream) {
	if s.completed {
		return
	}
	if !p.server {
		if s.cancelDown >= 0 && s.received >= s.cancelDown && s.headers > 0 && !s.recvEnd && !s.reset && !s.wasReset {
			p.resetStream(s, http2.ErrCodeCancel)
		}
	} else if s.resetAfter >= 0 && s.received >= s.resetAfter && !s.reset && !s.wasReset {
		p.resetStream(s, http2.ErrCodeInternal)
	} else if s.resetBehind && s.sendEnd && !s.recvEnd && !s.reset && !s.wasReset {
		p.resetStream(s, http2.ErrCodeNo)
	}
	if s.wasReset || s.reset || s.recvEnd && s.sendEnd {
		s.completed = true
		p.done++
		p.give(s)
	}
}

func (p *peer) resetStream(s *peerStream, code http2.ErrCode) {
	s.reset = true
	p.fw.WriteRSTStream(s.id, code)
}

// writeBlock writes a header block, in pieces.
func (p *peer) writeBlock(id uint32, end bool, fields ...string) {
	p.encBuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: fields[i] == "x-secret"})
	}
	b := p.encBuf.Bytes()
	most := p.maxFrame - 300
	n := min(len(b), most)
	if p.rng.IntN(4) == 0 {
		n = p.rng.IntN(n + 1)
	}
	h := http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: n == len(b), BlockFragment: b[:n]}
	if p.behave.pad && p.rng.IntN(2) == 0 {
		h.PadLength = uint8(p.rng.IntN(256))
	}
	if !p.server && p.rng.IntN(4) == 0 {
		h.Priority = http2.PriorityParam{StreamDep: 0, Weight: 7}
		if p.rng.IntN(2) == 0 {
			h.Priority.Exclusive = true
		}
	}
	p.fw.WriteHeaders(h)
	for b = b[n:]; !h.EndHeaders; b = b[n:] {
		n = min(len(b), most)
		if n > 10 && p.rng.IntN(4) == 0 {
			n = 10
		}
		h.EndHeaders = n == len(b)
		p.fw.WriteContinuation(id, h.EndHeaders, b[:n])
	}
}

// noise writes a frame that does nothing for a request.
func (p *peer) noise() {
	switch p.rng.IntN(6) {
	case 0:
		if p.pings < 20 {
			var b [8]byte
			binary.BigEndian.PutUint64(b[:], uint64(len(p.name))<<32|uint64(p.rng.Uint32()))
			p.fw.WritePing(false, b)
			p.pings++
		}
	case 1:
		if !p.server && len(p.order) > 0 {
			p.fw.WritePriority(p.order[p.rng.IntN(len(p.order))], http2.PriorityParam{Weight: 3})
		}
	case 2:
		p.fw.WriteRawFrame(0xfa, 0x55, 0, make([]byte, p.rng.IntN(600)))
	case 3:
		if p.behave.settle && len(p.settings) == 0 {
			w := p.behave.initial/2 + p.rng.Int64N(p.behave.initial+1)
			p.fw.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(w)})
			p.settings = append(p.settings, w)
		} else if len(p.settings) < 50 {
			p.fw.WriteSettings(http2.Setting{ID: 0xf0, Val: 1})
			p.settings = append(p.settings, -1)
		}
	case 4:
		for _, s := range p.streams {
			if !p.stall {
				p.give(s)
			}
		}
	case 5:
		if !p.server && len(p.order) > 0 {
			var b [5]byte
			id := p.order[p.rng.IntN(len(p.order))]
			binary.BigEndian.PutUint32(b[:], id)
			p.fw.WriteRawFrame(http2.FramePriorityUpdate, 0, 0, append(b[:4], "u=1"...))
		}
	}
}

// send sends something that can be sent on an open stream. It reports whether there was anything.
func (p *peer) send() bool {
	if len(p.order) == 0 {
		return false
	}
	first := p.rng.IntN(len(p.order))
	for i := range p.order {
		s := p.streams[p.order[(first+i)%len(p.order)]]
		if !s.sendEnd && !s.reset && !s.wasReset && p.sendOn(s) {
			return true
		}
	}
	return false
}

func (p *peer) sendOn(s *peerStream) bool {
	total, trailers := s.up, s.upTrailers
	if p.server {
		total, trailers = s.down, s.downTrailers
		if !s.recvEnd && (!s.answerEarly || s.resetAfter >= 0) {
			return false
		}
		if s.informational {
			s.informational = false
			p.writeBlock(s.id, false, ":status", "103", "link", "</x>")
			return true
		}
		if !s.headersSent {
			s.headersSent = true
			end := total == 0 && !trailers
			p.writeBlock(s.id, end, ":status", "200", "x-fill", strings.Repeat("h", s.plan.headers), "x-stream", fmt.Sprint(s.id), "x-secret", "s")
			s.sendEnd = end
			p.progress(s)
			return true
		}
	} else if s.cancelUp >= 0 && s.sent >= s.cancelUp {
		p.resetStream(s, http2.ErrCodeCancel)
		p.progress(s)
		return true
	}
	left := total - s.sent
	if left == 0 {
		if trailers {
			p.writeBlock(s.id, true, "x-trailer", fmt.Sprint(s.id))
		} else {
			p.fw.WriteData(s.id, true, nil)
		}
		s.sendEnd = true
		p.progress(s)
		return true
	}
	n := int(min(int64(left), s.credit, p.credit, int64(p.maxFrame)))
	if n <= 0 {
		return false
	}
	if p.rng.IntN(2) == 0 {
		n = 1 + p.rng.IntN(n)
	}
	var pad []byte
	if room := min(int(min(s.credit, p.credit))-n, p.maxFrame-n); p.behave.pad && room > 1 && p.rng.IntN(3) == 0 {
		pad = make([]byte, min(p.rng.IntN(256), room-1))
	}
	end := n == left && !trailers && p.rng.IntN(2) == 0
	before := p.out.Len()
	if pad != nil {
		p.fw.WriteDataPadded(s.id, end, fill(s.id, p.server, s.sent, n), pad)
	} else {
		p.fw.WriteData(s.id, end, fill(s.id, p.server, s.sent, n))
	}
	cost := int64(p.out.Len() - before - h2.FrameHeaderLen)
	s.credit -= cost
	p.credit -= cost
	s.sent += n
	s.sendEnd = end
	p.progress(s)
	return true
}

// sendLoop sends until the connection is closed, or the client has nothing left to do.
func (p *peer) sendLoop(plans []plan, concurrent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed {
		if p.out.Len() > 64<<10 {
			p.cond.Wait()
			continue
		}
		if p.behave.noise > 0 && p.rng.IntN(p.behave.noise) == 0 {
			p.noise()
		}
		if p.polite && p.goAway {
			plans = nil
		}
		open := len(p.order) - p.done
		if len(plans) > 0 && open < concurrent && (open == 0 || p.rng.IntN(3) == 0) {
			pl := plans[0]
			plans = plans[1:]
			end := pl.up == 0 && !pl.upTrailers
			s := &peerStream{plan: pl, credit: p.window, given: p.initial, sendEnd: end}
			p.streams[pl.id] = s
			p.order = append(p.order, pl.id)
			p.writeBlock(pl.id, end, ":method", "POST", ":scheme", "http", ":path", pl.path(), ":authority", "x",
				"x-fill", strings.Repeat("h", pl.headers), "x-stream", fmt.Sprint(pl.id), "x-secret", "s")
			continue
		}
		if p.send() {
			continue
		}
		if p.drains && p.done == len(p.order) && p.out.Len() == 0 {
			p.mu.Unlock()
			p.close()
			p.mu.Lock()
			return
		}
		if !p.server && len(plans) == 0 && p.done == len(p.order) {
			return
		}
		p.cond.Wait()
	}
}

// giveLoop gives late what was not given at once.
func (p *peer) giveLoop() {
	for {
		time.Sleep(10 * time.Millisecond)
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return
		}
		for _, id := range p.order {
			if !p.stall {
				p.give(p.streams[id])
			}
		}
		p.acknowledge()
		p.cond.Broadcast()
		p.mu.Unlock()
	}
}

// othersDone waits until all n streams are open and those for other servers than the one have come to their end. It
// returns those that have not after ten minutes.
func (p *peer) othersDone(n, server int) (waiting string) {
	for range 60_000 {
		time.Sleep(10 * time.Millisecond)
		p.mu.Lock()
		waiting = ""
		if len(p.order) < n {
			waiting = fmt.Sprintf("%d streams that are not open", n-len(p.order))
		}
		for _, id := range p.order {
			if s := p.streams[id]; s.server != server && !s.completed {
				waiting += fmt.Sprintf(" stream %d of server %d", id, s.server)
			}
		}
		closed := p.closed
		p.mu.Unlock()
		if waiting == "" || closed {
			return ""
		}
	}
	return waiting
}

// unfinished describes what has not come to its end.
func (p *peer) unfinished() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: credit %d, given %d, initial %d, %d bytes to write, closed %t\n", p.name, p.credit, p.given, p.initial, p.out.Len(), p.closed)
	for _, id := range p.order {
		if s := p.streams[id]; !s.completed {
			fmt.Fprintf(&b, "\t%+v\n", *s)
		}
	}
	return b.String()
}

// check checks, at the end, what a client has seen of each exchange. Those with the disturbed server, or all if that is
// everybody, may have come to a different end.
func (p *peer) check(plans []plan, disturbed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pl := range plans {
		s := p.streams[pl.id]
		switch {
		case disturbed == everybody:
		case p.goAway && (s == nil || pl.id > p.lastGood):
		case s != nil && pl.server == disturbed && !s.completed:
			p.errorf("stream %d: not completed: %+v", pl.id, s)
		case s != nil && pl.server == disturbed:
		case s == nil:
			p.errorf("stream %d was not opened", pl.id)
		case pl.server == Refuse:
			if s.wasReset && s.gotReset != http2.ErrCodeRefusedStream || !s.wasReset && !s.reset { // it may have given up before
				p.errorf("stream %d: not refused, but %+v", pl.id, s)
			}
		case pl.server == NotFound:
			if s.status != "404" && !s.reset {
				p.errorf("stream %d: not 404, but %+v", pl.id, s)
			}
		case pl.reset():
			if !s.completed {
				p.errorf("stream %d: not completed: %+v", pl.id, s)
			}
		default:
			hints, down := 0, 0
			if pl.informational {
				hints = 1
			}
			if pl.downTrailers {
				down = 1
			}
			wasReset := s.wasReset && !(pl.resetBehind && s.gotReset == http2.ErrCodeNo)
			if s.received != pl.down || !s.recvEnd || s.status != "200" || s.hints != hints || s.trailers != down || wasReset {
				p.errorf("stream %d: got %+v", pl.id, s)
			}
		}
	}
}
