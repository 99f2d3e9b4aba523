package alarm

import (
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A waiter notes when it is woken up.
type waiter struct {
	Alarm
	due time.Time

	mu   sync.Mutex
	rang time.Time
}

func (w *waiter) Ring() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rang = time.Now()
}

// woken returns when the waiter was woken up, or the zero time.
func (w *waiter) woken() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rang
}

// set has the waiter woken up in d, which may be in the past: then at once.
func (w *waiter) set(c *Clock, d time.Duration) {
	now := time.Now()
	w.due = now.Add(max(d, 0))
	c.Set(&w.Alarm, w, now.Add(d))
}

// clear clears the alarm, and reports what Clear does.
func (w *waiter) clear(c *Clock) bool {
	rung := c.Clear(&w.Alarm)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rang = time.Time{}
	return rung
}

// TestClock plays random scripts: alarms ring at their time, those that are cleared do not, and each can be set again.
func TestClock(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			var clock Clock
			set, cleared := make([]*waiter, 0, 100), make([]*waiter, 100)
			for i := range cleared {
				cleared[i] = new(waiter)
			}
			// move takes a random one out of a list.
			move := func(from *[]*waiter) *waiter {
				i := random.IntN(len(*from))
				w := (*from)[i]
				*from = slices.Delete(*from, i, i+1)
				return w
			}
			for range 500 {
				switch n := random.IntN(7); {
				case n < 4 && len(cleared) > 0:
					w := move(&cleared)
					w.set(&clock, time.Duration(random.IntN(1000)-10)*time.Millisecond)
					set = append(set, w)
				case n < 6 && len(set) > 0:
					w := move(&set)
					woken := w.woken()
					if rung := w.clear(&clock); rung == woken.IsZero() {
						t.Fatalf("seed %d: Clear returns %v for an alarm that has rung at %v", seed, rung, woken)
					}
					if w.clear(&clock) {
						t.Fatalf("seed %d: Clear returns true again", seed)
					}
					cleared = append(cleared, w)
				default:
					time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
				}
				synctest.Wait()
				for _, w := range set {
					want := w.due
					if time.Now().Before(want) {
						want = time.Time{}
					}
					if got := w.woken(); !got.Equal(want) {
						t.Fatalf("seed %d: an alarm for %v has rung at %v", seed, w.due, got)
					}
				}
				for _, w := range cleared {
					if !w.woken().IsZero() {
						t.Fatalf("seed %d: an alarm that is not set has rung", seed)
					}
				}
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if len(clock.set) != 0 || clock.timer.Stop() {
				t.Errorf("seed %d: %d alarms are left, or the timer", seed, len(clock.set))
			}
		})
	}
}

// TestStop stops the timer when the last alarm is cleared: a timer that is left would keep everything alive that it
// refers to.
func TestStop(t *testing.T) {
	for _, test := range []struct {
		name string
		act  func(c *Clock, w *waiter)
	}{
		{"cleared before", func(c *Clock, w *waiter) { c.Clear(&w.Alarm); c.Stop() }},
		{"cleared after", func(c *Clock, w *waiter) { c.Stop(); c.Clear(&w.Alarm) }},
		{"rung after", func(c *Clock, w *waiter) { c.Stop(); time.Sleep(time.Minute); synctest.Wait() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var clock Clock
				w := &waiter{due: time.Now().Add(time.Minute)}
				clock.Set(&w.Alarm, w, w.due)
				test.act(&clock, w)
				if clock.timer.Stop() {
					t.Error("the timer is left")
				}
				if !clock.fires.IsZero() {
					t.Error("the timer is taken to be left")
				}
			})
		})
	}
}

// TestMemory drops the memory of many alarms with the last of them.
func TestMemory(t *testing.T) {
	t.Parallel()
	var clock Clock
	at := time.Now().Add(time.Hour)
	waiters := make([]waiter, 10*keptPlaces)
	for i := range waiters {
		clock.Set(&waiters[i].Alarm, &waiters[i], at)
	}
	for i := range waiters {
		clock.Clear(&waiters[i].Alarm)
	}
	clock.Stop()
	if n := cap(clock.set); n > keptPlaces {
		t.Errorf("there is room for %d alarms left", n)
	}
}

// BenchmarkClock compares an alarm that is set and cleared with a deadline of a socket.
func BenchmarkClock(b *testing.B) {
	var clock Clock
	b.Run("deadline", func(b *testing.B) {
		l, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		for b.Loop() {
			l.SetDeadline(time.Now().Add(10 * time.Second))
			l.SetDeadline(time.Time{})
		}
	})
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		var w waiter
		for b.Loop() {
			clock.Set(&w.Alarm, &w, time.Now().Add(10*time.Second))
			clock.Clear(&w.Alarm)
		}
	})
	b.Run("beside 10000", func(b *testing.B) {
		b.ReportAllocs()
		at := time.Now().Add(time.Hour)
		waiters := make([]waiter, 10000)
		for i := range waiters {
			clock.Set(&waiters[i].Alarm, &waiters[i], at.Add(time.Duration(i)))
		}
		var w waiter
		for b.Loop() {
			clock.Set(&w.Alarm, &w, time.Now().Add(10*time.Second))
			clock.Clear(&w.Alarm)
		}
	})
}
