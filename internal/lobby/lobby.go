// Package lobby is the registry of a mux's connections. A connection is in it from Accept until a server has it or it
// is closed; if its requests are dispatched one by one, until it ends.
//
// The registry knows the [Phase] of each connection, and applies the rules for all of them: how many may be without a
// server, which one is evicted to make room, and which are closed at a shutdown. Each connection knows how to interrupt
// itself: see [Conn].
package lobby

import (
	"context"
	"sync"
	"time"
)

// Phase is what a connection is doing.
type Phase uint8

// The phases, in the order in which a connection can go through them.
const (
	Accepted    Phase = iota // no route has been asked
	Handshaking              // TLS is being terminated
	Opening                  // its route depends on bytes that have not come
	Switching                // it is becoming HTTP/2 by Upgrade: h2c
	Blocked                  // the queue of its route is full
	Queued                   // its server has not accepted it
	Dispatched               // its requests are dispatched to servers that have accepted it
	Refusing                 // its refusal is being sent
	Ended                    // a server has it, or it is closed

	phases = int(Ended)
)

var names = [...]string{"accepted", "handshaking", "opening", "switching", "blocked", "queued", "dispatched", "refusing", "ended"}

// String returns the phase in a word.
func (p Phase) String() string { return names[p] }

// Undecided reports whether the connection does not have a server or a place in its queue yet. The number of such
// connections is bounded, and the oldest of them is evicted.
func (p Phase) Undecided() bool { return p <= Blocked }

// Cause says why a connection is interrupted.
type Cause uint8

const (
	None     Cause = iota
	Crowded        // there are too many, and it is the oldest
	Stopping       // the mux is being shut down
)

// String returns the cause in a few words.
func (c Cause) String() string { return [...]string{"", "too many connections", "shutting down"}[c] }

// A Conn is a connection in a [Lobby].
type Conn interface {
	// Interrupt ends the connection's wait. The lobby calls it at most once, with its lock held.
	Interrupt(Cause)
	// Close closes the connection at once, without an answer.
	Close() error
}

// An Entry is the place of one connection in a Lobby. It must not be copied or used again before the connection has
// left.
type Entry struct {
	conn        Conn
	since       time.Time
	phase       Phase
	interrupted Cause
	place       node // in the list of the phase

	held    int  // bytes
	holding node // in holders, if held is not 0
}

// Lobby is a registry. The zero value is ready to use, but for Max.
type Lobby struct {
	// Max is how many connections may be undecided at once, and how many may be in Refusing. If there is one more, the
	// oldest is interrupted or closed. MaxHeld is how many bytes the undecided ones may hold together. Both must be set
	// before the first connection enters.
	Max, MaxHeld int

	mu        sync.Mutex
	undecided list
	queued    list
	served    list // Dispatched
	refusing  list
	held      int  // bytes
	holders   list // those that hold some and are not decided, in the order in which they began to
	count     [phases]int
	sources   int  // calls of Open without Done
	stopping  bool // all that are undecided are interrupted
	idle      chan struct{}
	empty     chan struct{}
}

func (l *Lobby) listOf(p Phase) *list {
	switch {
	case p.Undecided():
		return &l.undecided
	case p == Queued:
		return &l.queued
	case p == Dispatched:
		return &l.served
	}
	return &l.refusing
}

// Open announces that connections may enter until Done is called: the lobby is not empty before that.
func (l *Lobby) Open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sources++
}

// Done undoes a call of Open.
func (l *Lobby) Done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sources--
	l.notify()
}

// Enter adds a connection, which was accepted at the time since.
func (l *Lobby) Enter(e *Entry, c Conn, p Phase, since time.Time) {
	*e = Entry{conn: c, since: since}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.phase = p; l.stopping && p.Undecided() {
		l.interrupt(e, Stopping) // and nobody has to make room for it
		return
	}
	l.put(e, p)
}

// put adds e to the list of its phase, which may push another one out.
func (l *Lobby) put(e *Entry, p Phase) {
	e.phase = p
	l.count[p]++
	list := l.listOf(p)
	list.add(&e.place, e)
	if list.n <= l.Max {
		return
	}
	switch list {
	case &l.undecided:
		l.interrupt(list.oldest.entry, Crowded)
	case &l.refusing:
		l.closeRefused()
	}
}

// closeRefused closes the connection that has been in Refusing for longest, and has had the most time to read its
// answer.
func (l *Lobby) closeRefused() {
	oldest := l.refusing.oldest.entry
	oldest.conn.Close()
	l.take(oldest)
}

func (l *Lobby) take(e *Entry) {
	if e.place.list != nil {
		l.count[e.phase]--
		e.place.remove()
	}
}

// release forgets what e holds.
func (l *Lobby) release(e *Entry) {
	l.held -= e.held
	e.held = 0
	e.holding.remove()
}

// interrupt interrupts an undecided connection, which must then be refused.
func (l *Lobby) interrupt(e *Entry, cause Cause) {
	l.take(e)
	l.release(e)
	e.interrupted = cause
	l.put(e, Refusing)
	e.conn.Interrupt(cause)
}

// Move moves a connection to another phase, and returns None. If the connection was interrupted, it stays in Refusing,
// and Move returns the cause.
func (l *Lobby) Move(e *Entry, p Phase) Cause {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.interrupted != None {
		return e.interrupted
	}
	if l.listOf(p) == e.place.list {
		l.count[e.phase]--
		l.count[p]++
		e.phase = p
		return None
	}
	l.take(e)
	if p == Dispatched {
		l.release(e)
	} else if !p.Undecided() {
		e.holding.remove() // it holds what it does until its server has it, and does not have to go for it
	}
	l.put(e, p)
	l.notify()
	return None
}

