package dispatch

import "testing"

// page is a memory of one buffer.
type page struct {
	p    []byte
	lent bool
	put  chan struct{} // if not nil, told when the buffer comes back
}

func (m *page) Get() []byte {
	m.lent = true
	return m.p
}

func (m *page) Put() {
	back := m.lent
	m.lent = false
	if back && m.put != nil {
		m.put <- struct{}{}
	}
}

// readyConn is a Conn that is read from by ReadReady.
type readyConn struct {
	*Conn
	t *testing.T
}

func (c readyConn) Read(p []byte) (int, error) {
	m := &page{p: p}
	n, err := c.ReadReady(m)
	if m.lent != (n > 0) {
		c.t.Errorf("ReadReady returned %d, %v, and the buffer is lent: %t", n, err, m.lent)
	}
	return n, err
}
