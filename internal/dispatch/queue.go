package dispatch

import "sync"

// A byteQueue holds bytes on their way.
type byteQueue struct {
	b   []byte
	off int
}

// maxKept is how much memory an empty queue keeps for what comes next.
const maxKept = 8 << 10

func (q *byteQueue) len() int      { return len(q.b) - q.off }
func (q *byteQueue) bytes() []byte { return q.b[q.off:] }

// skip takes n bytes out.
func (q *byteQueue) skip(n int) {
	if q.off += n; q.off < len(q.b) {
		return
	}
	q.b, q.off = emptied(q.b), 0
}

// room makes the bytes contiguous at the start of the memory, if there is little of it behind them, and returns where
// to append.
func (q *byteQueue) room() []byte {
	if q.off > 0 && q.off >= q.len() {
		q.b = q.b[:copy(q.b, q.b[q.off:])]
		q.off = 0
	}
	return q.b
}

func (q *byteQueue) append(p []byte) { q.b = append(q.room(), p...) }

// largeBuffers lends memory for what is much, and gone soon: to grow step by step would copy all of it several times, and
// leave as much garbage behind. It is for what there is one of for each connection, or for each server of one, since few
// bytes can take a whole buffer.
var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

const largeBuffer = 112 << 10

// withRoom returns b with room for n bytes more, in lent memory if that is much.
func withRoom(b []byte, n int) []byte {
	n += len(b)
	if n <= cap(b) || n <= maxKept || n > largeBuffer {
		return b
	}
	return append(largeBuffers.Get().(*[largeBuffer]byte)[:0], b...)
}

// emptied returns the memory of b for what comes next, if it is little. Lent memory is given back.
func emptied(b []byte) []byte {
	if cap(b) <= maxKept {
		return b[:0]
	}
	if cap(b) == largeBuffer {
		largeBuffers.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	}
	return nil
}
