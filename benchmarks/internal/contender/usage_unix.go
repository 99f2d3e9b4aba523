//go:build unix

package contender

import (
	"time"

	"golang.org/x/sys/unix"
)

// rusageTime is the CPU time of all threads of the process by getrusage(2).
func rusageTime() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// switches are the context switches of all threads of the process.
func switches() (voluntary, involuntary uint64) {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0, 0
	}
	return uint64(r.Nvcsw), uint64(r.Nivcsw)
}
