// Package peek returns the first bytes of a connection. On a socket it peeks (recv(2) with MSG_PEEK), so the connection
// can be handed over as it was accepted. Otherwise it reads the bytes and keeps them for the next reader of the
// connection.
package peek

import (
	"io"
	"net"
	"sync"
)

// A Source is the beginning of a connection's stream, as far as it has arrived. It can be reused for another
// connection, and then keeps its memory, except for the bytes that it has read.
type Source struct {
	peeker Peeker
	pool   *Pool
	conn   net.Conn

	socket  bool   // peeker can look at the socket, which may be below TLS
	peeking bool   // the bytes are looked at in the socket
	empty   bool   // a look has just found nothing
	taken   []byte // what was taken out, if not peeking
	seen    int    // how many bytes were shown last
}

// Start begins with a connection.
func (s *Source) Start(c net.Conn, pool *Pool) {
	s.conn, s.pool, s.taken, s.seen, s.empty = c, pool, nil, 0, false
	s.socket = s.peeker.Init(c, pool)
	s.peeking = s.socket
}

// Enter continues with a connection on top of the previous one, such as one inside TLS, from its first byte.
func (s *Source) Enter(c net.Conn) {
	s.Release()
	s.conn, s.peeking, s.taken, s.seen, s.empty = c, false, nil, 0, false
}

// End forgets the connection.
func (s *Source) End() {
	s.Release()
	s.conn, s.taken = nil, nil
}

// Peeking reports whether the bytes are left in the socket.
func (s *Source) Peeking() bool { return s.peeking }

// Seen returns how many bytes were shown last.
func (s *Source) Seen() int { return s.seen }

// Taken returns the bytes that were read from the connection.
func (s *Source) Taken() []byte { return s.taken }

// Drop discards the first n of the bytes that were read.
func (s *Source) Drop(n int) { s.taken = s.taken[n:] }

// Look returns what has arrived so far, up to a limit, and whether nothing can follow. With wait, it waits until there
// is more than the last call returned. The result is valid until the next call of another method.
func (s *Source) Look(wait bool, limit int) (data []byte, ended bool, err error) {
	if s.peeking && s.empty && !wait {
		s.empty = false
		return nil, false, nil // as a moment ago
	}
	if s.peeking && wait && s.seen > 0 && !s.canAwaitMore() {
		s.Take()
	}
	if !s.peeking && !wait {
		return s.taken, false, nil
	}
	if s.peeking {
		data, ended, err = s.peeker.Peek(s.seen, wait)
		s.empty = !wait && err == nil && !ended && len(data) == 0
	} else {
		data, ended, err = s.Read(limit)
	}
	if err == nil {
		s.seen = len(data)
	}
	return data, ended, err
}

// canAwaitMore reports whether more bytes can arrive while those that have arrived stay in the socket.
func (s *Source) canAwaitMore() bool {
	return CanAwaitMore && s.seen < s.pool.Size && !s.peeker.NearlyFull(s.seen)
}

// Again returns what the last call returned and what has arrived since, for a caller that no longer waits.
func (s *Source) Again() (data []byte, ended bool, err error) {
	if !s.peeking {
		return s.taken, false, nil
	}
	return s.peeker.Peek(0, false)
}

// Take stops peeking: from the next Look on, the bytes are read.
func (s *Source) Take() {
	s.Release()
	s.peeking = false
}

// Read reads from the connection until there are more bytes than the last call returned, up to the limit.
func (s *Source) Read(limit int) (data []byte, ended bool, err error) {
	for len(s.taken) <= s.seen && !ended {
		err := s.ReadOnce(limit)
		if err == io.EOF {
			ended = true
		} else if err != nil && len(s.taken) <= s.seen {
			return nil, false, err
		}
	}
	s.seen = len(s.taken)
	return s.taken, ended, nil
}

// ReadMore reads more bytes from the connection, up to the limit for all of them.
func (s *Source) ReadMore(limit int) (data []byte, ended bool, err error) {
	s.seen = len(s.taken)
	return s.Read(limit)
}

// ReadOnce reads more bytes from the connection, up to the limit for all of them, which must not be reached yet.
func (s *Source) ReadOnce(limit int) error {
	switch n := len(s.taken); {
	case cap(s.taken) == 0 && limit >= firstTake:
		s.taken = firstTakes.Get().(*[firstTake]byte)[:0]
	case n == cap(s.taken):
		grown := make([]byte, n, min(max(2*n, firstTake), limit))
		copy(grown, s.taken)
		s.taken = grown
	}
	n, err := s.conn.Read(s.taken[len(s.taken):cap(s.taken)])
	s.taken = s.taken[:len(s.taken)+n]
	return err
}

// Reuse discards the bytes that were read, to which nobody may refer any more, and lets another Source have the memory.
func (s *Source) Reuse() {
	if cap(s.taken) == firstTake {
		firstTakes.Put((*[firstTake]byte)(s.taken[:firstTake]))
	}
	s.taken = nil
}

// firstTakes has memory for the first bytes, which is enough for most requests.
var firstTakes = sync.Pool{New: func() any { return new([firstTake]byte) }}

const firstTake = 512

// Queued reports whether the socket, which may be below TLS, holds unread bytes.
func (s *Source) Queued() bool { return s.socket && s.peeker.Queued() }

// Release releases the buffer that the last Look has filled. A connection that waits holds none.
func (s *Source) Release() { s.peeker.Release() }
