//go:build unix

package dispatch

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// waits is a ReadReady that waits.
type waits struct {
	m    *page
	done chan readResult
}

type readResult struct {
	b   []byte
	err error
}

// await calls ReadReady, and returns when it has found nothing to read.
func await(t *testing.T, v *Conn) waits {
	t.Helper()
	w := waits{&page{p: make([]byte, 64), put: make(chan struct{})}, make(chan readResult)}
	go func() {
		n, err := v.ReadReady(w.m)
		w.done <- readResult{bytes.Clone(w.m.p[:n]), err}
	}()
	select {
	case <-w.m.put:
	case r := <-w.done:
		t.Fatalf("it has not waited: %q, %v", r.b, r.err)
	}
	return w
}

// result returns what it has read. Until then it can be woken up for nothing.
func (w waits) result() readResult {
	for {
		select {
		case <-w.m.put:
		case r := <-w.done:
			return r
		}
	}
}

// TestReadReady waits without a buffer, and gets what Read would get.
func TestReadReady(t *testing.T) {
	t.Parallel()
	_, client, _, v := overTCP(t)
	var frames [][]byte
	for i := range 5 {
		frames = append(frames,
			h2.AppendFrame(nil, http2.FrameData, 0, 1, []byte("content")),
			h2.AppendFrame(nil, http2.FramePing, 0, 0, []byte{7: byte(i)}))
	}
	for _, frame := range frames {
		w := await(t, v)
		// A part of the frame header alone is held back.
		for _, b := range [][]byte{frame[:3], frame[3:]} {
			write(t, client, b)
		}
		r := w.result()
		if r.err != nil || !w.m.lent {
			t.Fatalf("%q, %v, the buffer is lent: %t", r.b, r.err, w.m.lent)
		}
		rest := make([]byte, len(frame)-len(r.b))
		if _, err := io.ReadFull(v, rest); err != nil {
			t.Fatal(err)
		}
		if got := append(r.b, rest...); !bytes.Equal(got, frame) {
			t.Errorf("got %q, want %q", got, frame)
		}
	}
	w := await(t, v)
	v.SetReadDeadline(time.Unix(1, 0))
	if r := w.result(); !errors.Is(r.err, os.ErrDeadlineExceeded) || w.m.lent {
		t.Errorf("after the deadline: %v, the buffer is lent: %t", r.err, w.m.lent)
	}
	v.SetReadDeadline(time.Time{})
	w = await(t, v)
	client.(*net.TCPConn).CloseWrite()
	if r := w.result(); r.err != io.EOF || w.m.lent {
		t.Errorf("at the end: %v, the buffer is lent: %t", r.err, w.m.lent)
	}
}

func write(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// TestReadReadyPart holds a part of a frame header back, and waits for the rest without the buffer.
func TestReadReadyPart(t *testing.T) {
	t.Parallel()
	_, client, _, v := overTCP(t)
	frame := h2.AppendFrame(nil, http2.FramePing, 0, 0, make([]byte, 8))
	w := await(t, v)
	write(t, client, frame[:3])
	<-w.m.put
	write(t, client, frame[3:])
	if r := w.result(); r.err != nil || !bytes.Equal(r.b, frame) {
		t.Errorf("got %q, %v, want %q", r.b, r.err, frame)
	}
}

// TestReadReadySplit has a second server join while the first one waits.
func TestReadReadySplit(t *testing.T) {
	t.Parallel()
	d, client, _, v := overTCP(t)
	w := await(t, v)
	request := []byte{0x04, 2, '/', '1'}
	write(t, client, h2.AppendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 3, request))
	r := w.result()
	if r.err != nil {
		t.Fatal(r.err)
	}
	other, err := d.all()[1].Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const settings, windowUpdate = h2.FrameHeaderLen + h2.SettingLen, h2.FrameHeaderLen + 4
	got := make([]byte, len(http2.ClientPreface)+settings+windowUpdate+h2.FrameHeaderLen)
	if _, err := io.ReadFull(readyConn{other.(*Conn), t}, got); err != nil {
		t.Fatal(err)
	}
	if h := got[len(got)-h2.FrameHeaderLen:]; http2.FrameType(h[3]) != http2.FrameHeaders || h[8] != 3 {
		t.Errorf("the second server has read %q", got)
	}
	data := h2.AppendFrame(nil, http2.FrameData, 0, 1, []byte("content"))
	write(t, client, data)
	for p := make([]byte, 64); !bytes.HasSuffix(r.b, data); {
		n, err := readyConn{v, t}.Read(p)
		if err != nil {
			t.Fatalf("the first server has read %q, %v", r.b, err)
		}
		r.b = append(r.b, p[:n]...)
	}
	// Ahead of that is credit for the connection, which each server has its own of now.
	if credit := r.b[:len(r.b)-len(data)]; len(credit) != windowUpdate || http2.FrameType(credit[3]) != http2.FrameWindowUpdate {
		t.Errorf("the first server has read %q ahead of the content", credit)
	}
}

// TestReadReadyClosed closes the connection while ReadReady waits.
func TestReadReadyClosed(t *testing.T) {
	t.Parallel()
	_, _, _, v := overTCP(t)
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
