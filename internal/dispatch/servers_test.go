package dispatch

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// call opens a stream of gRPC for a target.
func (e *end) call(id uint32, target string) {
	e.headers(id, false, ":method", "POST", ":path", "/"+target, "content-type", "application/grpc+proto")
}

// A request whose header list is too large is answered, and its block decoded to the end: it changes the table of the
// blocks that come later.
func TestHeaderListTooLarge(t *testing.T) {
	indexed := []string{":method", "GET", ":path", "/0"}
	for range 100 {
		indexed = append(indexed, "x-field", strings.Repeat("x", 1000))
	}
	for _, tt := range []struct {
		name   string
		fields []string
		want   string
	}{
		{"many fields", indexed, "HEADERS 5 :status=431 content-length=0 END"},
		{"one long value", []string{":method", "GET", ":path", "/0", "x-field", strings.Repeat("0", 15_000)}, // 5 bits each
			"HEADERS 5 :status=431 content-length=0 END"},
		{"gRPC", append([]string{":method", "POST", "content-type", "application/grpc"}, indexed[2:]...),
			"HEADERS 5 :status=200 content-type=application/grpc grpc-status=8 grpc-message=header list too large END"},
		{"gRPC-Web", append([]string{":method", "POST", "content-type", "application/grpc-web"}, indexed[2:]...),
			"HEADERS 5 :status=431 content-length=0 END"},
	} {
		for _, when := range []string{"passing", "shared"} {
			t.Run(tt.name+"/"+when, func(t *testing.T) {
				t.Parallel()
				d := newDispatcher(2)
				d.Limits.MaxHeaderListBytes = 12_000
				inWorld(t, d, func(w *world) {
					var a *end
					if when == "shared" {
						var b *end
						a, b = w.shared()
						defer b.close()
					} else {
						w.client.request(1, "0", false)
						a = w.accept(0, "HEADERS 1 :method=GET :path=/0")
					}
					defer a.close()
					w.client.got()
					w.client.headers(5, true, tt.fields...)
					w.client.want(tt.want)
					w.client.headers(7, true, ":method", "GET", ":path", "/0", "x-other", "b")
					want := "HEADERS 7 :method=GET :path=/0 x-other=b END"
					if got := a.got(); len(got) == 0 || got[len(got)-1] != want {
						t.Errorf("%q", got)
					}
				})
			})
		}
	}
}

// Trailers that are too large cost their stream.
func TestTrailersTooLarge(t *testing.T) {
	d := newDispatcher(2)
	d.Limits.MaxHeaderListBytes = 12_000
	inWorld(t, d, func(w *world) {
		a, b := w.shared()
		defer a.close()
		defer b.close()
		w.client.headers(1, true, "x-trailer", strings.Repeat("0", 15_000))
		w.client.want("RST_STREAM 1 ENHANCE_YOUR_CALM")
		a.want("RST_STREAM 1 CANCEL")
		w.client.request(5, "1", true)
		b.want("HEADERS 5 :method=GET :path=/1 END")
	})
}

// The client learns the smallest header list that a server takes, and a larger one does not reach that server.
func TestHeaderListOfServer(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared()
		defer a.close()
		defer b.close()
		a.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 3000})
		w.client.want("SETTINGS [MAX_HEADER_LIST_SIZE = 3000]")
		b.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 1000})
		w.client.want("SETTINGS [MAX_HEADER_LIST_SIZE = 1000]")
		a.got()
		b.got()
		value := strings.Repeat("v", 2000)
		w.client.headers(5, true, ":method", "GET", ":path", "/1", "x-field", value)
		w.client.want("HEADERS 5 :status=431 content-length=0 END")
		w.client.headers(7, true, ":method", "GET", ":path", "/0", "x-field", value)
		a.want("HEADERS 7 :method=GET :path=/0 x-field=" + value + " END")
		w.client.headers(3, true, "x-trailer", value)
		w.client.want("RST_STREAM 3 ENHANCE_YOUR_CALM")
		b.want("RST_STREAM 3 CANCEL")
	})
}

