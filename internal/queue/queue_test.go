package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// isReady reports whether a room is ready, and takes the value from its channel if it is.
func isReady(r *Room) bool {
	select {
	case <-r.Ready:
		return true
	default:
		return false
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	var q Queue[int]
	for i := range 3 {
		if !q.HasRoom(3) || !q.Push(i, 3) {
			t.Fatalf("Push of value %d failed", i)
		}
	}
	if q.HasRoom(3) || q.Push(3, 3) {
		t.Error("there was room for a fourth value")
	}
	if !q.Push(3, 4) {
		t.Error("with a larger bound there was no room")
	}
	for i := range 4 {
		if got, ok := q.Pop(); got != i || !ok {
			t.Errorf("Pop returned %d, %v; want %d", got, ok, i)
		}
	}
	if q.Len() != 0 || q.items != nil {
		t.Errorf("the empty queue keeps %v", q.items[:cap(q.items)])
	}
}

// TestPopKeepsNothing checks that what was taken out can be collected while the queue is not empty.
func TestPopKeepsNothing(t *testing.T) {
	t.Parallel()
	var q Queue[*int]
	q.Push(new(int), 10)
	q.Push(new(int), 10)
	items := q.items
	q.Pop()
	if items[0] != nil {
		t.Error("the queue still refers to the value that was taken out")
	}
}

func TestPopWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var q Queue[int]
		popped := make(chan int)
		for range 3 {
			go func() {
				if v, ok := q.Pop(); ok {
					popped <- v
				} else {
					popped <- -1
				}
			}()
		}
		synctest.Wait()
		q.Push(1, 10)
		if got := <-popped; got != 1 {
			t.Errorf("Pop returned %d, want 1", got)
		}
		q.Close()
		for range 2 {
			if got := <-popped; got != -1 {
				t.Errorf("Pop returned %d after Close", got)
			}
		}
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	var q Queue[int]
	q.Push(1, 2)
	q.Push(2, 2)
	before := []*Room{q.Wait(2), q.Wait(2)}
	if q.Closed() {
		t.Error("the queue is closed before Close")
	}
	if left := q.Close(); !slices.Equal(left, []int{1, 2}) {
		t.Errorf("Close returned %v", left)
	}
	after := q.Wait(2)
	for i, r := range append(before, after) {
		if !isReady(r) {
			t.Errorf("waiter %d was not told of Close", i)
		}
		if q.PushInto(r, 3) {
			t.Errorf("waiter %d could push after Close", i)
		}
		q.Leave(r)
	}
	if v, ok := q.Pop(); ok {
		t.Errorf("Pop returned %d after Close", v)
	}
	if q.Push(3, 10) || q.HasRoom(10) || !q.Closed() || q.Len() != 0 || q.Close() != nil {
		t.Error("the closed queue is not empty and closed")
	}
}

// TestRoom checks who is given the room that a Pop has made.
func TestRoom(t *testing.T) {
	t.Parallel()
	full := func() *Queue[int] {
		q := new(Queue[int])
		q.Push(0, 1)
		return q
	}
	t.Run("at once", func(t *testing.T) {
		var q Queue[int]
		r := q.Wait(1)
		if !isReady(r) || !q.PushInto(r, 1) || q.Len() != 1 {
			t.Error("an empty queue has no room")
		}
	})
	t.Run("the first in the line", func(t *testing.T) {
		q := full()
		first, second := q.Wait(1), q.Wait(1)
		q.Pop()
		if !isReady(first) || isReady(second) {
			t.Error("the room is not the first's alone")
		}
	})
	t.Run("not somebody who came later", func(t *testing.T) {
		q := full()
		r := q.Wait(1)
		q.Pop()
		if q.HasRoom(1) || q.Push(1, 1) {
			t.Error("the room was taken by somebody who had not waited")
		}
		if !isReady(r) || !q.PushInto(r, 2) {
			t.Error("the one who had waited has no room")
		}
	})
	t.Run("the next one, if the first is not interested any more", func(t *testing.T) {
		for _, received := range []bool{false, true} {
			for _, line := range []int{1, 2} {
				q := full()
				first := q.Wait(1)
				var others []*Room
				for range line {
					others = append(others, q.Wait(1))
				}
				q.Pop()
				if received && !isReady(first) {
					t.Fatal("the first has no room")
				}
				q.Leave(first)
				if !isReady(others[0]) || line > 1 && isReady(others[1]) {
					t.Errorf("received %v: the room that was given back is not the next one's", received)
				}
				for _, r := range others {
					q.Leave(r)
				}
				if !q.HasRoom(1) {
					t.Errorf("received %v: when all have gone, the room is lost", received)
				}
			}
		}
	})
	t.Run("once", func(t *testing.T) {
		q := full()
		r := q.Wait(1)
		if q.PushInto(r, 1) {
			t.Error("PushInto before the room was ready")
		}
		q.Pop()
		if !q.PushInto(r, 1) || q.PushInto(r, 2) {
			t.Error("the room does not take exactly one value")
		}
		q.Leave(r)
		q.Leave(r)
		if q.HasRoom(1) || !q.HasRoom(2) {
			t.Error("Leave after PushInto has changed how much room there is")
		}
	})
}

