package lobby

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A testConn is a connection that takes note of what the lobby does to it.
type testConn struct {
	Entry
	id     int
	causes []Cause // of Interrupt
	closed int
	log    func(*testConn) // called by Interrupt, if not nil
}

func (c *testConn) Interrupt(cause Cause) {
	c.causes = append(c.causes, cause)
	if c.log != nil {
		c.log(c)
	}
}

func (c *testConn) Close() error {
	c.closed++
	return nil
}

// newLobby returns a lobby with the bounds.
func newLobby(max, maxHeld int) *Lobby { return &Lobby{Max: max, MaxHeld: maxHeld} }

// enter adds a connection that is accepted now.
func enter(l *Lobby, p Phase) *testConn {
	c := new(testConn)
	l.Enter(&c.Entry, c, p, time.Now())
	return c
}

func TestPhases(t *testing.T) {
	t.Parallel()
	undecided := map[Phase]bool{Accepted: true, Handshaking: true, Opening: true, Switching: true, Blocked: true}
	seen := make(map[string]bool)
	for p := Accepted; p <= Ended; p++ {
		if p.Undecided() != undecided[p] {
			t.Errorf("%v.Undecided() = %v", p, p.Undecided())
		}
		if seen[p.String()] || p.String() == "" {
			t.Errorf("phase %d has the name %q", p, p)
		}
		seen[p.String()] = true
	}
}

// TestMax fills a lobby, and checks who makes room.
func TestMax(t *testing.T) {
	t.Parallel()
	l := newLobby(2, 0)
	first, queued, second := enter(l, Accepted), enter(l, Queued), enter(l, Opening)
	l.Move(&first.Entry, Opening) // which makes it no younger
	third := enter(l, Accepted)
	if !slices.Equal(first.causes, []Cause{Crowded}) || second.causes != nil || third.causes != nil || queued.causes != nil {
		t.Fatalf("interrupted: %v %v %v, and queued %v; want the first", first.causes, second.causes, third.causes, queued.causes)
	}
	if got := l.Move(&first.Entry, Queued); got != Crowded || l.Interrupted(&first.Entry) != Crowded {
		t.Errorf("Move of the interrupted connection returned %v", got)
	}
	if n := l.Counts(); n[Refusing] != 1 || n[Queued] != 1 || n[Opening]+n[Accepted] != 2 {
		t.Errorf("counts %v", n)
	}
	// One that comes back from the queue counts again, and has waited least.
	l.Move(&queued.Entry, Blocked)
	if queued.causes != nil || !slices.Equal(second.causes, []Cause{Crowded}) {
		t.Errorf("interrupted: %v, and the one from the queue %v; want the oldest", second.causes, queued.causes)
	}
	l.EvictOldest()
	if !slices.Equal(third.causes, []Cause{Crowded}) {
		t.Error("EvictOldest left the oldest alone")
	}
	// Two that were refused before are still reading.
	if first.closed != 1 || second.closed != 0 || l.Counts()[Refusing] != 2 {
		t.Errorf("closed %d %d, counts %v; want that the first has made room for those refused", first.closed, second.closed, l.Counts())
	}
}

// TestMaxHeld checks that whoever holds bytes makes room for others that do, and nobody else.
func TestMaxHeld(t *testing.T) {
	t.Parallel()
	l := newLobby(10, 100)
	empty, first, second, third := enter(l, Opening), enter(l, Opening), enter(l, Opening), enter(l, Opening)
	l.Hold(&second.Entry, 40) // the first to hold any
	l.Hold(&first.Entry, 60)
	if l.Hold(&third.Entry, 1) != None || !slices.Equal(second.causes, []Cause{Crowded}) || first.causes != nil || empty.causes != nil {
		t.Errorf("interrupted: %v %v %v; want the one that has held bytes longest", first.causes, second.causes, third.causes)
	}
	// What is decided keeps its bytes until a server has it, and does not have to go for them.
	l.Move(&first.Entry, Queued)
	if l.Hold(&third.Entry, 41) != Crowded || first.causes != nil {
		t.Error("the connection that went over the bound was not interrupted, or a decided one was")
	}
	l.Leave(&first.Entry)
	fourth := enter(l, Opening)
	if l.Hold(&fourth.Entry, 100) != None {
		t.Error("what has left counts still")
	}
	if l.Hold(&fourth.Entry, 101) != Crowded {
		t.Error("one connection may hold more than the bound")
	}
	if l.held != 0 {
		t.Errorf("%d bytes are held by nobody", l.held)
	}
}

