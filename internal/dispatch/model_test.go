package dispatch

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/alarm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The model: a client and servers that do what HTTP/2 allows them to, at random, and check what they are sent. Each
// exchange is planned before the client opens its stream. The servers learn the plan from the request's path, so that
// both ends know what has to arrive.

// A plan is what happens on one stream.
type plan struct {
	id       uint32
	server   int // or NotFound, Refuse
	up, down int // bytes of content
	headers  int // bytes of a header field, in both directions

	upTrailers, downTrailers bool
	informational            bool // a 103 comes before the response
	answerEarly              bool // the server answers without waiting for the request's end
	resetBehind              bool // and resets the stream with NO_ERROR behind the answer

	cancelUp   int // the client resets the stream after so many bytes of its content, or -1
	cancelDown int // the client resets the stream when so many bytes of the answer have come, or -1
	resetAfter int // the server resets the stream when so many bytes of the content have come, or -1
}

func (p *plan) reset() bool { return p.cancelUp >= 0 || p.cancelDown >= 0 || p.resetAfter >= 0 }

func (p *plan) path() string {
	return fmt.Sprintf("/%d/%d/%d/%d/%d/%t/%t/%t/%t/%t/%d", p.server, p.id, p.up, p.down, p.headers, p.upTrailers, p.downTrailers,
		p.informational, p.answerEarly, p.resetBehind, p.resetAfter)
}

func parsePath(path string) (p plan, err error) {
	parts := strings.Split(path, "/")
	if len(parts) != 12 {
		return p, fmt.Errorf("path %q", path)
	}
	for i, dst := range []any{&p.server, &p.id, &p.up, &p.down, &p.headers, &p.upTrailers, &p.downTrailers, &p.informational, &p.answerEarly, &p.resetBehind, &p.resetAfter} {
		if _, err := fmt.Sscan(parts[i+1], dst); err != nil {
			return p, err
		}
	}
	p.cancelUp, p.cancelDown = -1, -1
	return p, nil
}

