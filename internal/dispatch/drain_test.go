package dispatch

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

const (
	drainGoAway = "GOAWAY 2147483647 NO_ERROR shutting down"
	drainAsks   = `PING "1prtgone"`
)

// drainWorld is a connection that is drained in one of the modes, on which the client has a request open on stream 1.
type drainWorld struct {
	*world
	sock   *duplex
	server *end // of stream 1
	other  *end // the other server, or nil
	late   *atomic.Bool
}

// A lateConn is read from with a delay once late is set, once, when more than a frame header has come.
type lateConn struct {
	*duplex
	late atomic.Bool
}

func (c *lateConn) Read(p []byte) (int, error) {
	n, err := c.duplex.Read(p)
	if n > h2.FrameHeaderLen && c.late.CompareAndSwap(true, false) {
		time.Sleep(2 * drainTime)
	}
	return n, err
}

// eachMode runs a test passing and splitting.
func eachMode(t *testing.T, f func(*testing.T, *drainWorld)) {
	for _, mode := range []string{"passing", "splitting"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, far := newDuplex()
				d := newDispatcher(2)
				sock := &lateConn{duplex: far}
				w := &drainWorld{world: &world{t: t, d: d, owner: d.Handle(sock), client: newEnd(t, near, false)}, sock: near, late: &sock.late}
				defer w.client.close()
				w.client.Write([]byte(http2.ClientPreface))
				w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 5000})
				if mode == "splitting" {
					w.server, w.other = w.shared()
					defer w.other.close()
					w.other.fr.WriteRSTStream(3, http2.ErrCodeCancel)
				} else {
					w.client.request(1, "0", false)
					w.server = w.accept(0, "HEADERS 1 :method=GET :path=/0")
					synctest.Wait()
					w.client.fr.WriteSettingsAck()
					w.client.fr.WriteSettingsAck()
				}
				defer w.server.close()
				w.server.got()
				w.client.got()
				f(t, w)
			})
		})
	}
}

// end checks that the connection ends, also when its servers close their sides only upon the end of what they read.
func (w *drainWorld) end() {
	w.t.Helper()
	w.server.wantEnd()
	w.server.conn.Close()
	w.client.wantEnd()
	w.sock.Close()
	time.Sleep(2 * time.Second)
	synctest.Wait()
	conns := []*Conn{w.server.conn.(*Conn)}
	if w.other != nil {
		conns = append(conns, w.other.conn.(*Conn))
	}
	nothingLeft(w.t, conns[0].c, conns...)
	select {
	case <-w.owner.done:
	default:
		w.t.Error("the owner was not told of the end")
	}
}

func (w *drainWorld) answerPing() { w.client.fr.WritePing(true, drainPing) }

// What the client has asked for is answered whole, and then the connection ends.
func TestDrain(t *testing.T) {
	eachMode(t, func(t *testing.T, w *drainWorld) {
		w.owner.client.Drain()
		w.owner.client.Drain() // once is enough
		w.client.want(drainGoAway, drainAsks)
		w.client.request(5, "0", true) // it has not read the GOAWAY
		w.answerPing()
		w.server.want("HEADERS 5 :method=GET :path=/0 END")
		w.client.fr.WriteData(1, true, []byte("the rest"))
		w.server.want(`DATA 1 "the rest" END`)
		w.server.headers(1, false, ":status", "200")
		w.server.fr.WriteData(1, true, []byte("answer"))
		w.client.want("HEADERS 1 :status=200", `DATA 1 "answer" END`)
		w.server.headers(5, false, ":status", "200")
		w.server.fr.WriteData(5, true, []byte("last"))
		lines := w.client.got()
		if len(lines) < 2 || lines[1] != `DATA 5 "last" END` {
			t.Errorf("the client got %q", lines)
		}
		w.server.wantEnd()
		w.end()
	})
}

