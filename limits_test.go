package oneport

import (
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// TestAllowMissingSettings checks what becomes of a client whose first frame is its request.
func TestAllowMissingSettings(t *testing.T) {
	t.Parallel()
	flight := http2.ClientPreface + "\x00\x00\x02\x01\x05\x00\x00\x00\x01\x82\x84" // :method GET, :path /
	for _, allow := range []bool{false, true} {
		root := listen(t, "tcp")
		m := newMux(root)
		m.AllowMissingSettings = allow
		refused := make(chan Refused, 1)
		m.OnRefuse = func(r Refused) { refused <- r }
		route := m.Match(Header(":path", "/"))
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte(flight))
		if !allow {
			if r := <-refused; r.Reason != ReasonProtocolError || !strings.Contains(r.Err.Error(), "without SETTINGS") {
				t.Errorf("refused for %v, %v", r.Reason, r.Err)
			}
			continue
		}
		server := accept(t, route)
		client.Close()
		if got, err := io.ReadAll(server); err != nil || string(got) != flight {
			t.Errorf("the server read %q, %v", got, err)
		}
	}
}

// TestLongHead checks that a decision can depend on more than a look at a socket can show at once.
func TestLongHead(t *testing.T) {
	t.Parallel()
	head := "GET / HTTP/1.1\r\n" + strings.Repeat("Cookie: "+strings.Repeat("c", 1000)+"\r\n", 900) + "Last: 1\r\n\r\n"
	for _, network := range []string{"tcp", "unix"} {
		root := listen(t, network)
		m := newMux(root)
		m.MaxPreviewBytes = 1 << 20
		route := m.Match(Header("Last", "1"))
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte(head))
		server := accept(t, route)
		client.Close()
		if got, err := io.ReadAll(server); err != nil || string(got) != head {
			t.Errorf("%s: the server read %d bytes, %v, want the %d of the head", network, len(got), err, len(head))
		}
	}
}
