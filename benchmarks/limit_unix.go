//go:build unix

package main

import "golang.org/x/sys/unix"

// connectionLimit is how many connections a process may have beside its other files. Go has raised the limit as far as
// it may be when the program was started.
func connectionLimit() int {
	const others = 200
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return max(1, int(min(uint64(limit.Cur), 1<<30))-others)
}
