// Package machine reports how busy other processes keep the machine.
package machine

import (
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Times is what the processors have done since the machine was started, all of them together.
type Times struct {
	At    time.Time
	Idle  time.Duration
	IRQ   time.Duration // interrupts, the network's among them, if they are not in the time of the processes they interrupt
	Steal time.Duration // what the host of a virtual machine has given to others
	Own   time.Duration // of this process
}

// Others is the part of all processors' time since before, 0 to 1, that neither this process had, nor the servers that
// used so much CPU time, nor interrupts, and that was not idle: that of other processes and, in a virtual machine, of
// its neighbours. Linux counts in hundredths of a second, so a short time is told roughly, and may seem to have been a
// little less than nothing; the mean of many such parts is right. It is 0 where the system does not say.
func (t Times) Others(before Times, servers time.Duration) float64 {
	all := t.At.Sub(before.At) * time.Duration(runtime.NumCPU())
	if all <= 0 || t.Idle == 0 {
		return 0
	}
	others := all - (t.Idle - before.Idle) - (t.IRQ - before.IRQ) - (t.Own - before.Own) - servers
	return min(1, float64(others)/float64(all))
}

// Stolen is the part of all processors' time since before that the host has given to others.
func (t Times) Stolen(before Times) float64 {
	all := t.At.Sub(before.At) * time.Duration(runtime.NumCPU())
	if all <= 0 {
		return 0
	}
	return float64(t.Steal-before.Steal) / float64(all)
}

// parseStat reads the first line of /proc/stat (proc(5)).
func parseStat(stat string) (idle, irq, steal time.Duration, ok bool) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0, 0, false
	}
	var ticks [8]time.Duration // user, nice, system, idle, iowait, irq, softirq, steal
	for i := range ticks {
		n, err := strconv.ParseInt(fields[1+i], 10, 64)
		if err != nil {
			return 0, 0, 0, false
		}
		ticks[i] = time.Duration(n) * tick
	}
	return ticks[3] + ticks[4], ticks[5] + ticks[6], ticks[7], true
}