// TestDrain checks who has to go at a shutdown.
func TestDrain(t *testing.T) {
	t.Parallel()
	l := newLobby(10, 0)
	now := time.Now()
	enterAt := func(p Phase, since time.Time) *testConn {
		c := new(testConn)
		l.Enter(&c.Entry, c, p, since)
		return c
	}
	old, young := enterAt(Opening, now.Add(-time.Minute)), enterAt(Opening, now)
	blocked, queued := enterAt(Blocked, now.Add(-time.Minute)), enterAt(Queued, now.Add(-time.Minute))
	dispatched := enterAt(Dispatched, now.Add(-time.Minute))
	if left := l.Drain(now.Add(-time.Second)); !left {
		t.Error("Drain says that nobody is left")
	}
	if !slices.Equal(old.causes, []Cause{Stopping}) || young.causes != nil {
		t.Errorf("Drain interrupted the old one %v and the young one %v", old.causes, young.causes)
	}
	l.Move(&young.Entry, Queued)
	l.Open()
	if !l.Drain(now) {
		t.Error("Drain says that nobody is left, although some may enter")
	}
	l.Done()
	if l.Drain(now) {
		t.Error("Drain says that somebody is left")
	}
	l.Stop()
	late := enter(l, Accepted)
	decided := enter(l, Queued)
	for name, c := range map[string]*testConn{"a blocked": blocked, "a queued": queued, "a dispatched": dispatched, "a late, queued": decided} {
		if c.causes != nil {
			t.Errorf("%s connection was interrupted: %v", name, c.causes)
		}
	}
	if !slices.Equal(late.causes, []Cause{Stopping}) {
		t.Errorf("after Stop one entered, and was interrupted %v", late.causes)
	}
}

// TestEnterStopping checks that a connection that has to go at once pushes nobody out.
func TestEnterStopping(t *testing.T) {
	t.Parallel()
	l := newLobby(1, 0)
	blocked := enter(l, Blocked)
	l.Stop()
	if late := enter(l, Accepted); !slices.Equal(late.causes, []Cause{Stopping}) || blocked.causes != nil {
		t.Errorf("interrupted: the late one %v, and the one with a route %v", late.causes, blocked.causes)
	}
}

// TestEach checks that Each calls without the lobby's lock.
func TestEach(t *testing.T) {
	t.Parallel()
	l := newLobby(10, 0)
	a, b := enter(l, Dispatched), enter(l, Dispatched)
	enter(l, Queued)
	enter(l, Opening)
	var got []Conn
	l.Each(func(c Conn) {
		got = append(got, c)
		l.Leave(&c.(*testConn).Entry)
	})
	if !slices.Equal(got, []Conn{a, b}) || l.Counts()[Dispatched] != 0 {
		t.Errorf("Each called for %d connections", len(got))
	}
}

func TestCloseRefusing(t *testing.T) {
	t.Parallel()
	l := newLobby(10, 0)
	a, b, other := enter(l, Opening), enter(l, Queued), enter(l, Opening)
	l.Refuse(&a.Entry)
	l.Refuse(&a.Entry)
	l.Refuse(&b.Entry)
	l.CloseRefusing()
	if a.closed != 1 || b.closed != 1 || other.closed != 0 {
		t.Errorf("closed: %d %d, another %d", a.closed, b.closed, other.closed)
	}
	l.Leave(&a.Entry)
	l.Leave(&a.Entry)
	if n := l.Counts(); n[Refusing] != 1 {
		t.Errorf("counts %v", n)
	}
}

// TestWaitEnds checks that those who wait do so no longer than their context.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLobby(10, 0)
		c := enter(l, Opening)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for name, wait := range map[string]func(context.Context) error{"Settled": l.Settled, "Empty": l.Empty} {
			if err := wait(ctx); err != context.DeadlineExceeded {
				t.Errorf("%s: %v", name, err)
			}
		}
		l.Leave(&c.Entry)
		if err := l.Settled(t.Context()); err != nil {
			t.Errorf("Settled in an empty lobby: %v", err)
		}
		if err := l.Empty(t.Context()); err != nil {
			t.Errorf("Empty in an empty lobby: %v", err)
		}
	})
}

// A model is a lobby in which everything is looked for where it may be.
type model struct {
	max, maxHeld int
	conns        []*modelConn // that have entered, in the order of their last change of list
	stopping     bool
	sources      int
	told         []string // what was done to connections, in order
}

// A modelConn is a connection in a model.
type modelConn struct {
	c           *testConn
	since       time.Time
	phase       Phase
	interrupted Cause
	pushedOut   bool // of Refusing
	held        int
	holding     int // when it began to hold, while that may cost it its place; or 0
}