// TestModel compares the queue with a simple one, over random calls of one goroutine.
func TestModel(t *testing.T) {
	t.Parallel()
	const max = 4
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var q Queue[int]
		var items []int
		var line, ready []*Room // in order
		closed := false
		grant := func() {
			for len(line) > 0 && (closed || len(items)+len(ready) < max) {
				ready, line = append(ready, line[0]), line[1:]
			}
		}
		log := ""
		for step := range 200 {
			switch op := rnd.IntN(100); {
			case op < 35:
				want := !closed && len(items)+len(ready) < max
				if want {
					items = append(items, step)
				}
				log += fmt.Sprintf("push %d\n", step)
				if got := q.Push(step, max); got != want {
					t.Fatalf("seed %d: Push: got %v, want %v\n%s", seed, got, want, log)
				}
			case op < 60:
				if len(items) == 0 && !closed {
					continue
				}
				log += "pop\n"
				v, ok := q.Pop()
				if ok == closed || ok && v != items[0] {
					t.Fatalf("seed %d: Pop: got %d, %v; want of %v\n%s", seed, v, ok, items, log)
				}
				if ok {
					items = items[1:]
				}
			case op < 75:
				log += "wait\n"
				line = append(line, q.Wait(max))
			case op < 85 && len(ready) > 0:
				i := rnd.IntN(len(ready))
				log += fmt.Sprintf("push %d into ready %d\n", step, i)
				if got := q.PushInto(ready[i], step); got == closed {
					t.Fatalf("seed %d: PushInto: got %v\n%s", seed, got, log)
				}
				if !closed {
					items = append(items, step)
				}
				ready = slices.Delete(ready, i, i+1)
			case op < 92 && len(ready) > 0:
				i := rnd.IntN(len(ready))
				log += fmt.Sprintf("leave ready %d\n", i)
				q.Leave(ready[i])
				ready = slices.Delete(ready, i, i+1)
			case op < 99 && len(line) > 0:
				i := rnd.IntN(len(line))
				log += fmt.Sprintf("leave the line at %d\n", i)
				q.Leave(line[i])
				line = slices.Delete(line, i, i+1)
			case op == 99 && rnd.IntN(4) == 0:
				log += "close\n"
				if left := q.Close(); !slices.Equal(left, items) {
					t.Fatalf("seed %d: Close: got %v, want %v\n%s", seed, left, items, log)
				}
				closed, items = true, nil
			}
			before := len(ready)
			grant()
			for _, r := range ready[before:] {
				if !isReady(r) {
					t.Fatalf("seed %d: the first in the line was given no room\n%s", seed, log)
				}
			}
			for _, r := range line {
				if isReady(r) {
					t.Fatalf("seed %d: one who has to wait was given room\n%s", seed, log)
				}
			}
			if q.Len() != len(items) || q.HasRoom(max) != (!closed && len(items)+len(ready) < max) || q.Closed() != closed {
				t.Fatalf("seed %d: %d items, want %v; HasRoom %v, closed %v\n%s", seed, q.Len(), items, q.HasRoom(max), q.Closed(), log)
			}
		}
	}
}

