package oneport

import (
	"bytes"
	"errors"
	"net"
	"time"

	"github.com/oneport-go/oneport/internal/lobby"
	"github.com/oneport-go/oneport/internal/netconn"
)

// due returns when the connection times out. A client that was idle has as long for a request that it begins as it had
// for the first bytes.
func (c *pending) due() time.Time {
	began := c.opening.RequestBegan()
	switch {
	case c.phase == lobby.Handshaking:
		return c.since.Add(c.mux.limits.HandshakeTimeout)
	case c.opening.Ready() && began.IsZero():
		return c.since.Add(c.mux.limits.IdleTimeout)
	case c.opening.Ready():
		return began.Add(c.mux.limits.DecideTimeout)
	}
	return c.since.Add(c.mux.limits.DecideTimeout)
}

// arm sets the deadlines for waiting and for what is written meanwhile. If the two are the same, a socket gets an alarm
// in their place, which costs less.
func (c *pending) arm(now time.Time) *refusal {
	limit := c.due()
	wake := limit
	if c.awaited = 0; c.seen == 0 && c.phase != lobby.Handshaking {
		if c.awaited = c.search.nextSilence(); c.awaited > 0 {
			wake = earlier(wake, c.since.Add(c.awaited))
		}
	}
	if t := c.opening.Wake(now); !t.IsZero() {
		wake = earlier(wake, t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != lobby.None {
		return c.interruption()
	}
	c.armed = true
	c.silent = c.seen == 0 && c.language == ProtocolUnknown && c.tls == nil && !c.upgraded &&
		!c.source.Peeking() && netconn.Socket(c.raw) == nil
	writes := limit
	if c.tls != nil {
		writes = limit.Add(lingerTime) // a Write that times out breaks crypto/tls, and it could not be said why
	}
	var err error
	if !wake.Equal(writes) || !netconn.IsSocket(c.conn) {
		err = c.setDeadlines(wake, writes)
	} else if err = c.disarm(); err == nil {
		c.mux.alarms.Set(&c.alarm, c, limit)
	}
	if err == nil {
		return nil
	}
	// A connection without deadlines can be woken up only by its end.
	if c.timer == nil {
		raw := c.raw // c may be on its next connection when the timer fires
		c.timer = time.AfterFunc(time.Until(limit), func() { raw.Close() })
	} else {
		c.timer.Reset(time.Until(limit))
	}
	return nil
}

// setDeadlines sets deadlines in place of an alarm.
func (c *pending) setDeadlines(read, write time.Time) error {
	c.mux.alarms.Clear(&c.alarm)
	c.deadlines = true
	if read.Equal(write) {
		return c.conn.SetDeadline(read) // for which the net package needs one timer, not two
	}
	return errors.Join(c.conn.SetReadDeadline(read), c.conn.SetWriteDeadline(write))
}

// disarm ends what arm began, unless a timer stands in for deadlines.
func (c *pending) disarm() error {
	if rung := c.mux.alarms.Clear(&c.alarm); !rung && !c.deadlines {
		return nil
	}
	c.deadlines = false
	return c.conn.SetDeadline(time.Time{})
}

// Ring ends the wait of a socket when its time is over. The clock calls it, which is locked.
func (c *pending) Ring() { c.raw.SetDeadline(aLongTimeAgo) }

func earlier(t, u time.Time) time.Time {
	if u.Before(t) {
		return u
	}
	return t
}

// Interrupt ends the wait. The registry calls it with its lock held. A silent connection gets no answer and is closed
// at once: another reader of it, such as a test with both ends of a pipe, must not see a deadline in place of the end.
func (c *pending) Interrupt(cause lobby.Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cause = cause
	switch {
	case c.signal != nil:
		close(c.signal)
	case c.armed && (c.silent || c.timer != nil || c.raw.SetDeadline(aLongTimeAgo) != nil):
		c.raw.Close()
	}
}

// Close closes the connection at once.
func (c *pending) Close() error { return c.raw.Close() }

var aLongTimeAgo = time.Unix(1, 0)

// interrupted returns why the connection was interrupted, if it was. It does not change any more then.
func (c *pending) interrupted() lobby.Cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// interruptible returns a channel that is closed when the connection, which has a route and waits for room, is
// interrupted.
func (c *pending) interruptible() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.signal = make(chan struct{})
	if c.cause != lobby.None {
		close(c.signal)
	}
	return c.signal
}

// write writes b to the client, behind what was written before.
//
// The few bytes that a mux writes fit into the send buffer of a socket. Other connections may have no buffer at all: a
// write to a net.Pipe waits for the client to read, while the client may want to finish its own write first. For these,
// a goroutine writes while the mux keeps reading, and the next call of write or finishWrite returns the error.
func (c *pending) write(b []byte) error {
	if netconn.IsSocket(c.raw) {
		_, err := c.conn.Write(b)
		return err
	}
	if err := c.finishWrite(); err != nil {
		return err
	}
	written := make(chan error, 1)
	c.written = written
	go func(conn net.Conn, b []byte) { // c may be on its next connection when this ends
		_, err := conn.Write(b)
		written <- err
	}(c.conn, bytes.Clone(b))
	return nil
}

// finishWrite waits until everything is written, so that nothing else gets in between. The deadlines of the wait apply.
func (c *pending) finishWrite() error {
	if c.written == nil {
		return nil
	}
	err := <-c.written
	c.written = nil
	return err
}

// abandonWrite is finishWrite for a connection that will be refused.
func (c *pending) abandonWrite() {
	if c.written == nil {
		return
	}
	if c.conn.SetWriteDeadline(time.Now().Add(lingerTime)) != nil {
		c.conn.Close()
	}
	c.finishWrite()
}
