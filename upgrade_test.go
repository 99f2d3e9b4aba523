package oneport

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/h2upgrade"
	"github.com/oneport-go/oneport/internal/http1"
	"github.com/oneport-go/oneport/internal/peek"
)

const upgradeHead = "Host: example.com\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"

// clientStart is what a client sends when it has seen 101: the settings of HTTP2-Settings again, as real clients do,
// and one more.
var clientStart = string(h2.AppendSettings([]byte(h2.Preface),
	http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100},
	http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65_535},
	http2.Setting{ID: http2.SettingMaxFrameSize, Val: 20_000}))

// TestUpgradeSplits checks that the server reads an ordinary start of HTTP/2 with the request on stream 1, and then the
// client's own bytes, wherever what the client sends is split.
func TestUpgradeSplits(t *testing.T) {
	t.Parallel()
	ping := "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
	for _, network := range []string{"tcp", "pipe"} {
		for _, name := range []string{"curl-h2c-upgrade.1", "curl-h2c-upgrade-post.1", "nghttp-h2c-upgrade.1"} {
			t.Run(network+"/"+name, func(t *testing.T) {
				t.Parallel()
				request := capture(t, name)
				after := []byte(clientStart + ping)
				whole := append(bytes.Clone(request), after...)
				want := translated(t, whole)
				if !bytes.HasSuffix(want, []byte(ping)) {
					t.Fatalf("translated to %q", want)
				}

				var root net.Listener = newPipeListener()
				if network == "tcp" {
					root = listen(t, "tcp")
				}
				m := newMux(root)
				matched := make(chan Matched, 1)
				m.OnMatch = func(i Matched) { matched <- i }
				matcher, seen := looks(Header("no-such", ""))
				m.Match(matcher)
				route := m.Route(Route{Matchers: []Matcher{Header(":scheme", "http")}, Upgrade: true})
				serve(t, m)
				for split := 1; split < len(request); split++ {
					client := dial(t, root)
					write(t, client, request[:split])
					for n := -1; n < split; {
						n = <-seen
					}
					write(t, client, request[split:])
					r := bufio.NewReader(client)
					if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "h2c" {
						t.Fatalf("split %d: answered %v, %v", split, resp, err)
					}
					half := 1 + split%(len(after)-1)
					sent := make(chan error, 1)
					go func() {
						client.Write(after[:half])
						_, err := client.Write(after[half:])
						sent <- err
					}()
					server := accept(t, route)
					got := make([]byte, len(want))
					if n, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, want) {
						t.Fatalf("split %d: the server read %q, %v, want %q", split, got[:n], err, want)
					}
					if err := <-sent; err != nil {
						t.Fatal(err)
					}
					if i := <-matched; !i.Upgraded || i.Protocol != ProtocolHTTP2 || i.EarlySettings {
						t.Fatalf("split %d: matched %+v", split, i)
					}
					server.Close()
					client.Close()
					for len(seen) > 0 {
						<-seen
					}
				}
				if n := m.Stats().Upgraded; n != uint64(len(request)-1) {
					t.Errorf("Stats().Upgraded = %d", n)
				}
			})
		}
	}
}

// translated is what the server reads of an upgraded connection.
func translated(t *testing.T, b []byte) []byte {
	t.Helper()
	var p http1.Parser
	p.Parse(b)
	req, err := h2upgrade.Check(b, &p)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := req.Parse(b); state != h2.Complete {
		t.Fatal(state, err)
	}
	first, rest := req.Translate(nil, b)
	return append(first, b[rest:]...)
}

// An upgraded client is one that has upgraded its connection, and speaks HTTP/2 on it by hand.
type upgradedClient struct {
	net.Conn
	*http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
}

func upgradeConn(t *testing.T, root net.Listener, method, path, content string) *upgradedClient {
	t.Helper()
	c := &upgradedClient{Conn: dial(t, root)}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	head := fmt.Sprintf("%s %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n", method, path, upgradeHead, len(content))
	go io.WriteString(c, head+content)
	r := bufio.NewReader(c)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("answered %v, %v", resp, err)
	}
	write(t, c, []byte(clientStart))
	c.Framer = http2.NewFramer(c, r)
	c.Framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	return c
}

