package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// relays are between a client and a port. They cut the streams into pieces and delay some of them.
type relays struct {
	running sync.WaitGroup
	mu      sync.Mutex
	clients []net.Conn
}

// end closes the clients' connections. An http.Transport does not close one that is still being made idle.
func (r *relays) end() {
	r.mu.Lock()
	for _, c := range r.clients {
		c.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
}

// dial returns a connection to addr through a relay.
func (r *relays) dial(addr string, seed uint64) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	near, err := l.Accept()
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	far, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, errors.Join(err, near.Close(), client.Close())
	}
	r.mu.Lock()
	r.clients = append(r.clients, client)
	r.mu.Unlock()
	r.running.Go(func() {
		var both sync.WaitGroup
		both.Go(func() { pass(far.(*net.TCPConn), near, rand.New(rand.NewPCG(seed, 1))) })
		both.Go(func() { pass(near.(*net.TCPConn), far, rand.New(rand.NewPCG(seed, 2))) })
		both.Wait()
		near.Close()
		far.Close()
	})
	return client, nil
}

// pass passes on what comes from src until it ends.
func pass(dst *net.TCPConn, src net.Conn, r *rand.Rand) {
	// Some connections are cut much, others little.
	most := 1 << (1 + r.IntN(16))
	delays := r.IntN(20)
	b := make([]byte, 64<<10)
	for pieces := 0; ; {
		n, err := src.Read(b)
		for piece := b[:n]; len(piece) > 0; pieces++ {
			m := min(len(piece), 1+r.IntN(most))
			if pieces > 2000 { // long enough for what there is to be found
				m = len(piece)
			}
			if _, err := dst.Write(piece[:m]); err != nil {
				src.Close()
				return
			}
			piece = piece[m:]
			if r.IntN(100) < delays && pieces < 300 {
				time.Sleep(time.Duration(r.IntN(1000)) * time.Microsecond)
			}
		}
		if err == io.EOF {
			dst.CloseWrite()
			return
		}
		if err != nil {
			dst.Close()
			return
		}
	}
}
