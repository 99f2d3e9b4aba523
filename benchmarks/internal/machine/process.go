package machine

import "time"

// Process is what a process has used and has.
type Process struct {
	CPU                    time.Duration
	Resident, Peak         uint64 // bytes
	Files                  int
	Voluntary, Involuntary uint64 // context switches
}

// tick is the unit of times in proc(5), USER_HZ, which is the same wherever Go runs.
const tick = time.Second / 100
