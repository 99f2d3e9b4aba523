package oneport

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// A way is one of those in which a program can serve.
type way struct {
	name     string
	tls      bool
	requests bool // HTTP/2 connections are taken apart by request
	serve    func(t *testing.T, root net.Listener, l Limits, h Hooks) (shutdown func(context.Context) error)
}

// ways returns all of them, with HTTP/1 and gRPC. Where requests are not dispatched, the servers of a Mux do not
// accept.
func ways() []way {
	mux := func(build func(t *testing.T, m *Mux)) func(*testing.T, net.Listener, Limits, Hooks) func(context.Context) error {
		return func(t *testing.T, root net.Listener, l Limits, h Hooks) func(context.Context) error {
			m := newMux(root)
			m.Limits, m.Hooks = l, h
			build(t, m)
			serve(t, m)
			return m.Shutdown
		}
	}
	server := func(config *tls.Config, perConnection bool) func(*testing.T, net.Listener, Limits, Hooks) func(context.Context) error {
		return func(t *testing.T, root net.Listener, l Limits, h Hooks) func(context.Context) error {
			g := newCountingGRPC()
			s := &Server{GRPC: g, Handler: http.HandlerFunc(holdRequest), TLSConfig: config, PerConnection: perConnection,
				Limits: l, Hooks: h, Logger: quiet}
			done := make(chan error, 1)
			go func() { done <- s.Serve(root) }()
			go func() {
				for {
					select {
					case c := <-g.conns:
						go io.Copy(io.Discard, c)
					case <-g.stopped:
						return
					}
				}
			}()
			t.Cleanup(func() {
				s.Close()
				if err := <-done; !errors.Is(err, ErrClosed) {
					t.Errorf("Serve returned %v", err)
				}
			})
			return s.Shutdown
		}
	}
	return []way{
		{"Mux", false, false, mux(func(t *testing.T, m *Mux) {
			m.Match(HTTP1())
			m.Match(GRPC())
		})},
		{"Mux, TLS", true, false, mux(func(t *testing.T, m *Mux) {
			inside := m.TLS(serverTLS())
			inside.Match(HTTP1())
			inside.Match(GRPC())
		})},
		{"Mux, requests", false, true, mux(func(t *testing.T, m *Mux) {
			m.Match(HTTP1())
			requests := m.Requests()
			acceptAll(requests.Match(GRPC()))
			requests.Match(Path("/nobody"))
			serveHTTP(t, requests.Match(Any()), holdRequest)
		})},
		{"Mux, requests inside TLS", true, true, mux(func(t *testing.T, m *Mux) {
			inside := m.TLS(serverTLS())
			inside.Match(HTTP1())
			requests := inside.Requests()
			acceptAll(requests.Match(GRPC()))
			requests.Match(Path("/nobody"))
			serveHTTP(t, requests.Match(Any()), holdRequest)
		})},
		{"Server", false, true, server(nil, false)},
		{"Server, TLS", true, true, server(serverTLS(), false)},
		{"Server, PerConnection", false, false, server(nil, true)},
	}
}

// holdRequest answers when the request is canceled.
func holdRequest(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// acceptAll is a server that only reads.
func acceptAll(l net.Listener) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c)
		}
	}()
}

// A wayClient is a client that writes what it likes, and takes note of what it reads.
type wayClient struct {
	net.Conn
	mu     sync.Mutex
	read   []byte
	closed bool
}