// in returns the connections of the phases that want says, the oldest first.
func (m *model) in(want func(Phase) bool) (list []*modelConn) {
	for _, c := range m.conns {
		if want(c.phase) && !c.pushedOut {
			list = append(list, c)
		}
	}
	return list
}

func is(p Phase) func(Phase) bool { return func(q Phase) bool { return p == q } }

// sameList reports whether a move from one phase to the other leaves a connection its place in the order.
func sameList(p, q Phase) bool { return p == q || p.Undecided() && q.Undecided() }

func (m *model) put(c *modelConn, p Phase) {
	m.conns = slices.DeleteFunc(m.conns, func(d *modelConn) bool { return d == c })
	m.conns = append(m.conns, c)
	c.phase = p
	if list := m.in(Phase.Undecided); p.Undecided() && len(list) > m.max {
		m.interrupt(list[0], Crowded)
	}
	if list := m.in(is(Refusing)); p == Refusing && len(list) > m.max {
		m.closeRefused(list[0])
	}
}

func (m *model) closeRefused(c *modelConn) {
	c.pushedOut = true
	m.told = append(m.told, fmt.Sprintf("close %d", c.c.id))
}

func (m *model) interrupt(c *modelConn, cause Cause) {
	c.held, c.holding, c.interrupted = 0, 0, cause
	m.put(c, Refusing)
	m.told = append(m.told, fmt.Sprintf("interrupt %d: %v", c.c.id, cause))
}

func (m *model) enter(c *modelConn, p Phase) {
	if c.phase = p; m.stopping && p.Undecided() {
		m.interrupt(c, Stopping)
		return
	}
	m.put(c, p)
}

func (m *model) move(c *modelConn, p Phase) Cause {
	if c.interrupted != None {
		return c.interrupted
	}
	if !p.Undecided() {
		c.holding = 0
	}
	if p == Dispatched {
		c.held = 0
	}
	if sameList(c.phase, p) {
		c.phase = p
	} else {
		m.put(c, p)
	}
	return None
}

func (m *model) hold(c *modelConn, bytes, now int) Cause {
	if c.interrupted != None || c.held == bytes {
		return c.interrupted
	}
	switch c.held = bytes; {
	case bytes == 0:
		c.holding = 0
	case c.holding == 0:
		c.holding = now
	}
	for m.held() > m.maxHeld {
		oldest := (*modelConn)(nil)
		for _, d := range m.conns {
			if d.holding > 0 && (oldest == nil || d.holding < oldest.holding) {
				oldest = d
			}
		}
		if oldest == nil {
			break
		}
		m.interrupt(oldest, Crowded)
	}
	return c.interrupted
}

func (m *model) held() (sum int) {
	for _, c := range m.conns {
		sum += c.held
	}
	return sum
}

func (m *model) refuse(c *modelConn) {
	if c.phase != Refusing {
		c.held, c.holding = 0, 0
		m.put(c, Refusing)
	}
}

func (m *model) leave(c *modelConn) {
	m.conns = slices.DeleteFunc(m.conns, func(d *modelConn) bool { return d == c })
	c.phase = Ended
}

func (m *model) drain(due func(*modelConn) bool) (left bool) {
	for _, c := range m.in(Phase.Undecided) {
		switch {
		case c.phase == Blocked:
		case due(c):
			m.interrupt(c, Stopping)
		default:
			left = true
		}
	}
	return left || m.sources > 0
}

func (m *model) counts() (n [phases]int) {
	for _, c := range m.in(func(Phase) bool { return true }) {
		n[c.phase]++
	}
	return n
}

// settled reports whether nobody but Dispatched connections is there, and nobody may come.
func (m *model) settled() bool {
	n := m.counts()
	n[Dispatched] = 0
	return m.sources == 0 && n == [phases]int{}
}

func (m *model) empty() bool { return m.settled() && m.counts()[Dispatched] == 0 }

// A waiter is a call of Settled or Empty.
type waiter struct {
	name string
	met  func() bool // the model's view
	done chan error
}

// TestModel compares the lobby with the model, over random scripts.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) { runScript(t, seed) })
		if t.Failed() {
			return
		}
	}
}

