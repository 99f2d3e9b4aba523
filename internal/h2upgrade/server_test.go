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

// TestServer has the HTTP/2 server of golang.org/x/net read the translations, and read the original with net/http.
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

			client, server := net.Pipe()
			got := make(chan request, 1)
			done := make(chan struct{})
			go func() {
				defer close(done)
				new(http2.Server).ServeConn(server, &http2.ServeConnOpts{
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got <- note(r) }),
				})
			}()
			go client.Write(first)
			fr := http2.NewFramer(client, client)
			acks := 0
			for ended := false; !ended || acks == 0; {
				f, err := fr.ReadFrame()
				if err != nil {
					t.Fatal(err)
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
			client.Close()
			<-done
			if acks != 1 {
				t.Errorf("%d acknowledgements, want 1", acks)
			}
			if diff := cmp.Diff(note(original), <-got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
