package caller

import (
	"net"
	"net/http"
	"testing"

	"google.golang.org/grpc"
)

// asker is a listener that asks who accepts, and ends.
type asker struct {
	net.Listener
	is map[string]bool
}

func (a *asker) Accept() (net.Conn, error) {
	for _, name := range []string{GRPC, NetHTTP} {
		a.is[name] = Is(name)
	}
	return nil, net.ErrClosed
}
func (a *asker) Close() error   { return nil }
func (a *asker) Addr() net.Addr { return &net.TCPAddr{} }

// TestIs holds the names to the servers as they are today.
func TestIs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		serve func(net.Listener) error
	}{
		{GRPC, func(l net.Listener) error { return grpc.NewServer().Serve(l) }},
		{NetHTTP, func(l net.Listener) error { return new(http.Server).Serve(l) }},
		{NetHTTP, func(l net.Listener) error { return http.Serve(l, nil) }},
		{"", func(l net.Listener) error { _, err := l.Accept(); return err }},
	} {
		a := &asker{is: make(map[string]bool)}
		tt.serve(a)
		for name, is := range a.is {
			if is != (name == tt.name) {
				t.Errorf("accepted by %q: Is(%q) = %v", tt.name, name, is)
			}
		}
	}
}
