package oneport

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/h2open"
)

const (
	settingsFrame = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	pingFrame     = "\x00\x00\x08\x06\x00\x00\x00\x00\x00 a ping "
	pongFrame     = "\x00\x00\x08\x06\x01\x00\x00\x00\x00 a ping "
	getFrame      = "\x00\x00\x03\x01\x05\x00\x00\x00\x01\x82\x84\x86" // GET / over http
	dataFrame     = "\x00\x00\x04\x00\x00\x00\x00\x00\x01data"
)

// TestStandIn follows an HTTP/2 client that does something before its first request, or nothing, and checks what it
// gets without a server, what the server reads when there is one, and what the client gets of what the server writes.
func TestStandIn(t *testing.T) {
	t.Parallel()
	early := string(h2.AppendSettings(nil, settingsOf(DefaultEarlySettings())...))
	const start = h2.Preface + settingsFrame
	for _, tt := range []struct {
		name   string
		sends  []string // with a rest after each but the last
		gets   string   // before the server is there
		reads  string   // by the server
		writes string   // by the server
		wants  string   // of that, by the client
	}{
		{"at once", []string{start, ackFrame + getFrame}, early,
			start + getFrame, settingsFrame + ackFrame + dataFrame, settingsFrame + ackFrame + dataFrame},
		{"rests", []string{start, ackFrame, getFrame}, early + ackFrame,
			start + getFrame, settingsFrame + ackFrame + dataFrame, settingsFrame + dataFrame},
		{"does not acknowledge", []string{start, getFrame + ackFrame}, early,
			start + getFrame, settingsFrame + ackFrame + dataFrame, settingsFrame + ackFrame + dataFrame},
		{"pings at once", []string{start + pingFrame, ackFrame + getFrame}, early + ackFrame + pongFrame,
			start + getFrame, settingsFrame + ackFrame + dataFrame, settingsFrame + dataFrame},
		{"pings twice", []string{start, ackFrame + pingFrame, pingFrame, getFrame + pingFrame}, early + ackFrame + pongFrame + pongFrame,
			start + getFrame + pingFrame, settingsFrame + ackFrame + pongFrame, settingsFrame + pongFrame},
		{"pings with the request", []string{start, ackFrame + pingFrame + getFrame}, early,
			start + pingFrame + getFrame, settingsFrame + ackFrame + pongFrame, settingsFrame + ackFrame + pongFrame},
		{"sends SETTINGS again", []string{start, ackFrame, settingsFrame, getFrame + settingsFrame}, early + ackFrame + ackFrame,
			start + getFrame + settingsFrame,
			settingsFrame + ackFrame + ackFrame, settingsFrame + ackFrame},
		{"merges SETTINGS", []string{
			h2.Preface + "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x07",
			ackFrame,
			"\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x09\x00\x03\x00\x00\x00\x05",
			getFrame,
		}, early + ackFrame + ackFrame,
			h2.Preface + "\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x09\x00\x03\x00\x00\x00\x05" + getFrame,
			settingsFrame + ackFrame + dataFrame, settingsFrame + dataFrame},
		{"half a HEADERS frame", []string{start, ackFrame + getFrame[:5], getFrame[5:]}, early + ackFrame,
			start + getFrame, settingsFrame + ackFrame, settingsFrame},
		{"half a header block", []string{start, ackFrame + getFrame[:10], getFrame[10:]}, early,
			start + getFrame, settingsFrame + ackFrame, settingsFrame + ackFrame},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for split := range len(tt.writes) + 1 {
				synctest.Test(t, func(t *testing.T) {
					root := newPipeListener()
					m := newMux(root)
					route := m.Route(Route{Matchers: []Matcher{Path("/")}, SettingsACK: ACKDrop})
					serve(t, m)
					client := dial(t, root)
					go func() {
						for i, b := range tt.sends {
							if i > 0 {
								time.Sleep(2 * h2open.RestTime)
							}
							io.WriteString(client, b)
						}
					}()
					got := make([]byte, len(tt.gets))
					if _, err := io.ReadFull(client, got); err != nil || string(got) != tt.gets {
						t.Fatalf("before the request the client got\n%q, %v, want\n%q", got, err, tt.gets)
					}
					server := accept(t, route)
					got = make([]byte, len(tt.reads))
					if _, err := io.ReadFull(server, got); err != nil || string(got) != tt.reads {
						t.Fatalf("the server read\n%q, %v, want\n%q", got, err, tt.reads)
					}
					go func() {
						for _, part := range []string{tt.writes[:split], tt.writes[split:]} {
							if n, err := io.WriteString(server, part); n != len(part) || err != nil {
								t.Errorf("split %d: the server wrote %d of %d bytes, %v", split, n, len(part), err)
							}
						}
						server.Close()
					}()
					if got, err := io.ReadAll(client); err != nil || string(got) != tt.wants {
						t.Fatalf("split %d: of what the server wrote the client got\n%q, %v, want\n%q", split, got, err, tt.wants)
					}
				})
			}
		})
	}
}

