package oneport

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// handled is what a handler of net/http sees of a request.
type handled struct {
	Method, Target, Path, Host string
	Header                     http.Header
}

// A bareServer is net/http's, which is fed with the bytes of one connection after the other.
type bareServer struct{ conns chan net.Conn }

func newBareServer(tb testing.TB) *bareServer {
	s := &bareServer{make(chan net.Conn)}
	server := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, scriptedKey{}, c)
		},
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c := r.Context().Value(scriptedKey{}).(*scriptedConn)
			c.answer(&handled{r.Method, r.RequestURI, r.URL.Path, r.Host, r.Header.Clone()})
		}),
		Protocols:                    new(http.Protocols),
		DisableGeneralOptionsHandler: true,
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error)
	go func() { done <- server.Serve(s) }()
	tb.Cleanup(func() {
		close(s.conns)
		<-done
		server.Close()
	})
	return s
}

// handle returns what the handler sees of the first request, or nil if the server refuses it. The client waits for that
// to end its side if its request is complete.
func (s *bareServer) handle(data []byte, complete bool) *handled {
	c := &scriptedConn{complete: complete, r: bytes.NewReader(data), answered: make(chan struct{}), closed: make(chan struct{})}
	s.conns <- c
	<-c.answered
	<-c.closed
	return c.handled
}

func (s *bareServer) Accept() (net.Conn, error) {
	if c, ok := <-s.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (s *bareServer) Close() error   { return nil }
func (s *bareServer) Addr() net.Addr { return &net.TCPAddr{} }

type scriptedKey struct{}

// A scriptedConn is a connection whose client has sent all it will, and ends its side when the server has answered.
type scriptedConn struct {
	net.Conn
	complete bool
	r        *bytes.Reader
	handled  *handled
	once     sync.Once
	answered chan struct{}
	closing  sync.Once
	closed   chan struct{}
	written  []byte
}

func (c *scriptedConn) answer(h *handled) {
	c.once.Do(func() {
		c.handled = h
		close(c.answered)
	})
}

func (c *scriptedConn) Read(b []byte) (int, error) {
	if c.r.Len() == 0 && c.complete {
		select {
		case <-c.answered:
		case <-c.closed:
		}
	}
	return c.r.Read(b)
}

func (c *scriptedConn) Write(b []byte) (int, error) {
	if c.written = append(c.written, b...); bytes.HasPrefix(c.written, []byte("HTTP/1")) {
		c.answer(nil)
	}
	for len(c.written) >= h2.FrameHeaderLen {
		h := h2.ParseFrameHeader(c.written)
		if len(c.written) < h2.FrameLen(h) {
			break
		}
		switch h.Type {
		case http2.FrameHeaders, http2.FrameRSTStream, http2.FrameGoAway:
			c.answer(nil)
		}
		c.written = c.written[h2.FrameLen(h):]
	}
	return len(b), nil
}

func (c *scriptedConn) Close() error {
	c.closing.Do(func() { close(c.closed) })
	c.answer(nil)
	return nil
}

func (c *scriptedConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *scriptedConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *scriptedConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptedConn) SetWriteDeadline(time.Time) error { return nil }

// flightOf returns the first bytes of a client. For HTTP/1 the text is what it sends. For HTTP/2 it is the field
// section, with a line for each field: the name, a space, and the value.
func flightOf(isHTTP2 bool, text string) []byte {
	if !isHTTP2 {
		return []byte(text)
	}
	var list []string
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		list = append(list, name, value)
	}
	b := h2.AppendSettings([]byte(h2.Preface))
	return h2.AppendHeaders(b, 1, true, nil, hpackBlock(list...), h2.DefaultMaxFrameSize)
}

// withoutDifferences removes from the header fields what net/http does not hand to handlers as it was sent. The list is
// in docs/security.md.
func withoutDifferences(isHTTP2 bool, header http.Header) http.Header {
	header = header.Clone()
	for name := range header {
		switch name {
		case "Transfer-Encoding", "Trailer", "Expect", "Content-Length", // about the content, in other fields of Request
			"Cache-Control": // made of Pragma
			delete(header, name)
		case "Host":
			if !isHTTP2 {
				delete(header, name) // Request.Host
			}
		case ":protocol":
			delete(header, name)
		}
	}
	return header
}

