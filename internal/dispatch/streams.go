package dispatch

import (
	"cmp"
	"slices"
	"time"
)

// streamState is what is known of a stream that is open, however its connection is dispatched.
type streamState struct {
	id                       uint32
	grpc                     bool
	answered                 bool // a header block has come from the server
	clientEnded, serverEnded bool
	opened                   instant
}

// early reports whether a reset by the client is early: the server has not answered, and the client has not waited for
// as long as those do that lose patience.
func (s *streamState) early() bool { return !s.answered && since(s.opened) < earlyReset }

// earlyReset is how long a stream must be open for its reset not to be early.
const earlyReset = time.Second

// A passedStream is a stream while its connection passes through: what a stream begins with when that is split.
type passedStream struct {
	streamState

	// What flow control has come to, apart from the SETTINGS_INITIAL_WINDOW_SIZE of each side.
	upload   int64 // given by the server, less what the client has sent
	download int64 // given by the client, less what the server has sent
}

// over reports whether both sides have ended the stream.
func (s *passedStream) over() bool { return s.clientEnded && s.serverEnded }

// passedStreams are the streams of a connection that passes through, in the order of their numbers, in which clients
// open them (RFC 9113, Section 5.1.1). Each call opens a stream and ends it, so a stream that is over stays in its place
// until such streams are the larger part. There are no pointers in the table.
type passedStreams struct {
	places []passedStream
	open   int // streams that are not over
}

// add adds a stream that was opened after all the others, and returns it. It is valid until another is added, or one
// ends.
func (t *passedStreams) add(id uint32) *passedStream {
	t.places = append(t.places, passedStream{})
	t.open++
	s := &t.places[len(t.places)-1]
	s.id = id
	return s
}

// find returns the stream with a number that is open, or nil. It is valid as long as one that was added.
func (t *passedStreams) find(id uint32) *passedStream {
	last := len(t.places) - 1
	if last < 0 || t.places[last].id < id {
		return nil
	}
	// Most clients leave out no odd number, so this is mostly the place, and never behind it.
	i := max(last-int(t.places[last].id-id)/2, 0)
	if t.places[i].id != id {
		n, _ := slices.BinarySearchFunc(t.places[i:], id, func(s passedStream, id uint32) int { return cmp.Compare(s.id, id) })
		i += n
	}
	if s := &t.places[i]; s.id == id && !s.over() {
		return s
	}
	return nil
}

// endClient ends the client's side of a stream.
func (t *passedStreams) endClient(s *passedStream) {
	s.clientEnded = true
	t.settle(s)
}

// endServer ends the server's side of a stream.
func (t *passedStreams) endServer(s *passedStream) {
	s.serverEnded = true
	t.settle(s)
}

// reset ends both sides of a stream.
func (t *passedStreams) reset(s *passedStream) {
	s.clientEnded, s.serverEnded = true, true
	t.settle(s)
}

// settle takes note that a stream may be over. A table without open streams keeps little memory.
func (t *passedStreams) settle(s *passedStream) {
	if !s.over() {
		return
	}
	t.open--
	switch {
	case t.open == 0 && cap(t.places) > keptPlaces:
		t.places = nil
	case t.open == 0:
		t.places = t.places[:0]
	case len(t.places) > 2*t.open:
		t.places = slices.DeleteFunc(t.places, func(s passedStream) bool { return s.over() })
	}
}

// sending reports whether there is an open stream on which the client has more to send.
func (t *passedStreams) sending() bool {
	return slices.ContainsFunc(t.places, func(s passedStream) bool { return !s.clientEnded })
}

// keptPlaces is for how many streams the memory is kept when none is open.
const keptPlaces = 128

// A stream is one that is open, once its connection is split.
type stream struct {
	streamState
	server  *Conn
	removed bool
	uploadStream
	downloadStream
}

// A streamTable has streams in the order of their numbers.
type streamTable []*stream

// add adds a stream that was opened after all the others.
func (t *streamTable) add(s *stream) { *t = append(*t, s) }

// find returns the stream with a number, or nil.
func (t streamTable) find(id uint32) *stream {
	if i, ok := t.search(id); ok {
		return t[i]
	}
	return nil
}

func (t streamTable) search(id uint32) (i int, found bool) {
	i, end := 0, len(t)
	for i < end {
		if mid := int(uint(i+end) / 2); t[mid].id < id {
			i = mid + 1
		} else {
			end = mid
		}
	}
	return i, i < len(t) && t[i].id == id
}

// remove removes a stream. A table that is empty keeps little memory.
func (t *streamTable) remove(s *stream) {
	if i, ok := t.search(s.id); ok {
		*t = slices.Delete(*t, i, i+1)
	}
	if len(*t) == 0 && cap(*t) > keptStreams {
		*t = nil
	}
}

// keptStreams is for how many streams the memory is kept when there are none.
const keptStreams = 256