// A connection without a request ends as soon as the client has answered.
func TestDrainIdle(t *testing.T) {
	eachMode(t, func(t *testing.T, w *drainWorld) {
		w.client.fr.WriteData(1, true, nil)
		w.server.headers(1, true, ":status", "204")
		w.server.got()
		w.client.want("HEADERS 1 :status=204 END")
		w.owner.client.Drain()
		w.client.want(drainGoAway, drainAsks)
		w.answerPing()
		w.server.wantEnd()
		w.end()
	})
}

// A client that does not answer the PING is not waited for longer than by grpc-go; its requests are.
func TestDrainUnanswered(t *testing.T) {
	eachMode(t, func(t *testing.T, w *drainWorld) {
		w.owner.client.Drain()
		w.client.want(drainGoAway, drainAsks)
		time.Sleep(2 * drainTime)
		w.client.fr.WriteData(1, true, []byte("late"))
		w.server.want(`DATA 1 "late" END`)
		w.server.headers(1, true, ":status", "204")
		if lines := w.client.got(); len(lines) == 0 || lines[0] != "HEADERS 1 :status=204 END" {
			t.Errorf("the client got %q", lines)
		}
		w.server.wantEnd()
		w.end()
	})
}

// The client resets its last request.
func TestDrainReset(t *testing.T) {
	eachMode(t, func(t *testing.T, w *drainWorld) {
		w.owner.client.Drain()
		w.client.want(drainGoAway, drainAsks)
		w.answerPing()
		w.client.fr.WriteRSTStream(1, http2.ErrCodeCancel)
		w.server.wantEnd()
		w.end()
	})
}

// A server that drains by itself has told the client a number, which must not grow.
func TestDrainAfterServer(t *testing.T) {
	eachMode(t, func(t *testing.T, w *drainWorld) {
		w.server.fr.WriteGoAway(1, http2.ErrCodeNo, nil)
		synctest.Wait()
		w.owner.client.Drain()
		last := uint32(1<<31 - 1)
		n := 0
		for _, line := range w.client.got() {
			var id uint32
			if found, _ := fmt.Sscanf(line, "GOAWAY %d", &id); found == 1 {
				if n++; id > last {
					t.Errorf("GOAWAY with %d after one with %d", id, last)
				}
				last = id
			}
		}
		if n == 0 {
			t.Error("no GOAWAY")
		}
		w.answerPing()
		w.client.fr.WriteData(1, true, nil)
		w.server.headers(1, true, ":status", "204")
		w.server.wantEnd()
		w.end()
	})
}

// The frames do not get into the middle of one of the server's, and its last frame is waited for.
func TestDrainBetweenFrames(t *testing.T) {
	eachMode(t, func(t *testing.T, w *drainWorld) {
		w.client.fr.WriteData(1, true, nil)
		w.server.headers(1, false, ":status", "200")
		w.server.got()
		w.client.want("HEADERS 1 :status=200")
		w.server.Write([]byte("\x00\x00\x06\x00\x01\x00\x00\x00\x01abc")) // END_STREAM, and a half of the content
		synctest.Wait()
		w.owner.client.Drain()
		synctest.Wait()
		if w.other == nil {
			w.client.want()
			w.answerPing() // which it would only have to when it was asked
			w.server.Write([]byte("def"))
			w.client.want(`DATA 1 "abcdef" END`, drainGoAway, drainAsks)
			w.answerPing()
		} else {
			w.answerPing()
			w.server.Write([]byte("def"))
		}
		w.server.wantEnd()
		w.end()
	})
}

// The last frame of the last response comes in parts, when all else is over.
func TestDrainedBetweenFrames(t *testing.T) {
	eachMode(t, func(t *testing.T, w *drainWorld) {
		w.client.fr.WriteData(1, true, nil)
		w.server.headers(1, false, ":status", "200")
		w.server.got()
		w.client.want("HEADERS 1 :status=200")
		w.owner.client.Drain()
		w.client.want(drainGoAway, drainAsks)
		w.answerPing()
		w.server.want()
		w.server.Write([]byte("\x00\x00\x06\x00\x01\x00\x00\x00\x01abc"))
		synctest.Wait()
		w.server.Write([]byte("def"))
		w.server.wantEnd()
		content := ""
		for _, line := range w.client.got() {
			var part string
			fmt.Sscanf(line, "DATA 1 %q", &part)
			content += part
		}
		if content != "abcdef" {
			t.Errorf("the client got %q", content)
		}
		w.end()
	})
}