// checkReading compares what matchers see of a request with what a handler of net/http sees.
func checkReading(t *testing.T, s *bareServer, isHTTP2 bool, text string) (served bool) {
	data := flightOf(isHTTP2, text)
	p := previewOf(data)
	got, verdict := p.Request()
	if verdict != Yes {
		if verdict == No && p.Protocol() == ProtocolHTTP1 && s.handle(data, false) != nil {
			t.Fatalf("%q: net/http serves what is no request to matchers", text)
		}
		return false
	}
	want := s.handle(data, true)
	if want == nil {
		return false // whatever the route is, the server refuses it
	}
	if want.Path == "" && got.Path == "/" {
		want.Path = "/" // http://example.com
	}
	if isHTTP2 && want.Method == http.MethodConnect {
		want.Target = got.Target // net/http has the authority there
	}
	seen := &handled{got.Method, got.Target, got.Path, got.Host, withoutDifferences(isHTTP2, got.Header)}
	want.Header = withoutDifferences(isHTTP2, want.Header)
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Fatalf("HTTP/2 %t, %q: net/http (-) and Preview.Request (+):\n%s", isHTTP2, text, diff)
	}

	type check struct {
		m    Matcher
		want bool
	}
	name := strings.ToLower(want.Host)
	if hasPort(name) {
		name = name[:strings.LastIndexByte(name, ':')]
	}
	checks := []check{
		{Path("/admin"), strings.HasPrefix(want.Path, "/admin")},
		{Path(want.Path + "x"), false},
		{Host("admin.example"), name == "admin.example"},
		{Host("x" + name), false},
		{Header("cookie", "a=1; b=2"), slices.Contains(want.Header["Cookie"], "a=1; b=2")},
		{Header("X-No-Such-Field", ""), false},
	}
	if want.Path != "" {
		checks = append(checks, check{Path(want.Path), true})
	}
	if name != "" && !strings.HasPrefix(name, "*") {
		// With two colons it is no host by RFC 3986, and what is left of it would be a pattern with a port.
		checks = append(checks, check{Host(name), !hasPort(name)}, check{Host(want.Host), true})
	}
	for name, values := range want.Header {
		if textproto.CanonicalMIMEHeaderKey(name) != name || strings.HasPrefix(name, "X-No-Such") {
			continue
		}
		for _, v := range values {
			checks = append(checks, check{Header(name, v), true}, check{HeaderPrefix(strings.ToUpper(name), v), true})
		}
		checks = append(checks, check{Header(name, strings.Join(values, "")+"x"), false})
	}
	for _, c := range checks {
		if _, v := decidesAt(t, c.m, data); v != matchIf(c.want) {
			t.Fatalf("HTTP/2 %t, %q: %v says %v, net/http has host %q, path %q, header %q",
				isHTTP2, text, c.m, v, want.Host, want.Path, want.Header)
		}
	}
	return true
}

// twoPorts is a request that net/http takes, but not that of Go 1.26.0.
const twoPorts = "GET x://admin.example:80:80 HTTP/1.1\r\nHost: a\r\n\r\n"

