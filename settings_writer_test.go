package oneport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/rewind"
)

// ackFrame is a SETTINGS frame with the ACK flag.
const ackFrame = "\x00\x00\x00\x04\x01\x00\x00\x00\x00"

// clientStream has the bytes of an HTTP/2 client, and the same without the first acknowledgement.
type clientStream struct {
	name     string
	in, want string
}

func clientStreams() []clientStream {
	const settings = "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"
	const ping = "\x00\x00\x08\x06\x01\x00\x00\x00\x00abcdefgh"
	const headers = "\x00\x00\x01\x01\x05\x00\x00\x00\x01\x82"
	data := "\x00\x00\x12\x00\x00\x00\x00\x00\x01" + ackFrame + ackFrame // whose payload looks like two acknowledgements
	return []clientStream{
		{name: "first", in: h2.Preface + settings + ackFrame + headers, want: h2.Preface + settings + headers},
		{name: "only the first of two", in: h2.Preface + settings + ackFrame + ackFrame + headers + ackFrame, want: h2.Preface + settings + ackFrame + headers + ackFrame},
		{name: "after others", in: h2.Preface + settings + ping + headers + data + ackFrame + data, want: h2.Preface + settings + ping + headers + data + data},
		{name: "never", in: h2.Preface + settings + ping + headers + data, want: h2.Preface + settings + ping + headers + data},
		{name: "last", in: h2.Preface + settings + headers + ackFrame, want: h2.Preface + settings + headers},
		{name: "with undefined flags", in: h2.Preface + settings + "\x00\x00\x00\x04\xff\x00\x00\x00\x00" + headers, want: h2.Preface + settings + headers},
		{name: "illegal length is the server's to answer", in: h2.Preface + "\x00\x00\x06\x04\x01\x00\x00\x00\x00abcdef" + ackFrame, want: h2.Preface + "\x00\x00\x06\x04\x01\x00\x00\x00\x00abcdef"},
		{name: "ends in a frame header", in: h2.Preface + settings + headers[:5], want: h2.Preface + settings + headers[:5]},
		{name: "ends in the acknowledgement", in: h2.Preface + settings + ackFrame[:8], want: h2.Preface + settings + ackFrame[:8]},
		{name: "ends in the preface", in: h2.Preface[:10], want: h2.Preface[:10]},
		{name: "empty"},
	}
}

// chunks is a reader of pieces.
type chunks struct {
	pieces [][]byte
	err    error
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.pieces) > 0 && len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	if len(c.pieces) == 0 {
		return 0, c.err
	}
	n := copy(p, c.pieces[0])
	c.pieces[0] = c.pieces[0][n:]
	if len(c.pieces) == 1 && len(c.pieces[0]) == 0 && n%2 == 0 {
		return n, c.err // as a reader may
	}
	return n, nil
}

// TestACKDropped reads every stream in every division into a replayed part and two reads, with buffers of several
// sizes.
func TestACKDropped(t *testing.T) {
	t.Parallel()
	for _, tt := range clientStreams() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{1, 8, 9, 17, 18, 4096} {
				for i := range len(tt.in) + 1 {
					for j := i; j <= len(tt.in); j++ {
						var in rewind.Reader
						in.Init(&chunks{[][]byte{[]byte(tt.in[i:j]), []byte(tt.in[j:])}, io.EOF}, nil, []byte(tt.in[:i]), newFrameFilter(1))
						got, err := readAll(&in, size)
						if err != nil || got != tt.want {
							t.Fatalf("replayed %d, then read %d, by %d: got\n%q, %v, want\n%q", i, j-i, size, got, err, tt.want)
						}
					}
				}
			}
		})
	}
}

// readAll is io.ReadAll with reads of one size, none of which may be empty.
func readAll(r io.Reader, size int) (string, error) {
	var got bytes.Buffer
	buf := make([]byte, size)
	for {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err == io.EOF {
			return got.String(), nil
		}
		if err != nil {
			return got.String(), err
		}
		if n == 0 {
			return got.String(), io.ErrNoProgress
		}
	}
}

