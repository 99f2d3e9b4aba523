package contender

import (
	"os"
	"strconv"
	"strings"
)

// memory reads the memory that the process has in RAM, and the most that it has had, from proc(5).
func memory() (resident, peak uint64) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	return kilobytes(string(status), "VmRSS"), kilobytes(string(status), "VmHWM")
}

// kilobytes finds a line such as "VmRSS:     1234 kB".
func kilobytes(status, name string) uint64 {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			return n << 10
		}
	}
	return 0
}
