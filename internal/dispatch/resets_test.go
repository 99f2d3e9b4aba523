package dispatch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// Streams that come to an early end for good reasons are no abuse, however many there are.
func TestResetsThatAreNoAbuse(t *testing.T) {
	const n = 200 // of each, with ResetBurst and ControlBurst at 50
	for _, tt := range []struct {
		name  string
		run   func(w *world, a *end, id uint32)
		later func(w *world, id uint32) // a second and a half later
	}{
		{"answered", func(w *world, a *end, id uint32) {
			w.client.request(id, "0", true)
			synctest.Wait()
			a.headers(id, false, ":status", "200")
			synctest.Wait()
			w.client.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}, nil},
		{"answered to the end", func(w *world, a *end, id uint32) {
			w.client.request(id, "0", true)
			synctest.Wait()
			a.headers(id, true, ":status", "200")
			synctest.Wait()
			w.client.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}, nil},
		{"timed out", func(w *world, _ *end, id uint32) {
			w.client.request(id, "0", true)
		}, func(w *world, id uint32) {
			w.client.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}},
		{"one in two answered", func(w *world, a *end, id uint32) {
			w.client.request(id, "0", true)
			if id%4 == 1 {
				w.client.fr.WriteRSTStream(id, http2.ErrCodeCancel)
			} else {
				synctest.Wait()
				a.headers(id, true, ":status", "200")
				synctest.Wait()
			}
		}, nil},
		{"refused by the server", func(w *world, a *end, id uint32) {
			w.client.request(id, "0", false)
			synctest.Wait()
			a.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
			synctest.Wait()
			w.client.fr.WriteData(id, true, []byte("late"))
		}, nil},
		{"refused by nobody's server", func(w *world, _ *end, id uint32) {
			w.client.request(id, fmt.Sprint(Refuse), false)
			w.client.fr.WriteData(id, false, []byte("late"))
			w.client.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}, nil},
	} {
		for _, split := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/split %t", tt.name, split), func(t *testing.T) {
				t.Parallel()
				d := newDispatcher(1)
				d.AlwaysSplit = split
				d.Limits.ResetBurst, d.Limits.ResetRate = 50, 1
				d.Limits.ControlBurst, d.Limits.ControlRate = 50, 1
				inWorld(t, d, func(w *world) {
					w.client.request(1, "0", true)
					a := w.accept(0, "HEADERS 1 :method=GET :path=/0 END")
					defer a.close()
					synctest.Wait()
					for i := range uint32(n) {
						tt.run(w, a, 3+2*i)
					}
					time.Sleep(1500 * time.Millisecond)
					for i := range uint32(n) {
						if tt.later != nil {
							tt.later(w, 3+2*i)
						}
					}
					w.client.got()
					a.got()
					w.client.request(9999, "0", true)
					a.want("HEADERS 9999 :method=GET :path=/0 END")
					if why := w.owner.ended(); why != nil {
						t.Error(why)
					}
				})
			})
		}
	}
}

