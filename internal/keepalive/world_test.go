package keepalive

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/grpclog"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
	"github.com/oneport-go/oneport/internal/certs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A mode is how a server gets the client's connection.
type mode string

const (
	bare    mode = "bare"    // it accepts it itself
	passing mode = "passing" // oneport passes it through
	shared  mode = "shared"  // another server has a stream on it
)

// inModes runs a test in each mode, in cleartext and over TLS.
func inModes(t *testing.T, f func(t *testing.T, m mode, secure bool)) {
	for _, m := range []mode{bare, passing, shared} {
		for _, secure := range []bool{false, true} {
			name := string(m)
			if secure {
				name += ", TLS"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(t, m, secure)
			})
		}
	}
}

// A pki has the certificate of the servers.
type pki struct{ server, client *tls.Config }

// keys are made outside of synctest, whose clock is another: made is when they hold.
var (
	made = time.Now()
	keys = newPKI()
)

func newPKI() pki {
	server, client, err := certs.Configs("localhost")
	if err != nil {
		panic(err)
	}
	for _, c := range []*tls.Config{server, client} {
		c.NextProtos, c.Time = []string{"h2"}, func() time.Time { return made }
	}
	return pki{server, client}
}

// A listener gives out the connections that are dialled.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newListener() *listener {
	return &listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *listener) dial() (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

// Config is how the servers are configured.
type config struct {
	grpc []grpc.ServerOption
	http http.Server // but for the handler
}

// raw takes the messages of gRPC as they are.
type raw struct{}

func (raw) Name() string                    { return "proto" }
func (raw) Marshal(v any) ([]byte, error)   { return *(v.(*[]byte)), nil }
func (raw) Unmarshal(b []byte, v any) error { *(v.(*[]byte)) = slices.Clone(b); return nil }

// call answers a call when its client has ended its side.
func call(_ any, s grpc.ServerStream) error {
	for {
		var m []byte
		if err := s.RecvMsg(&m); err == io.EOF {
			return s.SendMsg(&m)
		} else if err != nil {
			return err
		}
	}
}

// handle answers a request when its client has ended its side.
func handle(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }

// serve serves a listener with grpc-go or net/http alone, or with both by oneport.
func serve(t *testing.T, l net.Listener, m mode, secure bool, kind string, c *config) (stop func()) {
	opts := append([]grpc.ServerOption{grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(call)}, c.grpc...)
	var wg sync.WaitGroup
	h := &c.http
	h.Handler, h.Protocols, h.ErrorLog = http.HandlerFunc(handle), new(http.Protocols), log.New(io.Discard, "", 0)
	h.Protocols.SetUnencryptedHTTP2(true)
	h.Protocols.SetHTTP2(true)
	switch {
	case m != bare:
		s := &oneport.Server{GRPC: grpc.NewServer(append(opts, grpc.Creds(grpccreds.Credentials{}))...), HTTP: h, Logger: slog.New(slog.DiscardHandler)}
		if secure {
			s.TLSConfig, s.RequireTLS = keys.server.Clone(), true
		}
		wg.Go(func() {
			if err := s.Serve(l); !errors.Is(err, oneport.ErrClosed) {
				t.Error(err)
			}
		})
		return func() { s.Close(); wg.Wait() }
	case kind == "grpc":
		if secure {
			opts = append(opts, grpc.Creds(credentials.NewTLS(keys.server.Clone())))
		}
		s := grpc.NewServer(opts...)
		wg.Go(func() { s.Serve(l) })
		return func() { s.Stop(); wg.Wait() }
	}
	h.TLSConfig = keys.server.Clone()
	wg.Go(func() {
		if secure {
			h.ServeTLS(l, "", "")
		} else {
			h.Serve(l)
		}
	})
	return func() { h.Close(); wg.Wait() }
}

// A client speaks HTTP/2 and notes what it is sent, and when.
type client struct {
	t     *testing.T
	began time.Time
	conn  net.Conn
	fr    *http2.Framer // guarded by mu, for writing

	mu    sync.Mutex
	out   chan []byte
	gone  bool // it takes what it is sent, and answers nothing
	lines []string
	times []time.Duration
	wg    sync.WaitGroup
}

// in runs a test with a client that has made a request of the kind, and in mode shared has another open, stream 3.
func in(t *testing.T, m mode, secure bool, kind string, configure func(*config), f func(c *client)) {
	synctest.Test(t, func(t *testing.T) {
		l, conf := newListener(), new(config)
		configure(conf)
		defer serve(t, l, m, secure, kind, conf)()
		conn, err := l.dial()
		if err != nil {
			t.Fatal(err)
		}
		if secure {
			conn = tls.Client(conn, keys.client)
		}
		out := make(chan []byte, 10_000)
		c := &client{t: t, conn: conn, out: out}
		c.wg.Go(func() {
			for b := range out {
				conn.Write(b) // if it fails, so do those that follow
			}
		})
		c.fr = http2.NewFramer(c, conn)
		c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		c.wg.Go(c.read)
		defer func() {
			conn.Close()
			c.mu.Lock()
			close(out)
			c.out = nil
			c.mu.Unlock()
			c.wg.Wait()
		}()
		c.Write([]byte(http2.ClientPreface))
		c.do(func(fr *http2.Framer) { fr.WriteSettings() })
		c.open(1, kind, true)
		synctest.Wait()
		if m == shared {
			c.open(3, map[string]string{"grpc": "http", "http": "grpc"}[kind], false)
		}
		synctest.Wait()
		c.mu.Lock()
		c.lines, c.times, c.began = nil, nil, time.Now()
		c.mu.Unlock()
		f(c)
	})
}

// Write has b written. The caller holds mu, or is alone.
func (c *client) Write(b []byte) (int, error) {
	if c.out != nil {
		c.out <- bytes.Clone(b)
	}
	return len(b), nil
}

// do sends frames.
func (c *client) do(f func(fr *http2.Framer)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.fr)
}