// A frame that the server writes in two pieces, and that does not reach the client, is not in the way either.
func TestDrainBehindPieces(t *testing.T) {
	for _, frame := range []struct{ name, bytes string }{
		{"acknowledgement of nothing", "\x00\x00\x00\x04\x01\x00\x00\x00\x00"},
		{"acknowledgement of nothing, and PING", "\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x00\x08\x06\x00\x00\x00\x00\x00payload."},
		{"WINDOW_UPDATE", "\x00\x00\x04\x08\x00\x00\x00\x00\x01\x00\x00\x00\x01"},
		{"DATA", "\x00\x00\x02\x00\x00\x00\x00\x00\x01ab"},
	} {
		t.Run(frame.name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, w *drainWorld) {
				w.server.headers(1, false, ":status", "200")
				w.client.want("HEADERS 1 :status=200")
				for cut := range frame.bytes {
					if cut == 0 {
						continue
					}
					w.server.Write([]byte(frame.bytes[:cut]))
					synctest.Wait()
					w.server.Write([]byte(frame.bytes[cut:]))
					synctest.Wait()
				}
				w.client.got()
				w.owner.client.Drain()
				w.client.want(drainGoAway, drainAsks)
				w.answerPing()
				w.client.fr.WriteData(1, true, nil)
				w.server.fr.WriteData(1, true, nil)
				w.end()
			})
		})
	}
}

// A request that is made at the last moment, as the first GOAWAY permits, is answered or known not to have been taken:
// the client may make it again elsewhere, and no server has seen it.
func TestDrainLateRequest(t *testing.T) {
	last := func(t *testing.T, w *drainWorld, lines []string) {
		t.Helper()
		most := 1
		if w.other != nil {
			most = 3
		}
		if len(lines) != 1 || !strings.HasPrefix(lines[0], fmt.Sprintf("GOAWAY %d NO_ERROR", most)) {
			t.Errorf("the client got %q", lines)
		}
	}
	request := func(w *drainWorld) {
		b := w.client.block(":method", "POST", ":path", "/0", "x-field", strings.Repeat("v", 100))
		var flight bytes.Buffer
		fr := http2.NewFramer(&flight, nil)
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, EndStream: true, BlockFragment: b[:10]})
		fr.WriteContinuation(5, true, b[10:])
		w.client.Write(flight.Bytes())
	}
	drained := func(t *testing.T, w *drainWorld) {
		w.owner.client.Drain()
		w.client.want(drainGoAway, drainAsks)
		w.answerPing()
	}
	finish := func(w *drainWorld) {
		w.client.fr.WriteData(1, true, nil)
		w.server.headers(1, true, ":status", "204")
	}
	t.Run("while others are answered", func(t *testing.T) {
		eachMode(t, func(t *testing.T, w *drainWorld) {
			drained(t, w)
			request(w)
			w.client.want("RST_STREAM 5 REFUSED_STREAM")
			w.client.fr.WriteData(1, true, nil)
			w.server.want(`DATA 1 "" END`)
			w.server.headers(1, true, ":status", "204")
			lines := w.client.got()
			if len(lines) == 0 || lines[0] != "HEADERS 1 :status=204 END" {
				t.Fatalf("the client got %q", lines)
			}
			last(t, w, lines[1:])
			w.end()
		})
	})
	t.Run("when all are answered", func(t *testing.T) {
		eachMode(t, func(t *testing.T, w *drainWorld) {
			drained(t, w)
			finish(w)
			w.server.wantEnd()
			w.server.got()
			lines := w.client.got()
			// What the server writes now, if only a part of a frame, is not in the way.
			w.server.Write([]byte("\x00\x03\x06\xfa\x00\x00\x00\x00\x00abc"))
			request(w)
			w.server.want()
			w.server.conn.Close()
			last(t, w, append(lines, w.client.got()...)[1:])
			w.end()
		})
	})
	t.Run("read when all are answered", func(t *testing.T) {
		eachMode(t, func(t *testing.T, w *drainWorld) {
			finish(w)
			w.server.got()
			w.client.got()
			w.owner.client.Drain()
			w.client.want(drainGoAway, drainAsks)
			w.late.Store(true) // it has been read, but not looked at, when the client is not waited for any longer
			request(w)
			time.Sleep(3 * drainTime)
			w.server.want()
			w.server.conn.Close()
			last(t, w, w.client.got())
			w.end()
		})
	})
}

