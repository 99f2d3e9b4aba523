package affinity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Halves divides the processors of All into those for a server and those for its load. Processors of
// one core stay together, where there is more than one core. It fails where there is one processor only.
func Halves() (server, load []int, err error) {
	all, err := All()
	if err != nil {
		return nil, nil, err
	}
	if len(all) < 2 {
		return nil, nil, errors.New("there is one processor only")
	}
	cpus := make([]cpu, len(all))
	for i, n := range all {
		cpus[i] = cpu{n, topology(n, "physical_package_id", 0), topology(n, "core_id", n)}
	}
	server, load = halves(cpus)
	return server, load, nil
}

// topology reads what the system says about a processor.
func topology(n int, what string, unknown int) int {
	b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/%s", n, what))
	if err != nil {
		return unknown
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return unknown
	}
	return v
}

// All returns the processors that this process could use when it started.
func All() ([]int, error) { return atStart, errAtStart }

var atStart, errAtStart = now()

// now returns the processors that the calling thread may use.
func now() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	var all []int
	for n := 0; len(all) < set.Count(); n++ {
		if set.IsSet(n) {
			all = append(all, n)
		}
	}
	return all, nil
}

// Pin has this process use the given processors only, and sets GOMAXPROCS to their number.
func Pin(cpus []int) error {
	var set unix.CPUSet
	for _, n := range cpus {
		set.Set(n)
	}
	// A thread inherits the set from the one that starts it, so those that are not pinned yet can start others. Once a
	// round has found none of them, none is left.
	pinned := make(map[string]bool)
	for {
		threads, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			return err
		}
		before := len(pinned)
		for _, path := range threads {
			if pinned[path] {
				continue
			}
			id, err := strconv.Atoi(filepath.Base(path))
			if err != nil {
				return fmt.Errorf("affinity: a thread %s: %w", path, err)
			}
			if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return os.NewSyscallError("sched_setaffinity", err)
			}
			pinned[path] = true
		}
		if len(pinned) == before {
			break
		}
	}
	runtime.GOMAXPROCS(len(cpus))
	return nil
}