// send sends a request on a stream.
func (c *upgradedClient) send(t *testing.T, stream uint32, path string, fields ...string) {
	t.Helper()
	c.block.Reset()
	list := append([]string{":method", "GET", ":scheme", "http", ":authority", "example.com", ":path", path}, fields...)
	for i := 0; i < len(list); i += 2 {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndStream: true, EndHeaders: true})
	if err != nil {
		t.Fatal(err)
	}
}

// answer reads the answer on a stream, while there is no other.
func (c *upgradedClient) answer(t *testing.T, stream uint32) (content string) {
	t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("stream %d: %v", stream, err)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != stream || f.PseudoValue("status") != "200" {
				t.Fatalf("stream %d: %v on stream %d", stream, f.PseudoValue("status"), f.StreamID)
			}
			if f.StreamEnded() {
				return content
			}
		case *http2.DataFrame:
			content += string(f.Data())
			if f.StreamEnded() {
				return content
			}
		case *http2.GoAwayFrame:
			t.Fatalf("stream %d: %v, %s", stream, f, f.DebugData())
		case *http2.RSTStreamFrame:
			t.Fatalf("stream %d: %v", stream, f)
		}
	}
}

// TestUpgradeNetHTTP serves an upgraded request and 200 that follow with net/http. Their fields fill the client's
// dynamic table, and have to be understood.
func TestUpgradeNetHTTP(t *testing.T) {
	t.Parallel()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %d %v", r.Proto, r.Method, r.URL.Path, r.Header.Get("X-Tag"), len(content), r.Header["Http2-Settings"])
	})}
	ConfigureHTTP(server)
	root := listen(t, "tcp")
	m := newMux(root)
	go server.Serve(m.Route(Route{Matchers: []Matcher{HTTP1(), HTTP2()}, Upgrade: true}))
	t.Cleanup(func() { server.Close() })
	serve(t, m)
	for _, content := range []string{"", "small", strings.Repeat("x", h2upgrade.MaxContent)} {
		c := upgradeConn(t, root, "POST", "/first", content)
		if got, want := c.answer(t, 1), fmt.Sprintf("HTTP/2.0 POST /first  %d []", len(content)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		for i := range 200 {
			stream := uint32(3 + 2*i)
			path, tag := fmt.Sprintf("/%d", i%7), strings.Repeat(fmt.Sprint(i%90), 10)
			c.send(t, stream, path, "x-tag", tag)
			if got, want := c.answer(t, stream), fmt.Sprintf("HTTP/2.0 GET %s %s 0 []", path, tag); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	}
}

// TestUpgradeWindow has a client use up the connection's window after an upgrade with content. The two ends must agree
// on how large it is.
func TestUpgradeWindow(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			<-release
		}
		io.Copy(io.Discard, r.Body)
	})}
	ConfigureHTTP(server)
	server.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 17, MaxReceiveBufferPerStream: 1 << 18}
	root := listen(t, "tcp")
	m := newMux(root)
	go server.Serve(m.Route(Route{Matchers: []Matcher{HTTP2()}, Upgrade: true}))
	t.Cleanup(func() { server.Close() })
	serve(t, m)
	c := upgradeConn(t, root, "POST", "/", strings.Repeat("x", 60_000))
	window := 1<<16 - 1
	await := func(done func(http2.Frame) bool) { // and count the credit that comes meanwhile
		for {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch f := f.(type) {
			case *http2.WindowUpdateFrame:
				if f.StreamID == 0 {
					window += int(f.Increment)
				}
			case *http2.GoAwayFrame:
				t.Fatalf("%v, %s", f, f.DebugData())
			}
			if done(f) {
				return
			}
		}
	}
	await(func(f http2.Frame) bool { h, ok := f.(*http2.MetaHeadersFrame); return ok && h.StreamEnded() })
	c.WriteSettingsAck()
	c.WritePing(false, [8]byte{1})
	await(func(f http2.Frame) bool { _, ok := f.(*http2.PingFrame); return ok })
	if window < 1<<16 {
		t.Fatalf("the window is %d", window)
	}
	c.block.Reset()
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/held"}} {
		c.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: c.block.Bytes(), EndHeaders: true})
	for window > 0 {
		n := min(window, 1<<14)
		if err := c.WriteData(3, window == n, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		window -= n
	}
	c.WritePing(false, [8]byte{2})
	await(func(f http2.Frame) bool { _, ok := f.(*http2.PingFrame); return ok })
	close(release)
	await(func(f http2.Frame) bool { h, ok := f.(*http2.MetaHeadersFrame); return ok && h.StreamID == 3 })
}

