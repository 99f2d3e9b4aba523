package testkit

import (
	"runtime"
	"runtime/debug"
	"sync"
)

// StacksGrow returns by how many bytes each the stacks of n goroutines, which are new, grow when they call write with
// their number. There is as much on them as net/http has on those of the goroutines that it starts for its writes.
// Nothing else may run meanwhile.
func StacksGrow(n int, write func(int)) int {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which would shrink stacks
	var before, after runtime.MemStats
	var ready, wrote, done sync.WaitGroup
	begin, end := make(chan struct{}), make(chan struct{})
	ready.Add(n)
	wrote.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			<-begin
			below(func() { write(i) })
			wrote.Done()
			<-end
		})
	}
	ready.Wait()
	runtime.ReadMemStats(&before)
	close(begin)
	wrote.Wait()
	runtime.ReadMemStats(&after)
	close(end)
	done.Wait()
	return int(after.StackInuse-before.StackInuse) / n
}

// below calls f with that much on the stack.
//
//go:noinline
func below(f func()) {
	var frame [320]byte
	f()
	use(frame[:])
}

// AsDeepAsSocket takes as much of the stack as the Write of a socket.
//
//go:noinline
func AsDeepAsSocket() {
	var frame [400]byte
	use(frame[:])
}

//go:noinline
func use([]byte) {}