func runScript(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	m := &model{max: 1 + rnd.IntN(5), maxHeld: rnd.IntN(200)}
	l := newLobby(m.max, m.maxHeld)
	var log, told []string
	say := func(format string, args ...any) { log = append(log, fmt.Sprintf(format, args...)) }
	var waiters []*waiter
	wait := func(name string, call func(context.Context) error, met func() bool) {
		w := &waiter{name, met, make(chan error, 1)}
		waiters = append(waiters, w)
		go func() { w.done <- call(t.Context()) }()
	}
	check := func() {
		t.Helper()
		synctest.Wait()
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d: %s\n%s", seed, fmt.Sprintf(format, args...), strings.Join(log, "\n"))
		}
		if !slices.Equal(told, m.told) {
			fail("the lobby did\n%q, want\n%q", told, m.told)
		}
		if got, want := l.Counts(), m.counts(); got != want {
			fail("counts %v, want %v", got, want)
		}
		if l.held != m.held() {
			fail("%d bytes are held, want %d", l.held, m.held())
		}
		n, undecided := l.Counts(), 0
		for p := range Phase(phases) {
			if p.Undecided() {
				undecided += n[p]
			}
		}
		if undecided > m.max || n[Refusing] > m.max {
			fail("counts %v, over the bound %d", n, m.max)
		}
		if l.IsEmpty() != m.empty() {
			fail("IsEmpty %v, counts %v", l.IsEmpty(), n)
		}
		if len(m.conns) == 0 && l.held != 0 {
			fail("the lobby is empty, and %d bytes are held", l.held)
		}
		for _, c := range m.conns {
			if len(c.c.causes) > 1 || l.Interrupted(&c.c.Entry) != c.interrupted {
				fail("connection %d: interrupted %v, want %v", c.c.id, c.c.causes, c.interrupted)
			}
			if c.holding == 0 != (c.c.holding.list == nil) {
				fail("connection %d: may go for its bytes: %v", c.c.id, c.holding != 0)
			}
		}
		waiters = slices.DeleteFunc(waiters, func(w *waiter) bool {
			select {
			case err := <-w.done:
				if !w.met() || err != nil {
					fail("%s returned, %v", w.name, err)
				}
				return true
			default:
				if w.met() {
					fail("%s waits on", w.name)
				}
				return false
			}
		})
	}

	id := 0
	for step := 1; step <= 150; step++ {
		time.Sleep(time.Millisecond) // so that two connections are never accepted at the same time
		var c *modelConn
		if len(m.conns) > 0 {
			c = m.conns[rnd.IntN(len(m.conns))]
		}
		switch op := rnd.IntN(100); {
		case op < 25 || c == nil && op < 80:
			id++
			tc := &testConn{id: id}
			tc.log = func(c *testConn) {
				told = append(told, fmt.Sprintf("interrupt %d: %v", c.id, c.causes[len(c.causes)-1]))
			}
			c := &modelConn{c: tc, since: time.Now()}
			p := []Phase{Accepted, Accepted, Opening, Queued}[rnd.IntN(4)]
			say("enter %d, %v", id, p)
			m.enter(c, p)
			l.Enter(&tc.Entry, &recorder{tc, &told}, p, c.since)
		case op < 50 && c.phase != Refusing:
			p := Phase(rnd.IntN(int(Dispatched) + 1))
			say("move %d from %v to %v", c.c.id, c.phase, p)
			want := m.move(c, p)
			if got := l.Move(&c.c.Entry, p); got != want {
				t.Fatalf("seed %d: Move: %v, want %v\n%s", seed, got, want, strings.Join(log, "\n"))
			}
		case op < 50 && c.interrupted != None:
			say("move %d, which was interrupted", c.c.id)
			if got := l.Move(&c.c.Entry, Queued); got != c.interrupted {
				t.Fatalf("seed %d: Move: %v, want %v\n%s", seed, got, c.interrupted, strings.Join(log, "\n"))
			}
		case op < 65 && (c.phase.Undecided() || c.interrupted != None):
			bytes := rnd.IntN(3) * rnd.IntN(100)
			say("hold %d bytes of %d", bytes, c.c.id)
			want := m.hold(c, bytes, step)
			if got := l.Hold(&c.c.Entry, bytes); got != want {
				t.Fatalf("seed %d: Hold: %v, want %v\n%s", seed, got, want, strings.Join(log, "\n"))
			}
		case op < 72 && c != nil:
			say("refuse %d", c.c.id)
			m.refuse(c)
			l.Refuse(&c.c.Entry)
		case op < 84 && c != nil:
			say("leave %d", c.c.id)
			m.leave(c)
			l.Leave(&c.c.Entry)
		case op < 86:
			say("evict the oldest")
			if list := m.in(is(Refusing)); len(list) > 0 {
				m.closeRefused(list[0])
			}
			if list := m.in(Phase.Undecided); len(list) > 0 {
				m.interrupt(list[0], Crowded)
			}
			l.EvictOldest()
		case op < 88:
			before := time.Now().Add(-time.Duration(rnd.IntN(50)) * time.Millisecond)
			say("drain")
			want := m.drain(func(c *modelConn) bool { return c.since.Before(before) })
			if got := l.Drain(before); got != want {
				t.Fatalf("seed %d: Drain: %v, want %v\n%s", seed, got, want, strings.Join(log, "\n"))
			}
		case op < 89 && rnd.IntN(4) == 0:
			say("stop")
			m.stopping = true
			m.drain(func(*modelConn) bool { return true })
			l.Stop()
		case op < 91:
			say("each")
			var got, want []Conn
			l.Each(func(c Conn) { got = append(got, c.(*recorder).testConn) })
			for _, c := range m.in(is(Dispatched)) {
				want = append(want, c.c)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: Each called for %d connections, want %d\n%s", seed, len(got), len(want), strings.Join(log, "\n"))
			}
		case op < 92:
			say("close those being refused")
			for _, c := range m.in(is(Refusing)) {
				m.told = append(m.told, fmt.Sprintf("close %d", c.c.id))
			}
			l.CloseRefusing()
		case op < 94:
			say("open")
			m.sources++
			l.Open()
		case op < 96 && m.sources > 0:
			say("done")
			m.sources--
			l.Done()
		case op < 98:
			say("wait until settled")
			wait("Settled", l.Settled, m.settled)
		default:
			say("wait until empty")
			wait("Empty", l.Empty, m.empty)
		}
		check()
	}
	say("everything ends")
	for ; m.sources > 0; m.sources-- {
		l.Done()
	}
	for len(m.conns) > 0 {
		c := m.conns[0]
		m.leave(c)
		l.Leave(&c.c.Entry)
		check()
	}
	check()
	if len(waiters) > 0 || l.holders.n != 0 || l.refusing.n != 0 {
		t.Errorf("seed %d: in the end %d wait, %d hold bytes", seed, len(waiters), l.holders.n)
	}
}

