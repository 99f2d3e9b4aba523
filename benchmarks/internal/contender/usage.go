package contender

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Usage is what a server process has used since it started.
type Usage struct {
	// CPU is the user and system time of the process: where there is one, by the scheduler's own account in nanoseconds,
	// else by that of getrusage(2); 0 where neither is there.
	CPU time.Duration

	// Delay is how long the threads of the process were ready to run and waited for a processor; 0 where that is not
	// measured.
	Delay time.Duration

	// GC is the time that the garbage collector had of CPU.
	GC time.Duration

	// Allocs and AllocBytes count what was allocated on the heap.
	Allocs, AllocBytes uint64

	// Voluntary and Involuntary count the context switches: those of a thread that had nothing left to do, and those of
	// one that had to make room.
	Voluntary, Involuntary uint64

	// Goroutines is how many there are.
	Goroutines int

	// Resident is the memory that the process has in RAM, and Peak the most that it has had, in bytes; 0 where that is
	// not measured.
	Resident, Peak uint64
}

// A Moment says what is done before a usage is read.
type Moment string

const (
	// Now reads the usage as it is. The garbage collector's time is that up to the end of its last cycle.
	Now Moment = "now"
	// Settled waits until the process has done what it had begun, for a few milliseconds at most, and reads CPU only. It
	// is asked for around each slice: what it allocates counts as the server's.
	Settled Moment = "settled"
	// Undisturbed reads CPU only, at once, so that the reading itself takes next to nothing.
	Undisturbed Moment = "undisturbed"
	// Collected runs the garbage collector first, so that what is measured from then on starts with a clean heap.
	Collected Moment = "collected"
	// Trimmed also gives the memory that is free back to the system, so that Resident is what is in use.
	Trimmed Moment = "trimmed"
)

// measure takes the process's usage.
func measure(m Moment) Usage {
	switch m {
	case Undisturbed:
		return Usage{CPU: cpuOfAll()}
	case Settled:
		settle(cpuOfAll, time.Sleep)
		return Usage{CPU: cpuOfAll()}
	case Collected:
		runtime.GC()
	case Trimmed:
		runtime.GC() // pools are empty after two cycles
		debug.FreeOSMemory()
	}
	u := Usage{CPU: cpuTime(), Delay: runDelay(), Goroutines: runtime.NumGoroutine()}
	u.Voluntary, u.Involuntary = switches()
	u.Resident, u.Peak = memory()
	addWatched(&u)
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

// cpuOfAll is that of this process and the one in front of it.
func cpuOfAll() time.Duration { return cpuTime() + watchedCPU() }

// settle waits until the process takes hardly any CPU time: connections that a client has closed cost the server
// something after the client's last operation, which belongs to that operation, and not to whatever is measured next.
func settle(cpu func() time.Duration, sleep func(time.Duration)) {
	const (
		step  = time.Millisecond
		most  = 8
		still = step / 10
	)
	before := cpu()
	for range most {
		sleep(step)
		now := cpu()
		if now-before < still {
			return
		}
		before = now
	}
}
