package dispatch

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
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

// TestClosedUnanswered has a server close its side without SETTINGS, which is logged if it has read anything, in either
// way.
func TestClosedUnanswered(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		do     func(v *Conn) error
		logged bool
	}{
		{"nothing read", func(*Conn) error { return nil }, false},
		{"no room to read", func(v *Conn) error { _, err := v.Read(nil); return err }, false},
		{"Read", func(v *Conn) error { _, err := v.Read(make([]byte, 1)); return err }, true},
		{"ReadReady", func(v *Conn) error { _, err := v.ReadReady(&page{p: make([]byte, 1)}); return err }, true},
		{"Read, and SETTINGS", func(v *Conn) error {
			if _, err := v.Read(make([]byte, 1)); err != nil {
				return err
			}
			_, err := v.Write(h2.AppendSettings(nil))
			return err
		}, false},
	} {
		for _, split := range []bool{false, true} {
			name := tt.name
			if split {
				name += ", splitting"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					near, far := newDuplex()
					defer near.Close()
					d := newDispatcher(1)
					defer d.Close()
					d.AlwaysSplit = split
					var log bytes.Buffer
					d.Logger = slog.New(slog.NewTextHandler(&log, nil))
					d.Handle(far)
					go new(collector).collect(near, 4096)
					near.Write(h2.AppendSettings([]byte(http2.ClientPreface)))
					near.Write(h2.AppendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte("\x82\x04\x02/0")))
					c, err := d.all()[0].Accept()
					if err != nil {
						t.Fatal(err)
					}
					if err := tt.do(c.(*Conn)); err != nil {
						t.Fatal(err)
					}
					c.Close()
					synctest.Wait()
					if got := strings.Count(log.String(), errNoSettings.Error()); got != 1 && tt.logged || got != 0 && !tt.logged {
						t.Errorf("it is logged %d times, want %t:\n%s", got, tt.logged, log.String())
					}
				})
			})
		}
	}
}
