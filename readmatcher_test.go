package oneport

import (
	"io"
	"sync/atomic"
	"testing"
)

// TestReadWriteMatcher checks a server that speaks first and a route that goes by the answer.
func TestReadWriteMatcher(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			root := record(listen(t, network))
			m := newMux(root)
			writers := make(chan io.Writer, 1)
			route := m.Match(ReadWriteMatcher(func(w io.Writer, r io.Reader) bool {
				writers <- w
				if _, err := io.WriteString(w, "who?\n"); err != nil {
					return false
				}
				b := make([]byte, 3)
				_, err := io.ReadFull(r, b)
				return err == nil && string(b) == "me\n"
			}))
			serve(t, m)
			client := dial(t, root)
			b := make([]byte, 5)
			if _, err := io.ReadFull(client, b); err != nil || string(b) != "who?\n" {
				t.Fatalf("the client read %q, %v", b, err)
			}
			write(t, client, []byte("me\n..."))
			server := accept(t, route)
			accepted := <-root.conns
			if w := <-writers; w != accepted || server != accepted {
				t.Errorf("the function wrote to %v and the server got %v, accepted was %v", w, server, accepted)
			}
			client.Close()
			if got, err := io.ReadAll(server); err != nil || string(got) != "me\n..." {
				t.Errorf("the server read %q, %v", got, err)
			}
		})
	}
}

// TestFunctionsInOrder checks that a function is called only if all routes above have said No, as it may do more
// than look.
func TestFunctionsInOrder(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	first, seen := looks(Prefix("ab"))
	var calls atomic.Int32
	ab := m.Match(first)
	other := m.Match(ReadWriteMatcher(func(io.Writer, io.Reader) bool { calls.Add(1); return true }))
	serve(t, m)

	client := dial(t, root)
	<-seen // with nothing there, every route is asked
	write(t, client, []byte("ab"))
	accept(t, ab)
	if n := calls.Load(); n != 0 {
		t.Errorf("the function of the route below was called %d times", n)
	}

	client = dial(t, root)
	write(t, client, []byte("x"))
	accept(t, other)
	if n := calls.Load(); n != 1 {
		t.Errorf("the function was called %d times, want once", n)
	}
}
