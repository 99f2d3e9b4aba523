package main

// The windows of flow control (RFC 9113, Sections 5.2 and 6.9). There are two for each direction of a stream: its own,
// and that of the connection, which all streams share. Only DATA counts, its padding included.

const (
	initialWindow = 1<<16 - 1 // RFC 9113, Section 6.9.2
	maxWindow     = 1<<31 - 1 // RFC 9113, Section 6.9.1
)

// An outWindow is what the client allows this side to send. It can be negative: a smaller SETTINGS_INITIAL_WINDOW_SIZE
// applies to streams that have used more of theirs already (RFC 9113, Section 6.9.2).
type outWindow int64

// add reports whether the window is within bounds with n more.
func (w *outWindow) add(n int64) bool {
	*w += outWindow(n)
	return *w <= maxWindow
}

// An inWindow is what this side allows the client to send.
type inWindow struct {
	left int // what the client may still send
	used int // what was consumed, and is not given back yet
}

// take reports whether the client was allowed to send n bytes.
func (w *inWindow) take(n int) bool {
	w.left -= n
	return w.left >= 0
}

// give records that n bytes were consumed, and returns the increment for a WINDOW_UPDATE frame. The increment is 0
// until half the window can be returned at once: a frame for every few bytes would be wasteful, and waiting until the
// window is empty would stop the client.
func (w *inWindow) give(n int) (increment int) {
	w.used += n
	if w.used < initialWindow/2 {
		return 0
	}
	increment, w.used = w.used, 0
	w.left += increment
	return increment
}
