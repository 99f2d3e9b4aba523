package contender

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Usage is what a server process has used since it started.
type Usage struct {
	// CPU is the user and system time of the process, as getrusage(2) accounts for it; 0 where that is not measured.
	CPU time.Duration

	// GC is the time that the garbage collector had of CPU.
	GC time.Duration

	// Allocs and AllocBytes count what was allocated on the heap.
	Allocs, AllocBytes uint64

	// Resident is the memory that the process has in RAM, and Peak the most that it has had, in bytes; 0 where that is
	// not measured.
	Resident, Peak uint64
}

// A Moment says what is done before a usage is read.
type Moment string

const (
	// Now reads the usage as it is. The garbage collector's time is that up to the end of its last cycle.
	Now Moment = "now"
	// Collected has the garbage collector run first, so that what is measured from then on starts with a clean heap.
	Collected Moment = "collected"
	// Trimmed also gives the memory that is free back to the system, so that Resident is what is in use.
	Trimmed Moment = "trimmed"
)

// measure takes the process's usage.
func measure(m Moment) Usage {
	switch m {
	case Collected:
		runtime.GC()
	case Trimmed:
		runtime.GC() // pools are empty after two cycles
		debug.FreeOSMemory()
	}
	u := Usage{CPU: cpuTime()}
	u.Resident, u.Peak = memory()
	gc := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(gc)
	u.GC = time.Duration(gc[0].Value.Float64() * float64(time.Second))
	if m == Now {
		// Each processor counts what it allocates for itself, and gives its counts away when the collector runs.
		runtime.GC()
	}
	allocs := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(allocs)
	u.Allocs, u.AllocBytes = allocs[0].Value.Uint64(), allocs[1].Value.Uint64()
	return u
}
