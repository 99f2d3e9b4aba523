package dispatch

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

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

// overTCP returns a client's connection to a dispatcher, and the server's side after its first request.
func overTCP(t *testing.T) (client net.Conn, v *Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	sock, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	d := newDispatcher(1)
	t.Cleanup(d.Close)
	d.Handle(sock)
	var flight bytes.Buffer
	flight.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&flight, nil)
	fr.WriteSettings()
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0x04, 2, '/', '0'}})
	if _, err := client.Write(flight.Bytes()); err != nil {
		t.Fatal(err)
	}
	c, err := d.targets[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	v = c.(*Conn)
	want := len(http2.ClientPreface) + headerLen + settingLen + headerLen + 4
	if _, err := io.ReadFull(readyConn{v, t}, make([]byte, want)); err != nil {
		t.Fatal(err)
	}
	return client, v
}

// TestReadReady waits without a buffer, and gets what Read would get.
func TestReadReady(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the buffer is lent while it waits")
	}
	t.Parallel()
	client, v := overTCP(t)
	var frames [][]byte
	for i := range 5 {
		frames = append(frames,
			appendFrame(nil, http2.FrameData, 0, 1, []byte("content")),
			appendFrame(nil, http2.FramePing, 0, 0, []byte{7: byte(i)}))
	}
	m := &page{p: make([]byte, 64), put: make(chan struct{})}
	type result struct {
		b   []byte
		err error
	}
	// read has ReadReady wait, and then do what lets it go on.
	read := func(then func()) result {
		t.Helper()
		done := make(chan result)
		go func() {
			n, err := v.ReadReady(m)
			done <- result{bytes.Clone(m.p[:n]), err}
		}()
		select {
		case <-m.put: // nothing was there, and it is about to wait
		case r := <-done:
			t.Fatalf("it has not waited: %q, %v", r.b, r.err)
		}
		then()
		for {
			select {
			case <-m.put: // woken up for nothing, or at its end
			case r := <-done:
				return r
			}
		}
	}
	for _, frame := range frames {
		r := read(func() {
			// A part of the frame header alone is held back.
			for _, b := range [][]byte{frame[:3], frame[3:]} {
				if _, err := client.Write(b); err != nil {
					t.Error(err)
				}
			}
		})
		if r.err != nil || !m.lent {
			t.Fatalf("%q, %v, the buffer is lent: %t", r.b, r.err, m.lent)
		}
		m.lent = false
		rest := make([]byte, len(frame)-len(r.b))
		if _, err := io.ReadFull(v, rest); err != nil {
			t.Fatal(err)
		}
		if got := append(r.b, rest...); !bytes.Equal(got, frame) {
			t.Errorf("got %q, want %q", got, frame)
		}
	}
	if r := read(func() { v.SetReadDeadline(time.Unix(1, 0)) }); !errors.Is(r.err, os.ErrDeadlineExceeded) || m.lent {
		t.Errorf("after the deadline: %v, the buffer is lent: %t", r.err, m.lent)
	}
	v.SetReadDeadline(time.Time{})
	if r := read(func() { client.(*net.TCPConn).CloseWrite() }); r.err != io.EOF || m.lent {
		t.Errorf("at the end: %v, the buffer is lent: %t", r.err, m.lent)
	}
}

// TestReadReadyClosed closes the connection while ReadReady waits.
func TestReadReadyClosed(t *testing.T) {
	t.Parallel()
	_, v := overTCP(t)
	done := make(chan error)
	go func() {
		n, err := v.ReadReady(&page{p: make([]byte, 64)})
		if n > 0 {
			err = nil
		}
		done <- err
	}()
	v.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