// TestACKAcrossTimeouts has a read deadline pass in the middle of the acknowledgement.
func TestACKAcrossTimeouts(t *testing.T) {
	t.Parallel()
	const before, after = h2.Preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x01\x01\x05\x00\x00\x00\x01\x82"
	stream := before + ackFrame + after
	for split := range len(stream) + 1 {
		var in rewind.Reader
		src := &chunks{[][]byte{[]byte(stream[:split])}, os.ErrDeadlineExceeded}
		in.Init(src, nil, nil, newFrameFilter(1))
		first, err := readAll(&in, 100)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("split %d: %v", split, err)
		}
		src.pieces, src.err = [][]byte{[]byte(stream[split:])}, io.EOF
		rest, err := readAll(&in, 100)
		if got := first + rest; got != before+after || err != nil {
			t.Fatalf("split %d: got %q, %v", split, got, err)
		}
	}
}

// TestPassThrough checks that after the acknowledgement reads go to the connection itself, and that nothing is kept.
func TestPassThrough(t *testing.T) {
	var in rewind.Reader
	src := &chunks{pieces: [][]byte{[]byte(h2.Preface + ackFrame), []byte("rest")}}
	in.Init(src, nil, nil, newFrameFilter(1))
	buf := make([]byte, 100)
	if n, err := in.Read(buf); n != len(h2.Preface) || err != nil {
		t.Fatal(n, err)
	}
	if !in.Plain() {
		t.Error("the connection is still filtered")
	}
	if allocs := testing.AllocsPerRun(10, func() { in.Read(buf) }); allocs != 0 {
		t.Errorf("a read allocates %v times", allocs)
	}
}

// FuzzACKFilter holds the filter against a search over the whole stream, frame by frame.
func FuzzACKFilter(f *testing.F) {
	for _, s := range clientStreams() {
		f.Add([]byte(s.in), 3, 40, 9)
	}
	f.Add(append(capture(f, "grpc-go.1"), capture(f, "grpc-go.2")...), 30, 50, 4096)
	f.Fuzz(func(t *testing.T, stream []byte, i, j, size int) {
		if i < 0 || j < i || j > len(stream) || size < 1 || size > 1<<16 {
			t.Skip()
		}
		want := withoutACK(stream)
		var in rewind.Reader
		in.Init(&chunks{[][]byte{bytes.Clone(stream[i:j]), bytes.Clone(stream[j:])}, io.EOF}, nil, bytes.Clone(stream[:i]), newFrameFilter(1))
		if got, err := readAll(&in, size); err != nil || got != string(want) {
			t.Fatalf("got\n%q, %v, want\n%q", got, err, want)
		}
	})
}

func withoutACK(stream []byte) []byte {
	if len(stream) < len(h2.Preface) {
		return stream
	}
	r := bytes.NewReader(stream[len(h2.Preface):])
	for {
		at := len(stream) - r.Len()
		fh, err := http2.ReadFrameHeader(r)
		if err != nil {
			return stream
		}
		if fh.Type == http2.FrameSettings && fh.Flags.Has(http2.FlagSettingsAck) && fh.Length == 0 {
			return append(bytes.Clone(stream[:at]), stream[at+9:]...)
		}
		if _, err := io.CopyN(io.Discard, r, int64(fh.Length)); err != nil {
			return stream
		}
	}
}

