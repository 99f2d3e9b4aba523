package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// echoService answers with what it was sent.
type echoService struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (echoService) UnaryCall(_ context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{Payload: r.Payload}, nil
}

func serveGRPC(t *testing.T, options ...grpc.ServerOption) net.Listener {
	l := listen(t)
	s := grpc.NewServer(options...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	grpc_testing.RegisterTestServiceServer(s, echoService{})
	var running sync.WaitGroup
	running.Go(func() { s.Serve(l) })
	t.Cleanup(func() { s.Stop(); running.Wait() })
	return l
}

func serveHTTP(t *testing.T, h http.HandlerFunc) net.Listener {
	l := listen(t)
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	var running sync.WaitGroup
	running.Go(func() { s.Serve(l) })
	t.Cleanup(func() { s.Close(); running.Wait() })
	return l
}

// large is an echo that does not fit in a window of the initial size.
func large() *request {
	payload := &grpc_testing.Payload{Body: make([]byte, 300<<10)}
	return &request{
		method: "POST", path: unaryCall, grpc: true,
		chunk: message(&grpc_testing.SimpleRequest{Payload: payload}), repeat: 1,
		want: len(message(&grpc_testing.SimpleResponse{Payload: payload})),
	}
}

// TestHTTP2WithGRPC makes calls to grpc-go, with windows of its own and with the smallest.
func TestHTTP2WithGRPC(t *testing.T) {
	t.Parallel()
	servers := map[string]net.Listener{
		"windows that grow": serveGRPC(t),
		"small windows":     serveGRPC(t, grpc.StaticStreamWindowSize(65535), grpc.StaticConnWindowSize(65535)),
	}
	for name, l := range servers {
		for _, strict := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, strict: %v", name, strict), func(t *testing.T) {
				t.Parallel()
				small := call(HealthCheck, serving)
				client := newHTTP2(newScript("http", "example.com", small, large(), small), strict)
				// The second connection must not see anything of the first.
				for range 2 {
					c := dial(t, l)
					if err := client.open(c); err != nil {
						t.Fatal(err)
					}
					for i := range 9 { // three turns of the script, so that all header blocks are used
						if err := client.roundTrip(); err != nil {
							t.Fatalf("request %d: %v", i, err)
						}
					}
					left := 50
					if err := client.pipeline(8, func(time.Duration) bool { left--; return left > 0 }); err != nil {
						t.Fatal(err)
					}
					if left != -7 {
						t.Errorf("after the 50th answer %d more came than the 7 that were in flight", -7-left)
					}
					c.Close()
				}
			})
		}
	}
}

// TestHTTP2Silence makes requests to a server that says nothing as long as the client may send, as grpc-go does when
// its windows have grown.
func TestHTTP2Silence(t *testing.T) {
	t.Parallel()
	for _, window := range []int{65535, 65536, 200_000, 1 << 20} {
		for _, streamWindow := range []int{1000, 65535, 65536, 200_000, 1 << 20} {
			for _, size := range []int{1, 1 << 14, 65535, 65536, 65537, 300_000} {
				for _, requests := range []int{1, 3} {
					name := fmt.Sprintf("windows of %d and %d, %d of %d bytes", window, streamWindow, requests, size)
					t.Run(name, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { silence(t, window, streamWindow, requests, size) })
					})
				}
			}
		}
	}
}

