package zoo

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Cmux stands in for github.com/soheilhy/cmux with a route by HTTP2HeaderField("content-type", "application/grpc") for
// grpc-go above net/http, or, with sendSettings, one by HTTP2MatchHeaderFieldSendSettings. It does what those do on the
// wire; the original has its own tests, in a module that may depend on it (internal/thirdparty/cmux).
func Cmux(t testing.TB, sendSettings bool) string {
	return cmux(t, Listen(t), sendSettings)
}

// CmuxTLS is Cmux inside TLS, which a listener terminates.
func CmuxTLS(t testing.TB, p *PKI) string {
	return cmux(t, tls.NewListener(Listen(t), p.Config(p.Server, "h2", "http/1.1")), false)
}

func cmux(t testing.TB, l net.Listener, sendSettings bool) string {
	grpcL, httpL := newQueue(l.Addr()), newQueue(l.Addr())
	serveGRPC(t, grpcL)
	serveHTTP(t, httpL, true)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { sniff(c, sendSettings, grpcL, httpL) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		grpcL.Close()
		httpL.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// sniff reads from c until it knows whose it is.
func sniff(c net.Conn, sendSettings bool, grpcL, httpL *queue) {
	var seen bytes.Buffer
	r := io.TeeReader(c, &seen)
	start := make([]byte, 4)
	if _, err := io.ReadFull(r, start); err != nil {
		c.Close()
		return
	}
	to := httpL
	switch {
	case string(start) == "PRI ":
		if _, err := io.CopyN(io.Discard, r, int64(len(http2.ClientPreface)-len(start))); err != nil {
			c.Close()
			return
		}
		if contentType(r, c, sendSettings) == "application/grpc" {
			to = grpcL
		}
	case !strings.Contains("GET HEADPOSTOPTI", string(start)):
		c.Close() // no matcher takes it
		return
	}
	to.put(&replayed{Conn: c, r: io.MultiReader(&seen, c)})
}

// contentType reads frames up to the first request, and answers SETTINGS if it is to.
func contentType(r io.Reader, w io.Writer, sendSettings bool) (value string) {
	fr := http2.NewFramer(w, r)
	dec := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "content-type" {
			value = f.Value
		}
	})
	for {
		switch f, err := fr.ReadFrame(); f := f.(type) {
		case *http2.SettingsFrame:
			if sendSettings && !f.IsAck() {
				fr.WriteSettings()
			}
		case *http2.HeadersFrame:
			dec.Write(f.HeaderBlockFragment())
			return value
		default:
			if err != nil {
				return ""
			}
		}
	}
}

// A replayed is a connection whose first bytes were read.
type replayed struct {
	net.Conn
	r io.Reader
}

func (c *replayed) Read(p []byte) (int, error) { return c.r.Read(p) }

// A queue is a listener for connections that were accepted elsewhere.
type queue struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (q *queue) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.closed:
		c.Close()
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.addr }