// TestEarlySettings checks the contents of the frame, and that one is sent only where some route still waits for it.
func TestEarlySettings(t *testing.T) {
	t.Parallel()
	strict := string(capture(t, "grpc-go.1"))
	for _, tt := range []struct {
		name     string
		settings []Setting
		routes   []Matcher
		sends    string
		want     string // the frame
	}{
		{name: "default", routes: []Matcher{GRPC()}, sends: strict,
			want: "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x01"},
		{name: "empty", routes: []Matcher{GRPC()}, sends: strict, settings: []Setting{},
			want: "\x00\x00\x00\x04\x00\x00\x00\x00\x00"},
		{name: "the user's", routes: []Matcher{GRPC()}, sends: strict, settings: []Setting{{ID: 0x9, Value: 1}, {ID: uint16(http2.SettingMaxConcurrentStreams), Value: 100}},
			want: "\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x01\x00\x03\x00\x00\x00\x64"},
		{name: "below others", routes: []Matcher{HTTP1(), TLS(), SSH(), Header("a", "b"), HTTP2()}, sends: strict,
			want: "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x01"},
		{name: "preface alone", routes: []Matcher{Path("/")}, sends: h2.Preface,
			want: "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x01"},
		{name: "a blocking reader", routes: []Matcher{ReadMatcher(func(r io.Reader) bool { io.Copy(io.Discard, r); return true })}, sends: strict,
			want: "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x01"},
		{name: "the preface decides", routes: []Matcher{HTTP1(), HTTP2(), GRPC()}, sends: strict},
		{name: "preface incomplete", routes: []Matcher{GRPC()}, sends: h2.Preface[:23]},
		{name: "HTTP/1", routes: []Matcher{GRPC(), Header("a", "b")}, sends: "GET / HTTP/1.1\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			m.EarlySettings = tt.settings
			decided := make(chan bool, 1)
			m.OnMatch = func(i Matched) { decided <- i.EarlySettings }
			m.OnRefuse = func(i Refused) { decided <- i.EarlySettings }
			for i, matcher := range tt.routes {
				m.Route(Route{Name: fmt.Sprint(i), Matchers: []Matcher{matcher}})
			}
			serve(t, m)
			client := dial(t, root)
			write(t, client, []byte(tt.sends))
			if tt.want != "" {
				got := make([]byte, len(tt.want))
				if _, err := io.ReadFull(client, got); err != nil || string(got) != tt.want {
					t.Errorf("got the frame %x, %v, want %x", got, err, tt.want)
				}
				// More of what does not decide brings no second one.
				write(t, client, []byte("\x00\x00\x08\x06\x00\x00\x00\x00\x00 a ping "))
			}
			client.(interface{ CloseWrite() error }).CloseWrite()
			if early := <-decided; early != (tt.want != "") {
				t.Errorf("early SETTINGS sent: %v", early)
			}
			if n := m.Stats().EarlySettings; (n == 1) != (tt.want != "") {
				t.Errorf("Stats counts %d connections with early SETTINGS", n)
			}
			m.Close()
			client.SetReadDeadline(time.Now().Add(10 * time.Second))
			rest, _ := io.ReadAll(client)
			if tt.want != "" && strings.Contains(string(rest), tt.want) {
				t.Errorf("the SETTINGS frame came again: %x", rest)
			}
		})
	}
}

// TestACKPolicy checks who gets the acknowledgement, and that where nothing is dropped the server gets what was
// accepted.
func TestACKPolicy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy ACKPolicy
		accept func(net.Listener) (net.Conn, error)
		keep   bool
	}{
		{"auto, unknown server", ACKAuto, net.Listener.Accept, false},
		{"drop", ACKDrop, net.Listener.Accept, false},
		{"keep", ACKKeep, net.Listener.Accept, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := record(listen(t, "tcp"))
			m := newMux(root)
			route := m.Route(Route{Matchers: []Matcher{GRPC()}, SettingsACK: tt.policy})
			serve(t, m)
			client := dial(t, root)
			first, second := capture(t, "grpc-go.1"), capture(t, "grpc-go.2")
			write(t, client, first)
			if _, err := io.ReadFull(client, make([]byte, 15)); err != nil {
				t.Fatal(err)
			}
			write(t, client, second)
			server, err := tt.accept(route)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			accepted := <-root.conns
			want := append(bytes.Clone(first), second...)
			if tt.keep != (server == accepted) {
				t.Errorf("the server got %T", server)
			}
			if !tt.keep {
				want = withoutACK(want)
				if tc, ok := server.(*TCPConn); !ok || tc.NetConn() != accepted {
					t.Errorf("the server got %T, want a *TCPConn over what was accepted", server)
				}
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the server read %q, %v", got, err)
			}
		})
	}
}