func silence(t *testing.T, window, streamWindow, requests, size int) {
	c, far := net.Pipe()
	c.SetDeadline(time.Now().Add(time.Minute))
	var running sync.WaitGroup
	defer running.Wait()
	defer c.Close()
	running.Go(func() {
		defer far.Close()
		if err := serveInSilence(far, window, streamWindow, requests, size); err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	post := &request{method: "POST", path: "/", chunk: make([]byte, size), repeat: 1}
	client := newHTTP2(newScript("http", "example.com", post), true)
	if err := client.open(c); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := client.pipeline(requests, func(time.Duration) bool { return false }); err != nil {
			t.Fatal(err)
		}
	}
}

// serveInSilence takes two turns of requests that are made at once. It gives credit when the client has none left, and
// answers when it has all of the requests.
func serveInSilence(c net.Conn, window, streamWindow, requests, size int) error {
	io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
	out := bufio.NewWriter(c)
	framer := http2.NewFramer(out, c)
	if _, err := framer.ReadFrame(); err != nil { // SETTINGS
		return err
	}
	framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(streamWindow)})
	if more := window - initialWindow; more > 0 {
		framer.WriteWindowUpdate(0, uint32(more))
	}
	out.Flush()
	credit := window
	for turn := range 2 {
		type upload struct{ credit, left int }
		uploads := make(map[uint32]*upload)
		for i := range requests {
			uploads[uint32(2*(turn*requests+i)+1)] = &upload{streamWindow, size}
		}
		began := 0
		for left := requests * size; left > 0; {
			if credit == 0 && began == requests {
				credit = window
				framer.WriteWindowUpdate(0, uint32(window))
			}
			canSend := false
			for _, u := range uploads {
				canSend = canSend || u.left > 0 && u.credit > 0
			}
			for id, u := range uploads {
				if !canSend && u.left > 0 {
					u.credit = streamWindow
					framer.WriteWindowUpdate(id, uint32(streamWindow))
				}
			}
			out.Flush()
			f, err := framer.ReadFrame()
			if err != nil {
				return err
			}
			switch f := f.(type) {
			case *http2.HeadersFrame:
				began++
			case *http2.DataFrame:
				n, u := len(f.Data()), uploads[f.StreamID]
				left, credit, u.left, u.credit = left-n, credit-n, u.left-n, u.credit-n
			}
		}
		for id := range uploads {
			framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "204"), EndHeaders: true, EndStream: true})
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// TestHTTP2WithNetHTTP makes requests to net/http.
func TestHTTP2WithNetHTTP(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	l := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(w, r.Body)
		if n == 0 {
			io.WriteString(w, "hello")
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprint(r.Method, " ", r.Host, r.URL, " ", r.Proto, " ", n))
	})
	post := &request{method: "POST", path: "/echo", chunk: make([]byte, 1000), repeat: 200, want: 200_000}
	client := newHTTP2(newScript("http", "example.com", get("/a?b", 5), post), false)
	if err := client.open(dial(t, l)); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := client.roundTrip(); err != nil {
			t.Fatal(err)
		}
	}
	one, two := "GET example.com/a?b HTTP/2.0 0", "POST example.com/echo HTTP/2.0 200000"
	if diff := cmp.Diff([]string{one, two, one, two}, seen); diff != "" {
		t.Error(diff)
	}
}

// TestLikeGRPC compares the header list of a call with grpc-go's.
func TestLikeGRPC(t *testing.T) {
	t.Parallel()
	l := listen(t)
	var got []hpack.HeaderField
	var running sync.WaitGroup
	running.Go(func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		framer := http2.NewFramer(c, c)
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		framer.WriteSettings()
		for {
			f, err := framer.ReadFrame()
			if err != nil {
				t.Error(err)
				return
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok {
				got = h.Fields
				return
			}
		}
	})
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// No deadline, which would be a header field.
	healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	running.Wait()
	want := call(HealthCheck, serving).fields("http", l.Addr().String())
	for i, f := range got {
		if f.Name == "user-agent" && strings.HasPrefix(f.Value, "grpc-go/") {
			got[i].Value = userAgent
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("grpc-go's differ (-ours +theirs):\n%s", diff)
	}
}

// serveFrames plays the server's part of a connection.
func serveFrames(t *testing.T, serve func(c net.Conn, framer *http2.Framer)) net.Listener {
	l := listen(t)
	var running sync.WaitGroup
	running.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		serve(c, http2.NewFramer(c, c))
	})
	t.Cleanup(running.Wait)
	return l
}

// next reads frames up to one of the type.
func next(framer *http2.Framer, want http2.FrameType) http2.Frame {
	for {
		f, err := framer.ReadFrame()
		if err != nil || f.Header().Type == want {
			return f
		}
	}
}