// readings are requests of which matchers and net/http could have different views.
var readings = []struct {
	isHTTP2 bool
	text    string
	refused bool // by net/http
}{
	{false, "GET /admin HTTP/1.1\r\nHost: admin.example\r\n\r\n", false},
	{false, "GET /%61dmin?x=/y HTTP/1.1\r\nHost: ADMIN.example:80\r\n\r\n", false},
	{false, "GET /a/../admin//x/./y;z HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{false, "GET //admin.example/x HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{false, "GET /\\admin#x?y#z HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{false, "GET http://u:p@admin.example:80/%2fadmin HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{false, "GET http://admin.example HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{false, "OPTIONS http://admin.example?x HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{false, twoPorts, false},
	{false, "GET http:///admin HTTP/1.1\r\nHost: admin.example\r\n\r\n", false},
	{false, "GET http:/admin HTTP/1.1\r\nHost: admin.example\r\n\r\n", false},
	{false, "GET urn:admin HTTP/1.1\r\nHost: admin.example\r\n\r\n", false},
	{false, "GET http://%e2%82%ac/ HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{false, "GET http://%61dmin.example/ HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{false, "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", true},
	{false, "GET / HTTP/1.1\r\nHost: a\r\nHost: admin.example\r\n\r\n", true},
	{false, "GET / HTTP/1.0\r\n\r\n", false},
	{false, "GET / HTTP/1.1\nHost: a\nX: 1 \n y\nx:  2\nX:\n\n", false},
	{false, "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n \t\r\n \r\nY:\n \n\n", false},
	{false, "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\ncookie: b=2\r\n\r\n", false},
	{false, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nExpect: 100-continue\r\nPragma: no-cache\r\n\r\n0\r\n\r\n", false},
	{false, "CONNECT admin.example:443 HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{false, "CONNECT /admin HTTP/1.1\r\nHost: admin.example\r\n\r\n", false},
	{false, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{false, "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", true},

	{true, ":method GET\n:scheme http\n:path /admin\n:authority admin.example\n", false},
	{true, ":authority Admin.Example:80\n:path /%61dmin?x\n:scheme https\n:method GET\nhost other\n", false},
	{true, ":method GET\n:scheme http\n:path http://admin.example/admin?x\n:authority a\n", false},
	{true, ":method GET\n:scheme http\n:path http://admin.example\n:authority a\n", false},
	{true, ":method GET\n:scheme http\n:path //h/admin\n:authority \nhost admin.example\n", false},
	{true, ":method GET\n:scheme http\n:path /\nhost admin.example\nhost b\n", false},
	{true, ":method GET\n:scheme http\n:path /\n", false},
	{true, ":method GET\n:scheme http\n:path urn:admin\n:authority a\n", false},
	{true, ":method OPTIONS\n:scheme http\n:path *\n:authority a\n", false},
	{true, ":method GET\n:scheme http\n:path /\n:authority a\ncookie a=1\nx y\ncookie b=2\n", false},
	{true, ":method GET\n:scheme http\n:path /\n:authority a\nx  y \nx z\nexpect 100-continue\ntrailer x\npragma no-cache\n", false},
	{true, ":method CONNECT\n:authority admin.example:443\n", false},
	{true, ":method GET\n:scheme http\n:path /a\n:path /admin\n:authority a\n", true},
	{true, ":method GET\n:scheme http\n:path /\n:authority a\n:authority admin.example\n", true},
	{true, ":method GET\n:scheme http\n:path /\nhost a\n:authority admin.example\n", true},
	{true, ":method GET\n:scheme http\n:path /\n:authority u@admin.example\n", true},
	{true, ":method GET\n:scheme http\n:path admin\n:authority a\n", true},
	{true, ":method GET\n:scheme http\n:path /%zz\n:authority a\n", true},
	{true, ":method GET\n:scheme http\n:path /a\tb\n:authority a\n", true},
	{true, ":method GET\n:scheme http\n:path /\n:authority a\nCookie a=1; b=2\n", true},
	{true, ":method GET\n:scheme http\n:path /\n:authority a\nconnection close\n", true},
}

// TestReading checks that matchers see the request that net/http serves, or that net/http refuses it: what a matcher
// has decided then is no way around a rule.
func TestReading(t *testing.T) {
	t.Parallel()
	s := newBareServer(t)
	for _, tt := range readings {
		if served := checkReading(t, s, tt.isHTTP2, tt.text); served == tt.refused && tt.text != twoPorts {
			t.Errorf("HTTP/2 %t, %q: served %t", tt.isHTTP2, tt.text, served)
		}
	}
}

func FuzzReading(f *testing.F) {
	s := newBareServer(f)
	for _, r := range readings {
		f.Add(r.isHTTP2, r.text)
	}
	f.Fuzz(func(t *testing.T, isHTTP2 bool, text string) {
		if len(text) > 1<<10 {
			t.Skip("checking every prefix takes too long")
		}
		checkReading(t, s, isHTTP2, text)
	})
}
