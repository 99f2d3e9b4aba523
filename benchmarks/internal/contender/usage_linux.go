package contender

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the CPU time of all threads of the process. The clock is the scheduler's sum, that of schedstat in
// proc(5), to the nanosecond and with the threads that have ended and those that run; getrusage(2) counts in
// microseconds, and in ticks on some kernels.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return rusageTime()
	}
	return time.Duration(t.Nano())
}

// runDelay is how long the threads have waited for a processor, the second field of schedstat.
func runDelay() time.Duration {
	var total time.Duration
	paths, err := filepath.Glob("/proc/self/task/*/schedstat")
	if err != nil {
		return 0
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		var ran, waited uint64
		if _, err := fmt.Sscan(string(b), &ran, &waited); err == nil {
			total += time.Duration(waited)
		}
	}
	return total
}
