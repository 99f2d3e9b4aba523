package refusal

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/testenv"
)

// TestHTTP1 has net/http read responses.
func TestHTTP1(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 23, 59, 59, 0, time.FixedZone("", 3600))
	for _, tt := range []struct {
		name   string
		method string
		r      HTTP1
		header http.Header // beside those that all have
		body   string
	}{
		{"plain", "GET", HTTP1{Status: 404, Sentence: "No such thing."}, nil, "No such thing.\n"},
		{"more fields", "GET", HTTP1{Status: 308, Header: "Location: https://x/\r\nRetry-After: 1\r\n", Sentence: "Use https://x/"},
			http.Header{"Location": {"https://x/"}, "Retry-After": {"1"}}, "Use https://x/\n"},
		{"HEAD", "HEAD", HTTP1{Status: 503, Sentence: "Later.", NoBody: true}, nil, ""},
		{"without a sentence", "POST", HTTP1{Status: 408}, nil, "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before := "what was there"
			b := tt.r.Append([]byte(before), now)
			rest, ok := strings.CutPrefix(string(b), before)
			if !ok {
				t.Fatalf("Append changed what was there: %q", b)
			}
			in := bufio.NewReader(strings.NewReader(rest))
			res, err := http.ReadResponse(in, &http.Request{Method: tt.method})
			if err != nil {
				t.Fatalf("%v in %q", err, rest)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if string(body) != tt.body || err != nil || in.Buffered() > 0 {
				t.Errorf("content %q, %v, %d bytes behind it", body, err, in.Buffered())
			}
			if res.StatusCode != tt.r.Status || !res.Close || res.ProtoMinor != 1 || res.ContentLength != int64(len(tt.r.Sentence)+1) {
				t.Errorf("%s, closes %v, HTTP/1.%d, length %d", res.Status, res.Close, res.ProtoMinor, res.ContentLength)
			}
			if want := http.StatusText(tt.r.Status); !strings.HasSuffix(res.Status, " "+want) {
				t.Errorf("status %q, want %q", res.Status, want)
			}
			if date, err := http.ParseTime(res.Header.Get("Date")); err != nil || !date.Equal(now) {
				t.Errorf("Date %v, %v", date, err)
			}
			want := http.Header{"Date": res.Header["Date"], "Content-Type": {"text/plain; charset=utf-8"},
				"Content-Length": res.Header["Content-Length"]}
			for name, values := range tt.header {
				want[name] = values
			}
			for name, values := range res.Header {
				if !slices.Equal(values, want[name]) {
					t.Errorf("%s: %q, want %q", name, values, want[name])
				}
			}
			if len(res.Header) != len(want) {
				t.Errorf("header %v, want %v", res.Header, want)
			}
		})
	}
}

// TestHTTP2 has x/net read the frames.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1<<20)
	for _, r := range []HTTP2{
		{Code: http2.ErrCodeRefusedStream, Sentence: "No route."},
		{Started: true, Code: http2.ErrCodeNo, Sentence: "Shutting down."},
		{Code: http2.ErrCodeEnhanceYourCalm},
		{Code: http2.ErrCodeProtocol, Sentence: long},
	} {
		b := r.Append([]byte("before"))
		rest, ok := bytes.CutPrefix(b, []byte("before"))
		if !ok {
			t.Fatalf("Append changed what was there: %.20q", b)
		}
		in := bytes.NewReader(rest)
		fr := http2.NewFramer(nil, in)
		fr.SetMaxReadFrameSize(h2.DefaultMaxFrameSize)
		if !r.Started {
			f, err := fr.ReadFrame()
			if s, ok := f.(*http2.SettingsFrame); err != nil || !ok || s.IsAck() || s.NumSettings() > 0 {
				t.Errorf("the first frame is %v, %v", f, err)
			}
		}
		f, err := fr.ReadFrame()
		g, ok := f.(*http2.GoAwayFrame)
		if err != nil || !ok {
			t.Fatalf("instead of GOAWAY %v, %v", f, err)
		}
		if g.LastStreamID != 0 || g.ErrCode != r.Code || !strings.HasPrefix(r.Sentence, string(g.DebugData())) ||
			len(g.DebugData()) < min(len(r.Sentence), 1000) {
			t.Errorf("%v, %.40q", g, g.DebugData())
		}
		if in.Len() > 0 {
			t.Errorf("%d bytes behind GOAWAY", in.Len())
		}
	}
}