// Replace replaces an entry with another one; the first has then left. If the connection was interrupted, Replace does
// nothing and returns the cause.
func (l *Lobby) Replace(old, e *Entry, c Conn) Cause {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old.interrupted != None {
		return old.interrupted
	}
	*e = Entry{conn: c, since: old.since}
	l.take(old)
	l.release(old)
	l.put(e, old.phase)
	old.phase = Ended
	return None
}

// Hold records how many bytes an undecided connection holds. If all together hold too many, those that hold some are
// interrupted, the oldest first. Hold returns the cause for which e was interrupted, or None.
func (l *Lobby) Hold(e *Entry, bytes int) Cause {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.interrupted != None || e.held == bytes {
		return e.interrupted
	}
	l.held += bytes - e.held
	e.held = bytes
	switch {
	case bytes == 0:
		e.holding.remove()
	case e.holding.list == nil:
		l.holders.add(&e.holding, e)
	}
	for l.held > l.MaxHeld && l.holders.oldest != nil {
		l.interrupt(l.holders.oldest.entry, Crowded)
	}
	return e.interrupted
}

// Refuse moves a connection to the phase Refusing, whether it was interrupted or not.
func (l *Lobby) Refuse(e *Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.phase == Refusing {
		return // and may have been pushed out already
	}
	l.take(e)
	l.release(e)
	l.put(e, Refusing)
}

// Leave removes a connection. It may have left before.
func (l *Lobby) Leave(e *Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(e)
	l.release(e)
	e.phase = Ended
	l.notify()
}

// Interrupted returns the cause for which a connection was interrupted, or None.
func (l *Lobby) Interrupted(e *Entry) Cause {
	l.mu.Lock()
	defer l.mu.Unlock()
	return e.interrupted
}

// EvictOldest frees a file, now or when it is called again: it closes the connection that has been in Refusing for
// longest, and interrupts the one that has been undecided for longest.
func (l *Lobby) EvictOldest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refusing.oldest != nil {
		l.closeRefused()
		l.notify()
	}
	if l.undecided.oldest != nil {
		l.interrupt(l.undecided.oldest.entry, Crowded)
	}
}

// Drain interrupts the undecided connections that were accepted before the given time, except those that have a route.
// It reports whether others are left; more may still enter.
func (l *Lobby) Drain(before time.Time) (left bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drain(func(e *Entry) bool { return e.since.Before(before) })
}

// Stop interrupts all undecided connections, including those that enter from now on, except those that have a route.
func (l *Lobby) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
	l.drain(func(*Entry) bool { return true })
}

func (l *Lobby) drain(due func(*Entry) bool) (left bool) {
	for n := l.undecided.oldest; n != nil; {
		next := n.newer
		switch {
		case n.entry.phase == Blocked:
		case due(n.entry):
			l.interrupt(n.entry, Stopping)
		default:
			left = true
		}
		n = next
	}
	return left || l.sources > 0
}

// Each calls f for the connections in Dispatched.
func (l *Lobby) Each(f func(Conn)) {
	l.mu.Lock()
	conns := make([]Conn, 0, l.served.n)
	for n := l.served.oldest; n != nil; n = n.newer {
		conns = append(conns, n.entry.conn)
	}
	l.mu.Unlock()
	for _, c := range conns {
		f(c)
	}
}

// CloseRefusing closes the connections that are being refused.
func (l *Lobby) CloseRefusing() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := l.refusing.oldest; n != nil; n = n.newer {
		n.entry.conn.Close()
	}
}

// Counts returns the number of connections in each phase. It does not count connections that closeRefused has closed.
func (l *Lobby) Counts() (n [phases]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Settled waits until every connection is in Dispatched or has left, or ctx ends.
func (l *Lobby) Settled(ctx context.Context) error { return l.wait(ctx, &l.idle) }

// Empty waits until every connection has left, or ctx ends.
func (l *Lobby) Empty(ctx context.Context) error { return l.wait(ctx, &l.empty) }

func (l *Lobby) wait(ctx context.Context, when *chan struct{}) error {
	l.mu.Lock()
	if *when == nil {
		*when = make(chan struct{})
	}
	done := *when
	l.notify()
	l.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// IsEmpty reports whether every connection has left, and none can enter.
func (l *Lobby) IsEmpty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settled() && l.served.n == 0
}

// settled reports whether every connection is in Dispatched or has left.
func (l *Lobby) settled() bool {
	return l.sources == 0 && l.undecided.n+l.queued.n+l.refusing.n == 0
}

// notify wakes those who wait.
func (l *Lobby) notify() {
	if !l.settled() {
		return
	}
	if l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
	if l.empty != nil && l.served.n == 0 {
		close(l.empty)
		l.empty = nil
	}
}

// A list has entries in the order in which they were added.
type list struct {
	oldest, newest *node
	n              int
}

// A node is the place of an entry in a list, if it is in one.
type node struct {
	entry        *Entry
	list         *list
	older, newer *node
}

func (l *list) add(n *node, e *Entry) {
	*n = node{entry: e, list: l, older: l.newest}
	if l.newest != nil {
		l.newest.newer = n
	} else {
		l.oldest = n
	}
	l.newest = n
	l.n++
}

func (n *node) remove() {
	l := n.list
	if l == nil {
		return
	}
	if n.older != nil {
		n.older.newer = n.newer
	} else {
		l.oldest = n.newer
	}
	if n.newer != nil {
		n.newer.older = n.older
	} else {
		l.newest = n.older
	}
	*n = node{}
	l.n--
}
