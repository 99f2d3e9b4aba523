package dispatch

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
	q.off = 0
	if cap(q.b) > maxKept {
		q.b = nil
	} else {
		q.b = q.b[:0]
	}
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
