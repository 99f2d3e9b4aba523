package dispatch

import (
	"slices"
	"sync"
)

// A stream is one that is open.
type stream struct {
	id                       uint32
	server                   *Conn
	opened                   instant
	grpc                     bool
	answered                 bool // a header block has come from the server
	clientEnded, serverEnded bool
	removed                  bool
	uploadStream
	downloadStream
}

// freeStreams has memory for streams. Only connections that pass through give it back, where nothing refers to a stream
// that has been removed.
var freeStreams = sync.Pool{New: func() any { return new(stream) }}

// A streamTable has streams in the order of their numbers, in which clients open them (RFC 9113, Section 5.1.1).
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

// sending reports whether there is a stream on which the client has more to send.
func (t streamTable) sending() bool {
	return slices.ContainsFunc(t, func(s *stream) bool { return !s.clientEnded })
}

// keptStreams is for how many streams the memory is kept when there are none.
const keptStreams = 256