// What is under way on a server that closes its side ends as retryable as is true.
func TestServerCutOff(t *testing.T) {
	const unavailable = "grpc-status=14 grpc-message=the server has closed the connection END"
	for _, tt := range []struct {
		name  string
		begin func(w *world, b *end)
		want  []string
	}{
		{"call without an answer", func(w *world, b *end) {
			w.client.call(5, "1")
		}, []string{"HEADERS 5 :status=200 content-type=application/grpc " + unavailable, "RST_STREAM 5 NO_ERROR"}},
		{"call without an answer, sent in full", func(w *world, b *end) {
			w.client.call(5, "1")
			w.client.fr.WriteData(5, true, []byte("request"))
		}, []string{"HEADERS 5 :status=200 content-type=application/grpc " + unavailable}},
		{"call with an answer", func(w *world, b *end) {
			w.client.call(5, "1")
			synctest.Wait()
			b.headers(5, false, ":status", "200", "content-type", "application/grpc")
			b.fr.WriteData(5, false, []byte("message"))
		}, []string{"HEADERS 5 :status=200 content-type=application/grpc", `DATA 5 "message"`, "HEADERS 5 " + unavailable, "RST_STREAM 5 NO_ERROR"}},
		{"call with an answer that is complete", func(w *world, b *end) {
			w.client.call(5, "1")
			synctest.Wait()
			b.headers(5, true, ":status", "200", "grpc-status", "0")
		}, []string{"HEADERS 5 :status=200 grpc-status=0 END", "RST_STREAM 5 NO_ERROR"}},
		{"call that the server has not taken", func(w *world, b *end) {
			w.client.call(5, "1")
			synctest.Wait()
			b.fr.WriteGoAway(3, http2.ErrCodeInternal, nil)
		}, []string{"RST_STREAM 5 REFUSED_STREAM"}},
		{"request", func(w *world, b *end) {
			w.client.request(5, "1", true)
		}, []string{"RST_STREAM 5 INTERNAL_ERROR"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, newDispatcher(2), func(w *world) {
				a, b := w.shared()
				defer a.close()
				b.headers(3, true, ":status", "200")
				w.client.fr.WriteData(3, true, nil)
				w.client.got()
				tt.begin(w, b)
				synctest.Wait()
				b.close()
				w.client.want(tt.want...)
				a.headers(1, true, ":status", "200")
				w.client.want("HEADERS 1 :status=200 END")
			})
		})
	}
}

// What a server has not read of a request it has not begun, and the client may try again.
func TestUnreadIsRefused(t *testing.T) {
	for _, how := range []string{"server closes", "connection error"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			inWorld(t, newDispatcher(2), func(w *world) {
				w.client.request(1, "0", false)
				a := w.accept(0, "HEADERS 1 :method=GET :path=/0")
				defer a.close()
				w.client.call(3, "1")
				w.client.got()
				b, err := w.d.all()[1].Accept() // reads nothing
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				if how == "server closes" {
					b.Close()
					w.client.want("RST_STREAM 3 REFUSED_STREAM")
					return
				}
				w.client.fr.WriteRawFrame(http2.FramePing, 0, 1, nil)
				lines := w.client.got()
				if len(lines) != 2 || lines[0] != "RST_STREAM 3 REFUSED_STREAM" || !strings.HasPrefix(lines[1], "GOAWAY 3 PROTOCOL_ERROR") {
					t.Errorf("%q", lines)
				}
				w.client.wantEnd()
			})
		})
	}
}

// The idle timeout of one server is not the connection's.
func TestServerIsIdle(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(w *world, a, b *end)
		told   bool // the client is
	}{
		{"idle", func(*world, *end, *end) {}, false},
		{"with a stream", func(w *world, _, b *end) {
			w.client.request(5, "1", true)
			b.want("HEADERS 5 :method=GET :path=/1 END")
		}, true},
		{"shut down", func(w *world, _, _ *end) { w.d.all()[1].Close() }, true},
		{"alone", func(_ *world, a, _ *end) { a.close() }, true},
		{"the other leaves, too", func(_ *world, a, _ *end) { a.fr.WriteGoAway(h2.MaxStreamID, http2.ErrCodeNo, nil) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, newDispatcher(2), func(w *world) {
				a, b := w.shared()
				defer a.close()
				b.headers(3, true, ":status", "200")
				w.client.fr.WriteData(3, true, nil)
				b.got()
				tt.before(w, a, b)
				synctest.Wait()
				// In two steps, as grpc-go does it.
				b.fr.WriteGoAway(h2.MaxStreamID, http2.ErrCodeNo, []byte("idle"))
				b.fr.WritePing(false, [8]byte{1})
				synctest.Wait()
				b.fr.WriteGoAway(7, http2.ErrCodeNo, []byte("idle"))
				told := strings.Contains(fmt.Sprint(w.client.got()), "GOAWAY")
				if told != tt.told {
					t.Errorf("the client is told: %t", told)
				}
				if told {
					b.close()
					return
				}
				w.client.request(9, "1", true)
				again := w.accept(1, "HEADERS 9 :method=GET :path=/1 END")
				defer again.close()
				again.headers(9, true, ":status", "200")
				w.client.fr.WriteSettings()
				again.got()
				b.close()
				w.client.want("HEADERS 9 :status=200 END")
				a.headers(1, true, ":status", "200")
				again.fr.WriteSettingsAck()
				a.fr.WriteSettingsAck()
				w.client.want("HEADERS 1 :status=200 END", "SETTINGS ACK")
			})
		})
	}
}

