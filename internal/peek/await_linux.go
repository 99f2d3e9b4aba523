package peek

import (
	"syscall"
	"unsafe"
)

// CanAwaitMore says that Peeker.Peek can wait for more while bytes are queued, which takes hungUp to notice the end of
// the stream behind them.
const CanAwaitMore = true

// pollRDHup is POLLRDHUP of poll(2): the peer has shut down its writing side.
const (
	pollErr   = 0x8
	pollHup   = 0x10
	pollRDHup = 0x2000
)

// hungUp reports whether no more bytes will come than the socket holds already.
func hungUp(fd uintptr) bool {
	pfd := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: pollRDHup}
	var now [2]int64 // a zero timespec, of either size
	n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL,
		uintptr(unsafe.Pointer(&pfd)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno == 0 && n == 1 && pfd.revents&(pollRDHup|pollHup|pollErr) != 0
}
