package dispatch

import (
	"net"
	"sync"

	"github.com/oneport-go/oneport/internal/testkit"
)

// owner keeps what the engine says of a connection.
type owner struct {
	client Client
	joined func(target int) // or nil

	mu       sync.Mutex
	accepted bool
	why      error
	done     chan struct{} // closed when the connection has ended
}

func (o *owner) Started(c Client, _ bool) { o.client = c }

func (o *owner) Joined(target int) {
	if o.joined != nil {
		o.joined(target)
	}
}

func (o *owner) Accepted() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.accepted = true
}

func (o *owner) Linger(c net.Conn) { testkit.Linger(c) }

func (o *owner) Ended(why error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.why = why
	close(o.done)
}

func (o *owner) ended() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.why
}

// Handle opens a connection as a mux does, and has its requests dispatched.
func (d *Dispatcher) Handle(sock net.Conn) *owner {
	o := &owner{done: make(chan struct{})}
	go d.open(sock, o)
	return o
}

func (d *Dispatcher) open(sock net.Conn, owner *owner) {
	o, err := testkit.OpenHTTP2(sock, d.EarlySettings, d.Limits.MaxHeaderListBytes)
	if err != nil {
		testkit.Linger(sock)
		owner.Ended(err)
		return
	}
	d.Start(Opened{
		Conn: sock, Received: o.Received, StreamID: o.StreamID, Fields: o.Fields, Block: o.Block, Decoder: o.Decoder, Settings: o.Settings,
		SettingsEnd: o.SettingsEnd, Early: o.Early, Acknowledged: o.Acknowledged, Answered: o.Answered,
	}, owner)
	clear(o.Fields) // as a mux does, which uses their memory again
}

// Close closes the targets.
func (d *Dispatcher) Close() {
	for _, t := range d.all() {
		t.Close()
	}
}

// counts are what a Dispatcher has counted.
type counts struct {
	Split, Streams, NotFound, Refused uint64
}

func (d *Dispatcher) Stats() counts {
	var s counts
	_, s.Split = d.Shared()
	for _, t := range d.all() {
		s.Streams += t.Stats().Requests
	}
	s.NotFound, s.Refused = d.Unmatched()
	return s
}
