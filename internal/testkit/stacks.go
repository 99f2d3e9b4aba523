package testkit

import (
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/oneport-go/oneport/internal/testenv"
)

// NeedStacks skips a test that calls [StacksStay] where the functions of oneport take more of a stack, or less, than they
// were made for.
func NeedStacks(t testing.TB) {
	t.Helper()
	if testenv.RaceEnabled || runtime.GOARCH != "amd64" {
		t.Skip("functions take more of the stack, or less")
	}
}

// StacksStay checks that the stacks of n goroutines, which are new, need not grow when they call write with their number.
// As much of each is taken as net/http has taken where it writes. Nothing else may run meanwhile.
func StacksStay(t testing.TB, n int, write func(int)) {
	t.Helper()
	if by := stacksGrow(n, write); by > 500 {
		t.Errorf("the stacks grow by %d bytes: something that Write calls has come to need more of them", by)
	}
}

// stacksGrow returns by how many bytes each stack grows.
func stacksGrow(n int, write func(int)) int {
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
