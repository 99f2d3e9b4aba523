package dispatch

import "time"

// An instant is a point in time. It has no date, and takes a third of the memory of a [time.Time].
type instant time.Duration

var epoch = time.Now()

func now() instant { return instant(time.Since(epoch)) }

// since returns the time that has passed since t.
func since(t instant) time.Duration { return time.Duration(now() - t) }
