package oneport

import "sync"

// slots are the places for connections that servers have. Nil has no bound.
type slots chan struct{}

func newSlots(n int) slots {
	if n <= 0 {
		return nil
	}
	return make(slots, n)
}

// A hold is the places that one connection takes. Nil takes none.
type hold struct {
	once sync.Once
	of   []slots
}

// full is a channel that makes acquire return without waiting.
var full = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// acquire takes a place of each of the slots, for which it waits until done is closed. It reports whether it has them.
func acquire(done <-chan struct{}, all ...slots) (*hold, bool) {
	var h *hold
	for _, s := range all {
		if s == nil {
			continue
		}
		if h == nil {
			h = new(hold)
		}
		select {
		case s <- struct{}{}:
		default:
			select {
			case s <- struct{}{}:
			case <-done:
				h.release()
				return nil, false
			}
		}
		h.of = append(h.of, s)
	}
	return h, true
}

func (h *hold) release() {
	if h == nil {
		return
	}
	h.once.Do(func() {
		for _, s := range h.of {
			<-s
		}
	})
}
