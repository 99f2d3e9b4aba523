package dispatch

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

// sends is a connection that counts what is written to it, by the call.
type sends struct {
	net.Conn
	n atomic.Int32
}

func (c *sends) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(p)
}

// What a server writes first waits for what it writes next, or for a short time, and goes out in one piece with it.
func TestWithhold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		do    func(w *world, server *end)
		want  []string
		sends int32 // 0 for any number
	}{
		{"nothing more", func(*world, *end) {}, nil, 0},
		{"not yet", func(*world, *end) { time.Sleep(time.Until(withholdUntil()) - 1) }, nil, 0},
		{"after a moment", func(*world, *end) { time.Sleep(time.Until(withholdUntil())) }, []string{"SETTINGS", "SETTINGS ACK"}, 1},
		{"response", func(_ *world, server *end) {
			server.headers(1, true, ":status", "204")
		}, []string{"SETTINGS", "SETTINGS ACK", "HEADERS 1 :status=204 END"}, 1},
		{"response, and more after a moment", func(_ *world, server *end) {
			server.headers(1, false, ":status", "200")
			time.Sleep(2 * withholdTime)
			server.fr.WriteSettings()
			server.fr.WriteData(1, true, []byte("x"))
		}, []string{"SETTINGS", "SETTINGS ACK", "HEADERS 1 :status=200", "SETTINGS", `DATA 1 "x" END`}, 3},
		{"half a response", func(_ *world, server *end) {
			server.Write([]byte("\x00\x00\x01\x01\x05\x00\x00\x00"))
		}, []string{"SETTINGS", "SETTINGS ACK"}, 1},
		{"PING", func(_ *world, server *end) {
			server.fr.WritePing(false, [8]byte{'a'})
		}, []string{"SETTINGS", "SETTINGS ACK", `PING "a\x00\x00\x00\x00\x00\x00\x00"`}, 1},
		{"more than is withheld", func(_ *world, server *end) {
			for range maxWithheld/9 - 1 { // with those before
				server.fr.WriteWindowUpdate(0, 1)
			}
		}, []string{"SETTINGS", "SETTINGS ACK"}, 0},
		{"drained", func(w *world, _ *end) {
			w.owner.client.Drain()
		}, []string{"SETTINGS", "SETTINGS ACK", drainGoAway, drainAsks}, 1},
		{"split", func(w *world, _ *end) {
			w.client.request(3, "1", true)
		}, []string{"SETTINGS", "SETTINGS ACK"}, 1},
		{"a request of which more is to come", func(w *world, _ *end) {
			w.client.Write([]byte("\x00\x00\x05\x01\x04\x00\x00\x00\x03\x82\x04\x02/0"))
		}, []string{"SETTINGS", "SETTINGS ACK"}, 1},
		{"closed by the client", func(w *world, _ *end) { w.client.conn.Close() }, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, far := newDuplex()
				d := newDispatcher(2)
				defer d.Close()
				sock := &sends{Conn: far}
				w := &world{t: t, d: d, client: newEnd(t, near, false)}
				defer w.client.close()
				w.client.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + // and a request, at once
					"\x00\x00\x05\x01\x05\x00\x00\x00\x01\x82\x04\x02/0"))
				w.owner = d.Handle(sock)
				c, err := d.all()[0].Accept()
				if err != nil {
					t.Fatal(err)
				}
				server := newEnd(t, c, true)
				defer server.close()
				server.fr.WriteSettings()
				server.fr.WriteSettingsAck()
				w.client.want()
				before := sock.n.Load()

				tt.do(w, server)
				got := w.client.got()
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if n := sock.n.Load() - before; tt.sends > 0 && n != tt.sends {
					t.Errorf("%d sends, want %d", n, tt.sends)
				}
			})
		})
	}
}

// What may have the credit that a client waits for is not withheld.
func TestWithholdNoCredit(t *testing.T) {
	t.Parallel()
	inWorld(t, newDispatcher(1), func(w *world) {
		defer w.d.Close()
		w.client.request(1, "0", false)
		c, err := w.d.all()[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		server := newEnd(t, c, true)
		defer server.close()
		w.client.got() // the early SETTINGS
		server.fr.WriteSettings()
		w.client.want("SETTINGS")
		w.client.fr.WriteData(1, true, nil)
		synctest.Wait()
		server.fr.WriteSettingsAck()
		w.client.want("SETTINGS ACK") // nothing is withheld behind what was sent
	})
}

// A gate is a connection to which nothing is written before it is open.
type gate struct {
	net.Conn
	mu   sync.Mutex
	open chan struct{} // or nil
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) unshut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
	g.open = nil
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	if open != nil {
		<-open
	}
	return g.Conn.Write(p)
}