// TestNotUpgraded checks that a request that is not a correct one for an upgrade, or that no route takes as one, is
// served as the HTTP/1.1 request that it is.
func TestNotUpgraded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, sends, want string }{
		{"correct", "GET / HTTP/1.1\r\n" + upgradeHead + "\r\n", "101"},
		{"not asked", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n" + upgradeHead + "\r\n", "HTTP/1.0"},
		{"two HTTP2-Settings", "GET / HTTP/1.1\r\n" + upgradeHead + "HTTP2-Settings: AAMAAABk\r\n\r\n", "HTTP/1.1"},
		{"bad base64", "GET / HTTP/1.1\r\n" + strings.Replace(upgradeHead, "AAMAAABkAAQAAP__", "AAMA!ABk", 1) + "\r\n", "HTTP/1.1"},
		{"bad SETTINGS", "GET / HTTP/1.1\r\n" + strings.Replace(upgradeHead, "AAMAAABkAAQAAP__", "AAIAAAAC", 1) + "\r\n", "HTTP/1.1"},
		{"half a setting", "GET / HTTP/1.1\r\n" + strings.Replace(upgradeHead, "AAMAAABkAAQAAP__", "AAMA", 1) + "\r\n", "HTTP/1.1"},
		{"Connection without HTTP2-Settings", "GET / HTTP/1.1\r\n" + strings.Replace(upgradeHead, ", HTTP2-Settings", "", 1) + "\r\n", "HTTP/1.1"},
		{"Connection without Upgrade", "GET / HTTP/1.1\r\n" + strings.Replace(upgradeHead, "Upgrade, ", "", 1) + "\r\n", "HTTP/1.1"},
		{"chunked", "POST / HTTP/1.1\r\n" + upgradeHead + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "HTTP/1.1"},
		{"chunked without end", "POST /unread HTTP/1.1\r\n" + upgradeHead + "Transfer-Encoding: chunked\r\n\r\n2\r\nab", "HTTP/1.1"},
		{"too large", fmt.Sprintf("POST /unread HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n", upgradeHead, h2upgrade.MaxContent+1), "HTTP/1.1"},
		{"Expect", "POST / HTTP/1.1\r\n" + upgradeHead + "Expect: 100-continue\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1"},
		{"pipelined", "GET / HTTP/1.1\r\n" + upgradeHead + "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1"},
		{"other route", "GET / HTTP/1.1\r\nRoute: off\r\n" + upgradeHead + "\r\n", "HTTP/1.1"},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", tt.name, secure), func(t *testing.T) {
				t.Parallel()
				server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/unread" {
						io.Copy(io.Discard, r.Body)
					}
					w.Header().Set("Connection", "close")
					io.WriteString(w, r.Proto)
				})}
				ConfigureHTTP(server)
				root := listen(t, "tcp")
				m := newMux(root)
				routes := m.Route
				if secure {
					routes = m.TLS(serverTLS()).Route
				}
				go server.Serve(routes(Route{Matchers: []Matcher{Header("route", "off")}}))
				go server.Serve(routes(Route{Matchers: []Matcher{Any()}, Upgrade: true}))
				t.Cleanup(func() { server.Close() })
				serve(t, m)
				var client net.Conn = dial(t, root)
				want := tt.want
				if secure {
					client = dialTLS(t, root, clientTLS("http/1.1"))
					if want == "101" {
						want = "HTTP/1.1"
					}
				}
				go io.WriteString(client, tt.sends)
				client.SetReadDeadline(time.Now().Add(10 * time.Second))
				r := bufio.NewReader(client)
				resp, err := http.ReadResponse(r, nil)
				if err == nil && resp.StatusCode == 100 {
					resp, err = http.ReadResponse(r, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				got := fmt.Sprint(resp.StatusCode)
				if resp.StatusCode == 200 {
					content, _ := io.ReadAll(resp.Body)
					got = string(content)
				}
				if got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		}
	}
}

