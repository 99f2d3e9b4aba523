//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package oneport

import "net"

// A peeker looks at what a socket has received without taking it out, which it cannot do on this system.
type peeker struct{}

func (*peeker) init(net.Conn, *bufferPool) bool { return false }

func (*peeker) peek(int, bool) ([]byte, bool, error) { panic("oneport: peek without peeker.init") }

func (*peeker) queued() bool { return false }

func (*peeker) release() {}

func (*peeker) nearlyFull(int) bool { return false }

const canAwaitMore = false