// A recorder adds the closing of a connection to what was done to all.
type recorder struct {
	*testConn
	told *[]string
}

func (r *recorder) Close() error {
	*r.told = append(*r.told, fmt.Sprintf("close %d", r.id))
	return r.testConn.Close()
}

// TestConcurrent has many connections go their ways at once, for the race detector.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	l := newLobby(20, 1000)
	l.Open()
	over := make(chan struct{})
	var others sync.WaitGroup
	for _, do := range []func(){
		l.EvictOldest,
		func() { l.Drain(time.Now().Add(-time.Second)) },
		func() { l.Each(func(c Conn) { c.Close() }) },
		func() {
			n, undecided := l.Counts(), 0
			for p := range Phase(phases) {
				if p.Undecided() {
					undecided += n[p]
				}
			}
			if undecided > l.Max || n[Refusing] > l.Max {
				t.Errorf("counts %v", n)
			}
		},
	} {
		others.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-time.After(10 * time.Microsecond):
					do()
				}
			}
		})
	}
	var conns sync.WaitGroup
	for i := range 8 {
		conns.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 0))
			var open []*lockedConn
			for range 500 {
				c := new(lockedConn)
				l.Enter(&c.Entry, c, Accepted, time.Now())
				open = append(open, c)
				for range 3 {
					c := open[rnd.IntN(len(open))]
					if l.Move(&c.Entry, Phase(rnd.IntN(int(Dispatched)+1))) != None {
						l.Refuse(&c.Entry)
					} else if rnd.IntN(2) == 0 {
						l.Move(&c.Entry, Opening)
						l.Hold(&c.Entry, rnd.IntN(100))
					}
				}
				if len(open) > 10 || rnd.IntN(2) == 0 {
					i := rnd.IntN(len(open))
					l.Leave(&open[i].Entry)
					open = slices.Delete(open, i, i+1)
				}
			}
			l.Stop()
			for _, c := range open {
				l.Leave(&c.Entry)
			}
			for _, c := range open {
				c.mu.Lock()
				if c.interrupts > 1 {
					t.Errorf("a connection was interrupted %d times", c.interrupts)
				}
				c.mu.Unlock()
			}
		})
	}
	conns.Wait()
	l.Done()
	if err := l.Empty(t.Context()); err != nil {
		t.Error(err)
	}
	close(over)
	others.Wait()
	if l.held != 0 || l.Counts() != [phases]int{} {
		t.Errorf("in the end %d bytes are held, counts %v", l.held, l.Counts())
	}
}

// A lockedConn is a connection that several goroutines may interrupt and close.
type lockedConn struct {
	Entry
	mu         sync.Mutex
	interrupts int
	closed     int
}

func (c *lockedConn) Interrupt(Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupts++
}

func (c *lockedConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
	return nil
}
