package peek

import "sync"

// Pool has buffers of one Size for looking at first bytes. A connection holds one only while it is being decided,
// not while it waits.
type Pool struct {
	Size int
	pool sync.Pool
}

// Get returns a buffer.
func (p *Pool) Get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, p.Size)
	return &b
}

// Put takes a buffer back.
func (p *Pool) Put(b *[]byte) { p.pool.Put(b) }
