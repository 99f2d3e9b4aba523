package load

import (
	"io"
	"net"
	"sync"
	"time"
)

// slowProxy is a network with a round-trip time, where the system has none to offer. What would be a packet takes half
// of that time; the handshake of TCP, which is done with the proxy at once, is made up for: the first bytes of the
// client leave a round trip after it has connected, and the server sees the connection when they arrive.
type slowProxy struct {
	listener net.Listener
	rtt      time.Duration
	dial     func() (net.Conn, error)
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

func newSlowProxy(rtt time.Duration, dial func() (net.Conn, error)) (*slowProxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &slowProxy{listener: l, rtt: rtt, dial: dial, conns: make(map[net.Conn]struct{})}
	p.running.Go(p.serve)
	return p, nil
}

func (p *slowProxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		connected := time.Now()
		if p.track(client) {
			p.running.Go(func() { p.relay(client, connected) })
		}
	}
}

// track has the connection closed at the latest when the proxy is.
func (p *slowProxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *slowProxy) done(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *slowProxy) relay(client net.Conn, connected time.Time) {
	defer p.done(client)
	upstream := p.receive(client, connected.Add(p.rtt))
	// The last step of the handshake reaches the server now.
	time.Sleep(time.Until(connected.Add(p.rtt + p.rtt/2)))
	server, err := p.dial()
	if err != nil || !p.track(server) {
		client.Close() // which the client sees
		for range upstream {
		}
		return
	}
	defer p.done(server)
	var both sync.WaitGroup
	both.Go(func() { deliver(server, client, upstream) })
	both.Go(func() { deliver(client, server, p.receive(server, connected)) })
	both.Wait()
}

// packet is what was read at once, or the error that ended the reading.
type packet struct {
	data []byte
	due  time.Time
	err  error
}

// receive reads what is sent, which was not before earliest. It is due half a round trip later.
func (p *slowProxy) receive(src net.Conn, earliest time.Time) <-chan packet {
	packets := make(chan packet, 64)
	p.running.Go(func() {
		defer close(packets)
		for {
			b := make([]byte, 16<<10)
			n, err := src.Read(b)
			sent := time.Now()
			if sent.Before(earliest) {
				sent = earliest
			}
			packets <- packet{b[:n], sent.Add(p.rtt / 2), err}
			if err != nil {
				return
			}
		}
	})
	return packets
}

// deliver writes to dst what comes from src when it is due.
func deliver(dst, src net.Conn, packets <-chan packet) {
	var failed error
	for k := range packets {
		if failed != nil {
			continue
		}
		time.Sleep(time.Until(k.due))
		if len(k.data) > 0 {
			_, failed = dst.Write(k.data)
		}
		if failed == nil {
			failed = k.err
		}
		if failed == io.EOF {
			closeWrite(dst)
		} else if failed != nil {
			dst.Close()
			src.Close() // and the other direction ends
		}
	}
}

// closeWrite ends what is sent to c, or all of c if that cannot be done.
func closeWrite(c net.Conn) {
	if cw, ok := c.(interface{ CloseWrite() error }); ok {
		cw.CloseWrite()
		return
	}
	c.Close()
}

func (p *slowProxy) address() string { return p.listener.Addr().String() }

func (p *slowProxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
}
