package machine

import (
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Now reads the times.
func Now() Times {
	irqInProcesses := interruptsInProcesses() // before the time is read: the first call takes a while
	t := Times{At: time.Now()}
	if b, err := os.ReadFile("/proc/stat"); err == nil {
		t.Idle, t.IRQ, t.Steal, _ = parseStat(string(b))
		if irqInProcesses {
			t.IRQ = 0
		}
	}
	t.Own = clock(unix.CLOCK_PROCESS_CPUTIME_ID)
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

// interruptsInProcesses reports whether the time of interrupts is in that of the processes they interrupt. It is unless
// the kernel was built with CONFIG_IRQ_TIME_ACCOUNTING, which it need not tell, so this is found out: half of the time
// in which a process sends to itself goes to the network's interrupts, and the process is said to have had that too, or
// not. An attempt is over before most disturbances come.
var interruptsInProcesses = sync.OnceValue(func() bool {
	client, server, err := loopback()
	if err != nil {
		return false
	}
	defer client.Close()
	defer server.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const attempts, length = 250, 2 * time.Millisecond
	for range attempts {
		began, used := time.Now(), clock(unix.CLOCK_THREAD_CPUTIME_ID)
		for time.Since(began) < length {
			if !exchange(client, server) {
				return false
			}
		}
		if took := time.Since(began); clock(unix.CLOCK_THREAD_CPUTIME_ID)-used > took*9/10 {
			return true
		}
	}
	return false
})

// loopback returns the two ends of a connection.
func loopback() (client, server net.Conn, err error) {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if server, err = l.Accept(); err != nil {
		client.Close()
		return nil, nil, err
	}
	return client, server, nil
}

// exchange sends a byte from one end to the other.
func exchange(from, to net.Conn) bool {
	var b [1]byte
	if _, err := from.Write(b[:]); err != nil {
		return false
	}
	_, err := to.Read(b[:])
	return err == nil
}

// clock is how much time of the processors a thread or process has had.
func clock(id int32) time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(id, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
