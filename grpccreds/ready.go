package grpccreds

import (
	"net"
	"syscall"

	"google.golang.org/grpc/mem"
)

// memory lends a buffer to ReadReady. The type is an alias, so that whoever has the method need not know this package.
type memory = interface {
	Get() []byte
	Put()
}

// readyReader is a connection that asks for a buffer when there is something to read, as those do on which oneport
// dispatches requests.
type readyReader interface {
	net.Conn
	syscall.Conn
	ReadReady(memory) (n int, err error)
}

// lean makes of such a connection one from which gRPC reads without a buffer for each connection that waits. On a
// socket it does that by itself.
func lean(c net.Conn) net.Conn {
	if r, ok := c.(readyReader); ok {
		return &readyConn{readyReader: r}
	}
	return c
}

// readyConn has the method by which gRPC knows a connection that can be read from in this way.
type readyConn struct {
	readyReader
	lender lender // of the call of ReadOnReady
}

// ReadOnReady waits until there is something to read, and reads it into a buffer of the size from the pool.
func (c *readyConn) ReadOnReady(size int, pool mem.BufferPool) (b *[]byte, n int, err error) {
	c.lender = lender{size: size, pool: pool}
	n, err = c.readyReader.ReadReady(&c.lender)
	b = c.lender.b
	c.lender = lender{}
	return b, n, err
}

// NetConn returns the connection that the server was given.
func (c *readyConn) NetConn() net.Conn { return c.readyReader }

// lender is the memory of a pool of gRPC.
type lender struct {
	size int
	pool mem.BufferPool
	b    *[]byte // what is lent
}

func (l *lender) Get() []byte {
	if l.b == nil {
		l.b = l.pool.Get(l.size)
	}
	return *l.b
}

func (l *lender) Put() {
	if l.b != nil {
		l.pool.Put(l.b)
		l.b = nil
	}
}
