package oneport

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// untilTimeUp is a matcher that reads to the end, and takes the connection if it timed out.
func untilTimeUp(want string) Matcher {
	return ReadMatcher(func(r io.Reader) bool {
		got, err := io.ReadAll(r)
		return string(got) == want && errors.Is(err, os.ErrDeadlineExceeded)
	})
}

var timeUpCases = []struct {
	name   string
	first  string
	routes []Matcher
	want   int // the route that takes the connection, -1 if none does
}{
	{"silent", "", []Matcher{HTTP1(), Any()}, 1},
	{"silent, for a function", "", []Matcher{HTTP1(), untilTimeUp(""), Any()}, 1},
	{"silent, for a function that does not want it", "", []Matcher{untilTimeUp("x"), Any()}, 1},
	{"half a request line", "GET /", []Matcher{HTTP1(), Any()}, 1},
	{"half a request line, for a function", "GET /", []Matcher{HTTP1(), untilTimeUp("GET /"), Any()}, 1},
	{"half a request line, for a function from the start", "GET /", []Matcher{untilTimeUp("GET /"), Any()}, 0},
	{"functions that start when it is known that they are asked", "GET /", []Matcher{HTTP1(), All(untilTimeUp("GET /"), Prefix("P")), untilTimeUp("GET /")}, 2},
	{"nobody", "GET /", []Matcher{HTTP1(), untilTimeUp("")}, -1},
}

// TestTimeoutRematch checks which server gets a connection that timed out, and that every byte is still there.
func TestTimeoutRematch(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, root net.Listener, timeout time.Duration, i int) {
		tt := timeUpCases[i]
		m := newMux(root)
		m.TimeoutPolicy, m.DecideTimeout = TimeoutRematch, timeout
		refused := watchRefusals(m)
		var routes []net.Listener
		for _, matcher := range tt.routes {
			routes = append(routes, m.Match(matcher))
		}
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte(tt.first))
		if tt.want < 0 {
			if r := <-refused; r.Reason != ReasonTimeout {
				t.Errorf("refused for %v, want %v: %v", r.Reason, ReasonTimeout, r.Err)
			}
			return
		}
		server := accept(t, routes[tt.want])
		go func() {
			io.WriteString(client, "more")
			client.Close()
		}()
		if got, err := io.ReadAll(server); err != nil || string(got) != tt.first+"more" {
			t.Errorf("the server read %q, %v, want %q", got, err, tt.first+"more")
		}
	}
	for i, tt := range timeUpCases {
		t.Run("pipe/"+tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { check(t, newPipeListener(), 0, i) })
		})
		for _, network := range []string{"tcp", "unix"} {
			t.Run(network+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				check(t, listen(t, network), 50*time.Millisecond, i)
			})
		}
	}
}

// TestTimeUpIdle checks that an HTTP/2 client that is ready and has made no request keeps its IdleTimeout.
func TestTimeUpIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.TimeoutPolicy = TimeoutRematch
		refused := watchRefusals(m)
		m.Match(GRPC())
		m.Match(Any())
		serve(t, m)
		client := dial(t, root)
		go io.Copy(io.Discard, client)
		write(t, client, append(capture(t, "grpc-go.1"), "\x00\x00\x00\x04\x01\x00\x00\x00\x00"...))
		if r := <-refused; r.Reason != ReasonIdle || r.Waited != DefaultIdleTimeout {
			t.Errorf("refused for %v after %v, want %v after %v", r.Reason, r.Waited, ReasonIdle, DefaultIdleTimeout)
		}
	})
}
