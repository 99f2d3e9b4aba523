package oneport

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestSilence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		routes  []Matcher
		sends   string
		after   time.Duration
		want    int // the route, -1 for none
		waiting time.Duration
	}{
		{"silent", []Matcher{GRPC(), Silence(time.Second)}, "", 0, 1, time.Second},
		{"silent, first route", []Matcher{Silence(time.Second), GRPC()}, "", 0, 0, time.Second},
		{"speaks at once", []Matcher{Silence(time.Second), HTTP1()}, "GET / HTTP/1.1\r\n", 0, 1, 0},
		{"speaks in time", []Matcher{HTTP1(), Silence(time.Second)}, "GET / HTTP/1.1\r\n", 999 * time.Millisecond, 0, 999 * time.Millisecond},
		{"two silences", []Matcher{Silence(2 * time.Second), Silence(time.Second)}, "", 0, 1, time.Second},
		{"two silences, the first impossible", []Matcher{All(Silence(time.Second), HTTP1()), Silence(2 * time.Second)}, "", 0, 1, 2 * time.Second},
		{"Any above", []Matcher{GRPC(), Any(), Silence(time.Second)}, "", 0, 1, time.Second},
		{"Any below", []Matcher{GRPC(), Silence(time.Second), Any()}, "", 0, 1, time.Second},
		{"or", []Matcher{AnyOf(SSH(), Silence(time.Second))}, "SSH-2.0-x\r\n", time.Millisecond, 0, time.Millisecond},
		{"not silent", []Matcher{Not(Silence(time.Second)), Any()}, "", 0, 1, time.Second},
		{"longer than the time to decide", []Matcher{Silence(time.Minute)}, "", 0, -1, DefaultDecideTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				names := make(map[string]int)
				for i, matcher := range tt.routes {
					name := fmt.Sprint(i)
					m.Route(Route{Name: name, Matchers: []Matcher{matcher}})
					names[name] = i
				}
				got := make(chan int, 1)
				m.OnMatch = func(i Matched) { got <- names[i.Route] }
				m.OnRefuse = func(Refused) { got <- -1 }
				serve(t, m)
				start := time.Now()
				client := dial(t, root)
				if tt.sends != "" {
					go func() {
						time.Sleep(tt.after)
						io.WriteString(client, tt.sends)
					}()
				}
				if route := <-got; route != tt.want || time.Since(start) != tt.waiting {
					t.Errorf("route %d after %v, want %d after %v", route, time.Since(start), tt.want, tt.waiting)
				}
			})
		})
	}
}

// TestSilenceOnSocket checks the waiting for a silence where it is done in the poller.
func TestSilenceOnSocket(t *testing.T) {
	t.Parallel()
	root := record(listen(t, "tcp"))
	m := newMux(root)
	m.Match(GRPC())
	silent := m.Match(Silence(10 * time.Millisecond))
	serve(t, m)
	client := dial(t, root)
	server := accept(t, silent)
	if want := <-root.conns; server != want {
		t.Errorf("the server got %T, not what was accepted", server)
	}
	write(t, server, []byte("220 ready\r\n"))
	buf := make([]byte, 11)
	if _, err := io.ReadFull(client, buf); err != nil {
		t.Fatal(err)
	}
	write(t, client, []byte("EHLO a\r\n"))
	if n, err := server.Read(buf); string(buf[:n]) != "EHLO a\r\n" {
		t.Errorf("the server read %q, %v", buf[:n], err)
	}
}

// TestSilenceNoticedLate has a mux that comes to wait only after a client was silent for long enough.
func TestSilenceNoticedLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.Match(MatcherFunc(func(*Preview) Verdict {
			time.Sleep(time.Second)
			return Undecided
		}))
		silent := m.Match(Silence(10 * time.Millisecond))
		serve(t, m)
		dial(t, root)
		accept(t, silent)
	})
}
