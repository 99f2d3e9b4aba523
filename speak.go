package oneport

import (
	"net"
	"time"
)

// speak writes b to the client, behind what was written before.
//
// The few bytes that a mux has to say fit into the send buffer of a socket. Other connections may have no buffer at
// all: what is written to a net.Pipe waits for the client to read, while the client may want to finish its own writing
// first. There a goroutine writes, the mux goes on looking, and the error comes with the next call of speak or hear.
func (u *undecided) speak(b []byte) error {
	switch u.raw.(type) {
	case *net.TCPConn, *net.UnixConn:
		_, err := u.conn.Write(b)
		return err
	}
	if err := u.hear(); err != nil {
		return err
	}
	spoken := make(chan error, 1)
	u.spoken = spoken
	go func(c net.Conn) {
		_, err := c.Write(b)
		spoken <- err
	}(u.conn) // u may be on its next connection when this runs out
	return nil
}

// hear waits until what was said is written, so that nothing else gets in between. The deadlines that are set for the
// waiting end this as well.
func (u *undecided) hear() error {
	if u.spoken == nil {
		return nil
	}
	err := <-u.spoken
	u.spoken = nil
	return err
}

// hearOut is hear for a connection that is to be refused.
func (u *undecided) hearOut() {
	if u.spoken == nil {
		return
	}
	if u.conn.SetWriteDeadline(time.Now().Add(lingerTime)) != nil {
		u.conn.Close()
	}
	u.hear()
}
