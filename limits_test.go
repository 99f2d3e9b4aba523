package oneport

import (
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

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

// TestMaxUndecidedBytes checks that the connection that has held memory for its first bytes for longest makes room, and
// not an older one that holds none.
func TestMaxUndecidedBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.MaxUndecidedBytes = 150 << 10
		refused := make(chan Refused, 10)
		m.OnRefuse = func(r Refused) { refused <- r }
		m.Match(Header("Last", "1"))
		serve(t, m)
		const requestLine = "GET / HTTP/1.1\r\n"
		write(t, dial(t, root), []byte(requestLine))
		synctest.Wait()
		long := []byte(requestLine + strings.Repeat("Cookie: "+strings.Repeat("c", 1000)+"\r\n", 80))
		first := dial(t, root)
		write(t, first, long)
		synctest.Wait()
		if n := m.Stats().Undecided; n != 2 {
			t.Fatalf("%d connections are undecided, want 2", n)
		}
		write(t, dial(t, root), long)
		synctest.Wait()
		if r := <-refused; r.Reason != ReasonTooMany || r.Seen != len(long) {
			t.Errorf("a connection that had sent %d bytes was refused for %v, want one with %d", r.Seen, r.Reason, len(long))
		}
		if n := m.Stats().Undecided; n != 2 {
			t.Errorf("%d connections are undecided, want 2", n)
		}
		readResponse(t, first)
	})
}

// TestLimitsAreOn checks that no limit can be switched off: zero and negative values stand for the default.
func TestLimitsAreOn(t *testing.T) {
	t.Parallel()
	defaults := reflect.ValueOf(Limits{}.withDefaults())
	var negative Limits
	fields := reflect.ValueOf(&negative).Elem()
	for i := range fields.NumField() {
		fields.Field(i).SetInt(-1)
		if name := fields.Type().Field(i).Name; defaults.Field(i).Int() <= 0 && name != "MaxConns" {
			t.Errorf("the default of %s is %v", name, defaults.Field(i))
		}
	}
	if got := negative.withDefaults(); got != (Limits{}).withDefaults() {
		t.Errorf("negative values: %+v", got)
	}
}
