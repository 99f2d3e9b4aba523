package machine

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Now reads the times.
func Now() Times {
	t := Times{At: time.Now()}
	if b, err := os.ReadFile("/proc/stat"); err == nil {
		t.Idle, t.IRQ, t.Steal, _ = parseStat(string(b))
	}
	var own unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &own); err == nil {
		t.Own = time.Duration(own.Nano())
	}
	return t
}

// Load is the load average over 1, 5 and 15 minutes, as the system shows it.
func Load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(b))
	return strings.Join(fields[:min(3, len(fields))], " ")
}
