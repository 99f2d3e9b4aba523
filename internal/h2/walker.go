package h2

// A FrameJudge says which frames a [FrameWalker] takes out of a stream.
type FrameJudge interface {
	// Needs returns how many bytes of the payload Takes has to see, 4 at most.
	Needs(h FrameHeader) int
	// Takes reports whether to take the frame out. It may change the bytes of the payload that it is shown.
	Takes(h FrameHeader, payload []byte) bool
	// Done reports whether the rest of the stream passes as it is.
	Done() bool
}

// A FrameWalker goes over a stream of frames that comes in pieces of any size. The zero value is at the first byte of
// the stream.
type FrameWalker struct {
	pass, drop int // bytes to deliver and then to drop before the next frame
	part       [FrameHeaderLen + 4]byte
	n          int // bytes in part
}

// Pass makes the next n bytes pass, as those of a preface.
func (w *FrameWalker) Pass(n int) { w.pass = n }

// Drop makes the walker drop the next n bytes, behind those that pass.
func (w *FrameWalker) Drop(n int) { w.drop = n }

// Dropping reports whether bytes are still to be dropped.
func (w *FrameWalker) Dropping() bool { return w.drop > 0 }

// Held returns the beginning of a frame that Walk has kept back, to be put in front of the bytes that follow. Nobody
// can act on it, so that this delays nothing.
func (w *FrameWalker) Held() []byte { return w.part[:w.n] }

// Walk goes over b, what is held and the next bytes of the stream behind it, and takes frames out in place. It returns
// how many bytes of b to deliver.
func (w *FrameWalker) Walk(b []byte, judge FrameJudge) (n int) {
	w.n = 0
	for i := 0; i < len(b); {
		rest := b[i:]
		switch {
		case w.pass > 0:
			k := min(w.pass, len(rest))
			n += copy(b[n:], rest[:k])
			i, w.pass = i+k, w.pass-k
		case w.drop > 0:
			k := min(w.drop, len(rest))
			i, w.drop = i+k, w.drop-k
		case judge.Done():
			return n + copy(b[n:], rest)
		default:
			if len(rest) < FrameHeaderLen {
				w.n = copy(w.part[:], rest)
				return n
			}
			h := ParseFrameHeader(rest)
			end := FrameHeaderLen + min(judge.Needs(h), int(h.Length))
			if len(rest) < end {
				w.n = copy(w.part[:], rest)
				return n
			}
			if judge.Takes(h, rest[FrameHeaderLen:end]) {
				w.drop = FrameLen(h)
			} else {
				w.pass = FrameLen(h)
			}
		}
	}
	return n
}
