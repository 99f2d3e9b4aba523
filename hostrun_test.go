package oneport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

// TestHostRun holds routes with an index of hosts to the same routes without one, at every byte of what a client sends.
func TestHostRun(t *testing.T) {
	t.Parallel()
	hosts := []string{"a.example", "B.example", "b.example:80", "c.example", "[::1]", "[::1]:80", "*.d.example", "*"}
	other := []Matcher{
		Path("/x"), HTTP1(), HTTP2(), GRPC(), HTTP1("POST"), TLS(), Silence(time.Second), Not(Host("a.example")), Prefix("SSH-"),
	}
	asked := []string{
		"a.example", "A.EXAMPLE", "b.example", "b.example:80", "b.example:81", "c.example:80", "x.d.example", "[::1]", "[::1]:80",
		"[::1]:81", "nobody.example", "",
	}
	m := newMux(newPipeListener())
	runs := 0
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var with, without []*route
		for range 1 + rng.IntN(12) {
			var matchers []Matcher
			for range 1 + rng.IntN(2) {
				if rng.IntN(5) == 0 {
					matchers = append(matchers, other[rng.IntN(len(other))])
				} else {
					matchers = append(matchers, Host(hosts[rng.IntN(len(hosts))], hosts[rng.IntN(len(hosts)-2)]))
				}
			}
			r := Route{Matchers: matchers, Upgrade: rng.IntN(20) == 0}
			with, without = append(with, newRoute(m, "", r)), append(without, newRoute(m, "", r))
		}
		indexHosts(with)
		for _, rt := range with {
			if rt.run != nil {
				runs++
			}
		}
		for _, host := range asked {
			inputs := []string{
				"GET /y HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "POST http://" + host + "/x HTTP/1.1\r\nHost: other\r\n\r\n",
				"SSH-2.0", "\x16\x03\x01\x00\x05\x01", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
			}
			for _, input := range inputs {
				for _, ended := range []bool{false, true} {
					a, b := searching{search: search{routes: with}}, searching{search: search{routes: without}}
					for n := range len(input) + 1 {
						last := n == len(input)
						a.preview.show([]byte(input[:n]), ended && last, 1<<14)
						b.preview.show([]byte(input[:n]), ended && last, 1<<14)
						got, want := askBoth(&a, with), askBoth(&b, without)
						if got != want {
							t.Fatalf("seed %d, %q, ended %t: %s with the index, %s without", seed, input[:n], ended, got, want)
						}
						if !strings.HasSuffix(want, "open") {
							break
						}
					}
				}
			}
			// The head of a request that is all there.
			fields := []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":path", Value: "/x"}, {Name: ":authority", Value: host}}
			a, b := searching{search: search{routes: with}}, searching{search: search{routes: without}}
			a.preview.showStream(&net.TCPConn{}, fields)
			b.preview.showStream(&net.TCPConn{}, fields)
			if got, want := askBoth(&a, with), askBoth(&b, without); got != want {
				t.Fatalf("seed %d, %s: %s with the index, %s without", seed, host, got, want)
			}
		}
	}
	if runs < 100 {
		t.Errorf("there were %d routes in runs", runs)
	}
}

// searching is a search for the route of what its preview shows.
type searching struct {
	search  search
	preview Preview
}

// askBoth says what ask says, and where it goes on.
func askBoth(s *searching, routes []*route) string {
	rt, _, open := s.search.ask(&s.preview)
	s.preview.endReaders()
	for i, r := range routes {
		if r == rt {
			return fmt.Sprintf("route %d", i)
		}
	}
	if open {
		return fmt.Sprintf("from %d on, wake %v, open", s.search.next, s.search.nextSilence())
	}
	return "none"
}

func TestIndexHosts(t *testing.T) {
	t.Parallel()
	m := newMux(newPipeListener())
	var routes []*route
	for _, matchers := range [][]Matcher{
		{Host("a")}, {Host("b", "c"), Host("d")}, {HTTP1()}, {Host("e")}, {GRPC()}, {Host("f")}, {Host("*.g")}, {Host("h")}, {Host("i")}, {},
	} {
		routes = append(routes, newRoute(m, "", Route{Matchers: matchers}))
	}
	routes = append(routes, newRoute(m, "", Route{Matchers: []Matcher{Host("j")}, Upgrade: true}))
	indexHosts(routes)
	var got []string
	for _, rt := range routes {
		if rt.run == nil {
			got = append(got, "-")
		} else {
			got = append(got, fmt.Sprintf("%d-%d", rt.run.start, rt.run.end))
		}
	}
	if got, want := strings.Join(got, " "), "0-2 0-2 - - - - - 7-9 7-9 - -"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := effort(routes), 9; got != want {
		t.Errorf("the effort is %d, want %d", got, want)
	}
}
