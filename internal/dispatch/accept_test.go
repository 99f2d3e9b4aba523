package dispatch

import (
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// A server that does not accept its side of a connection keeps nothing of it: its requests are refused after
// AcceptTimeout, and the client's end is not missed for it.
func TestNeverAccepted(t *testing.T) {
	for _, tt := range []struct {
		name  string
		alone bool // the server is the only one of the connection
		end   func(w *world, sock *duplex)
		after time.Duration // the requests for the server are over, or the connection is
		want  []string      // of the client, at that time
		ended bool          // the connection
		why   error
	}{
		{name: "alone", alone: true, after: 10 * time.Second, want: []string{
			"SETTINGS ACK", "RST_STREAM 1 REFUSED_STREAM", "GOAWAY 1 NO_ERROR "}, ended: true, why: ErrTargetFull},
		{name: "alone, FIN", alone: true, end: (*world).fin, after: 10 * time.Second, ended: true, why: ErrTargetFull},
		{name: "alone, RST", alone: true, end: (*world).rst, after: 10 * time.Second, ended: true, why: ErrTargetFull},
		{name: "beside another", after: 10 * time.Second, want: []string{"RST_STREAM 3 REFUSED_STREAM"}},
		{name: "beside another, FIN", end: (*world).fin},
		{name: "beside another, RST", end: (*world).rst, ended: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDispatcher(2)
				defer d.Close()
				near, far := newDuplex()
				w := &world{t: t, d: d, owner: d.Handle(far), client: newEnd(t, near, false)}
				defer w.client.close()
				w.client.Write([]byte(http2.ClientPreface))
				w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 5000})
				w.client.request(1, "0", false)
				var a *end
				if !tt.alone {
					a = w.accept(0, "HEADERS 1 :method=GET :path=/0")
					defer a.close()
					w.client.request(3, "1", false)
				}
				w.client.got()
				if tt.end != nil {
					tt.end(w, near)
				}
				if tt.after > 0 {
					time.Sleep(tt.after - time.Nanosecond)
					synctest.Wait()
					if w.owner.ended() != nil {
						t.Error("ended early")
					}
					time.Sleep(time.Nanosecond)
				}
				if tt.want != nil {
					w.client.want(tt.want...)
				}
				synctest.Wait()
				for i, target := range d.all() {
					if n := target.Stats().Queued; n != 0 {
						t.Errorf("%d connections are queued for server %d", n, i)
					}
				}
				if a != nil && !tt.ended {
					a.close() // a server closes when it reads the end
					time.Sleep(time.Second)
				}
				synctest.Wait()
				time.Sleep(5 * time.Second) // for the client to take what was written last
				select {
				case <-w.owner.done:
				default:
					if tt.end != nil || tt.ended {
						t.Error("the connection has not ended")
					}
				}
				if tt.why != nil && w.owner.ended() != tt.why {
					t.Errorf("ended with %v, want %v", w.owner.ended(), tt.why)
				}
			})
		})
	}
}

func (w *world) fin(sock *duplex) { sock.CloseWrite(); synctest.Wait() }
func (w *world) rst(sock *duplex) { sock.abort(); synctest.Wait() }

// A server that accepts in time loses nothing, however long others had to wait before it.
func TestAcceptedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDispatcher(1)
		var worlds []*world
		for range 3 {
			near, far := net.Pipe()
			w := &world{t: t, d: d, owner: d.Handle(far), client: newEnd(t, near, false)}
			defer w.client.close()
			w.client.Write([]byte(http2.ClientPreface))
			w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 5000})
			w.client.request(1, "0", false)
			worlds = append(worlds, w)
			time.Sleep(4 * time.Second)
			synctest.Wait()
		}
		time.Sleep(2 * time.Second) // the first has waited for 14 seconds
		synctest.Wait()
		var left []bool
		for _, w := range worlds {
			left = append(left, w.owner.ended() == nil)
		}
		if !slices.Equal(left, []bool{false, true, true}) {
			t.Errorf("left are %v", left)
		}
		for _, w := range worlds[1:] {
			w.client.got()
			a := w.accept(0, "HEADERS 1 :method=GET :path=/0")
			defer a.close()
			a.headers(1, true, ":status", "200")
		}
		time.Sleep(time.Minute)
		for _, w := range worlds[1:] {
			lines := w.client.got()
			if !slices.Contains(lines, "HEADERS 1 :status=200 END") {
				t.Errorf("got %q", lines)
			}
		}
		d.Close()
	})
}
