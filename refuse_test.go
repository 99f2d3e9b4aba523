package oneport

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	refusing "github.com/oneport-go/oneport/internal/refusal"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

func hpackBlock(list ...string) []byte {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	for i := 0; i < len(list); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]})
	}
	return buf.Bytes()
}

// frames reads HTTP/2 frames to the end of the connection.
func frames(t *testing.T, c net.Conn) (settings int, goAway *http2.GoAwayFrame, debug string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	fr := http2.NewFramer(nil, c)
	for n := 0; ; n++ {
		f, err := fr.ReadFrame()
		if err == io.EOF {
			return settings, goAway, debug
		}
		if err != nil {
			t.Fatalf("reading frames: %v", err)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if settings++; n > 0 {
				t.Error("SETTINGS is not the first frame (RFC 9113, Section 3.4)")
			}
		case *http2.GoAwayFrame:
			goAway, debug = f, string(f.DebugData())
		case *http2.HeadersFrame, *http2.DataFrame, *http2.RSTStreamFrame: // see TestRefusedOnStream
			if goAway != nil {
				t.Errorf("%v comes after GOAWAY", f)
			}
		default:
			t.Errorf("unexpected frame %v", f)
		}
	}
}

// TestRefusedHTTP2 checks the error codes with which HTTP/2 clients are refused, with early SETTINGS and without.
func TestRefusedHTTP2(t *testing.T) {
	t.Parallel()
	start := string(h2.AppendSettings([]byte(h2.Preface)))
	unrouted := string(headerFlight(":method", "GET", ":path", "/"))
	for _, tt := range []struct {
		name  string
		sends string
		code  http2.ErrCode
		last  uint32
		debug string
	}{
		{"no route", unrouted, http2.ErrCodeNo, 1, "No server on this port takes this request."},
		{"first frame not SETTINGS", h2.Preface + "\x00\x00\x08\x06\x00\x00\x00\x00\x00", http2.ErrCodeProtocol, 0, "SETTINGS"},
		{"DATA on an idle stream", start + "\x00\x00\x00\x00\x00\x00\x00\x00\x01", http2.ErrCodeProtocol, 0, "DATA frame before any HEADERS"},
		{"PING of a bad length", start + "\x00\x00\x07\x06\x00\x00\x00\x00\x00", http2.ErrCodeFrameSize, 0, "PING"},
		{"bad HPACK", start + "\x00\x00\x01\x01\x05\x00\x00\x00\x01\x80", http2.ErrCodeCompression, 0, ""},
		{"frame between HEADERS and CONTINUATION", start + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82\x00\x00\x08\x06\x00\x00\x00\x00\x00", http2.ErrCodeProtocol, 0, "PING frame in a header block"},
		{"too many frames", start + strings.Repeat("\x00\x00\x08\x06\x00\x00\x00\x00\x00abcdefgh", 100), http2.ErrCodeEnhanceYourCalm, 0, "frames"},
		{"header list too long", string(headerFlight("x", strings.Repeat("a", 3000))), http2.ErrCodeNo, 1, "The head of the request is too long."},
	} {
		for _, early := range []bool{false, true} {
			t.Run(tt.name+map[bool]string{true: ", after early SETTINGS"}[early], func(t *testing.T) {
				t.Parallel()
				root := listen(t, "tcp")
				m := newMux(root)
				m.MaxHeaderListBytes = 1000
				m.Match(Header("to", "me"))
				refused := watchRefusals(m)
				serve(t, m)
				client := dial(t, root)
				sends, wantSettings := []byte(tt.sends), 1
				if early {
					write(t, client, sends[:24])
					if _, err := io.ReadFull(client, make([]byte, 15)); err != nil {
						t.Fatal(err)
					}
					sends, wantSettings = sends[24:], 0
				}
				write(t, client, sends)
				settings, goAway, debug := frames(t, client)
				if goAway == nil || goAway.ErrCode != tt.code || goAway.LastStreamID != tt.last || !strings.Contains(debug, tt.debug) {
					t.Errorf("got %v %q, want %v, last stream %d, with %q", goAway, debug, tt.code, tt.last, tt.debug)
				}
				if settings != wantSettings {
					t.Errorf("got %d SETTINGS frames more, want %d", settings, wantSettings)
				}
				r := <-refused
				want := ReasonProtocolError
				switch tt.name {
				case "no route":
					want = ReasonNoRoute
				case "header list too long":
					want = ReasonTooLong
				}
				if r.Reason != want {
					t.Errorf("refused for %v, want %v", r.Reason, want)
				}
				if r.EarlySettings != early || r.Protocol != ProtocolHTTP2 {
					t.Errorf("%+v", r)
				}
				if msg := r.Err.Error(); !strings.Contains(msg, client.LocalAddr().String()) || !strings.Contains(msg, client.RemoteAddr().String()) {
					t.Errorf("the error does not name the connection: %v", msg)
				}
			})
		}
	}
}

// TestRefusedOnStream checks that an HTTP/2 request is answered on its stream, as a gRPC call if it is one, within the
// client's window, before GOAWAY.
func TestRefusedOnStream(t *testing.T) {
	t.Parallel()
	flight := func(ended bool, settings []http2.Setting, list ...string) string {
		b := h2.AppendSettings([]byte(h2.Preface), settings...)
		return string(h2.AppendHeaders(b, 5, ended, nil, hpackBlock(list...), h2.DefaultMaxFrameSize))
	}
	long := strings.Repeat("x", 2000)
	noWindow := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}
	const notFound = "No server on this port takes this request.\n"
	for _, tt := range []struct {
		name  string
		sends string
		want  string // the fields, the content, and the error code of RST_STREAM
	}{
		{"GET", flight(true, nil, ":method", "GET", ":path", "/"),
			":status 404, content-type text/plain; charset=utf-8, content-length 43 | " + notFound},
		{"HEAD", flight(true, nil, ":method", "HEAD", ":path", "/"),
			":status 404, content-type text/plain; charset=utf-8, content-length 43 | "},
		{"POST", flight(false, nil, ":method", "POST", ":path", "/"),
			":status 404, content-type text/plain; charset=utf-8, content-length 43 | " + notFound + "NO_ERROR"},
		{"without a window", flight(true, noWindow, ":method", "GET", ":path", "/"), ":status 404 | "},
		{"gRPC", flight(false, noWindow, ":method", "POST", ":path", "/a/b", "content-type", "application/grpc+proto"),
			":status 200, content-type application/grpc, grpc-status 12, grpc-message No server on this port takes this request. | NO_ERROR"},
		{"header list", flight(true, nil, ":method", "GET", "a", long),
			":status 431, content-type text/plain; charset=utf-8, content-length 37 | The head of the request is too long.\n"},
		{"gRPC, header list", flight(true, nil, ":method", "POST", "content-type", "application/grpc", "a", long),
			":status 200, content-type application/grpc, grpc-status 8, grpc-message The head of the request is too long. | "},
		{"unfinished field section", flight(true, nil, ":method", "GET", "a", strings.Repeat("x", 900))[:700],
			":status 408, content-type text/plain; charset=utf-8, content-length 36 | The request did not arrive in time.\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				m.MaxHeaderListBytes = 1000
				m.Match(Header("to", "me"))
				serve(t, m)
				client := dial(t, root)
				go client.Write([]byte(tt.sends))
				fr := http2.NewFramer(nil, client)
				fr.ReadMetaHeaders = hpack.NewDecoder(h2.DefaultTableSize, nil)
				var got strings.Builder
				for {
					f, err := fr.ReadFrame()
					if err != nil {
						t.Fatal(err)
					}
					if h := f.Header(); h.StreamID != 0 && h.StreamID != 5 {
						t.Errorf("%v on another stream", h)
					}
					switch f := f.(type) {
					case *http2.MetaHeadersFrame:
						for i, field := range f.Fields {
							if i > 0 {
								got.WriteString(", ")
							}
							got.WriteString(field.Name + " " + field.Value)
						}
						got.WriteString(" | ")
					case *http2.DataFrame:
						got.Write(f.Data())
					case *http2.RSTStreamFrame:
						got.WriteString(f.ErrCode.String())
					case *http2.GoAwayFrame:
						if f.ErrCode != http2.ErrCodeNo || f.LastStreamID != 5 {
							t.Errorf("%v, want NO_ERROR with stream 5", f)
						}
						if got.String() != tt.want {
							t.Errorf("got  %s\nwant %s", got.String(), tt.want)
						}
						return
					}
				}
			})
		})
	}
}