// A server that finds the client to be gone ends the connection.
func TestServerFindsClientGone(t *testing.T) {
	for _, tt := range []struct {
		name string
		find func(w *world, b *end)
		ends bool
	}{
		{"no answer to PING", func(_ *world, b *end) {
			b.fr.WritePing(false, [8]byte{1})
			time.Sleep(20 * time.Second)
		}, true},
		{"an answer", func(w *world, b *end) {
			b.fr.WritePing(false, [8]byte{1})
			for _, line := range w.client.got() {
				var p [8]byte
				copy(p[:], unquote(w.t, line))
				w.client.fr.WritePing(true, p)
			}
			time.Sleep(20 * time.Second)
		}, false},
		{"no time to answer", func(_ *world, b *end) {
			b.fr.WritePing(false, [8]byte{1})
			synctest.Wait()
		}, false},
		{"GOAWAY first", func(_ *world, b *end) {
			b.fr.WritePing(false, [8]byte{1})
			b.fr.WriteGoAway(3, http2.ErrCodeNo, nil)
			time.Sleep(20 * time.Second)
		}, false},
	} {
		for _, passed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/PING before the split %t", tt.name, passed), func(t *testing.T) {
				if passed && tt.name != "no answer to PING" {
					t.Skip("the same")
				}
				t.Parallel()
				inWorld(t, newDispatcher(2), func(w *world) {
					var gone, other *end
					if passed {
						w.client.request(1, "0", false)
						gone = w.accept(0, "HEADERS 1 :method=GET :path=/0")
						tt.find(w, gone)
						w.client.request(3, "1", false)
						other = w.accept(1, "HEADERS 3 :method=GET :path=/1")
					} else {
						other, gone = w.shared()
						tt.find(w, gone)
					}
					defer other.close()
					gone.close()
					synctest.Wait()
					other.mu.Lock()
					defer other.mu.Unlock()
					if ended := other.err != nil; ended != tt.ends {
						t.Errorf("the connection has ended: %t", ended)
					}
				})
			})
		}
	}
}

// The owner is told of a server that joins before that has the connection, and not while that is locked. Whatever it
// does meanwhile, or happens, the client knows whether its request was taken.
func TestJoined(t *testing.T) {
	for _, tt := range []struct {
		name   string
		joined func(w *world, a *end) // is called when the second server joins
		want   []string               // what the client reads then
		served bool                   // the request goes to the server
	}{
		{"nothing", func(*world, *end) {}, nil, true},
		{"Drain", func(w *world, _ *end) { w.owner.client.Drain() }, []string{drainGoAway, drainAsks}, true},
		{"drained", func(w *world, _ *end) {
			w.owner.client.Drain()
			time.Sleep(2 * drainTime)
		}, []string{drainGoAway, drainAsks, "RST_STREAM 3 REFUSED_STREAM"}, false},
		{"Close", func(w *world, _ *end) { w.owner.client.Close() }, nil, false},
		{"the first server closes", func(w *world, a *end) { a.conn.Close() }, []string{"RST_STREAM 1 INTERNAL_ERROR", "GOAWAY 1 NO_ERROR "}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, newDispatcher(2), func(w *world) {
				defer w.d.Close()
				var joined []int
				synctest.Wait()
				var a *end
				w.owner.joined = func(target int) {
					if n := w.d.all()[target].Stats().Queued; n != 0 {
						t.Errorf("target %d has %d connections", target, n)
					}
					if joined = append(joined, target); target == 1 {
						tt.joined(w, a)
					}
				}
				w.client.request(1, "0", false)
				a = w.accept(0, "HEADERS 1 :method=GET :path=/0")
				defer a.close()
				synctest.Wait()
				w.client.fr.WriteSettingsAck()
				a.fr.WriteData(1, false, nil)
				a.fr.WriteWindowUpdate(1, 1)
				w.client.got()
				w.client.request(3, "1", false)
				if tt.served {
					b := w.accept(1, "HEADERS 3 :method=GET :path=/1")
					defer b.close()
				} else {
					time.Sleep(3 * drainTime)
				}
				lines := slices.DeleteFunc(w.client.got(), func(s string) bool { return strings.HasPrefix(s, "SETTINGS") })
				if !slices.Equal(lines, tt.want) {
					t.Errorf("the client got %q", lines)
				}
				if n := w.d.all()[1].Stats().Queued; n != 0 {
					t.Errorf("the second server has %d connections", n)
				}
				if !slices.Equal(joined, []int{0, 1}) {
					t.Errorf("%v have joined", joined)
				}
			})
		})
	}
}

// The owner is not told of a server whose queue is full.
func TestNotJoined(t *testing.T) {
	d := newDispatcher(2)
	d.Limits.QueueLength = 1
	inWorld(t, d, func(w *world) {
		defer d.Close()
		open := func() (joined *[]int, client *end) {
			near, far := net.Pipe()
			joined = new([]int)
			o := &owner{done: make(chan struct{}), joined: func(target int) { *joined = append(*joined, target) }}
			go d.open(far, o)
			client = newEnd(t, near, false)
			client.Write([]byte(http2.ClientPreface))
			client.fr.WriteSettings()
			return joined, client
		}
		w.client.request(1, "1", true) // fills the queue
		synctest.Wait()
		joined, client := open()
		defer client.close()
		client.request(1, "0", true)
		c, err := d.all()[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		server := newEnd(t, c, true)
		defer server.close()
		client.request(3, "1", true)
		synctest.Wait()
		if got := *joined; !slices.Equal(got, []int{0}) {
			t.Errorf("%v have joined", got)
		}
		joined, client = open()
		defer client.close()
		client.request(1, "1", true)
		synctest.Wait()
		if len(*joined) > 0 {
			t.Errorf("%v have joined", *joined)
		}
	})
}
