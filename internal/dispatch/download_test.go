package dispatch

import (
	"fmt"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// queueAnswer has a's answer on stream 1 go beyond the client's window for the connection, of which 65,535 bytes are
// left, but not beyond that of the stream. It returns what the client got of it.
func (w *world) queueAnswer(a *end, frames int) (got int) {
	w.t.Helper()
	w.client.fr.WriteWindowUpdate(1, uint32(frames*10_000))
	a.got()
	a.headers(1, false, ":status", "200")
	for range frames {
		a.fr.WriteData(1, false, make([]byte, 10_000))
	}
	return dataBytes(w.client.got())
}

// A reset comes behind what the server has written before, whatever its reason.
func TestResetBehindAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		finish func(a *end) // writes what is behind the content
		want   []string     // what the client reads last
	}{
		{"END_STREAM and NO_ERROR", func(a *end) {
			a.fr.WriteData(1, true, nil)
			a.fr.WriteRSTStream(1, http2.ErrCodeNo)
		}, []string{"DATA 1 of 7232 END", "RST_STREAM 1 NO_ERROR"}},
		{"trailers and NO_ERROR", func(a *end) {
			a.headers(1, true, "grpc-status", "0")
			a.fr.WriteRSTStream(1, http2.ErrCodeNo)
		}, []string{"HEADERS 1 grpc-status=0 END", "RST_STREAM 1 NO_ERROR"}},
		{"a failure", func(a *end) {
			a.fr.WriteRSTStream(1, http2.ErrCodeInternal)
		}, []string{"RST_STREAM 1 INTERNAL_ERROR"}},
		{"the server closes", func(a *end) {
			a.headers(1, true, "grpc-status", "0")
			synctest.Wait()
			a.conn.Close()
		}, []string{"HEADERS 1 grpc-status=0 END", "RST_STREAM 1 NO_ERROR"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, newDispatcher(2), func(w *world) {
				a, b := w.shared()
				defer a.close()
				defer b.close()
				got := w.queueAnswer(a, 10)
				tt.finish(a)
				w.client.want()
				// What the client still sends on the stream goes to nobody, and takes nothing of the connection's window.
				w.client.fr.WriteData(1, false, make([]byte, 16_000))
				w.client.fr.WriteWindowUpdate(1, 10)
				w.client.want()
				w.client.fr.WriteWindowUpdate(0, 1<<20)
				lines := w.client.got()
				if n := got + dataBytes(lines); n != 100_000 {
					t.Errorf("the client got %d bytes", n)
				}
				last := lines[max(0, len(lines)-len(tt.want)):]
				if fmt.Sprint(last) != fmt.Sprint(tt.want) {
					t.Errorf("got last %q, want %q", last, tt.want)
				}
				w.client.request(7, "1", true)
				b.want("HEADERS 7 :method=GET :path=/1 END")
				if v := a.conn.(*Conn); v.bytes != 0 || v.memory != 0 {
					t.Errorf("%d bytes are left, %d of memory", v.bytes, v.memory)
				}
			})
		})
	}
}

// A client that resets a stream gets nothing more of what was queued on it, and others' answers do not wait for it.
func TestClientResetsQueued(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared()
		defer a.close()
		defer b.close()
		w.queueAnswer(a, 10)
		w.client.fr.WriteRSTStream(1, http2.ErrCodeCancel)
		a.want("RST_STREAM 1 CANCEL")
		w.client.fr.WriteWindowUpdate(0, 1<<20)
		w.client.want()
		b.headers(3, false, ":status", "200")
		b.fr.WriteData(3, true, []byte("b"))
		w.client.want("HEADERS 3 :status=200", `DATA 3 "b" END`)
		invariants(t, a.conn.(*Conn).c)
	})
}

// When the client has been told that a lower SETTINGS_INITIAL_WINDOW_SIZE is in force, nothing that is queued goes
// beyond it. A higher one is in force at once.
func TestWindowChangesWhileQueued(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared()
		defer a.close()
		defer b.close()
		got := w.queueAnswer(a, 10) // of 165,535 that the stream's window allows
		w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		w.client.fr.WriteWindowUpdate(0, 100) // before the acknowledgement, with the old one
		got += dataBytes(w.client.got())
		a.fr.WriteSettingsAck()
		w.client.want()
		b.fr.WriteSettingsAck()
		w.client.want("SETTINGS ACK")
		w.client.fr.WriteWindowUpdate(0, 1<<20)
		rest := 100_000 - got // the window now
		if n := dataBytes(w.client.got()); n > rest {
			t.Errorf("%d bytes behind the acknowledgement, with a window of %d", n, rest)
		}
		invariants(t, a.conn.(*Conn).c)
		w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		w.client.got()
		a.fr.WriteData(1, true, []byte("end"))
		w.client.want(`DATA 1 "end" END`)
	})
}

// What is queued takes memory for what it is, not for how it was written.
func TestQueuedMemory(t *testing.T) {
	for _, size := range []int{1, 5, 100, 16_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			inWorld(t, newDispatcher(2), func(w *world) {
				a, b := w.shared()
				defer a.close()
				defer b.close()
				w.client.fr.WriteWindowUpdate(1, 1<<20)
				v := a.conn.(*Conn)
				a.headers(1, false, ":status", "200")
				for sent := 0; sent+size < w.d.Limits.MaxBuffered; sent += size {
					if sent%50_000 < size {
						synctest.Wait()
					}
					a.fr.WriteData(1, false, make([]byte, size))
				}
				synctest.Wait()
				v.c.mu.Lock()
				defer v.c.mu.Unlock()
				if v.bytes == 0 || v.memory > v.bytes+v.bytes/2 {
					t.Errorf("%d bytes take %d", v.bytes, v.memory)
				}
			})
		})
	}
}