// TestConcurrent has many push, wait, give up and pop at once. No value is lost or comes twice, and nobody waits for
// ever.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	const producers, each, max = 8, 500, 3
	var q Queue[int]
	pushed := make([]bool, producers*each) // each element is written by one goroutine
	var producing sync.WaitGroup
	for p := range producers {
		producing.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(p), 0))
			for i := range each {
				v := p*each + i
				if q.Push(v, max) {
					pushed[v] = true
					continue
				}
				r := q.Wait(max)
				if rnd.IntN(4) > 0 {
					<-r.Ready
				}
				if rnd.IntN(4) > 0 {
					pushed[v] = q.PushInto(r, v)
				}
				q.Leave(r)
			}
		})
	}
	var popped [2][]int
	var consuming sync.WaitGroup
	for i := range popped {
		consuming.Go(func() {
			for {
				v, ok := q.Pop()
				if !ok {
					return
				}
				popped[i] = append(popped[i], v)
			}
		})
	}
	producing.Wait()
	left := q.Close()
	consuming.Wait()
	got := slices.Concat(popped[0], popped[1], left)
	slices.Sort(got)
	var want []int
	for v, ok := range pushed {
		if ok {
			want = append(want, v)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d values came out, %d went in", len(got), len(want))
	}
	for _, values := range popped {
		last := make(map[int]int)
		for _, v := range values {
			if v < last[v/each] {
				t.Fatalf("value %d came after %d of the same producer", v, last[v/each])
			}
			last[v/each] = v
		}
	}
	if q.reserved != 0 || q.waiting != nil {
		t.Errorf("in the end %d places are reserved, and %d wait", q.reserved, len(q.waiting))
	}
}

// TestReserve checks that room that is kept is nobody else's, and what becomes of it.
func TestReserve(t *testing.T) {
	t.Parallel()
	var q Queue[int]
	if !q.Reserve(1) || q.Reserve(1) || q.Push(1, 1) || q.HasRoom(1) {
		t.Error("the one place is kept for nobody, or for more than one")
	}
	r := q.Wait(1)
	if isReady(r) {
		t.Error("there is room for another who waits")
	}
	q.Unreserve()
	if !isReady(r) {
		t.Error("who waits does not get what was given back")
	}
	q.Leave(r)
	if !q.Reserve(1) || !q.PushReserved(1) {
		t.Error("no room is left")
	}
	if v, ok := q.Pop(); v != 1 || !ok {
		t.Errorf("Pop returned %d, %v", v, ok)
	}
	q.Reserve(1)
	q.Close()
	if q.PushReserved(2) || q.Reserve(1) || q.Len() != 0 {
		t.Error("a closed queue takes a value")
	}
}

// What has left the queue is not kept in memory.
func TestForgets(t *testing.T) {
	t.Parallel()
	push := func(q *Queue[*int], n int) {
		for range n {
			q.Push(new(int), 100)
		}
	}
	for name, play := range map[string]func(q *Queue[*int]){
		"one": func(q *Queue[*int]) {
			q.Push(new(int), 100)
			q.Pop()
		},
		"more than a few": func(q *Queue[*int]) {
			push(q, 10)
			for range 10 {
				q.Pop()
			}
		},
		"never empty": func(q *Queue[*int]) {
			q.Push(new(int), 100)
			for range 10 {
				q.Push(new(int), 100)
				q.Pop()
			}
			q.Pop()
		},
		"removed": func(q *Queue[*int]) {
			push(q, 10)
			q.Remove(func(*int) bool { return true })
		},
		"closed": func(q *Queue[*int]) {
			q.Push(new(int), 100)
			q.Close()
		},
		"closed with more": func(q *Queue[*int]) {
			push(q, 10)
			q.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var q Queue[*int]
			play(&q)
			if q.few != [4]*int{} {
				t.Errorf("%v is kept", q.few)
			}
		})
	}
}
