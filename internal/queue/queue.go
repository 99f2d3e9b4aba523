// Package queue has a bounded queue, which delivers values in order to goroutines that wait for them.
package queue

import (
	"slices"
	"sync"
)

// A Queue holds values until they are popped. It takes memory for those that are in it, or for a few. The zero value
// is ready to use; it must not be copied. Its methods may be called by several goroutines at once.
type Queue[T any] struct {
	mu       sync.Mutex
	arrived  sync.Cond
	items    []T
	few      [4]T    // the memory of items, while that is enough
	reserved int     // places in the queue that are promised, by Reserve or to those whose Room is Ready
	waiting  []*Room // in order
	closed   bool
}

// A Room is the place in the line of somebody who waits for room in a Queue.
type Room struct {
	// Ready gets a value when there is room, which is kept for this Room, or the queue is closed.
	Ready chan struct{}

	max      int
	reserved bool
}

// Push adds a value, unless the queue is closed, or max values are in it or have room reserved. It reports whether it
// has added the value.
func (q *Queue[T]) Push(v T, max int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.hasRoom(max) {
		return false
	}
	q.put(v)
	return true
}

// HasRoom reports whether Push would add a value.
func (q *Queue[T]) HasRoom(max int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.hasRoom(max)
}

func (q *Queue[T]) hasRoom(max int) bool { return !q.closed && len(q.items)+q.reserved < max }

func (q *Queue[T]) put(v T) {
	if q.items == nil {
		q.items = q.few[:0]
	}
	full := len(q.items) == cap(q.items)
	if q.items = append(q.items, v); full {
		clear(q.few[:]) // what was there has moved
	}
	if q.arrived.L != nil {
		q.arrived.Signal()
	}
}

// Pop removes and returns the oldest value, and waits for one if there is none. It returns false once the queue is
// closed.
func (q *Queue[T]) Pop() (v T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.arrived.L = &q.mu
	for len(q.items) == 0 && !q.closed {
		q.arrived.Wait()
	}
	if q.closed {
		return v, false
	}
	var none T
	v, q.items[0] = q.items[0], none
	if q.items = q.items[1:]; len(q.items) == 0 {
		q.items = nil
	}
	q.grant()
	return v, true
}

// Remove removes the values for which f returns true, and returns them in order. The queue is locked meanwhile.
func (q *Queue[T]) Remove(f func(T) bool) (removed []T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, v := range q.items {
		if f(v) {
			removed = append(removed, v)
		}
	}
	if len(removed) == 0 {
		return nil
	}
	if q.items = slices.DeleteFunc(q.items, f); len(q.items) == 0 {
		q.items = nil
	}
	q.grant()
	return removed
}

// Wait joins the line of those who wait for room, with max as for Push. They get room in order, before anybody else.
// Each Room must be given back with PushInto or Leave.
func (q *Queue[T]) Wait(max int) *Room {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := &Room{Ready: make(chan struct{}, 1), max: max}
	q.waiting = append(q.waiting, r)
	q.grant()
	return r
}

// Reserve reserves room for a value if Push would add one, and reports whether it has. The caller must then add the
// value with PushReserved, or give the room back with Unreserve.
func (q *Queue[T]) Reserve(max int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.hasRoom(max) {
		return false
	}
	q.reserved++
	return true
}

// PushReserved adds a value for which Reserve has reserved room. It reports whether it has; it fails only if the queue
// is closed.
func (q *Queue[T]) PushReserved(v T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reserved--
	if q.closed {
		return false
	}
	q.put(v)
	return true
}

// Unreserve gives back room that Reserve has reserved.
func (q *Queue[T]) Unreserve() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reserved--
	q.grant()
}

// grant gives room to those who wait, as far as there is any.
func (q *Queue[T]) grant() {
	n := 0
	for ; n < len(q.waiting) && (q.closed || q.hasRoom(q.waiting[n].max)); n++ {
		r := q.waiting[n]
		if !q.closed {
			r.reserved = true
			q.reserved++
		}
		r.Ready <- struct{}{}
	}
	if q.waiting = slices.Delete(q.waiting, 0, n); len(q.waiting) == 0 {
		q.waiting = nil
	}
}

// PushInto adds a value in a Room that is Ready, and gives the Room back. It reports whether it has; it fails only if
// the queue is closed.
func (q *Queue[T]) PushInto(r *Room, v T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !r.reserved || q.closed {
		return false
	}
	q.release(r)
	q.put(v)
	return true
}

// Leave gives back a Room that is not needed, whether it is Ready or not. The next in the line gets it.
func (q *Queue[T]) Leave(r *Room) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiting, r); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	q.release(r)
	q.grant()
}

func (q *Queue[T]) release(r *Room) {
	if r.reserved {
		r.reserved = false
		q.reserved--
	}
}

// Close closes the queue, and returns the values that are in it.
func (q *Queue[T]) Close() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	left := slices.Clone(q.items)
	clear(q.items)
	q.items, q.closed = nil, true
	if q.arrived.L != nil {
		q.arrived.Broadcast()
	}
	q.grant()
	return left
}

// Closed reports whether the queue is closed.
func (q *Queue[T]) Closed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// Len returns how many values are in the queue.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}
