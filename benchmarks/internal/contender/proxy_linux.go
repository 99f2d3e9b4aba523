package contender

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/oneport-go/oneport/benchmarks/internal/machine"
)

// dieWithParent has a process end when the one that starts it does, however that ends.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }

// watched is the process whose usage is added to that of this one; 0 if there is none.
var watched struct {
	sync.Mutex
	pid int
}

func watch(pid int) {
	watched.Lock()
	defer watched.Unlock()
	watched.pid = pid
}

// watchedPIDs are the watched process and its children.
func watchedPIDs() []int {
	watched.Lock()
	pid := watched.pid
	watched.Unlock()
	if pid == 0 {
		return nil
	}
	pids := []int{pid}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)); err == nil {
		for field := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// watchedCPU is the CPU time of the watched process and its children.
func watchedCPU() time.Duration {
	var total time.Duration
	for _, pid := range watchedPIDs() {
		if cpu, err := machine.CPUTime(pid); err == nil { // else it has ended
			total += cpu
		}
	}
	return total
}

// addWatched adds what the watched process and its children use.
func addWatched(u *Usage) {
	for _, pid := range watchedPIDs() {
		p, err := machine.Look(pid)
		if err != nil {
			continue // it has ended
		}
		u.CPU += p.CPU
		u.Voluntary += p.Voluntary
		u.Involuntary += p.Involuntary
		if u.Resident > 0 {
			u.Resident += p.Resident
			u.Peak += p.Peak
		}
	}
}