// connect returns a client, after its TLS handshake if there is one.
func (w way) connect(t *testing.T, root net.Listener) *wayClient {
	t.Helper()
	c := &wayClient{Conn: dial(t, root)}
	if w.tls {
		config := clientTLS("h2")
		config.InsecureSkipVerify = true // by the clock of the test no certificate is valid yet
		conn := tls.Client(c.Conn, config)
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		c.Conn = conn
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := c.Conn.Read(b)
			c.mu.Lock()
			c.read = append(c.read, b[:n]...)
			c.closed = err != nil
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return c
}

// send writes without waiting for the other end to read.
func (c *wayClient) send(s string) {
	go io.WriteString(c.Conn, s)
	synctest.Wait()
}

// frames returns the frames that have come.
func (c *wayClient) frames() (list []h2.FrameHeader, payloads [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := c.read; len(b) >= h2.FrameHeaderLen; {
		h := h2.ParseFrameHeader(b)
		n := min(h2.FrameLen(h), len(b))
		list, payloads = append(list, h), append(payloads, b[h2.FrameHeaderLen:n])
		b = b[n:]
	}
	return list, payloads
}

// reset returns the code with which a stream was reset, and whether it was.
func (c *wayClient) reset(stream uint32) (http2.ErrCode, bool) {
	list, payloads := c.frames()
	for i, h := range list {
		if h.Type == http2.FrameRSTStream && h.StreamID == stream {
			return http2.ErrCode(binary.BigEndian.Uint32(payloads[i])), true
		}
	}
	return 0, false
}

// granted returns how much the flow-control window of the connection has grown.
func (c *wayClient) granted() (n int) {
	list, payloads := c.frames()
	for i, h := range list {
		if h.Type == http2.FrameWindowUpdate && h.StreamID == 0 {
			n += int(binary.BigEndian.Uint32(payloads[i]))
		}
	}
	return n
}

// grpcRequestFrame is a request for the gRPC server.
func grpcRequestFrame(stream uint32, more ...byte) string {
	block := append([]byte("\x83\x86\x04\x02/g\x0f\x10\x10application/grpc"), more...)
	return string(h2.AppendHeaders(nil, stream, false, nil, block, h2.DefaultMaxFrameSize))
}

// TestLimits checks that each field has an effect in each way to serve: a client goes over it, and another does the
// same with the default.
func TestLimits(t *testing.T) {
	t.Parallel()
	const second = time.Second
	type run struct {
		t        *testing.T
		way      way
		root     net.Listener
		shutdown func(context.Context) error
	}
	connect := func(r run) *wayClient { return r.way.connect(r.t, r.root) }
	windowUpdates := strings.Repeat(string(h2.AppendWindowUpdate(nil, 0, 1)), 20)
	resets := func(r run, every time.Duration) {
		c := connect(r)
		c.send(clientPreface + requestFrame(1, "/hold"))
		for i := range uint32(10) {
			c.send(requestFrame(3+2*i, "/hold"))
			c.send(string(h2.AppendRSTStream(nil, 3+2*i, http2.ErrCodeCancel)))
			time.Sleep(every)
		}
	}
	pings := func(r run, every time.Duration) {
		c := connect(r)
		c.send(clientPreface + requestFrame(1, "/hold"))
		for range 20 {
			c.send(pingFrame)
			time.Sleep(every)
		}
	}
	all := func(way) bool { return true }
	inTLS := func(w way) bool { return w.tls }
	byRequest := func(w way) bool { return w.requests }

	missing := make(map[string]bool)
	for f := range reflect.TypeFor[Limits]().Fields() {
		missing[f.Name] = true
	}
	// A row says what the client of a way notices, or a hook. It is to be seen with the limits, and not without.
	for _, tt := range []struct {
		field  string
		limits Limits
		in     func(way) bool
		do     func(run) (client func() bool)
		reason RefuseReason
		after  time.Duration // since the connection was accepted, if it is not 0; the handshake takes no time
		abuse  bool
	}{
		{field: "DecideTimeout", limits: Limits{DecideTimeout: 2 * second}, in: all, reason: ReasonTimeout, after: 2 * second,
			do: func(r run) func() bool { connect(r).send("PRI"); time.Sleep(3 * second); return nil }},
		{field: "IdleTimeout", limits: Limits{IdleTimeout: 15 * second}, in: all, reason: ReasonIdle, after: 15 * second,
			do: func(r run) func() bool {
				c := connect(r)
				c.send(clientPreface)
				c.send(ackFrame)
				time.Sleep(20 * second)
				return nil
			}},
		{field: "HandshakeTimeout", limits: Limits{HandshakeTimeout: 2 * second}, in: inTLS, reason: ReasonTimeout, after: 2 * second,
			do: func(r run) func() bool {
				c := dial(r.t, r.root)
				go io.Copy(io.Discard, c)
				write(r.t, c, capture(r.t, "openssl-tls13.1"))
				time.Sleep(3 * second)
				return nil
			}},
		{field: "ShutdownGrace", limits: Limits{ShutdownGrace: 100 * time.Millisecond}, in: all, reason: ReasonShutdown, after: 100 * time.Millisecond,
			do: func(r run) func() bool {
				connect(r).send("PRI")
				ctx, cancel := context.WithTimeout(r.t.Context(), second/2)
				defer cancel()
				r.shutdown(ctx)
				return nil
			}},
		{field: "MaxUndecided", limits: Limits{MaxUndecided: 1}, in: all, reason: ReasonTooMany,
			do: func(r run) func() bool { connect(r).send("PRI"); connect(r).send("PRI"); return nil }},
		{field: "MaxPreviewBytes", limits: Limits{MaxPreviewBytes: 1000}, in: all, reason: ReasonTooLong,
			do: func(r run) func() bool {
				block := strings.Repeat("\x00\x01a\x01b", 400)
				connect(r).send(clientPreface + string(h2.AppendFrame(nil, http2.FrameHeaders, 0, 1, []byte(block))))
				return nil
			}},
		{field: "MaxUndecidedBytes", limits: Limits{MaxUndecidedBytes: 1000}, in: all, reason: ReasonTooMany,
			do: func(r run) func() bool {
				block := strings.Repeat("\x00\x01a\x01b", 3000)
				connect(r).send(clientPreface + string(h2.AppendFrame(nil, http2.FrameHeaders, 0, 1, []byte(block))) +
					string(h2.AppendFrame(nil, http2.FrameContinuation, 0, 1, []byte(block))))
				return nil
			}},
		{field: "MaxFramesBeforeHeaders", limits: Limits{MaxFramesBeforeHeaders: 10}, in: all, reason: ReasonProtocolError,
			do: func(r run) func() bool { connect(r).send(clientPreface + windowUpdates); return nil }},
		{field: "MaxHeaderListBytes", limits: Limits{MaxHeaderListBytes: 300}, in: all, reason: ReasonTooLong,
			do: func(r run) func() bool {
				connect(r).send(clientPreface + grpcRequestFrame(1, []byte(strings.Repeat("\x00\x01a\x01b", 10))...))
				return nil
			}},
		{field: "MaxConns", limits: Limits{MaxConns: 1}, in: byRequest, reason: ReasonTooMany,
			do: func(r run) func() bool {
				for range 2 {
					connect(r).send(clientPreface + requestFrame(1, "/"))
					time.Sleep(second)
				}
				return nil
			}},
		{field: "QueueLength", limits: Limits{QueueLength: 1}, in: func(w way) bool { return !w.requests && strings.HasPrefix(w.name, "Mux") }, reason: ReasonQueueFull,
			do: func(r run) func() bool {
				for range 2 {
					connect(r).send(clientPreface + grpcRequestFrame(1))
				}
				time.Sleep(20 * second)
				return nil
			}},
		{field: "QueueLength", limits: Limits{QueueLength: 1}, in: func(w way) bool { return w.requests && strings.HasPrefix(w.name, "Mux") },
			do: func(r run) func() bool {
				connect(r).send(clientPreface + requestFrame(1, "/nobody"))
				c := connect(r)
				c.send(clientPreface + requestFrame(1, "/nobody"))
				time.Sleep(second)
				return func() bool { code, ok := c.reset(1); return ok && code == http2.ErrCodeRefusedStream }
			}},
		{field: "MaxStreams", limits: Limits{MaxStreams: 2}, in: byRequest,
			do: func(r run) func() bool {
				c := connect(r)
				c.send(clientPreface + requestFrame(1, "/hold"))
				for _, stream := range []uint32{3, 5} {
					c.send(requestFrame(stream, "/hold"))
				}
				time.Sleep(second)
				return func() bool { code, ok := c.reset(5); return ok && code == http2.ErrCodeRefusedStream }
			}},
		{field: "MaxContinuations", limits: Limits{MaxContinuations: 2}, in: byRequest, abuse: true,
			do: func(r run) func() bool {
				c := connect(r)
				c.send(clientPreface + requestFrame(1, "/hold"))
				frames := h2.AppendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndStream, 3, []byte("\x82\x86\x84"))
				for range 5 {
					frames = h2.AppendFrame(frames, http2.FrameContinuation, 0, 3, []byte("\x00\x01a\x01b"))
				}
				c.send(string(frames))
				return nil
			}},
		{field: "MaxBuffered", limits: Limits{MaxBuffered: 100_000}, in: byRequest,
			do: func(r run) func() bool {
				c := connect(r)
				c.send(clientPreface + grpcRequestFrame(1)) // whose server grants nothing
				c.send(requestFrame(3, "/hold"))
				time.Sleep(second)
				return func() bool { return c.granted() == 100_000-h2.DefaultWindow }
			}},
		{field: "ResetBurst", limits: Limits{ResetBurst: 5, ResetRate: 1}, in: byRequest, abuse: true,
			do: func(r run) func() bool { resets(r, 0); return nil }},
		{field: "ResetRate", limits: Limits{ResetBurst: 5, ResetRate: 1}, in: byRequest, abuse: true,
			do: func(r run) func() bool { resets(r, 50*time.Millisecond); return nil }},
		{field: "ControlBurst", limits: Limits{ControlBurst: 5, ControlRate: 1}, in: byRequest, abuse: true,
			do: func(r run) func() bool { pings(r, 0); return nil }},
		{field: "ControlRate", limits: Limits{ControlBurst: 5, ControlRate: 1}, in: byRequest, abuse: true,
			do: func(r run) func() bool { pings(r, 50*time.Millisecond); return nil }},
	} {
		delete(missing, tt.field)
		for _, w := range ways() {
			if !tt.in(w) {
				continue
			}
			// With a rate that is high enough a burst does no harm.
			without := Limits{}
			switch tt.field {
			case "ResetRate":
				without = Limits{ResetBurst: 5, ResetRate: 100}
			case "ControlRate":
				without = Limits{ControlBurst: 5, ControlRate: 100}
			}
			for _, with := range []bool{true, false} {
				name := tt.field + "/" + w.name
				limits := tt.limits
				if !with {
					name, limits = name+"/default", without
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						refused, abused := make(chan Refused, 10), make(chan Abused, 10)
						root := newPipeListener()
						shutdown := w.serve(t, root, limits, Hooks{
							OnRefuse: func(r Refused) { refused <- r },
							OnAbuse:  func(a Abused) { abused <- a },
						})
						seen := tt.do(run{t, w, root, shutdown})
						if tt.abuse {
							time.Sleep(2 * lingerTime) // it is reported when the client has read why
						}
						synctest.Wait()
						happened := false
						switch {
						case tt.abuse:
							happened = len(abused) == 1
						case seen != nil:
							happened = seen()
						case len(refused) > 0:
							r := <-refused
							happened = r.Reason == tt.reason && (tt.after == 0 || r.Waited == tt.after)
							if happened != with {
								t.Logf("refused after %v: %v", r.Waited, r.Err)
							}
						}
						if happened != with {
							t.Errorf("with %+v the client noticed it: %v", limits, happened)
						}
					})
				})
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("these fields have no test: %v", missing)
	}
}
