package dispatch

// Memory lends a buffer to [Conn.ReadReady].
type Memory = interface {
	// Get returns a buffer that is not empty. Until Put, it returns the same one.
	Get() []byte
	// Put takes the buffer back, if it is lent. What is in it does not matter.
	Put()
}

// ReadReady is Read for a server that would not keep a buffer while it waits: it asks for one when there is something
// to read, where the client's connection is a socket of the net package, and at once where it is not. If it returns 0,
// the buffer is given back.
func (v *Conn) ReadReady(m Memory) (n int, err error) {
	v.rmu.Lock()
	defer v.unlockRead()
	n, err = v.read(lazily{memory: m})
	if n == 0 {
		m.Put()
	}
	return n, err
}

// lazily is the buffer of a Read, or, if that is nil, the memory that lends one.
type lazily struct {
	p      []byte
	memory Memory
}

func (l lazily) buffer() []byte {
	if l.memory != nil {
		return l.memory.Get()
	}
	return l.p
}

// release gives the buffer back, in which there is nothing to be delivered.
func (l lazily) release() {
	if l.memory != nil {
		l.memory.Put()
	}
}

// readSocket reads from the client's connection.
func (v *Conn) readSocket(l lazily) (b []byte, n int, err error) {
	if l.memory != nil {
		if v.socket == nil {
			v.socket = newSocket(v.c.sock)
		}
		if v.socket != nil {
			return v.socket.read(l.memory)
		}
	}
	b = l.buffer()
	n, err = v.c.sock.Read(b)
	return b, n, err
}
