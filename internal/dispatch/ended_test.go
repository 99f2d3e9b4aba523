package dispatch

import (
	"io"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// A duplex is one end of a connection of which either direction can end before the other.
type duplex struct {
	net.Conn          // reads
	out      net.Conn // writes
	aborted  *atomic.Bool
}

// newDuplex returns both ends of a connection.
func newDuplex() (near, far *duplex) {
	upNear, upFar := net.Pipe()
	downNear, downFar := net.Pipe()
	aborted := new(atomic.Bool)
	return &duplex{downNear, upNear, aborted}, &duplex{upFar, downFar, aborted}
}

func (d *duplex) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	if err == io.EOF && d.aborted.Load() {
		err = syscall.ECONNRESET
	}
	return n, err
}

func (d *duplex) Write(p []byte) (int, error) { return d.out.Write(p) }
func (d *duplex) CloseWrite() error           { return d.out.Close() }

func (d *duplex) Close() error {
	d.out.Close()
	return d.Conn.Close()
}

// abort closes the connection as with RST.
func (d *duplex) abort() {
	d.aborted.Store(true)
	d.Close()
}

func (d *duplex) SetDeadline(t time.Time) error {
	d.Conn.SetReadDeadline(t)
	return d.out.SetWriteDeadline(t)
}

func (d *duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }

