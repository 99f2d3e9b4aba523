//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package peek

import "net"

// A Peeker looks at what a socket has received without taking it out, which it cannot do on this system.
type Peeker struct{}

func (*Peeker) Init(net.Conn, *Pool) bool { return false }

func (*Peeker) Peek(int, bool) ([]byte, bool, error) { panic("oneport: peek without Peeker.init") }

func (*Peeker) Queued() bool { return false }

func (*Peeker) Release() {}

func (*Peeker) NearlyFull(int) bool { return false }

const CanAwaitMore = false