// TestUpgradeLongHead checks that a request whose head is too long to be looked at whole, which the server may well
// take, is one of HTTP/1.
func TestUpgradeLongHead(t *testing.T) {
	t.Parallel()
	for _, head := range []string{"Host: a\r\n", upgradeHead} {
		for _, root := range []net.Listener{listen(t, "tcp"), newPipeListener()} {
			m := newMux(root)
			m.MaxPreviewBytes = 1 << 10
			m.Route(Route{Matchers: []Matcher{GRPC()}, Upgrade: true})
			route := m.Route(Route{Matchers: []Matcher{HTTP1(), HTTP2()}, Upgrade: true})
			serve(t, m)
			client := dial(t, root)
			request := []byte("GET / HTTP/1.1\r\nCookie: " + strings.Repeat("c", 4<<10) + "\r\n" + head + "\r\n")
			go client.Write(request)
			got := make([]byte, len(request))
			if _, err := io.ReadFull(accept(t, route), got); err != nil || !bytes.Equal(got, request) {
				t.Errorf("%v: the server read %q, %v", root.Addr(), got, err)
			}
		}
	}
}

// TestUpgradeOffByDefault checks that a route without Upgrade gets an HTTP/1 request.
func TestUpgradeOffByDefault(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	m.Match(HTTP2())
	route := m.Match(HTTP1())
	serve(t, m)
	client := dial(t, root)
	request := capture(t, "curl-h2c-upgrade.1")
	write(t, client, request)
	got := make([]byte, len(request))
	if _, err := io.ReadFull(accept(t, route), got); err != nil || !bytes.Equal(got, request) {
		t.Errorf("the server read %q, %v", got, err)
	}
}

// TestUpgradeBroken checks how a client is refused that violates the protocol after the upgrade.
func TestUpgradeBroken(t *testing.T) {
	t.Parallel()
	post := "POST / HTTP/1.1\r\n" + upgradeHead + "Content-Length: 3\r\n\r\n"
	for _, tt := range []struct {
		name  string
		first string // what is sent before 101
		then  string // and after it, if that comes
		end   bool   // and nothing more
		want  string
		why   RefuseReason
	}{
		{"no preface", "GET / HTTP/1.1\r\n" + upgradeHead + "\r\n", "GET / HTTP/1.1\r\n", false, "PROTOCOL_ERROR", ReasonProtocolError},
		{"no SETTINGS", "GET / HTTP/1.1\r\n" + upgradeHead + "\r\n", h2.Preface + "\x00\x00\x08\x06\x00\x00\x00\x00\x00", false, "PROTOCOL_ERROR", ReasonProtocolError},
		{"bad SETTINGS", "GET / HTTP/1.1\r\n" + upgradeHead + "\r\n", h2.Preface + "\x00\x00\x01\x04\x00\x00\x00\x00\x00", false, "FRAME_SIZE_ERROR", ReasonProtocolError},
		{"silence after 101", "GET / HTTP/1.1\r\n" + upgradeHead + "\r\n", "", false, "NO_ERROR", ReasonTimeout},
		{"half a preface", "GET / HTTP/1.1\r\n" + upgradeHead + "\r\n", h2.Preface[:10], true, "NO_ERROR", ReasonClientClosed},
		{"silence before the content", post, "", false, "408", ReasonTimeout},
		{"half the content", post + "a", "", true, "400", ReasonClientClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(halfClosing{root})
				refused := watchRefusals(m)
				m.Route(Route{Matchers: []Matcher{HTTP2()}, Upgrade: true})
				serve(t, m)
				client := dial(t, root)
				write(t, client, []byte(tt.first))
				r := bufio.NewReader(client)
				if tt.then != "" || tt.why == ReasonTimeout && !strings.HasPrefix(tt.want, "4") {
					if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 {
						t.Fatalf("answered %v, %v", resp, err)
					}
					write(t, client, []byte(tt.then))
				}
				if tt.end {
					write(t, client, []byte(endMark))
				}
				if tt.want[0] == '4' {
					if resp, err := http.ReadResponse(r, nil); err != nil || fmt.Sprint(resp.StatusCode) != tt.want {
						t.Errorf("answered %v, %v, want %s", resp, err, tt.want)
					}
				} else {
					fr := http2.NewFramer(nil, r)
					if f, err := fr.ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings {
						t.Errorf("the first frame is %v, %v", f, err)
					}
					f, err := fr.ReadFrame()
					if goAway, ok := f.(*http2.GoAwayFrame); !ok || goAway.ErrCode.String() != tt.want {
						t.Errorf("answered %v, %v, want %s", f, err, tt.want)
					}
				}
				if got := <-refused; got.Reason != tt.why {
					t.Errorf("refused for %v: %v", got.Reason, got.Err)
				}
				client.Close()
			})
		})
	}
}