func TestRefusedHTTP1(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sends  string
		status int
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404},
		{"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 404},
		{"EHLO example.com\r\n", 400},
		{"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
		{"GET / HTTP/3.0\r\n", 505},
		{"GET /\r\n", 400},
	} {
		t.Run(tt.sends, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			m.Match(Header("To", "me"))
			serve(t, m)
			client := dial(t, root)
			write(t, client, []byte(tt.sends))
			client.SetReadDeadline(time.Now().Add(10 * time.Second))
			answer, err := io.ReadAll(client)
			if err != nil {
				t.Fatal(err)
			}
			method, _, _ := strings.Cut(tt.sends, " ")
			resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), &http.Request{Method: method})
			if err != nil {
				t.Fatalf("%v in %q", err, answer)
			}
			content, err := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.status || !resp.Close || err != nil || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("got %q", answer)
			}
			if _, err := http.ParseTime(resp.Header.Get("Date")); err != nil {
				t.Errorf("Date: %v", err)
			}
			_, after, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
			if method == "HEAD" {
				if len(after) != 0 {
					t.Errorf("the answer to HEAD has content: %q", after)
				}
			} else if !strings.HasSuffix(string(content), ".\n") || len(after) != len(content) {
				t.Errorf("the content is %q", after)
			}
		})
	}
}