// TestPingingPoolClient has a client of a connection pool wait for its first request, and ping meanwhile. A ping each
// second is no flood, however long it waits; more are.
func TestPingingPoolClient(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		every time.Duration
		pings int
		ended bool
	}{
		{"each second", time.Second, 290, false},
		{"each second, for longer than allowed", time.Second, 310, true},
		{"many at once", 0, 97, false},
		{"too many at once", 0, 98, true},
		{"two each second", time.Second / 2, 180, false},
		{"two each second, for long", time.Second / 2, 220, true},
	} {
		for _, way := range []string{"route", "requests"} {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					root := newPipeListener()
					m := newMux(root)
					route := func() net.Listener {
						if way == "route" {
							return m.Match(Path("/"))
						}
						return m.Requests().Match(Path("/"))
					}()
					serve(t, m)
					client := dial(t, root)
					ended := make(chan struct{})
					go func() { io.Copy(io.Discard, client); close(ended) }()
					io.WriteString(client, h2.Preface+settingsFrame+ackFrame)
					for range tt.pings {
						time.Sleep(tt.every)
						if _, err := io.WriteString(client, pingFrame); err != nil {
							break
						}
						synctest.Wait()
					}
					synctest.Wait()
					select {
					case <-ended:
						if !tt.ended {
							t.Error("the client was ended")
						}
						return
					default:
					}
					if _, err := io.WriteString(client, getFrame); err != nil || tt.ended {
						if !tt.ended {
							t.Errorf("the request was not taken: %v", err)
						}
						return
					}
					server := accept(t, route)
					got := make([]byte, len(h2.Preface))
					if _, err := io.ReadFull(server, got); err != nil || string(got) != h2.Preface {
						t.Errorf("the server reads %q, %v", got, err)
					}
					server.Close()
				})
			})
		}
	}
}

