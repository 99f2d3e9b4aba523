package h2upgrade

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestServer has net/http's server read the translations as HTTP/2, and net/http read the originals as HTTP/1.1.
func TestServer(t *testing.T) {
	t.Parallel()
	type request struct {
		Method, Host, URI string
		Header            http.Header
		Content           string
	}
	note := func(r *http.Request) request {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		header := r.Header.Clone()
		for _, name := range []string{"Connection", "Upgrade", "Http2-Settings"} {
			header.Del(name)
		}
		return request{r.Method, r.Host, r.RequestURI, header, string(content)}
	}
	for _, name := range captures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := capture(t, name)
			original, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(sent)))
			if err != nil {
				t.Fatal(err)
			}
			data := append(sent, flight()...)
			r := mustCheck(t, data)
			if state, err := r.Parse(data); state != h2.Complete {
				t.Fatalf("%v, %v", state, err)
			}
			first, _ := r.Translate(nil, data)

			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan request, 1)
			server := http.Server{
				Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got <- note(r) }),
				Protocols: new(http.Protocols),
			}
			server.Protocols.SetUnencryptedHTTP2(true)
			done := make(chan struct{})
			go func() {
				defer close(done)
				server.Serve(l)
			}()
			t.Cleanup(func() {
				server.Close()
				<-done
			})
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := client.Write(first); err != nil {
				t.Fatal(err)
			}
			fr := http2.NewFramer(client, client)
			acks, ended := 0, false
			for pinged := false; ; {
				if ended && acks > 0 && !pinged {
					// Whatever else the server has to acknowledge comes before the answer.
					pinged = true
					if err := fr.WritePing(false, [8]byte{}); err != nil {
						t.Fatal(err)
					}
				}
				f, err := fr.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := f.(*http2.PingFrame); ok {
					break
				}
				switch f := f.(type) {
				case *http2.SettingsFrame:
					if f.IsAck() {
						acks++
					}
				case *http2.HeadersFrame:
					ended = f.StreamEnded()
					if f.StreamID != 1 {
						t.Errorf("answer on stream %d", f.StreamID)
					}
				case *http2.GoAwayFrame, *http2.RSTStreamFrame:
					t.Fatal(f)
				}
			}
			if acks != 1 {
				t.Errorf("%d acknowledgements, want 1", acks)
			}
			if diff := cmp.Diff(note(original), <-got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