func TestRefusedTLS(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	m.Match(HTTP1(), GRPC())
	serve(t, m)
	c, err := tls.Dial("tcp", root.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		c.Close()
	}
	if alert, ok := errors.AsType[tls.AlertError](err); !ok || alert != refusing.AlertHandshakeFailure {
		if opErr, ok := errors.AsType[*net.OpError](err); !ok || !strings.Contains(opErr.Error(), "handshake failure") {
			t.Errorf("the client got %v, want the alert handshake_failure", err)
		}
	}
}

// TestMalformedTLS checks that what begins as TLS and is no ClientHello gets the alert that crypto/tls would send.
func TestMalformedTLS(t *testing.T) {
	t.Parallel()
	for _, sends := range []string{"\x16\x03\x01\x00\x00\x01", "\x16\x03\x01\x00\x04\x02\x00\x00\x00", "\x16\x03\x03\x00\x05\x0e\x00\x00\x01\x00"} {
		for _, routes := range []func(*Mux){
			func(m *Mux) { m.Match(HTTP1(), GRPC()) },
			func(m *Mux) { m.TLS(serverTLS()).Match(Any()) },
			func(m *Mux) { m.Match(ServerName("a")) },
		} {
			root := listen(t, "tcp")
			m := newMux(root)
			routes(m)
			serve(t, m)
			client := dial(t, root)
			write(t, client, []byte(sends))
			client.SetReadDeadline(time.Now().Add(10 * time.Second))
			want := string(refusing.AppendAlert(nil, refusing.AlertUnexpectedMessage))
			if b, err := io.ReadAll(client); string(b) != want || err != nil {
				t.Errorf("%q: the client read %q, %v, want %q", sends, b, err, want)
			}
		}
	}
}

