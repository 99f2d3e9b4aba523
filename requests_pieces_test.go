package oneport

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// TestRequestsPieces sends the beginning of a connection in two pieces, cut anywhere, to a mux that dispatches
// requests. The server has all of it without another word of the client's.
func TestRequestsPieces(t *testing.T) {
	t.Parallel()
	settings := http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}
	behind := h2.AppendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte("\x83\x86\x44\x02/a"))
	behind = h2.AppendFrame(behind, http2.FrameData, 0, 1, bytes.Repeat([]byte("content "), 100))
	behind = h2.AppendWindowUpdate(behind, 0, 1000)
	credit := h2.AppendWindowUpdate(nil, 0, 1<<30)
	flight := bytes.Join([][]byte{
		h2.AppendSettings([]byte(http2.ClientPreface), settings), credit, h2.AppendSettingsACK(nil), behind,
	}, nil)
	noPush := http2.Setting{ID: http2.SettingEnablePush, Val: 0}
	want := bytes.Join([][]byte{h2.AppendSettings([]byte(http2.ClientPreface), noPush, settings), credit, behind}, nil)
	const first = 300 // covers all up to the request, and more

	test := func(t *testing.T, root net.Listener, l net.Listener, cut int, wait func()) {
		client := dial(t, root)
		defer client.Close()
		go io.Copy(io.Discard, client)
		go func() {
			client.Write(flight[:cut])
			wait()
			client.Write(flight[cut:])
		}()
		server := accept(t, l)
		defer server.Close()
		server.SetReadDeadline(time.Now().Add(10 * time.Second))
		got := make([]byte, len(want))
		if n, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("cut at %d, the server read %q, %v, want %q", cut, got[:n], err, want)
		}
	}
	t.Run("sockets", func(t *testing.T) {
		t.Parallel()
		for _, network := range []string{"tcp", "unix"} {
			root := listen(t, network)
			m := newMux(root)
			l := m.Requests().Match(Any())
			serve(t, m)
			for cut := range first {
				test(t, root, l, cut, func() { time.Sleep(50 * time.Microsecond) }) // enough for a look in between, mostly
			}
		}
	})
	t.Run("pipes", func(t *testing.T) {
		t.Parallel()
		for cut := range first {
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				l := m.Requests().Match(Any())
				serve(t, m)
				test(t, root, l, cut, func() { time.Sleep(time.Millisecond) })
			})
		}
	})
}
