//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package peek

// CanAwaitMore is false where no portable call shows the end of a stream behind queued bytes: there the mux looks once
// and, if it needs more, reads and replays.
const CanAwaitMore = false

func hungUp(uintptr) bool { return false }