// pattern is what the content of all streams is cut from. Its length is prime, so that it fits no window.
var pattern = func() []byte {
	b := make([]byte, 65_521)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

// fill returns n bytes of the content of a stream, in one direction, from an offset on.
func fill(id uint32, down bool, off, n int) []byte {
	off += int(id) * 977
	if down {
		off += 333
	}
	b := make([]byte, 0, n)
	for len(b) < n {
		from := (off + len(b)) % len(pattern)
		b = append(b, pattern[from:min(len(pattern), from+n-len(b))]...)
	}
	return b
}

func decideByPath(_ net.Conn, fields []hpack.HeaderField) int {
	for _, f := range fields {
		if f.Name == ":path" {
			part, _, _ := strings.Cut(f.Value[1:], "/")
			n, _ := strconv.Atoi(part)
			return n
		}
	}
	return NotFound
}

// randomPlans plans n exchanges.
func randomPlans(rng *rand.Rand, n, servers, most int) []plan {
	size := func() int {
		switch rng.IntN(6) {
		case 0, 1:
			return 0
		case 2:
			return 1 + rng.IntN(10)
		case 3:
			return rng.IntN(2000)
		case 4:
			return rng.IntN(most / 2)
		}
		return rng.IntN(most)
	}
	plans := make([]plan, n)
	first := rng.IntN(servers)
	alone := rng.IntN(n) // how many go to one server before others are asked
	id := uint32(1)
	for i := range plans {
		p := plan{id: id, server: first, up: size(), down: size(), headers: rng.IntN(40),
			upTrailers: rng.IntN(4) == 0, downTrailers: rng.IntN(3) == 0, informational: rng.IntN(5) == 0, answerEarly: rng.IntN(3) == 0,
			cancelUp: -1, cancelDown: -1, resetAfter: -1}
		p.resetBehind = p.answerEarly && rng.IntN(2) == 0
		id += 2 * uint32(1+rng.IntN(2))
		if i >= alone {
			p.server = rng.IntN(servers)
			switch rng.IntN(20) {
			case 0:
				p.server = NotFound
			case 1:
				p.server = Refuse
			}
		}
		if rng.IntN(10) == 0 {
			p.headers = rng.IntN(40_000)
		}
		switch rng.IntN(12) {
		case 0:
			p.cancelUp = rng.IntN(p.up + 1)
		case 1:
			p.cancelDown = rng.IntN(p.down + 1)
		case 2:
			p.resetAfter = rng.IntN(p.up + 1)
		}
		plans[i] = p
	}
	return plans
}

func randomBehaviour(rng *rand.Rand) behaviour {
	b := behaviour{
		initial: []int64{500, 5000, 65_535, 65_535, 1 << 20}[rng.IntN(5)],
		conn:    []int64{65_535, 65_535, 200_000, 1 << 20, 1 << 30}[rng.IntN(5)],
		frame:   []int{1 << 14, 1 << 14, 1 << 15, 1 << 20}[rng.IntN(4)],
		table:   []int{-1, -1, 0, 100, 8192}[rng.IntN(5)],
		noise:   []int{0, 10, 50}[rng.IntN(3)],
		pad:     rng.IntN(3) == 0,
		slow:    rng.IntN(3) == 0,
		settle:  rng.IntN(3) == 0,
		lateACK: rng.IntN(4) == 0,
		chunk:   []int{0, 0, 13, 100, 5000}[rng.IntN(5)],
	}
	return b
}

func testLimits() Limits {
	return Limits{
		WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, QueueLength: 10, AcceptTimeout: 10 * time.Second,
		MaxStreams: 1000, MaxHeaderListBytes: 1 << 20, MaxContinuations: 10_000,
		MaxBuffered: 128 << 10, ResetBurst: 1000, ResetRate: 100, ControlBurst: 1_000_000, ControlRate: 1000,
	}
}

// invariants checks the accounts of a connection.
func invariants(t *testing.T, c *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode != splitting || c.closing || c.dead {
		return
	}
	limit := int64(c.d.Limits.MaxBuffered)
	var held int64
	for _, v := range c.servers {
		if v == nil {
			continue
		}
		// What a frame that has come in part takes of the credit has not come.
		begun := int64(0)
		if v.out.hdr.Type == http2.FrameData && c.rawFrom != v { // else it began before the split
			begun = int64(v.out.left)
		}
		d := &v.downloadServer
		if got := d.credit + d.bytes + begun + d.grant; got != limit {
			t.Errorf("server %d: credit %d + queued %d + begun %d + to be granted %d = %d, not %d", v.target.index,
				d.credit, d.bytes, begun, d.grant, got, limit)
		}
		if v.uploadServer.credit < 0 || v.downloadServer.credit < 0 {
			t.Errorf("server %d: credit exceeded", v.target.index)
		}
		var sum, trailers, bytes, memory int64
		for _, s := range c.streams {
			if s.server != v {
				continue
			}
			sum += int64(s.content.len())
			trailers += s.size
			if s.content.len() > 0 && !s.isHeld {
				t.Errorf("stream %d: forgotten", s.id)
			}
			for _, q := range s.queue {
				bytes += int64(len(q.data))
				memory += q.memory()
			}
			if waits := slices.Contains(v.waiting, s); waits != s.waits || !waits && len(s.queue) > 0 && s.downloadStream.window > 0 {
				t.Errorf("stream %d: waits %t, %t, with %d items", s.id, waits, s.waits, len(s.queue))
			}
		}
		if trailers != v.uploadServer.trailers {
			t.Errorf("server %d: trailers of %d bytes are held, not %d", v.target.index, trailers, v.uploadServer.trailers)
		}
		if bytes != d.bytes || memory != d.memory {
			t.Errorf("server %d: %d bytes are queued in %d of memory, not %d in %d", v.target.index, bytes, memory, d.bytes, d.memory)
		}
		if queued := slices.Contains(c.queues, v); queued != (len(v.waiting) > 0) {
			t.Errorf("server %d: served %t, with %d streams", v.target.index, queued, len(v.waiting))
		}
		if sum != v.uploadServer.held {
			t.Errorf("server %d: held %d, not %d", v.target.index, v.uploadServer.held, sum)
		}
		held += sum
		if v.in.len() > maxUnread+(1<<20) {
			t.Errorf("server %d: %d bytes unread", v.target.index, v.in.len())
		}
	}
	begun := c.begun
	if got := c.upload.credit + held + begun + c.grant; got != limit {
		t.Errorf("upload: credit %d + held %d + begun %d + to be granted %d = %d, not %d", c.upload.credit, held, begun, c.grant, got, limit)
	}
	if c.download.credit < 0 {
		t.Errorf("the client's window is exceeded by %d", -c.download.credit)
	}
}

// A disturbance is what goes wrong in a run, when somebody has read so many frames.
type disturbance struct {
	name   string
	server int // whose, everybody if it is the client's, nobody if there is none
	after  int
}

const (
	everybody = -10 - iota
	nobody
)

func randomDisturbance(rng *rand.Rand, servers int) disturbance {
	d := disturbance{after: 1 + rng.IntN(100), server: everybody}
	switch d.name = []string{"vanishes", "resets", "half-closes", "stops reading", "server stops", "server drains", "Drain", "Close"}[rng.IntN(8)]; d.name {
	case "server stops", "server drains":
		d.server = rng.IntN(servers)
	case "Drain":
		d.server = nobody // all that the client has asked for comes to its end
	}
	return d
}

// model runs the exchanges of a seed.
func model(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	servers := 2 + rng.IntN(2)
	behaviours := make([]behaviour, servers+1)
	most := 150_000
	for i := range behaviours {
		b := randomBehaviour(rng)
		if b.initial < 10_000 || b.chunk > 0 && b.chunk < 1000 {
			most = 10_000 // in such small steps
		}
		behaviours[i] = b
	}
	// One server gives no credit until all exchanges with the others have come to their end. What it is sent meanwhile, up
	// to the window of each of its streams, has to leave something of the connection's, which HTTP/2 has all of them
	// share.
	stalled := rng.IntN(4) == 0
	if stalled {
		most = 10_000
		for i := range behaviours {
			behaviours[i].initial, behaviours[i].settle = 3000, false
		}
	}
	for i := range servers {
		if (seed+uint64(i))%3 == 0 && !stalled {
			behaviours[i].setNothing()
		}
	}
	plans := randomPlans(rng, 1+rng.IntN(30), servers, most)
	concurrent := 1 + rng.IntN(10)
	if stalled {
		concurrent = len(plans) // those that are held up must not keep others from being opened
	}
	if rng.IntN(3) == 0 {
		// A slow reader: with windows as large as what it is sent, for a stream of its own cannot wait for another's.
		behaviours[0].slow = true
	}

	behaviours[servers].neverACK = rng.IntN(8) == 0
	disturb := disturbance{server: nobody}
	if !stalled && rng.IntN(3) == 0 {
		disturb = randomDisturbance(rng, servers)
	}

	synctest.Test(t, func(t *testing.T) {
		d := &Dispatcher{Decide: decideByPath, Limits: testLimits(), Logger: slog.New(slog.DiscardHandler), Alarms: new(alarm.Clock),
			EarlySettings: []http2.Setting{{ID: http2.SettingNoRFC7540Priorities, Val: 1}}}
		d.AlwaysSplit = rng.IntN(4) == 0
		var wg sync.WaitGroup
		var mu sync.Mutex
		var peers []*peer
		var conns []*Conn
		var c *conn
		check := func() {
			mu.Lock()
			defer mu.Unlock()
			if c != nil {
				invariants(t, c)
			}
		}
		targets := make([]*Target, servers)
		for i := range targets {
			targets[i] = d.Target("", &net.TCPAddr{})
		}
		for i, target := range targets {
			wg.Go(func() {
				for {
					sc, err := target.Accept()
					if err != nil {
						return
					}
					mu.Lock()
					c = sc.(*Conn).c
					conns = append(conns, sc.(*Conn))
					mu.Unlock()
					if ready := (seed+uint64(i))%2 == 0; ready {
						sc = readyConn{sc.(*Conn), t}
					}
					p := newPeer(t, fmt.Sprintf("server %d", i), true, sc, seed+uint64(i)+100, behaviours[i])
					p.onRead = check
					if i == disturb.server {
						n := 0
						p.onRead = func() {
							check()
							if n++; n < disturb.after {
								return
							}
							if disturb.name == "server drains" {
								p.drain()
							} else {
								p.close()
							}
						}
					}
					p.stall = stalled && i == 0
					p.start()
					wg.Go(p.writeLoop)
					wg.Go(p.readLoop)
					wg.Go(func() { p.sendLoop(nil, 0) })
					wg.Go(p.giveLoop)
					mu.Lock()
					peers = append(peers, p)
					mu.Unlock()
				}
			})
		}
		near, far := newDuplex()
		owner := d.Handle(far)
		client := newPeer(t, "the client", false, near, seed+50, behaviours[servers])
		client.polite = rng.IntN(2) == 0
		client.onRead = check
		if disturb.server == everybody || disturb.name == "Drain" {
			n := 0
			client.onRead = func() {
				check()
				if n++; n != disturb.after {
					return
				}
				switch disturb.name {
				case "vanishes":
					client.close()
				case "resets":
					near.abort()
				case "half-closes":
					near.CloseWrite()
				case "Drain", "Close":
					mu.Lock()
					defer mu.Unlock()
					switch {
					case c == nil: // it is not dispatched yet
						disturb.name = ""
					case disturb.name == "Drain":
						wg.Go(c.Drain) // which writes to the client, who reads here
					default:
						c.Close()
					}
				case "stops reading":
					client.mu.Lock()
					client.halt = make(chan struct{})
					client.mu.Unlock()
					time.AfterFunc(time.Minute, func() {
						client.close()
						close(client.halt)
					})
				}
			}
		}
		client.start()
		wg.Go(client.writeLoop)
		wg.Go(client.readLoop)
		wg.Go(client.giveLoop)
		late := time.AfterFunc(time.Hour, func() {
			mu.Lock()
			defer mu.Unlock()
			for _, p := range append(peers, client) {
				p.mu.Lock()
				t.Error("no end: " + p.unfinished())
				p.closed = true
				p.cond.Broadcast()
				p.mu.Unlock()
			}
			c.mu.Lock()
			c.fillIn(c.servers...)
			t.Errorf("mode %d, upload %d/%d, download %d, out %d, raw %d from %p, writing %t, closing %t, dead %t", c.mode, c.upload.credit, c.grant, c.download.credit, len(c.out), len(c.raw), c.rawFrom, c.writing, c.closing, c.dead)
			for _, v := range c.servers {
				if v == nil {
					continue
				}
				t.Errorf("server %d: in %d, upload %d, held %d, withheld %t, download %d, queue %d of %d", v.target.index, v.in.len(), v.uploadServer.credit, v.uploadServer.held, v.withheld, v.downloadServer.credit, len(v.waiting), v.bytes)
			}
			for _, s := range c.streams {
				t.Errorf("stream %d of %d: toClient %d toServer %d held %d %t ended %t %t queued %d", s.id, s.server.target.index, s.toClient, s.toServer, s.content.len(), s.isHeld, s.clientEnded, s.serverEnded, len(s.queue))
			}
			c.mu.Unlock()
		})
		if stalled {
			wg.Go(func() {
				if waiting := client.othersDone(len(plans), 0); waiting != "" {
					t.Errorf("server 0 gives no credit, and these wait for it: %s", waiting)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, p := range peers {
					p.mu.Lock()
					p.stall = false
					p.mu.Unlock()
				}
			})
		}
		if seed%4 == 1 {
			synctest.Wait() // the client makes no request before it has had SETTINGS
		}
		client.sendLoop(plans, concurrent)
		late.Stop()
		synctest.Wait()
		if disturb.name == "Drain" && client.sawGoAway() {
			select {
			case <-owner.done:
			case <-time.After(time.Minute):
				t.Error("drained, and the connection has not ended")
			}
		}
		client.mu.Lock()
		if client.closed && disturb.server >= 0 {
			// The connection has ended with the server: it had passed through to it, or the server was in the middle of a frame.
			disturb.server = everybody
		}
		client.mu.Unlock()
		client.check(plans, disturb.server)
		if client.goAway && disturb.server == nobody && disturb.name != "Drain" {
			t.Error("the client got GOAWAY")
		}
		client.close()
		d.Close()
		wg.Wait()
		if c != nil {
			nothingLeft(t, c, conns...)
		}
	})
}

func TestModel(t *testing.T) {
	if s := os.Getenv("ONEPORT_MODEL_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		model(t, seed)
		return
	}
	seeds := uint64(100)
	if n, err := strconv.ParseUint(os.Getenv("ONEPORT_MODEL_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			model(t, seed)
		})
	}
}