// TestRefusedUnknown checks that a client whose language is not known sees a plain end, not a reset.
func TestRefusedUnknown(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	m.Match(HTTP1(), GRPC())
	serve(t, m)
	client := dial(t, root)
	write(t, client, []byte("\x00\x01\x02rubbish"))
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if b, err := io.ReadAll(client); len(b) != 0 || err != nil {
		t.Errorf("the client read %q, %v", b, err)
	}
}

// TestAnswerSurvives checks that the client can read the whole answer although it goes on sending: closing a socket
// with unread bytes would reset the connection.
func TestAnswerSurvives(t *testing.T) {
	t.Parallel()
	for _, sends := range []string{
		"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n",
		string(headerFlight(":method", "POST", ":path", "/")),
	} {
		root := listen(t, "tcp")
		m := newMux(root)
		m.Match(Prefix("x"))
		serve(t, m)
		for range 20 {
			client := dial(t, root)
			sent := make(chan error, 1)
			go func() {
				_, err := io.WriteString(client, sends+strings.Repeat("x", 200_000))
				sent <- err
			}()
			if err := <-sent; err != nil {
				t.Errorf("sending failed: %v", err)
			}
			client.SetReadDeadline(time.Now().Add(10 * time.Second))
			if b, err := io.ReadAll(client); err != nil || !strings.Contains(string(b), "No server on this port") {
				t.Errorf("the client read %q, %v", b, err)
			}
			client.Close()
		}
	}
}

// halfCloser is an in-memory connection that has a writing side to close.
type halfCloser struct{ net.Conn }

func (halfCloser) CloseWrite() error { return nil }

type halfCloserListener struct{ *pipeListener }

func (l halfCloserListener) Accept() (net.Conn, error) {
	c, err := l.pipeListener.Accept()
	if err != nil {
		return nil, err
	}
	return halfCloser{c}, nil
}

// TestLingerIsBounded checks that a refused client that does not close, or goes on sending, is disconnected.
func TestLingerIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		chunk int           // sent again and again
		pause time.Duration // after each chunk
		time  time.Duration // how long that goes well
		bytes int
	}{
		{name: "does not close", pause: time.Hour, chunk: 1, time: time.Hour, bytes: 1},
		{name: "sends slowly", pause: 300 * time.Millisecond, chunk: 1, time: 1200 * time.Millisecond, bytes: 4},
		{name: "sends fast", chunk: 16 << 10, bytes: refusing.LingerBytes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(halfCloserListener{root})
				m.Match(Prefix("x"))
				serve(t, m)
				client := dial(t, root)
				write(t, client, []byte("GET / HTTP/1.1\r\n\r\n"))
				readResponse(t, client)
				start, sent := time.Now(), 0
				chunk := make([]byte, tt.chunk)
				for {
					n, err := client.Write(chunk)
					sent += n
					if err != nil {
						break
					}
					time.Sleep(tt.pause)
				}
				if got := time.Since(start); got != tt.time || sent != tt.bytes {
					t.Errorf("the connection was closed after %v and %d bytes, want %v and %d", got, sent, tt.time, tt.bytes)
				}
				synctest.Wait()
				if s := m.Stats(); s.Refusing != 0 {
					t.Errorf("%d connections are still being refused", s.Refusing)
				}
			})
		})
	}
}

// TestLeavingIsBounded checks that a flood of refused clients that do not close has no more connections open than
// MaxUndecided allows twice.
func TestLeavingIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(halfCloserListener{root})
		m.MaxUndecided = 5
		m.Match(Prefix("x"))
		serve(t, m)
		for range 100 {
			client := dial(t, root)
			write(t, client, []byte("GET / HTTP/1.1\r\n\r\n"))
			readResponse(t, client)
			synctest.Wait()
			if s := m.Stats(); s.Refusing > 5 {
				t.Fatalf("%d connections are being refused at once", s.Refusing)
			}
		}
	})
}