// inBlockedWorld runs a test with a client that has made a request, and takes nothing from when its server has sent
// SETTINGS, which are withheld.
func inBlockedWorld(t *testing.T, f func(w *world, sock *gate, server *end)) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newDuplex()
		d := newDispatcher(1)
		defer d.Close()
		sock := &gate{Conn: far}
		w := &world{t: t, d: d, client: newEnd(t, near, false)}
		defer w.client.close()
		w.client.Write([]byte(http2.ClientPreface))
		w.client.fr.WriteSettings()
		w.client.request(1, "0", true)
		w.owner = d.Handle(sock)
		c, err := d.all()[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		w.client.got()
		sock.shut()
		server := newEnd(t, c, true)
		defer server.close()
		server.fr.WriteSettings()
		f(w, sock, server)
	})
}

// TestWithholdBlocked has a client that takes nothing while something is withheld, and while that is sent. What the
// server writes, what a shutdown says and what the other server writes comes behind it, once the client reads.
func TestWithholdBlocked(t *testing.T) {
	t.Parallel()
	const first = "SETTINGS, SETTINGS ACK"
	actions := map[string]struct {
		do   func(w *world, server *end)
		want string
	}{
		"nothing":  {func(*world, *end) {}, ""},
		"response": {func(_ *world, server *end) { server.headers(1, true, ":status", "204") }, ", HEADERS 1 :status=204 END"},
		"half a frame, and its rest": {func(_ *world, server *end) {
			server.Write([]byte("\x00\x00\x08\x06\x00\x00\x00"))
			server.Write([]byte("\x00\x00payload."))
		}, `, PING "payload."`},
		"shutdown": {func(w *world, _ *end) { go w.owner.client.Drain() }, ", " + drainGoAway + ", " + drainAsks},
		"split":    {func(w *world, _ *end) { w.client.request(3, "-1", true) }, ", HEADERS 3 :status=404 content-length=0 END"},
	}
	for _, late := range []time.Duration{-withholdTime, -1, 0, 1} { // when nothing is withheld any more
		for one, a := range actions {
			for other, b := range actions {
				if one == other {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, %v late", one, other, late), func(t *testing.T) {
					t.Parallel()
					inBlockedWorld(t, func(w *world, sock *gate, server *end) {
						server.fr.WriteSettingsAck()
						synctest.Wait()
						time.Sleep(time.Until(withholdUntil()) + late)
						a.do(w, server)
						synctest.Wait()
						b.do(w, server)
						time.Sleep(2 * withholdTime)
						sock.unshut()
						time.Sleep(2 * withholdTime)
						got := strings.Join(w.client.got(), ", ")
						got = strings.ReplaceAll(got, `"1prt\x00\x00\x00\x01"`, `"payload."`) // of splitting
						for _, want := range []string{first, a.want, b.want} {
							if !strings.Contains(", "+got, want) || !strings.HasPrefix(got, first) {
								w.t.Errorf("the client has got %q, want %q behind %q, in whole", got, want, first)
							}
						}
					})
				})
			}
		}
	}
}

// TestWithheldMemory has a client that takes nothing when what was withheld is sent to it. Its memory is another
// connection's only after that, whatever happens meanwhile.
func TestWithheldMemory(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(w *world, server *end){
		"nothing":      func(*world, *end) {},
		"closed":       func(w *world, _ *end) { go w.owner.client.Close() },
		"split":        func(w *world, _ *end) { w.client.request(3, "-1", true) },
		"shutdown":     func(w *world, _ *end) { go w.owner.client.Drain() },
		"server gone":  func(_ *world, server *end) { go server.conn.Close() },
		"more written": func(_ *world, server *end) { server.headers(1, true, ":status", "204") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBlockedWorld(t, func(w *world, sock *gate, server *end) {
				conn := server.conn.(*Conn).c
				lent := func() bool {
					synctest.Wait()
					conn.mu.Lock()
					defer conn.mu.Unlock()
					return conn.withheld.withholding != nil
				}
				time.Sleep(2 * withholdTime)
				if !lent() {
					w.t.Fatal("the memory is given back before it is sent")
				}
				meanwhile(w, server)
				if !lent() {
					w.t.Error("the memory is given back while it is sent")
				}
				sock.unshut()
				time.Sleep(2 * withholdTime)
				if lent() {
					w.t.Error("the memory is still lent")
				}
			})
		})
	}
}