// Streams are reset within a second and never answered, which is what the limits count. What a proxy can come to in
// good faith is within them: that it resets at once as many streams as may be open, and as many again when those are
// forgiven; and that its clients give up at just under ResetRate for as long as they like, with nothing left of
// ResetBurst. Just over it the connection ends, and so it does for one stream more than ResetBurst at once.
func TestResetLimits(t *testing.T) {
	l := DefaultLimits()
	const ticks = 10 // per second
	for _, tt := range []struct {
		name   string
		bursts []int // streams that are open and then reset at once
		pause  time.Duration
		rate   int // streams that are reset per second behind that
		ended  bool
	}{
		{"all that may be open", []int{l.MaxStreams}, 0, 0, false},
		{"all that may be open, and again", []int{l.MaxStreams, l.MaxStreams}, time.Duration(l.ResetBurst/l.ResetRate) * time.Second, 0, false},
		{"one more than the burst", []int{l.MaxStreams, 1}, 0, 0, true},
		{"under the rate", []int{l.ResetBurst}, 0, l.ResetRate * 99 / 100, false},
		{"over the rate", []int{l.ResetBurst}, 0, l.ResetRate * 101 / 100, true},
	} {
		for _, split := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/split %t", tt.name, split), func(t *testing.T) {
				t.Parallel()
				d := newDispatcher(1)
				d.Limits = l
				d.AlwaysSplit = split
				inWorld(t, d, func(w *world) {
					w.client.request(1, "0", true)
					a := w.accept(0, "HEADERS 1 :method=GET :path=/0 END")
					defer a.close()
					a.headers(1, true, ":status", "200")
					w.client.got()
					id := uint32(3)
					burst := func(n int) {
						first := id
						for ; id < first+2*uint32(n); id += 2 {
							w.client.request(id, "0", true)
						}
						for id := first; id < first+2*uint32(n); id += 2 {
							w.client.fr.WriteRSTStream(id, http2.ErrCodeCancel)
						}
						synctest.Wait()
					}
					for _, n := range tt.bursts {
						burst(n)
						time.Sleep(tt.pause)
					}
					for range 3 * ticks {
						time.Sleep(time.Second / ticks)
						burst(tt.rate / ticks)
					}
					lines := w.client.got()
					ended := len(lines) > 0 && strings.Contains(lines[len(lines)-1], "ENHANCE_YOUR_CALM too many streams reset early")
					if ended != tt.ended || !ended && len(lines) > 0 {
						t.Errorf("the client got %q", lines[max(0, len(lines)-3):])
					}
					if !tt.ended {
						w.client.request(id, "0", true)
						synctest.Wait()
						a.headers(id, true, ":status", "204")
						w.client.want(fmt.Sprintf("HEADERS %d :status=204 END", id))
					}
				})
			})
		}
	}
}

// Of more requests than a server takes at once, the others are refused, and so is what the client had sent with them.
func TestMoreThanServerTakes(t *testing.T) {
	for _, trailers := range []bool{false, true} {
		t.Run(fmt.Sprintf("trailers %t", trailers), func(t *testing.T) {
			t.Parallel()
			d := newDispatcher(2)
			d.Limits.ResetBurst, d.Limits.ControlBurst, d.Limits.ControlRate = 10, 10, 1
			inWorld(t, d, func(w *world) {
				a, b := w.shared()
				defer a.close()
				defer b.close()
				b.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 250})
				synctest.Wait() // the client has not acknowledged it
				const n = 900
				for i := range uint32(n) {
					w.client.request(5+2*i, "1", false)
				}
				for i := range uint32(n) {
					w.client.fr.WriteData(5+2*i, !trailers, []byte("body"))
				}
				if trailers {
					for i := range uint32(n) {
						w.client.headers(5+2*i, true, "x-trailer", "a")
					}
				}
				refused := 0
				for _, line := range w.client.got() {
					switch {
					case strings.HasSuffix(line, " REFUSED_STREAM"):
						refused++
					case !strings.HasPrefix(line, "SETTINGS"):
						t.Error(line)
					}
				}
				got := slices.DeleteFunc(b.got(), func(s string) bool { return !strings.Contains(s, ":method") })
				if len(got) != 249 || refused != n-249 { // stream 3 is open, too
					t.Errorf("the server got %d requests, and %d were refused", len(got), refused)
				}
				b.headers(5, true, ":status", "200")
				w.client.want("HEADERS 5 :status=200 END")
				a.headers(1, true, ":status", "200")
				w.client.want("HEADERS 1 :status=200 END")
			})
		})
	}
}

// A client that knows how many streams may be open, and opens more all the time, is ended like one that sends other
// frames that do nothing.
func TestMoreThanToldIsBounded(t *testing.T) {
	d := newDispatcher(1)
	d.AlwaysSplit = true
	d.Limits.ControlBurst, d.Limits.ControlRate = 50, 1
	inWorld(t, d, func(w *world) {
		w.client.request(1, "0", false)
		a := w.accept(0, "HEADERS 1 :method=GET :path=/0")
		defer a.close()
		a.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
		w.client.got()
		for range 3 {
			w.client.fr.WriteSettingsAck()
		}
		for id := uint32(3); id < 300; id += 2 {
			w.client.request(id, "0", true)
		}
		lines := w.client.got()
		if len(lines) == 0 || !strings.Contains(lines[len(lines)-1], "ENHANCE_YOUR_CALM") {
			t.Errorf("%d answers", len(lines))
		}
	})
}
