//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package oneport

// canAwaitMore is false where no portable call shows the end of a stream behind queued bytes: there the mux looks once
// and, if it needs more, reads and replays.
const canAwaitMore = false

func hungUp(uintptr) bool { return false }
