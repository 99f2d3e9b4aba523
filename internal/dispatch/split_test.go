package dispatch

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// A server that acknowledges several SETTINGS frames at once, as net/http does, has one at a time to acknowledge, in
// every mode, so each of the client's is acknowledged.
func TestSettingsOneAtATime(t *testing.T) {
	for _, shared := range []bool{false, true} {
		inWorld(t, newDispatcher(2), func(w *world) {
			w.client.request(1, "0", false)
			c, err := w.d.all()[0].Accept()
			if err != nil {
				t.Fatal(err)
			}
			a := newEnd(t, c, true)
			defer a.close()
			a.want("SETTINGS [ENABLE_PUSH = 0] [MAX_HEADER_LIST_SIZE = 5000]", "HEADERS 1 :method=GET :path=/0")
			a.fr.WriteSettings()
			synctest.Wait()
			var b *end
			if shared {
				w.client.request(3, "1", false)
				b = w.accept(1, "HEADERS 3 :method=GET :path=/1")
				defer b.close()
				b.got()
			}
			acks := 0
			count := func() int {
				for _, line := range w.client.got() {
					if line == "SETTINGS ACK" {
						acks++
					}
				}
				return acks
			}
			count()
			for i := range uint32(3) {
				w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: i})
			}
			a.want()
			a.fr.WriteSettingsAck()
			a.want("SETTINGS [MAX_HEADER_LIST_SIZE = 2]")
			if shared {
				b.want("SETTINGS [MAX_HEADER_LIST_SIZE = 0]")
				b.fr.WriteSettingsAck()
				b.want("SETTINGS [MAX_HEADER_LIST_SIZE = 2]")
				b.fr.WriteSettingsAck()
			}
			if n := count(); n != 1 {
				t.Errorf("%d SETTINGS frames are acknowledged, not the first", n)
			}
			a.fr.WriteSettingsAck()
			if n := count(); n != 4 {
				t.Errorf("%d SETTINGS frames are acknowledged, not all", n)
			}
			w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
			a.want("SETTINGS [INITIAL_WINDOW_SIZE = 100]")
		})
	}
}

// A Write that is in the socket when the connection is split ends as any other.
func TestWriteInSocketAtSplit(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(v *Conn)
		after  func(v *Conn)
		err    error // or any
	}{
		{"deadline from before", func(v *Conn) { v.SetWriteDeadline(time.Now().Add(time.Second)) }, func(*Conn) {}, nil},
		{"deadline from then on", func(*Conn) {}, func(v *Conn) { v.SetWriteDeadline(time.Now().Add(time.Second)) }, nil},
		{"deadline that has passed", func(*Conn) {}, func(v *Conn) { v.SetWriteDeadline(aLongTimeAgo) }, nil},
		{"Close", func(*Conn) {}, func(v *Conn) { v.Close() }, nil},
		{"deadline before the split", func(v *Conn) { v.SetWriteDeadline(time.Now().Add(time.Millisecond)) }, func(*Conn) {}, os.ErrDeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDispatcher(2)
				client, _, v := openUnread(t, d)
				defer client.Close()
				go func() {
					for {
						if _, err := v.Read(make([]byte, 1000)); err != nil {
							return
						}
					}
				}()
				tt.before(v)
				var answer bytes.Buffer
				fr := http2.NewFramer(&answer, nil)
				fr.WriteSettings()
				fr.WriteSettingsAck()
				fr.WriteData(1, false, make([]byte, 10_000))
				written := make(chan error, 1)
				go func() {
					_, err := v.Write(answer.Bytes())
					written <- err
				}()
				synctest.Wait()
				if tt.err != nil {
					time.Sleep(2 * time.Millisecond)
				}
				http2.NewFramer(client, nil).WriteHeaders(unreadRequest(3, '1'))
				b, err := d.all()[1].Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				tt.after(v)
				select {
				case err := <-written:
					if err == nil || tt.err != nil && !errors.Is(err, tt.err) {
						t.Errorf("Write: %v", err)
					}
				case <-time.After(time.Minute):
					t.Error("Write has not returned")
				}
				v.Close()
			})
		})
	}
}