// TestUpgradeBrokenAtOnce has the bytes that are wrong come after the request was looked at, and before it is taken out
// of the socket.
func TestUpgradeBrokenAtOnce(t *testing.T) {
	if !peek.CanAwaitMore {
		t.Skip("what a client sends is taken out of the socket on this system if it comes in several pieces")
	}
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	request := "GET / HTTP/1.1\r\n" + upgradeHead + "\r\n"
	looked := make(chan struct{})
	m.Route(Route{Matchers: []Matcher{MatcherFunc(func(p *Preview) Verdict {
		if p.stream == nil {
			return No
		}
		close(looked)
		var rest peek.Peeker
		rest.Init(p.conn, &m.buffers)
		rest.Peek(len(request), true)
		rest.Release()
		return Yes
	})}, Upgrade: true})
	serve(t, m)
	client := dial(t, root)
	write(t, client, []byte(request))
	<-looked
	write(t, client, []byte("GET / HTTP/1.1\r\n"))
	if resp, err := http.ReadResponse(bufio.NewReader(client), nil); err != nil || resp.StatusCode != 400 {
		t.Errorf("answered %v, %v", resp, err)
	}
}

// endMark ends the client's side of a connection of halfClosing's.
const endMark = "\xff the end"

// halfClosing is a listener of in-memory connections whose clients can end their side.
type halfClosing struct{ *pipeListener }

func (l halfClosing) Accept() (net.Conn, error) {
	c, err := l.pipeListener.Accept()
	if err != nil {
		return nil, err
	}
	return &halfClosed{Conn: c}, nil
}

type halfClosed struct {
	net.Conn
	ended bool
}

func (c *halfClosed) Read(p []byte) (int, error) {
	if c.ended {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p)
	if b, ok := bytes.CutSuffix(p[:n], []byte(endMark)); ok {
		c.ended = true
		n = len(b)
		if n == 0 {
			return 0, io.EOF
		}
	}
	return n, err
}

// TestUpgradeShutdown checks that an upgrade in progress does not delay the shutdown.
func TestUpgradeShutdown(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	refused := watchRefusals(m)
	m.Route(Route{Matchers: []Matcher{HTTP2()}, Upgrade: true})
	serve(t, m)
	client := dial(t, root)
	write(t, client, []byte("GET / HTTP/1.1\r\n"+upgradeHead+"\r\n"))
	if resp, err := http.ReadResponse(bufio.NewReader(client), nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("answered %v, %v", resp, err)
	}
	go io.Copy(io.Discard, client)
	go func() {
		client.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if err := m.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if r := <-refused; r.Reason != ReasonShutdown && r.Reason != ReasonClientClosed {
		t.Errorf("refused for %v", r.Reason)
	}
}
