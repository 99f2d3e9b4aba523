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

// serve returns a connection to a server of HTTP/2 with prior knowledge.
func serve(t *testing.T, handler http.HandlerFunc) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: handler, Protocols: new(http.Protocols)}
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
	t.Cleanup(func() { client.Close() })
	return client
}

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
			data := append(sent, flight(clientSettings...)...)
			r := mustCheck(t, data)
			if state, err := r.Parse(data); state != h2.Complete {
				t.Fatalf("%v, %v", state, err)
			}
			first, _ := r.Translate(nil, data)

			got := make(chan request, 1)
			client := serve(t, func(_ http.ResponseWriter, r *http.Request) { got <- note(r) })
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

// filtered reads what a server writes through a WindowFilter.
type filtered struct {
	src    io.Reader
	filter WindowFilter
	ready  []byte
}

func (f *filtered) Read(p []byte) (int, error) {
	for len(f.ready) == 0 {
		buf := make([]byte, 4096)
		held := copy(buf, f.filter.Held())
		n, err := f.src.Read(buf[held:])
		if err != nil {
			return 0, err
		}
		f.ready = buf[:f.filter.Filter(buf[:held+n])]
	}
	n := copy(p, f.ready)
	f.ready = f.ready[n:]
	return n, nil
}

// TestServerWindow has a client send all that the connection's window allows it, behind an upgraded request with
// content. Only with the filter is that what the server allows.
func TestServerWindow(t *testing.T) {
	t.Parallel()
	for _, filter := range []bool{true, false} {
		name, want := "without the filter", "RST_STREAM FLOW_CONTROL_ERROR"
		if filter {
			name, want = "with the filter", "PING"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const contentLen = 60_000
			data := append([]byte(upgrade("Content-Length: 60000")), make([]byte, contentLen)...)
			data = append(data, flight()...)
			r := mustCheck(t, data)
			if state, err := r.Parse(data); state != h2.Complete {
				t.Fatalf("%v, %v", state, err)
			}
			first, _ := r.Translate(nil, data)

			blocked := make(chan struct{})
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.ContentLength == contentLen {
					io.Copy(io.Discard, r.Body)
					return
				}
				<-blocked // and nothing of the content is given back
			})
			t.Cleanup(func() { close(blocked) })
			var in io.Reader = client
			if filter {
				in = &filtered{src: client, filter: r.WindowFilter()}
			}
			fr := http2.NewFramer(client, in)
			if _, err := client.Write(first); err != nil {
				t.Fatal(err)
			}

			window := 65535 // of the connection, as the client knows it
			answered, pinged := false, false
			for done := false; !done; {
				f, err := fr.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				switch f := f.(type) {
				case *http2.WindowUpdateFrame:
					if f.StreamID == 0 {
						window += int(f.Increment)
					}
				case *http2.HeadersFrame:
					answered = f.StreamEnded()
				case *http2.PingFrame:
					done = true
				}
				if answered && !pinged {
					pinged = true
					fr.WritePing(false, [8]byte{})
				}
			}
			var block []byte
			for _, f := range r.Fields() {
				if f.Name != "content-length" {
					block = appendField(block, f)
				}
			}
			for stream := uint32(3); window > 0; stream += 2 {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true})
				for left := min(window, 500_000); left > 0; {
					n := min(left, h2.DefaultMaxFrameSize)
					fr.WriteData(stream, false, make([]byte, n))
					left, window = left-n, window-n
				}
			}
			fr.WritePing(false, [8]byte{1})
			got := ""
			for got == "" {
				f, err := fr.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				switch f := f.(type) {
				case *http2.PingFrame:
					got = "PING"
				case *http2.RSTStreamFrame:
					got = "RST_STREAM " + f.ErrCode.String()
				case *http2.GoAwayFrame:
					got = "GOAWAY " + f.ErrCode.String()
				}
			}
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}