// A client applies SETTINGS_INITIAL_WINDOW_SIZE before it has written the acknowledgement, and may use the larger
// window at once. It may not go beyond that, nor beyond a lower one once it has acknowledged it.
func TestWindowBeforeACK(t *testing.T) {
	for _, tt := range []struct {
		name   string
		window uint32
		ack    bool
		sends  int
		ended  bool
	}{
		{"raised, used before the ACK", 100_000, false, 100_000, false},
		{"raised, exceeded before the ACK", 100_000, false, 100_001, true},
		{"raised, used after the ACK", 100_000, true, 100_000, false},
		{"raised, exceeded after the ACK", 100_000, true, 100_001, true},
		{"lowered, not known yet", 1000, false, 65_535, false},
		{"lowered, known", 1000, true, 1001, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, newDispatcher(2), func(w *world) {
				a, b := w.shared()
				defer a.close()
				defer b.close()
				b.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: tt.window})
				b.fr.WriteWindowUpdate(0, 1<<20)
				w.client.got()
				if tt.ack {
					w.client.fr.WriteSettingsAck() // of what b has set first
					w.client.fr.WriteSettingsAck()
				}
				w.client.request(5, "1", false)
				for n := tt.sends; n > 0; n -= 16_000 {
					w.client.fr.WriteData(5, false, make([]byte, min(n, 16_000)))
				}
				lines := strings.Join(w.client.got(), "\n")
				if ended := strings.Contains(lines, "GOAWAY 5 FLOW_CONTROL_ERROR"); ended != tt.ended {
					t.Errorf("the client got\n%s", lines)
				}
			})
		})
	}
}

// openUnread opens a connection of a client that does not read, with a request for the first target, and returns what the
// server of that gets. The client sends all at once, so that it is sent no early SETTINGS, which it would have to read.
func openUnread(t *testing.T, d *Dispatcher) (client net.Conn, o *owner, server *Conn) {
	t.Helper()
	client, far := net.Pipe()
	o = d.Handle(far)
	var flight bytes.Buffer
	flight.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&flight, nil)
	fr.WriteSettings()
	fr.WriteHeaders(unreadRequest(1, '0'))
	client.Write(flight.Bytes())
	c, err := d.all()[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, o, c.(*Conn)
}

// unreadRequest is a request for a target.
func unreadRequest(id uint32, target byte) http2.HeadersFrameParam {
	return http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: []byte{0x04, 2, '/', target}}
}

// A server that gives credit for content that is held gets it, even if its client does not read, so that nothing that
// servers write can be sent.
func TestCreditWhileClientDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDispatcher(1)
		d.AlwaysSplit = true
		client, o, conn := openUnread(t, d)
		server := newEnd(t, conn, true)
		server.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 30})
		server.got()
		http2.NewFramer(client, nil).WriteData(1, true, make([]byte, 100))
		server.want("DATA 1 of 30")
		server.fr.WriteWindowUpdate(1, 40)
		server.want("DATA 1 of 40")
		server.fr.WriteWindowUpdate(1, 40)
		server.want("DATA 1 of 30 END")
		client.Close()
		server.close()
		<-o.done
	})
}

// A server that violates HTTP/2 on a shared connection loses its side, and learns why with its next Write at the latest,
// whether what it writes is taken at once or later. The others go on.
func TestFaultOnSharedConnection(t *testing.T) {
	for name, most := range map[string]int{"taken later": 0, "taken at once": writtenBuffer} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, newDispatcher(2), func(w *world) {
				a, b := w.shared()
				defer a.close()
				defer b.close()
				fault := h2.AppendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, make([]byte, 10))
				fault = append(fault, make([]byte, most)...)
				_, err := a.conn.Write(fault)
				if later := err == nil; later != (most == 0) {
					t.Errorf("Write: %v", err)
				}
				w.client.want("RST_STREAM 1 INTERNAL_ERROR")
				if _, err := a.conn.Write(fault); err == nil || !strings.Contains(err.Error(), "HEADERS") {
					t.Errorf("the next Write: %v", err)
				}
				b.headers(3, true, ":status", "204")
				w.client.want("HEADERS 3 :status=204 END")
			})
		})
	}
}
