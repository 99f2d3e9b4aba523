package alarm

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A waiter notes when it is woken up.
type waiter struct {
	Alarm
	due  time.Time
	rang time.Time
}

func (w *waiter) Ring() { w.rang = time.Now() }

// TestClock plays random scripts: each alarm that is not cleared rings once, at its time, and no other does.
func TestClock(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			var clock Clock
			var set, done []*waiter
			for range 500 {
				switch random.IntN(5) {
				case 0, 1, 2:
					w := &waiter{due: time.Now().Add(time.Duration(random.IntN(1000)-10) * time.Millisecond)}
					clock.Set(&w.Alarm, w, w.due)
					set = append(set, w)
				case 3:
					if len(set) == 0 {
						break
					}
					i := random.IntN(len(set))
					w := set[i]
					set = slices.Delete(set, i, i+1)
					if rung := clock.Clear(&w.Alarm); rung != !w.rang.IsZero() {
						t.Fatalf("Clear reports %v of an alarm that rang at %v", rung, w.rang)
					}
					if clock.Clear(&w.Alarm) {
						t.Fatal("Clear reports twice that an alarm has rung")
					}
					if w.rang.IsZero() {
						done = append(done, w)
					} else if w.rang = (time.Time{}); random.IntN(2) == 0 { // an alarm can be used again
						w.due = time.Now().Add(time.Duration(random.IntN(1000)) * time.Millisecond)
						clock.Set(&w.Alarm, w, w.due)
						set = append(set, w)
					}
				case 4:
					time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
					synctest.Wait()
				}
				now := time.Now()
				for _, w := range set {
					if due := !now.Before(w.due); due != !w.rang.IsZero() && !now.Equal(w.due) {
						synctest.Wait()
						if w.rang.IsZero() {
							t.Fatalf("seed %d: an alarm for %v has not rung at %v", seed, w.due, now)
						}
					}
				}
			}
			time.Sleep(2 * time.Second)
			for _, w := range set {
				if late := w.rang.Sub(w.due); late != 0 && late > 10*time.Millisecond || w.rang.IsZero() {
					t.Errorf("seed %d: an alarm for %v has rung at %v", seed, w.due, w.rang)
				}
			}
			for _, w := range done {
				if !w.rang.IsZero() {
					t.Errorf("seed %d: an alarm that was cleared has rung", seed)
				}
			}
			if len(clock.set) != 0 || !clock.fires.IsZero() {
				t.Errorf("seed %d: %d alarms and the timer are left", seed, len(clock.set))
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

func BenchmarkClock(b *testing.B) {
	var clock Clock
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
