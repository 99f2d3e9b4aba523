package interop

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/testenv"
)

// TestUpgrade has clients that know HTTP/2 in cleartext by Upgrade only, or prefer it, get answers of HTTP/2 from
// net/http and grpc-go, to the request that was upgraded and to those that follow on the connection.
func TestUpgrade(t *testing.T) {
	content := tempFile(t, []byte("some content"))
	call := []string{"-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@" + tempFile(t, []byte(checkRequest))}
	const many = 201
	for _, tt := range []struct {
		name  string
		get   func(t *testing.T, addr string) string
		route string
		want  string
	}{
		{"curl", curlUpgrade("/"), "http", "net/http by HTTP/2.0"},
		{"curl, POST", curlUpgrade("/", "--data-binary", "@"+content), "http", "net/http by HTTP/2.0, got some content"},
		{"curl, many requests", curlUpgrade(fmt.Sprintf("/[1-%d]", many)), "http", strings.Repeat("net/http by HTTP/2.0", many)},
		{"curl, gRPC", curlUpgrade(checkPath, call...), "grpc", checkResponse},
		{"curl, gRPC, many calls", curlUpgrade(checkPath+strings.Repeat(" "+checkPath, many-1), call...), "grpc", strings.Repeat(checkResponse, many)},
		{"nghttp", nghttpUpgrade(), "http", "net/http by HTTP/2.0"},
		{"nghttp, many requests", nghttpUpgrade("-m", fmt.Sprint(many)), "http", strings.Repeat("net/http by HTTP/2.0", many)},
		// It upgrades with OPTIONS, and then sends the request that it was asked for.
		{"nghttp, POST", nghttpUpgrade("-d", content), "http", "net/http by HTTP/2.0, got some content"},
		{"Java", javaUpgrade(many), "http", "HTTP_2 net/http by HTTP/2.0\nHTTP_2 net/http by HTTP/2.0, got some content\nHTTP_2 net/http by HTTP/2.0\n"},
		{"Go", goUpgrade("GET", "/", "", func(c *strictClient, addr string, fill []hpack.HeaderField) (string, error) {
			return c.do("GET", "/", addr, "", fill...)
		}), "http", "net/http by HTTP/2.0"},
		{"Go, POST", goUpgrade("POST", "/", "some content", func(c *strictClient, addr string, fill []hpack.HeaderField) (string, error) {
			return c.do("POST", "/", addr, "some content", fill...)
		}), "http", "net/http by HTTP/2.0, got some content"},
		{"Go, gRPC", goUpgrade("POST", checkPath, checkRequest, func(c *strictClient, addr string, fill []hpack.HeaderField) (string, error) {
			return checkResponse, c.check(addr, fill...)
		}), "grpc", checkResponse},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPort(t)
			p.upgrading(t)
			p.start(t)
			if got := tt.get(t, p.addr); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			p.wantMatch(t, tt.route, oneport.ProtocolHTTP2, false)
			if n := p.Stats().Upgraded; n != 1 {
				t.Errorf("%d connections were upgraded, want 1", n)
			}
		})
	}
}

// curlUpgrade has curl send requests for the paths, between which there are spaces.
func curlUpgrade(paths string, options ...string) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string {
		testenv.Program(t, "curl")
		argv := append([]string{"curl", "--http2", "--no-progress-meter", "--fail", "--noproxy", "*"}, options...)
		for path := range strings.FieldsSeq(paths) {
			argv = append(argv, "http://"+addr+path)
		}
		return output(t, argv...)
	}
}

func nghttpUpgrade(options ...string) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string {
		testenv.Program(t, "nghttp")
		return output(t, append(append([]string{"nghttp", "--upgrade"}, options...), "http://"+addr+"/")...)
	}
}

func javaUpgrade(requests int) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string {
		testenv.Program(t, "java")
		return output(t, "java", "testdata/java/Get.java", "http://"+addr+"/", fmt.Sprint(requests))
	}
}

// goUpgrade upgrades with a request, and sends 200 more whose fields go through the client's dynamic table several
// times over.
func goUpgrade(method, path, content string, next func(*strictClient, string, []hpack.HeaderField) (string, error)) func(*testing.T, string) string {
	return func(t *testing.T, addr string) string {
		c, first, err := dialUpgrade(addr, method, path, content)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 200 {
			fill := []hpack.HeaderField{
				{Name: "x-new", Value: strings.Repeat(fmt.Sprint(i%90+10), 50)},
				{Name: "x-repeated", Value: fmt.Sprint(i / 10)}, // found in the table
			}
			got, err := next(c, addr, fill)
			if err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			if got != first {
				t.Fatalf("request %d: got %q, and %q before", i, got, first)
			}
		}
		if c.acknowledged != 1 {
			t.Errorf("the client's SETTINGS were acknowledged %d times, want once", c.acknowledged)
		}
		return first
	}
}

// dialUpgrade connects, asks for an upgrade, and returns the content of the answer as well.
func dialUpgrade(addr, method, path, content string) (*strictClient, string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, "", err
	}
	c, answer, err := upgrade(conn, addr, method, path, content)
	if err != nil {
		conn.Close()
	}
	return c, answer, err
}

func upgrade(conn net.Conn, addr, method, path, content string) (*strictClient, string, error) {
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fields := ""
	if path == checkPath {
		fields = "Content-Type: application/grpc\r\nTE: trailers\r\n"
	}
	_, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade, HTTP2-Settings, TE\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n"+
		"%sContent-Length: %d\r\n\r\n%s", method, path, addr, fields, len(content), content)
	if err != nil {
		return nil, "", err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, "", err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		b, err := io.ReadAll(resp.Body)
		//nolint:errorlint // the error may be nil
		return nil, "", fmt.Errorf("not upgraded: %s %q, %v", resp.Status, b, err)
	}
	c := &strictClient{Conn: conn, framer: http2.NewFramer(conn, r), stream: 3}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	if err := c.begin(); err != nil {
		return nil, "", err
	}
	answer, err := c.response(1)
	return c, answer, err
}

// TestNotUpgraded has curl ask for an upgrade in a way that is to be served by HTTP/1.1.
func TestNotUpgraded(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	p.upgrading(t)
	p.start(t)
	big := tempFile(t, bytes.Repeat([]byte("x"), 70_000)) // more than a window
	for _, tt := range []struct {
		name    string
		options []string
		want    string
	}{
		{"two HTTP2-Settings", []string{"-H", "http2-settings: AAMAAABk"}, "net/http by HTTP/1.1"},
		{"too much content", []string{"--data-binary", "@" + big}, "net/http by HTTP/1.1, got " + strings.Repeat("x", 70_000)},
		{"chunked content", []string{"--data-binary", "x", "-H", "transfer-encoding: chunked"}, "net/http by HTTP/1.1, got x"},
		{"expects 100", []string{"--data-binary", "x", "-H", "expect: 100-continue"}, "net/http by HTTP/1.1, got x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := curlUpgrade("/", tt.options...)(t, p.addr); got != tt.want {
				t.Errorf("got %.100q, want %.100q", got, tt.want)
			}
		})
	}
	t.Cleanup(func() {
		if n := p.Stats().Upgraded; n != 0 {
			t.Errorf("%d connections were upgraded", n)
		}
	})
}