// nothingLeft checks that an ended connection holds nothing any more, though a server may keep its Conn.
func nothingLeft(t *testing.T, c *conn, servers ...*Conn) {
	t.Helper()
	synctest.Wait()
	for _, v := range servers {
		v.rmu.Lock()
		if v.buf != nil || v.lent != nil || v.clear != 0 {
			t.Errorf("server %d: %d bytes are kept for Read", v.target.index, len(v.buf))
		}
		v.rmu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead {
		t.Error("the connection has not ended")
		return
	}
	c.fillIn(servers...)
	if n := len(c.passed.places) + len(c.streams) + len(c.gone.ids) + len(c.queues) + len(c.fromClient) + len(c.toClient) + len(c.settings) + len(c.pings.sent); n != 0 {
		t.Errorf("%d and %d streams, %d remembered, %d queues, %d and %d SETTINGS frames, %d settings, %d PINGs are left", len(c.passed.places), len(c.streams),
			len(c.gone.ids), len(c.queues), len(c.fromClient), len(c.toClient), len(c.settings), len(c.pings.sent))
	}
	if c.out != nil || c.spare != nil || c.raw != nil || c.rawFrom != nil || c.cur != nil || c.writing {
		t.Errorf("%d and %d bytes to write, %d to spare, writing %t", cap(c.out), cap(c.raw), cap(c.spare), c.writing)
	}
	if v := c.memory.joined[0]; v != nil && !slices.Contains(c.joined, v) {
		t.Error("a server that has left is left in memory")
	}
	if c.withheld.withholding != nil { // its memory is lent
		t.Errorf("%d bytes are withheld", c.withheld.n)
	}
	if c.alone != nil || c.patience != nil || c.pingTimer != nil {
		t.Error("a timer of the connection is left")
	}
	if c.enc.enc != nil || c.dec.dec != nil || c.dec.kept != nil || c.in.joined != nil {
		t.Error("a table of the connection is left")
	}
	for _, v := range servers {
		if v.readDeadline.timer != nil || v.writeDeadline.timer != nil {
			t.Errorf("server %d: a timer is left", v.target.index)
		}
		if v.enc.enc != nil || v.dec.dec != nil || v.dec.kept != nil || v.out.joined != nil {
			t.Errorf("server %d: a table is left", v.target.index)
		}
		if v.in.b != nil || v.held != nil || v.holding != nil || v.uploadServer.held != 0 || v.uploadServer.trailers != 0 {
			t.Errorf("server %d: %d bytes to read, %d written in part, %d held", v.target.index, cap(v.in.b), cap(v.held), v.uploadServer.held)
		}
		if v.waiting != nil || v.bytes != 0 || v.memory != 0 {
			t.Errorf("server %d: %d bytes are queued, in %d of memory", v.target.index, v.bytes, v.memory)
		}
		if v.owes != nil || v.next.frames != nil || v.next.values != nil || v.late != nil || v.cur != nil {
			t.Errorf("server %d: SETTINGS frames are left", v.target.index)
		}
	}
}

// fillIn gives a connection that was not split, and its servers, the state of one that was, so that all can be looked at
// alike. The caller holds mu.
func (c *conn) fillIn(servers ...*Conn) {
	if c.splitConn == nil {
		c.splitConn = new(splitConn)
	}
	for _, v := range servers {
		if v != nil && v.splitServer == nil {
			v.startSplitting()
		}
	}
}

// Whatever ends a connection, nothing of it is left.
func TestNothingLeft(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(w *world, sock *duplex, servers []*end)
		kept bool // the servers do not close their Conns
	}{
		{name: "client vanishes", end: func(w *world, sock *duplex, _ []*end) { sock.Close() }},
		{name: "client resets", kept: true, end: func(w *world, sock *duplex, _ []*end) { sock.abort() }},
		{name: "client closes its side", end: func(w *world, sock *duplex, _ []*end) { sock.CloseWrite() }},
		{name: "client closes its side and does not read", end: func(w *world, sock *duplex, servers []*end) {
			sock.Conn.SetReadDeadline(aLongTimeAgo)
			servers[0].headers(1, false, ":status", "103")
			synctest.Wait()
			sock.CloseWrite()
		}},
		{name: "connection error", kept: true, end: func(w *world, _ *duplex, _ []*end) {
			w.client.fr.WriteRawFrame(http2.FramePing, 0, 1, nil)
		}},
		{name: "abuse", kept: true, end: func(w *world, _ *duplex, _ []*end) {
			w.client.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, BlockFragment: w.client.block(":method", "GET")})
			for range 80 {
				w.client.fr.WriteContinuation(7, false, make([]byte, 16_000))
			}
		}},
		{name: "servers close", end: func(w *world, _ *duplex, servers []*end) {
			for _, s := range servers {
				s.conn.Close()
			}
		}},
	} {
		for _, mode := range []string{"passing", "splitting"} {
			if mode == "passing" && (tt.name == "connection error" || tt.name == "client resets") {
				continue // is the server's to end
			}
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					d := newDispatcher(2)
					near, far := newDuplex()
					d.Handle(far)
					w := &world{t: t, d: d, client: newEnd(t, near, false)}
					defer w.client.close()
					w.client.Write([]byte(http2.ClientPreface))
					w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 5000})
					var servers []*end
					if mode == "splitting" {
						a, b := w.shared()
						servers = []*end{a, b}
						w.client.fr.WriteWindowUpdate(1, 100_000)
						a.got()
						a.headers(1, false, ":status", "200")
						for range 10 { // more than the connection's window
							a.fr.WriteData(1, false, make([]byte, 10_000))
						}
						w.client.fr.WriteData(3, false, make([]byte, 10_000))
					} else {
						w.client.request(1, "0", false)
						servers = []*end{w.accept(0, "HEADERS 1 :method=GET :path=/0")}
					}
					var conns []*Conn
					for _, s := range servers {
						v := s.conn.(*Conn)
						v.SetDeadline(time.Now().Add(time.Hour))
						conns = append(conns, v)
					}
					w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
					w.client.request(5, "0", true)
					synctest.Wait()

					tt.end(w, near, servers)
					if !tt.kept {
						synctest.Wait()
						for _, s := range servers {
							s.conn.Close()
						}
					}
					time.Sleep(2 * time.Second)
					synctest.Wait()
					if tt.name == "servers close" && mode == "splitting" {
						time.Sleep(d.Limits.IdleTimeout)
						synctest.Wait()
					}
					nothingLeft(t, conns[0].c, conns...)
					for _, s := range servers {
						s.close()
					}
				})
			})
		}
	}
}
