// Package alarm wakes up many waiters, each at a time of its own, with one timer.
//
// It takes the place of deadlines that are hardly ever reached. Each deadline of a connection is a timer of the
// runtime, which costs more to set and to stop, and which stays among the others for a while after it was stopped.
package alarm

import (
	"sync"
	"time"
)

// A Ringer is woken up by an [Alarm].
type Ringer interface {
	// Ring is called at the time of the alarm, or soon after, with the clock locked.
	Ring()
}

// An Alarm is for one waiter. The zero value is not set. It must not be copied while it is set.
type Alarm struct {
	ringer Ringer
	at     time.Time
	place  int // in Clock.set, counted from 1; 0 if it is not there
	rung   bool
}

// A Clock rings alarms. The zero value is ready to use. Its methods may be called by several goroutines at once.
type Clock struct {
	mu      sync.Mutex
	set     []*Alarm // a heap: none is due before the one at half of its place
	timer   *time.Timer
	fires   time.Time // when timer does, or zero
	stopped bool
}

// Set sets an alarm that is not set, and has not rung since it was cleared last.
func (c *Clock) Set(a *Alarm, r Ringer, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.ringer, a.at = r, at
	c.set = append(c.set, a)
	c.up(a, len(c.set))
	// The timer stays as it is when the alarm that it was set for is cleared: that it fires then without need is cheaper
	// than to set it anew each time.
	if c.fires.IsZero() || at.Before(c.fires) {
		c.wind(at)
	}
}

// Clear clears an alarm, which then does not ring. It reports whether it has rung.
func (c *Clock) Clear(a *Alarm) (rung bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rung = a.rung
	a.rung = false
	if a.place > 0 {
		c.take(a)
		c.rest()
	}
	return rung
}

// Stop stops the timer when no alarm is set any more. Alarms can still be set, and ring.
func (c *Clock) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	c.rest()
}

// rest stops the timer if nobody needs it, nor is likely to soon.
func (c *Clock) rest() {
	if c.stopped && len(c.set) == 0 && c.timer != nil {
		c.timer.Stop()
		c.fires = time.Time{}
	}
}

// wind has the timer fire at a time.
func (c *Clock) wind(at time.Time) {
	c.fires = at
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(at), c.ring)
	} else {
		c.timer.Reset(time.Until(at))
	}
}

// ring rings what is due.
func (c *Clock) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Before(c.fires) {
		return // it was wound anew meanwhile
	}
	c.fires = time.Time{}
	for len(c.set) > 0 {
		a := c.set[0]
		if now.Before(a.at) {
			c.wind(a.at)
			return
		}
		c.take(a)
		a.rung = true
		a.ringer.Ring()
	}
}

// take takes an alarm out of the heap.
func (c *Clock) take(a *Alarm) {
	last := len(c.set)
	moved := c.set[last-1]
	c.set[last-1] = nil
	c.set = c.set[:last-1]
	if cap(c.set) > keptPlaces && len(c.set) == 0 {
		c.set = nil
	}
	place := a.place
	a.place = 0
	if moved != a {
		c.up(moved, place)
		c.down(moved, moved.place)
	}
}

// keptPlaces is for how many alarms the memory is kept when none is set.
const keptPlaces = 1024

// up puts an alarm at a place, or nearer to the front.
func (c *Clock) up(a *Alarm, place int) {
	for place > 1 && a.at.Before(c.set[place/2-1].at) {
		c.put(c.set[place/2-1], place)
		place /= 2
	}
	c.put(a, place)
}

// down puts an alarm at a place, or farther from the front.
func (c *Clock) down(a *Alarm, place int) {
	for {
		next := 2 * place
		if next < len(c.set) && c.set[next].at.Before(c.set[next-1].at) {
			next++
		}
		if next > len(c.set) || !c.set[next-1].at.Before(a.at) {
			break
		}
		c.put(c.set[next-1], place)
		place = next
	}
	c.put(a, place)
}

func (c *Clock) put(a *Alarm, place int) {
	c.set[place-1] = a
	a.place = place
}
