// Package queue hands values over, in order, to those who wait for them.
package queue

import (
	"slices"
	"sync"
)

// A Queue holds values until they are taken out. It takes memory only for those that are in it. The zero value is ready to
// use; it must not be copied. Its methods may be called by several goroutines at once.
type Queue[T any] struct {
	mu      sync.Mutex
	arrived sync.Cond
	items   []T
	rooms   []chan struct{} // of those who wait for room, in order
	closed  bool
}

// Push puts a value in, unless there are max values in the queue or it is closed. It reports whether it has.
func (q *Queue[T]) Push(v T, max int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.items) >= max {
		return false
	}
	q.items = append(q.items, v)
	if q.arrived.L != nil {
		q.arrived.Signal()
	}
	return true
}

// Pop takes the oldest value out, and waits for one if there is none. It returns false once the queue is closed.
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
	q.signalRoom()
	return v, true
}

// Room returns a channel that gets a value when there may be room, or the queue is closed. Each must be given back to
// NoRoom, whether it was received from or not.
func (q *Queue[T]) Room(max int) chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	room := make(chan struct{}, 1)
	if q.closed || len(q.items) < max {
		room <- struct{}{}
	} else {
		q.rooms = append(q.rooms, room)
	}
	return room
}

// NoRoom ends the waiting for room. A value that the channel has got and that nobody has received goes to the next one.
func (q *Queue[T]) NoRoom(room chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.rooms, room); i >= 0 {
		q.rooms = slices.Delete(q.rooms, i, i+1)
		return
	}
	select {
	case <-room:
		q.signalRoom()
	default:
	}
}

func (q *Queue[T]) signalRoom() {
	if len(q.rooms) == 0 {
		return
	}
	q.rooms[0] <- struct{}{}
	if q.rooms = slices.Delete(q.rooms, 0, 1); len(q.rooms) == 0 {
		q.rooms = nil
	}
}

// Close closes the queue for good, and returns the values that are in it.
func (q *Queue[T]) Close() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	left := q.items
	q.items, q.closed = nil, true
	if q.arrived.L != nil {
		q.arrived.Broadcast()
	}
	for len(q.rooms) > 0 {
		q.signalRoom()
	}
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
