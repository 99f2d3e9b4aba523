package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// CPUTime reads how much CPU time a process has used, from proc(5).
func CPUTime(pid int) (time.Duration, error) {
	var total time.Duration
	dir := fmt.Sprintf("/proc/%d", pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0, err
	}
	// The name of the program is in parentheses, and may have some in it.
	_, rest, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, errors.New(dir + "/stat has too few fields")
	}
	for _, field := range fields[11:13] { // utime and stime
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ticks) * tick
	}
	var precise time.Duration
	tasks, err := os.ReadDir(dir + "/task")
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		if b, err := os.ReadFile(dir + "/task/" + task.Name() + "/schedstat"); err == nil { // else it has ended
			ran, _, _ := strings.Cut(string(b), " ")
			n, _ := strconv.ParseInt(ran, 10, 64)
			precise += time.Duration(n)
		}
	}
	// The threads that have ended are in the ticks only.
	if precise > 0 && precise > total-time.Second {
		total = precise
	}
	return total, nil
}

// Look reads what a process has used and has, from proc(5).
func Look(pid int) (Process, error) {
	cpu, err := CPUTime(pid)
	p := Process{CPU: cpu}
	if err != nil {
		return p, err
	}
	dir := fmt.Sprintf("/proc/%d", pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return p, err
	}
	p.Resident = statusValue(string(status), "VmRSS") << 10
	p.Peak = statusValue(string(status), "VmHWM") << 10
	tasks, err := filepath.Glob(dir + "/task/*")
	if err != nil {
		return p, err
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task + "/status")
		if err != nil {
			continue // it has ended
		}
		p.Voluntary += statusValue(string(status), "voluntary_ctxt_switches")
		p.Involuntary += statusValue(string(status), "nonvoluntary_ctxt_switches")
	}
	files, err := os.ReadDir(dir + "/fd")
	if err == nil { // it may be somebody else's
		p.Files = len(files)
	}
	return p, nil
}

// statusValue finds a line such as "VmRSS:     1234 kB".
func statusValue(status, name string) uint64 {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
