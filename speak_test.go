package oneport

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// TestSpeakToWriter checks that a client without a buffer on its way that writes all it has before it reads does not
// wait for the mux while the mux waits for it.
func TestSpeakToWriter(t *testing.T) {
	t.Parallel()
	first, second := capture(t, "grpc-go.1"), capture(t, "grpc-go.2")
	early := "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x01"
	t.Run("taken", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			root := newPipeListener()
			m := newMux(root)
			route := m.Route(Route{Matchers: []Matcher{GRPC()}, SettingsACK: ACKKeep})
			serve(t, m)
			client := dial(t, root)
			write(t, client, first)
			write(t, client, second)
			servers := make(chan net.Conn)
			go func() { servers <- accept(t, route) }()
			synctest.Wait()
			select {
			case <-servers:
				t.Fatal("the server got the connection while the early SETTINGS were being written")
			default:
			}
			got := make([]byte, len(early))
			if _, err := io.ReadFull(client, got); err != nil || string(got) != early {
				t.Fatalf("the client read %q, %v", got, err)
			}
			server := <-servers
			client.Close()
			if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, append(first, second...)) {
				t.Errorf("the server read %q, %v", got, err)
			}
		})
	})
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			root := newPipeListener()
			m := newMux(root)
			route := m.Match(GRPC())
			serve(t, m)
			client := dial(t, root)
			write(t, client, first)
			write(t, client, second)
			client.Close() // it has sent everything, and that is for the server
			server := accept(t, route)
			if got, err := io.ReadAll(server); err != nil || len(got) == 0 {
				t.Errorf("the server read %q, %v", got, err)
			}
		})
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			root := newPipeListener()
			m := newMux(root)
			m.Match(Header(":path", "/nowhere"))
			serve(t, m)
			client := dial(t, root)
			write(t, client, first)
			write(t, client, second)
			answer, err := io.ReadAll(client)
			if err != nil || !bytes.HasPrefix(answer, []byte(early)) || bytes.Count(answer, []byte{byte(http2.FrameGoAway)}) == 0 {
				t.Errorf("the client read %q, %v, want early SETTINGS and GOAWAY", answer, err)
			}
		})
	})
	t.Run("refused, and deaf", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			root := newPipeListener()
			m := newMux(root)
			refused := watchRefusals(m)
			m.Match(Header(":path", "/nowhere"))
			serve(t, m)
			client := dial(t, root)
			write(t, client, first)
			write(t, client, second)
			if r := <-refused; r.Reason != ReasonNoRoute || r.Waited != lingerTime {
				t.Errorf("refused for %v after %v, want %v after %v", r.Reason, r.Waited, ReasonNoRoute, lingerTime)
			}
		})
	})
}
