// Package rewind replays bytes that were read from a connection to its next reader, and drops frames that must not
// reach the other end, in both directions.
package rewind

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// A Filter removes frames from a stream.
type Filter interface {
	// Filter goes over the next bytes of the stream behind those held, in place. It returns how many to deliver.
	Filter(b []byte) int
	// Held returns the bytes that Filter has kept back, to be put in front of those that follow.
	Held() []byte
	// Done reports whether the rest of the stream passes as it is.
	Done() bool
}

// maxHeld is more than any Filter holds.
const maxHeld = 32

// A Reader is a stream to be read. Its methods may be called by several goroutines at once.
type Reader struct {
	src   io.Reader
	plain atomic.Bool // nothing is left to replay or to take out: src is the stream

	mu     sync.Mutex // guards what follows
	ready  []byte     // already read from src, still to be delivered
	filter Filter     // nil once it is done
}

// Init sets up the stream: first, then replay and src without what the filter removes from these two. The filter may be
// nil. The Reader keeps the slices.
func (r *Reader) Init(src io.Reader, first, replay []byte, filter Filter) {
	r.src, r.filter, r.ready = src, filter, replay
	if filter != nil {
		r.ready = r.ready[:filter.Filter(r.ready)]
	}
	if len(first) > 0 {
		r.ready = append(first, r.ready...)
	}
	r.settle()
}

// settle records when the rest of the stream is that of src.
func (r *Reader) settle() {
	if r.filter != nil && r.filter.Done() {
		r.filter = nil
	}
	if len(r.ready) == 0 && r.filter == nil {
		r.ready = nil // a replay buffer is not kept once it is empty
		r.plain.Store(true)
	}
}

// Plain reports whether the rest of the stream is that of src.
func (r *Reader) Plain() bool { return r.plain.Load() }

// Read reads the stream, each byte once and in order.
func (r *Reader) Read(p []byte) (int, error) {
	if r.plain.Load() || len(p) == 0 {
		return r.src.Read(p)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.settle()
	if len(r.ready) > 0 {
		n := copy(p, r.ready)
		r.ready = r.ready[n:]
		return n, nil
	}
	for r.filter != nil && !r.filter.Done() {
		if n, err := r.readFiltered(p); n > 0 || err != nil {
			return n, err
		}
	}
	return r.src.Read(p)
}

// readFiltered reads from src once. It may return no bytes, if the filter keeps or drops everything that arrived.
func (r *Reader) readFiltered(p []byte) (int, error) {
	buf := p
	if len(buf) < 2*maxHeld {
		buf = make([]byte, 2*maxHeld) // what was held back takes room before what is read now
	}
	held := copy(buf, r.filter.Held())
	n, err := r.src.Read(buf[held:])
	out := buf[:r.filter.Filter(buf[:held+n])]
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		// The rest of the frame that the filter keeps will not arrive, so the reader gets the part that did.
		out = append(out, r.filter.Held()...)
		r.filter = nil
	}
	n = copy(p, out)
	if n < len(out) {
		r.ready = out[n:]
		return n, nil // an end of the stream, if that is what err is, is reported again by the next read
	}
	return n, err
}

// CopyChanged copies to w for as long as the stream is not that of src.
func (r *Reader) CopyChanged(w io.Writer) (int64, error) {
	var total int64
	var buf []byte
	for !r.plain.Load() {
		if buf == nil {
			buf = make([]byte, 4096)
		}
		n, err := r.Read(buf)
		m, werr := w.Write(buf[:n])
		total += int64(m)
		if werr != nil {
			return total, werr
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// A Writer is a stream to be written. Its methods may be called by several goroutines at once.
type Writer struct {
	dst   io.Writer
	plain atomic.Bool // nothing is left to take out

	mu     sync.Mutex // guards what follows, and keeps writes in order
	filter Filter
}

// Init sets up the stream: what is written goes to dst, without what the filter removes. The filter may be nil.
func (w *Writer) Init(dst io.Writer, filter Filter) {
	w.dst, w.filter = dst, filter
	w.plain.Store(filter == nil)
}

// Plain reports whether the rest of the stream goes to dst as it is.
func (w *Writer) Plain() bool { return w.plain.Load() }

// Write writes to the stream. After an error, part of what was written may be lost, and the stream cannot be used any
// more.
func (w *Writer) Write(p []byte) (int, error) {
	if w.plain.Load() {
		return w.dst.Write(p) // on a small stack: net/http starts a goroutine for each write
	}
	return w.writeFiltered(p)
}

func (w *Writer) writeFiltered(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := append(append(make([]byte, 0, len(w.filter.Held())+len(p)), w.filter.Held()...), p...)
	b = b[:w.filter.Filter(b)]
	if len(b) > 0 {
		if _, err := w.dst.Write(b); err != nil {
			return 0, err
		}
	}
	w.plain.Store(w.filter.Done())
	return len(p), nil
}
