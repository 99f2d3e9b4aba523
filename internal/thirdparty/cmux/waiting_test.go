package cmux

import (
	"net"
	"testing"
	"time"

	"github.com/soheilhy/cmux"
	"golang.org/x/net/http2"
)

// TestWaiting takes the ways of not having a server yet through the ways in which a multiplexer ends that. Those of TLS
// that ends here, of an upgrade and of dispatched requests are not for it: cmux has none of these.
func TestWaiting(t *testing.T) {
	if original {
		t.Skip("the original waits for ever")
	}
	const settings, ack = "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x00\x04\x01\x00\x00\x00\x00"
	for name, sends := range map[string]string{
		"TCP only":                          "",
		"part of the preface":               http2.ClientPreface[:10],
		"preface":                           http2.ClientPreface,
		"SETTINGS":                          http2.ClientPreface + settings,
		"SETTINGS acknowledged":             http2.ClientPreface + settings + ack,
		"half a header block":               http2.ClientPreface + settings + "\x00\x00\x10\x01\x04\x00\x00\x00\x01\x82\x84\x86",
		"half a header block, acknowledged": http2.ClientPreface + settings + ack + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82",
		"head of HTTP/1":                    "GET / HTTP/1.1\r\nHost: a\r\n",
	} {
		for how, end := range map[string]func(t *testing.T, m cmux.CMux, l net.Listener, served <-chan error, refused <-chan error){
			// The only limit on time that cmux has.
			"SetReadTimeout": func(t *testing.T, _ cmux.CMux, _ net.Listener, _, refused <-chan error) {
				within(t, refused, "the handler of errors was not called")
			},
			"Close": func(t *testing.T, m cmux.CMux, _ net.Listener, _, _ <-chan error) { m.Close() },
			"listener closes": func(t *testing.T, _ cmux.CMux, l net.Listener, served, _ <-chan error) {
				l.Close()
				within(t, served, "Serve has not returned")
			},
		} {
			if name == "SETTINGS acknowledged" && how == "SetReadTimeout" {
				continue // it has 5 minutes for its first request, as docs/migrating-from-cmux.md says
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				l := listen(t)
				m := cmux.New(l)
				m.Match(cmux.HTTP2HeaderField("content-type", "application/grpc"), cmux.HTTP1HeaderField("kind", "none"))
				refused := make(chan error, 10)
				m.HandleError(func(err error) bool {
					refused <- err
					return true
				})
				if how == "SetReadTimeout" {
					m.SetReadTimeout(50 * time.Millisecond)
				}
				served := serve(t, m, l)
				client := dial(t, l, sends)
				if how != "SetReadTimeout" {
					wantEnd(t, dial(t, l, "nonsense\r\n\r\n")) // so the one before was accepted
					within(t, refused, "the handler of errors was not called")
				}
				end(t, m, l, served, refused)
				wantEnd(t, client)
			})
		}
	}
}