// TestAlerts has crypto/tls read the alerts, in place of a ServerHello.
func TestAlerts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		alert []byte
		want  error
	}{
		{"handshake_failure", AppendAlert(nil, AlertHandshakeFailure), tls.AlertError(40)},
		{"internal_error", AppendAlert(nil, AlertInternalError), tls.AlertError(80)},
		{"decode_error", AppendAlert([]byte{}, 50), tls.AlertError(50)},
		{"close_notify", AppendCloseNotify(nil), io.EOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client, server := net.Pipe()
			defer client.Close()
			go func() {
				defer server.Close()
				io.ReadFull(server, make([]byte, 5)) // the header of the ClientHello's record
				go io.Copy(io.Discard, server)
				server.Write(tt.alert)
			}()
			err := tls.Client(client, &tls.Config{ServerName: "x"}).Handshake()
			if alert, ok := errors.AsType[tls.AlertError](err); ok {
				err = alert
			} else if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
				err = op.Err // which crypto/tls says in words of its own
				if err.Error() == tt.want.Error() {
					err = tt.want
				}
			}
			if err != tt.want {
				t.Errorf("the client says %v, want %v", err, tt.want)
			}
		})
	}
}

// A halfPipe is one end of a net.Pipe whose writing side can be closed.
type halfPipe struct {
	net.Conn
	noDeadline, noCloseWrite bool

	writeClosed, closed time.Time
	deadline            time.Time
	read                int
}

func (c *halfPipe) SetDeadline(t time.Time) error {
	if c.noDeadline {
		return os.ErrNoDeadline
	}
	c.deadline = t
	return c.Conn.SetDeadline(t)
}

func (c *halfPipe) CloseWrite() error {
	if c.noCloseWrite {
		return errors.ErrUnsupported
	}
	c.writeClosed = time.Now()
	return nil
}

func (c *halfPipe) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read += n
	return n, err
}

func (c *halfPipe) Close() error {
	c.closed = time.Now()
	return c.Conn.Close()
}

// TestSendBounds checks how long Send takes with clients of each kind, and how much of them it reads.
func TestSendBounds(t *testing.T) {
	t.Parallel()
	answer := "an answer"
	reads := func(c net.Conn) { io.ReadFull(c, make([]byte, len(answer))) }
	floods := func(c net.Conn) {
		for {
			if _, err := c.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
	}
	for _, tt := range []struct {
		name       string
		server     halfPipe
		client     func(net.Conn)
		takes      time.Duration
		min, max   int // bytes that are read
		halfClosed bool
	}{
		{"reads and closes", halfPipe{}, func(c net.Conn) { reads(c); c.Close() }, 0, 0, 0, true},
		{"reads and stays", halfPipe{}, reads, LingerTime, 0, 0, true},
		{"reads and closes later", halfPipe{}, func(c net.Conn) {
			reads(c)
			c.Write([]byte("more"))
			time.Sleep(LingerTime / 2)
			c.Close()
		}, LingerTime / 2, 4, 4, true},
		{"does not read", halfPipe{}, func(net.Conn) {}, LingerTime, 0, 0, false},
		{"is gone", halfPipe{}, func(c net.Conn) { c.Close() }, 0, 0, 0, false},
		{"floods", halfPipe{}, func(c net.Conn) { reads(c); floods(c) }, 0, LingerBytes, LingerBytes + 512, true},
		{"drips", halfPipe{}, func(c net.Conn) {
			reads(c)
			for {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(LingerTime * 3 / 10) // so that none comes together with the end of the time
			}
		}, LingerTime, 4, 4, true},
		{"without deadlines", halfPipe{noDeadline: true}, func(net.Conn) {}, 0, 0, 0, false},
		{"without half-close", halfPipe{noCloseWrite: true}, reads, 0, 0, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer client.Close()
				c := tt.server
				c.Conn = server
				done := make(chan struct{})
				go func() { tt.client(client); close(done) }()
				start := time.Now()
				Send(&c, []byte(answer), make([]byte, 512))
				if took := time.Since(start); took != tt.takes {
					t.Errorf("it took %v, want %v", took, tt.takes)
				}
				if c.read < tt.min || c.read > tt.max {
					t.Errorf("it read %d bytes, want %d to %d", c.read, tt.min, tt.max)
				}
				if c.closed.IsZero() || c.writeClosed.IsZero() == tt.halfClosed {
					t.Errorf("closed at %v, the writing side at %v", c.closed, c.writeClosed)
				}
				if !c.noDeadline && c.deadline.Sub(start) != LingerTime {
					t.Errorf("the deadline is after %v", c.deadline.Sub(start))
				}
				<-done
			})
		})
	}
}

// TestSendNothing closes a connection so that what was written before is not lost.
func TestSendNothing(t *testing.T) {
	t.Parallel()
	server, client := testenv.TCP(t)
	// Bytes that nobody has read would make the system send RST at Close.
	if _, err := client.Write(make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(server, "said before"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { Send(server, nil, make([]byte, 512)); close(done) }()
	if got, err := io.ReadAll(client); string(got) != "said before" || err != nil {
		t.Errorf("the client read %q, %v", got, err)
	}
	client.Close()
	<-done
}