// Nothing can be said before the server's SETTINGS, or before another server joins.
func TestDrainBeforeServerSpeaks(t *testing.T) {
	for _, joins := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := newDispatcher(2)
			near, far := net.Pipe()
			client := newEnd(t, near, false)
			defer client.close()
			var flight bytes.Buffer
			flight.WriteString(http2.ClientPreface)
			fr := http2.NewFramer(&flight, nil)
			fr.WriteSettings()
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: client.block(":path", "/0")})
			client.Write(flight.Bytes())
			owner := d.Handle(far)
			c, err := d.all()[0].Accept()
			if err != nil {
				t.Fatal(err)
			}
			server := newEnd(t, c, true)
			defer server.close()
			server.got()
			owner.client.Drain()
			client.want()
			if joins {
				client.request(3, "1", true)
				client.want("SETTINGS [NO_RFC7540_PRIORITIES = 1]", drainGoAway, drainAsks)
			} else {
				server.fr.WriteSettings()
				client.want("SETTINGS", drainGoAway, drainAsks)
			}
			owner.client.Close()
			server.wantEnd()
			d.Close()
		})
	}
}

// The last response is read slowly.
func TestDrainWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // on which a Write waits for the client to read
		d := newDispatcher(1)
		owner := d.Handle(far)
		defer near.Close()
		write := func(s string) {
			t.Helper()
			if _, err := near.Write([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		drop := func(n int) {
			t.Helper()
			b := make([]byte, n)
			for read := 0; read < n; {
				m, err := near.Read(b[read:])
				if err != nil {
					t.Fatal(err)
				}
				read += m
			}
		}
		write(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		drop(9 + 6) // early SETTINGS
		write("\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x04\x02/0")
		c, err := d.all()[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		server := c.(*Conn)
		ended := make(chan error, 1)
		go func() {
			for b := make([]byte, 4096); ; {
				if _, err := server.Read(b); err != nil {
					ended <- err
					server.Close()
					return
				}
			}
		}()
		go server.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
		drop(9)
		go owner.client.Drain()
		drop(9 + 8 + len("shutting down") + 9 + 8)
		response := "\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88" + "\x00\x00\x04\x00\x01\x00\x00\x00\x01done"
		go server.Write([]byte(response))
		drop(5)
		write("\x00\x00\x08\x06\x01\x00\x00\x00\x00" + string(drainPing[:]))
		time.Sleep(10 * time.Second) // in the middle of the response
		select {
		case err := <-ended:
			t.Fatalf("the server's connection has ended before its response was read: %v", err)
		default:
		}
		drop(len(response) - 5)
		<-ended
		<-owner.done
	})
}

// Close ends the connection whatever it holds: an open request, a response without credit, a Write that waits.
func TestCloseAtOnce(t *testing.T) {
	eachMode(t, func(t *testing.T, w *drainWorld) {
		w.sock.Conn.SetReadDeadline(aLongTimeAgo) // the client never reads again
		w.server.headers(1, false, ":status", "200")
		for range 30 {
			w.server.fr.WriteData(1, false, make([]byte, 16_000))
		}
		synctest.Wait()
		go w.owner.client.Drain()
		synctest.Wait()
		w.owner.client.Close()
		w.server.wantEnd()
		w.end()
		if err := w.owner.ended(); !errors.Is(err, errClientGone) {
			t.Errorf("ended for %v", err)
		}
	})
}