// TestStrict holds a strict client to its waiting: it acknowledges the server's SETTINGS before its first request. One
// that is not sends everything at once.
func TestStrict(t *testing.T) {
	t.Parallel()
	for strict, want := range map[bool][]string{
		true:  {"SETTINGS", "SETTINGS ACK", "HEADERS", "SETTINGS ACK", "PING ACK"},
		false: {"SETTINGS", "HEADERS", "SETTINGS ACK", "SETTINGS ACK", "PING ACK"},
	} {
		t.Run(fmt.Sprint(strict), func(t *testing.T) {
			t.Parallel()
			l := serveFrames(t, func(c net.Conn, framer *http2.Framer) {
				var got []string
				framer.WriteSettings()
				for {
					f, err := framer.ReadFrame()
					if err != nil {
						break
					}
					name := f.Header().Type.String()
					if f.Header().Flags.Has(http2.FlagSettingsAck) && f.Header().Type != http2.FrameHeaders {
						name += " ACK"
					}
					got = append(got, name)
					if f.Header().Type == http2.FrameHeaders {
						framer.WriteSettings()
						framer.WritePing(false, [8]byte{1})
						framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
						framer.WriteData(1, true, []byte("hello"))
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
			client := newHTTP2(newScript("http", "example.com", get("/", 5)), strict)
			c := dial(t, l)
			if err := client.open(c); err != nil {
				t.Fatal(err)
			}
			if err := client.roundTrip(); err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	}
}

// block encodes a header block.
func block(fields ...string) []byte {
	var b strings.Builder
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return []byte(b.String())
}

// TestHTTP2Refuses holds the client to taking nothing for an answer that is not one.
func TestHTTP2Refuses(t *testing.T) {
	t.Parallel()
	headers := func(f *http2.Framer, end bool, fields ...string) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(fields...), EndHeaders: true, EndStream: end})
	}
	for _, tt := range []struct {
		name, want string
		serve      func(c net.Conn, f *http2.Framer)
	}{
		{"the end", "unexpected EOF", func(c net.Conn, f *http2.Framer) {}},
		{"GOAWAY", "GOAWAY ENHANCE_YOUR_CALM, \"too much\"", func(c net.Conn, f *http2.Framer) {
			f.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte("too much"))
		}},
		{"RST_STREAM", "RST_STREAM REFUSED_STREAM", func(c net.Conn, f *http2.Framer) {
			f.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		}},
		{"a status", `the status of /grpc.health.v1.Health/Check is "503"`, func(c net.Conn, f *http2.Framer) {
			headers(f, true, ":status", "503")
		}},
		{"a gRPC status", `gRPC status of /grpc.health.v1.Health/Check is "12", "unknown service"`, func(c net.Conn, f *http2.Framer) {
			headers(f, true, ":status", "200", "grpc-status", "12", "grpc-message", "unknown service")
		}},
		{"no gRPC status", `gRPC status of /grpc.health.v1.Health/Check is ""`, func(c net.Conn, f *http2.Framer) {
			headers(f, false, ":status", "200")
			f.WriteData(1, true, make([]byte, serving))
		}},
		{"too little", "has 3 bytes, want 7", func(c net.Conn, f *http2.Framer) {
			headers(f, false, ":status", "200")
			f.WriteData(1, false, make([]byte, 3))
			headers(f, true, "grpc-status", "0")
		}},
		{"an answer to nothing", "no request on that stream", func(c net.Conn, f *http2.Framer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block(":status", "200"), EndHeaders: true})
		}},
		{"a bad header block", "invalid indexed representation index", func(c net.Conn, f *http2.Framer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0x80, 0x7f}, EndHeaders: true})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := serveFrames(t, func(c net.Conn, f *http2.Framer) {
				f.WriteSettings()
				next(f, http2.FrameData)
				tt.serve(c, f)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
			})
			client := newHTTP2(newScript("http", "example.com", call(HealthCheck, serving)), true)
			c := dial(t, l)
			err := client.open(c)
			if err == nil {
				err = client.roundTrip()
			}
			c.Close()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want %q in it", err, tt.want)
			}
		})
	}
}

// TestContinuation has an answer's header block come in pieces.
func TestContinuation(t *testing.T) {
	t.Parallel()
	l := serveFrames(t, func(c net.Conn, f *http2.Framer) {
		f.WriteSettings()
		next(f, http2.FrameData)
		b := block(":status", "200", "grpc-status", "0")
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:2], EndStream: true})
		f.WriteContinuation(1, false, b[2:5])
		f.WriteContinuation(1, true, b[5:])
		io.Copy(io.Discard, c)
	})
	client := newHTTP2(newScript("http", "example.com", call(HealthCheck, 0)), true)
	c := dial(t, l)
	defer c.Close()
	if err := client.open(c); err != nil {
		t.Fatal(err)
	}
	if err := client.roundTrip(); err != nil {
		t.Fatal(err)
	}
}

func TestHTTP1(t *testing.T) {
	t.Parallel()
	l := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "example.com" {
			t.Errorf("the host is %q", r.Host)
		}
		switch r.URL.Path {
		case "/chunked":
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "hel")
			w.(http.Flusher).Flush()
			io.WriteString(w, "lo")
			w.Header().Set("X-Sum", "5")
		case "/echo":
			b, _ := io.ReadAll(r.Body)
			w.Write(b)
		default:
			io.WriteString(w, "hello")
		}
	})
	client := newHTTP1("example.com",
		get("/", 5), get("/chunked", 5), get("/", anySize),
		&request{method: "POST", path: "/echo", chunk: []byte("0123456789"), repeat: 10_000, want: 100_000})
	client.open(dial(t, l))
	for range 8 {
		if err := client.roundTrip(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHTTP1Refuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ response, want string }{
		{"", "unexpected EOF"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "unexpected EOF"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhel", "has 3 bytes, want 5"},
		{"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello", "503 Service Unavailable"},
		{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello", `Content-Length is "-1"`},
		{"HTTP/1.1 200 OK\r\n\r\nhello", "neither Content-Length nor chunked"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "unexpected EOF"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "unexpected EOF"},
		{"SSH-2.0-OpenSSH\r\n", "SSH-2.0"},
	} {
		client, server := net.Pipe()
		var running sync.WaitGroup
		running.Go(func() {
			http.ReadRequest(bufio.NewReader(server))
			io.WriteString(server, tt.response)
			server.Close()
		})
		c := newHTTP1("example.com", get("/", 5))
		c.open(client)
		if err := c.roundTrip(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: the error is %v, want %q in it", tt.response, err, tt.want)
		}
		client.Close()
		running.Wait()
	}
}