// TestStandInOverTCP checks that what is written goes through the filter also where a TCP connection has other ways to
// be written to, and that the filter ends.
func TestStandInOverTCP(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	route := m.Route(Route{Matchers: []Matcher{Path("/")}, SettingsACK: ACKKeep})
	serve(t, m)
	client := dial(t, root)
	write(t, client, []byte(h2.Preface+settingsFrame+pingFrame))
	if _, err := io.ReadFull(client, make([]byte, 15+len(ackFrame+pongFrame))); err != nil {
		t.Fatal(err)
	}
	write(t, client, []byte(ackFrame+getFrame))
	server := accept(t, route)
	want := h2.Preface + settingsFrame + getFrame
	got := make([]byte, len(want))
	if _, err := io.ReadFull(server, got); err != nil || string(got) != want {
		t.Errorf("the server read %q, %v", got, err)
	}
	buffers := net.Buffers{[]byte(settingsFrame), []byte(ackFrame[:4]), []byte(ackFrame[4:]), []byte(dataFrame)}
	go func() {
		buffers.WriteTo(server)
		io.Copy(server, strings.NewReader(dataFrame))
		server.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if got, err := io.ReadAll(client); err != nil || string(got) != settingsFrame+dataFrame+dataFrame {
		t.Errorf("the client read %q, %v", got, err)
	}
	if c, ok := server.(*Conn); !ok || !c.out.Plain() {
		t.Errorf("a %T is still filtered", server)
	}
}

// TestStandInForNetHTTP has an idle client ping, and then make requests of net/http, which counts acknowledgements.
func TestStandInForNetHTTP(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	route := m.Match(Path("/"))
	serve(t, m)
	srv := &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }),
		Protocols: new(http.Protocols),
	}
	srv.Protocols.SetUnencryptedHTTP2(true)
	go srv.Serve(route)
	defer srv.Close()

	client := dial(t, root)
	client.SetDeadline(time.Now().Add(10 * time.Second))
	fr := http2.NewFramer(client, client)
	acks := 0
	await := func(what string, is func(http2.Frame) bool) {
		t.Helper()
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				t.Fatalf("waiting for %s: %v", what, err)
			}
			switch f := f.(type) {
			case *http2.GoAwayFrame:
				t.Fatalf("waiting for %s: %v %s", what, f, f.DebugData())
			case *http2.SettingsFrame:
				if f.IsAck() {
					acks++
				} else {
					fr.WriteSettingsAck()
				}
			}
			if is(f) {
				return
			}
		}
	}
	io.WriteString(client, h2.Preface)
	fr.WriteSettings()
	for i := range 3 {
		payload := [8]byte{byte(i)}
		fr.WritePing(false, payload)
		await("the answer to PING", func(f http2.Frame) bool {
			p, ok := f.(*http2.PingFrame)
			return ok && p.IsAck() && p.Data == payload
		})
	}
	for i := range 100 {
		id := uint32(2*i + 1)
		fr.WriteHeaders(http2.HeadersFrameParam{
			StreamID: id, EndHeaders: true, EndStream: true,
			BlockFragment: hpackBlock(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"),
		})
		await("the response", func(f http2.Frame) bool {
			return f.Header().StreamID == id && f.Header().Flags.Has(http2.FlagDataEndStream)
		})
	}
	if acks != 1 {
		t.Errorf("%d acknowledgements came for one SETTINGS frame", acks)
	}
}

// TestFrameFilter takes acknowledgements and PING frames out of a stream that comes in two pieces, wherever it is
// split.
func TestFrameFilter(t *testing.T) {
	t.Parallel()
	in := settingsFrame + pingFrame + ackFrame + pongFrame + pingFrame + dataFrame + ackFrame + pingFrame
	for _, tt := range []struct {
		acks, pings int
		want        string
		done        bool
	}{
		{0, 0, in, true},
		{1, 0, settingsFrame + pingFrame + pongFrame + pingFrame + dataFrame + ackFrame + pingFrame, true},
		{2, 0, settingsFrame + pingFrame + pongFrame + pingFrame + dataFrame + pingFrame, true},
		{3, 0, settingsFrame + pingFrame + pongFrame + pingFrame + dataFrame + pingFrame, false},
		{0, 1, settingsFrame + ackFrame + pongFrame + pingFrame + dataFrame + ackFrame + pingFrame, true},
		{1, 2, settingsFrame + pongFrame + dataFrame + ackFrame + pingFrame, true},
		{2, 3, settingsFrame + pongFrame + dataFrame, true},
	} {
		for i := range len(in) + 1 {
			for j := i; j <= len(in); j++ {
				f := frameFilter{acks: tt.acks, pings: tt.pings}
				var got []byte
				for _, piece := range []string{in[:i], in[i:j], in[j:]} {
					b := append(bytes.Clone(f.Held()), piece...)
					got = append(got, b[:f.Filter(b)]...)
				}
				if got = append(got, f.Held()...); string(got) != tt.want || f.Done() != tt.done {
					t.Fatalf("%d acknowledgements, %d PINGs, split at %d and %d: got\n%q, want\n%q", tt.acks, tt.pings, i, j, got, tt.want)
				}
			}
		}
	}
}