// open makes a request.
func (c *client) open(id uint32, kind string, end bool) {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	enc.SetMaxDynamicTableSize(0)
	fields := []string{":method", "POST", ":scheme", "http", ":authority", "localhost", ":path", "/s/m"}
	if kind == "grpc" {
		fields = append(fields, "content-type", "application/grpc", "te", "trailers")
	}
	for i := 0; i < len(fields); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	c.do(func(fr *http2.Framer) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: b.Bytes()})
	})
}

// finish ends a request.
func (c *client) finish(id uint32) {
	c.do(func(fr *http2.Framer) { fr.WriteData(id, true, nil) })
}

// pings sends n PINGs with a time between them.
func (c *client) pings(n int, every time.Duration) {
	for range n {
		time.Sleep(every)
		c.do(func(fr *http2.Framer) { fr.WritePing(false, [8]byte{'p'}) })
	}
	synctest.Wait()
}

// await waits until a line has come that begins with a prefix.
func (c *client) await(prefix string) {
	c.t.Helper()
	for range 24 * 60 * 60 {
		c.mu.Lock()
		found := slices.ContainsFunc(c.lines, func(line string) bool { return strings.HasPrefix(line, prefix) })
		c.mu.Unlock()
		if found {
			return
		}
		time.Sleep(time.Second)
	}
	c.t.Errorf("there was no %q in a day", prefix)
}

// vanish has what the client is sent be swallowed on the way.
func (c *client) vanish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
}

func (c *client) read() {
	for {
		f, err := c.fr.ReadFrame()
		c.mu.Lock()
		if err != nil {
			if c.out != nil {
				c.note("closed")
			}
			c.mu.Unlock()
			return
		}
		if !c.gone {
			c.take(f)
		}
		c.mu.Unlock()
	}
}

func (c *client) note(line string) {
	c.lines, c.times = append(c.lines, line), append(c.times, time.Since(c.began))
}

func (c *client) take(f http2.Frame) {
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			c.fr.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			c.fr.WritePing(true, f.Data)
			c.note("PING")
		}
	case *http2.MetaHeadersFrame:
		status := f.PseudoValue("status")
		for _, hf := range f.Fields {
			if hf.Name == "grpc-status" {
				status += " grpc-status " + hf.Value
			}
		}
		if f.StreamEnded() {
			c.note(fmt.Sprintf("stream %d: %s", id, strings.TrimSpace(status)))
		}
	case *http2.DataFrame:
		if f.StreamEnded() {
			c.note(fmt.Sprintf("stream %d: end", id))
		}
	case *http2.RSTStreamFrame:
		c.note(fmt.Sprintf("stream %d: RST_STREAM %v", id, f.ErrCode))
	case *http2.GoAwayFrame:
		last := fmt.Sprint(f.LastStreamID)
		if f.LastStreamID == 1<<31-1 {
			last = "all"
		}
		c.note(strings.TrimSpace(fmt.Sprintf("GOAWAY %s %v %s", last, f.ErrCode, f.DebugData())))
	}
}

// seen returns what has come since it was called last, and when, once nothing moves any more.
func (c *client) seen() ([]string, []time.Duration) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	lines, times := c.lines, c.times
	c.lines, c.times = nil, nil
	return lines, times
}

// What grpc-go logs is what the tests are about.
func init() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) }
