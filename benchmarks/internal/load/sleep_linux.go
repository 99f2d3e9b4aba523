package load

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleepUntil waits by the system's clock, which is precise to some 50 µs. The runtime's timers wait for events at the
// same time, which the system does in milliseconds.
func sleepUntil(at time.Time) {
	for {
		d := time.Until(at)
		if d <= 0 {
			return
		}
		if d > time.Second {
			time.Sleep(d - time.Second)
			continue
		}
		t := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&t, nil) // a signal interrupts it, and then it goes on
	}
}
