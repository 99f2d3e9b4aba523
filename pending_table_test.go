package oneport

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// A way of not having a server yet.
type waiting struct {
	name string

	// What the client sends, and nothing after it; every is sent again and again.
	sends, every string
	raw          bool   // below TLS, where that is terminated
	begun        bool   // a request has begun, on whose stream the answer is
	announced    bool   // the listener's connections begin with a line that does not come
	only         string // "tls" or "clear": why is said where it is set

	limit  time.Duration // until it is refused
	reason RefuseReason  // then
	speaks Protocol      // the language of the answer
	mute   bool          // there is nobody to answer
}

const (
	tableDecide    = 10 * time.Second
	tableHandshake = 20 * time.Second
	tableIdle      = 5 * time.Minute
	tableDrip      = 500 * time.Millisecond
)

const (
	// The header of a HEADERS frame that promises more than follows.
	halfHeaders = "\x00\x00\x10\x01\x04\x00\x00\x00\x01\x82\x86" // no path, by which a route could decide
	// A header block of which CONTINUATION has to follow, and an empty one that does not end it.
	openHeaders    = "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82"
	continuation   = "\x00\x00\x00\x09\x00\x00\x00\x00\x01"
	upgradeRequest = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n"
)

// waitings are all the ways. The capture is a complete ClientHello.
func waitings(hello string) []waiting {
	return []waiting{
		{name: "TCP only", raw: true, limit: tableDecide, reason: ReasonTimeout, mute: true},
		{name: "part of the preface", sends: h2.Preface[:10], limit: tableDecide, reason: ReasonTimeout, speaks: ProtocolHTTP2},
		{name: "preface", sends: h2.Preface, limit: tableDecide, reason: ReasonTimeout, speaks: ProtocolHTTP2},
		{name: "SETTINGS", sends: h2.Preface + settingsFrame, limit: tableDecide, reason: ReasonTimeout, speaks: ProtocolHTTP2},
		{name: "SETTINGS acknowledged", sends: h2.Preface + settingsFrame + ackFrame,
			limit: tableIdle, reason: ReasonIdle, speaks: ProtocolHTTP2},
		{name: "half a header block", sends: h2.Preface + settingsFrame + halfHeaders,
			limit: tableDecide, reason: ReasonTimeout, speaks: ProtocolHTTP2, begun: true},
		{name: "half a header block, acknowledged", sends: h2.Preface + settingsFrame + ackFrame + halfHeaders,
			limit: tableDecide, reason: ReasonTimeout, speaks: ProtocolHTTP2, begun: true},
		{name: "CONTINUATION dripping", sends: h2.Preface + settingsFrame + openHeaders, every: continuation,
			limit: tableDecide, reason: ReasonTimeout, speaks: ProtocolHTTP2, begun: true},
		{name: "CONTINUATION dripping, acknowledged", sends: h2.Preface + settingsFrame + ackFrame + openHeaders, every: continuation,
			limit: tableDecide, reason: ReasonTimeout, speaks: ProtocolHTTP2, begun: true},
		{name: "request line of HTTP/1 dripping", sends: "GET /", every: "x",
			limit: tableDecide, reason: ReasonTimeout, speaks: ProtocolHTTP1},
		// Where TLS is not terminated, nobody waits for the rest of a ClientHello.
		{name: "part of a ClientHello", only: "tls", raw: true, sends: hello[:3],
			limit: tableDecide, reason: ReasonTimeout, speaks: ProtocolTLS},
		{name: "TLS silent", only: "tls", raw: true, sends: hello[:11],
			limit: tableHandshake, reason: ReasonTimeout, speaks: ProtocolTLS, mute: true}, // crypto/tls has not begun to speak
		{name: "handshake half done", only: "tls", raw: true, sends: hello,
			limit: tableHandshake, reason: ReasonTimeout, speaks: ProtocolTLS, mute: true}, // the records are encrypted already
		{name: "handshake done", only: "tls", limit: tableDecide, reason: ReasonTimeout, mute: true},
		// There is no upgrade inside TLS (RFC 7540, Section 3.3): the request is one of HTTP/1, and has its server.
		{name: "Upgrade answered", only: "clear", sends: upgradeRequest, limit: tableDecide, reason: ReasonTimeout, speaks: ProtocolHTTP2},
		{name: "PROXY header missing", raw: true, announced: true, limit: tableDecide, reason: ReasonTimeout, mute: true},
	}
}

// A way to serve. All take HTTP/1 and HTTP/2 in all their forms, with routes that depend on the first request.
type serving struct {
	name string
	tls  bool
	// A route takes HTTP/2 by its preface, and so also what ends before its first request: routes above it that were
	// undecided have said no then.
	byPreface bool
	make      func(l net.Listener, limits Limits, hooks Hooks) served
}

type served struct {
	serve, close func() error
	shutdown     func(context.Context) error
	stats        func() Stats
}

func servings() []serving {
	mux := func(routes func(m *Mux)) func(net.Listener, Limits, Hooks) served {
		return func(l net.Listener, limits Limits, hooks Hooks) served {
			m := newMux(l)
			m.Limits, m.Hooks = limits, hooks
			routes(m)
			return served{m.Serve, m.Close, m.Shutdown, m.Stats}
		}
	}
	server := func(template *Server) func(net.Listener, Limits, Hooks) served {
		return func(l net.Listener, limits Limits, hooks Hooks) served {
			s := &Server{GRPC: newCountingGRPC(), Handler: protoHandler, TLSConfig: template.TLSConfig, RequireTLS: template.RequireTLS,
				Upgrade: template.Upgrade, PerConnection: template.PerConnection, Limits: limits, Hooks: hooks, Logger: quiet}
			stop := func() { s.GRPC.(*countingGRPC).Stop() } // it has no streams that could end
			return served{
				func() error { return s.Serve(l) }, s.Close,
				func(ctx context.Context) error { stop(); return s.Shutdown(ctx) }, s.Stats,
			}
		}
	}
	upgrading := Route{Matchers: []Matcher{Path("/")}, Upgrade: true}
	return []serving{
		{"Mux", false, false, mux(func(m *Mux) { m.Route(upgrading) })},
		{"Mux, TLS", true, false, mux(func(m *Mux) { m.TLS(serverTLS()).Match(Path("/")) })},
		{"Requests", false, false, mux(func(m *Mux) {
			m.RequestsRoute(Route{Matchers: []Matcher{HTTP2()}, Upgrade: true}).Match(Path("/"))
			m.Match(Path("/"))
		})},
		{"Requests, TLS", true, false, mux(func(m *Mux) {
			inside := m.TLS(serverTLS())
			inside.Requests().Match(Path("/"))
			inside.Match(Path("/"))
		})},
		{"Server", false, false, server(&Server{Upgrade: true})},
		{"Server, TLS", true, false, server(&Server{TLSConfig: serverTLS(), RequireTLS: true})},
		{"Server, PerConnection", false, true, server(&Server{PerConnection: true, Upgrade: true})},
		{"Server, PerConnection, TLS", true, true, server(&Server{PerConnection: true, TLSConfig: serverTLS(), RequireTLS: true})},
	}
}

// A tableRun is one way of waiting in one way to serve.
type tableRun struct {
	served
	w        waiting
	secure   bool
	root     net.Listener
	refused  chan Refused
	serveErr chan error
}

func startTableRun(t *testing.T, w waiting, s serving, root, l net.Listener, limits Limits) *tableRun {
	r := &tableRun{w: w, secure: s.tls, root: root, refused: make(chan Refused, 10), serveErr: make(chan error, 1)}
	if w.announced {
		l = announcedListener{l}
	}
	limits.DecideTimeout, limits.HandshakeTimeout, limits.IdleTimeout = tableDecide, tableHandshake, tableIdle
	r.served = s.make(l, limits, Hooks{
		OnMatch:  func(m Matched) { t.Errorf("matched: %+v", m) },
		OnRefuse: func(refused Refused) { r.refused <- refused },
	})
	go func() { r.serveErr <- r.serve() }()
	t.Cleanup(func() {
		r.close()
		<-r.serveErr
	})
	return r
}

// tableNow is a time at which the certificates are valid.
var tableNow = time.Now()

// A tableClient waits.
type tableClient struct {
	raw   net.Conn
	began time.Time
	done  chan struct{} // closed when the server has closed the connection

	// Set then.
	ended  time.Time
	answer []byte
}

func (r *tableRun) client(t *testing.T) *tableClient {
	c := &tableClient{raw: dial(t, r.root), began: time.Now(), done: make(chan struct{})}
	conn := c.raw
	if r.secure && !r.w.raw {
		config := clientTLS()
		config.Time = func() time.Time { return tableNow } // a bubble has its own, at which no certificate is valid
		secure := tls.Client(c.raw, config)
		if err := secure.Handshake(); err != nil {
			t.Fatal(err)
		}
		conn = secure
	}
	go func() {
		defer close(c.done)
		c.answer, _ = io.ReadAll(conn)
		c.ended = time.Now()
		c.raw.Close()
	}()
	go func() {
		io.WriteString(conn, r.w.sends)
		if r.w.every == "" {
			return
		}
		tick := time.NewTicker(tableDrip)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				io.WriteString(conn, r.w.every)
			case <-c.done:
				return
			}
		}
	}()
	return c
}

// told says what an answer comes to.
func (w waiting) told(answer []byte) string {
	switch {
	case w.speaks == ProtocolHTTP2:
		_, after, _ := bytes.Cut(answer, []byte("HTTP/1.1 101 Switching Protocols\r\n"))
		if _, body, ok := bytes.Cut(after, []byte("\r\n\r\n")); ok {
			answer = body
		}
		for fr := http2.NewFramer(io.Discard, bytes.NewReader(answer)); ; {
			f, err := fr.ReadFrame()
			if err != nil {
				return fmt.Sprintf("%q: %v", answer, err)
			}
			if g, ok := f.(*http2.GoAwayFrame); ok {
				return g.ErrCode.String()
			}
		}
	case len(answer) == 0:
		return ""
	case w.speaks == ProtocolHTTP1:
		return strings.TrimPrefix(strings.SplitN(string(answer), "\r\n", 2)[0], "HTTP/1.1 ")
	case w.mute && !hasAlert(answer):
		return "" // what the server has to say in the handshake
	}
	return fmt.Sprintf("%q", answer)
}

// hasAlert reports whether the records of TLS are not whole, or one of them is an alert in cleartext.
func hasAlert(records []byte) bool {
	for len(records) >= 5 {
		n := 5 + int(records[3])<<8 + int(records[4])
		if records[0] == 21 || len(records) < n {
			return true
		}
		records = records[n:]
	}
	return len(records) > 0
}

// wants is what a client is told for a reason.
func (w waiting) wants(reason RefuseReason) string {
	if w.mute {
		return ""
	}
	r := &refusal{reason: reason}
	switch w.speaks {
	case ProtocolHTTP1:
		return fmt.Sprintf("%d %s", r.statusHTTP(), http.StatusText(r.statusHTTP()))
	case ProtocolHTTP2:
		if w.begun {
			return http2.ErrCodeNo.String() // behind the answer on the stream
		}
		return r.codeHTTP2().String()
	}
	return fmt.Sprintf("%q", r.alertTLS())
}

// checkRefused checks the hook and the counters for the one connection that there was, or the first of several.
func (r *tableRun) checkRefused(t *testing.T, reason RefuseReason) {
	t.Helper()
	select {
	case refused := <-r.refused:
		if refused.Reason != reason {
			t.Errorf("OnRefuse was called for %q (%v), want %q", refused.Reason, refused.Err, reason)
		}
	case <-time.After(time.Minute):
		t.Error("OnRefuse was not called")
		return
	}
	if n := r.stats().Refused[reason]; n != 1 {
		t.Errorf("Stats count %d for %q", n, reason)
	}
}

// TestWaiting takes every way of not having a server yet through every way to serve, and checks that the same holds in
// all of them: the time limit, the bound on the number, the end by Shutdown and by Close; and each time the reason that
// the hook is told, the counters, and the answer.
func TestWaiting(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"pipe", "tcp"} {
		eachWaiting(t, network, func(t *testing.T, w waiting, s serving) {
			for _, end := range tableEnds {
				if end.reason == ReasonClientClosed && s.byPreface && w.speaks == ProtocolHTTP2 {
					continue
				}
				if network == "tcp" && end.clock {
					continue // which a socket has none of its own for
				}
				t.Run(end.name, func(t *testing.T) {
					t.Parallel()
					test := func(t *testing.T, root net.Listener) {
						accepting := record(root)
						r := startTableRun(t, w, s, root, accepting, end.limits)
						c := r.client(t)
						<-accepting.conns
						answered := network == "pipe" // and seen by the server
						if answered {
							synctest.Wait()
						}
						end.do(t, r, c)
						<-c.done
						reason := end.reason
						switch {
						case reason == 0:
							reason = w.reason
						case reason == ReasonClientClosed && w.announced:
							reason = ReasonReadError // of a header that has not come
						}
						r.checkRefused(t, reason)
						if !answered || end.atOnce {
							return
						}
						if got, want := w.told(c.answer), w.wants(reason); got != want {
							t.Errorf("the client was told %s, want %s", got, want)
						}
					}
					if network == "tcp" {
						test(t, listen(t, "tcp"))
						return
					}
					synctest.Test(t, func(t *testing.T) { test(t, newPipeListener()) })
				})
			}
		})
	}
}

func eachWaiting(t *testing.T, network string, test func(*testing.T, waiting, serving)) {
	for _, s := range servings() {
		for _, w := range waitings(string(capture(t, "openssl-tls13.1"))) {
			if w.only != "" && s.tls != (w.only == "tls") {
				continue
			}
			t.Run(network+"/"+s.name+"/"+w.name, func(t *testing.T) {
				t.Parallel()
				test(t, w, s)
			})
		}
	}
}

var tableEnds = []struct {
	name   string
	limits Limits
	do     func(t *testing.T, r *tableRun, c *tableClient)
	reason RefuseReason // 0 for that of the time limit
	clock  bool         // it checks times
	atOnce bool         // nothing is said
}{
	{name: "time", clock: true, do: func(t *testing.T, r *tableRun, c *tableClient) {
		if s := r.stats(); s.Undecided != 1 || s.Accepted != 1 {
			t.Errorf("Stats while it waits: %+v", s)
		}
		<-c.done
		// A client is told first, and closed upon when it has read that.
		if took := c.ended.Sub(c.began); took < r.w.limit || took > r.w.limit+lingerTime {
			t.Errorf("it took %v, want %v", took, r.w.limit)
		}
		synctest.Wait()
		if s := r.stats(); s.Undecided+s.Refusing+s.Queued+s.Passing+s.Shared != 0 || s.Matched != 0 {
			t.Errorf("Stats afterwards: %+v", s)
		}
	}},
	{name: "too many", limits: Limits{MaxUndecided: 1}, reason: ReasonTooMany, do: func(t *testing.T, r *tableRun, c *tableClient) {
		dial(t, r.root)
	}},
	{name: "Shutdown", reason: ReasonShutdown, clock: true, do: func(t *testing.T, r *tableRun, c *tableClient) {
		began := time.Now()
		if err := r.shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown returned %v", err)
		}
		if took := time.Since(began); took > DefaultShutdownGrace+lingerTime {
			t.Errorf("Shutdown took %v", took)
		}
	}},
	{name: "Shutdown of an older one", reason: ReasonShutdown, clock: true, do: func(t *testing.T, r *tableRun, c *tableClient) {
		time.Sleep(DefaultShutdownGrace + time.Millisecond)
		began := time.Now()
		if err := r.shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown returned %v", err)
		}
		if took := time.Since(began); took > lingerTime {
			t.Errorf("Shutdown took %v", took)
		}
	}},
	{name: "Shutdown in no time", reason: ReasonShutdown, do: func(t *testing.T, r *tableRun, c *tableClient) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.shutdown(ctx); err != context.Canceled {
			t.Errorf("Shutdown returned %v", err)
		}
	}, atOnce: true},
	{name: "Close", reason: ReasonShutdown, do: func(t *testing.T, r *tableRun, c *tableClient) {
		if err := r.close(); err != nil {
			t.Errorf("Close returned %v", err)
		}
	}, atOnce: true},
	{name: "client closes", reason: ReasonClientClosed, do: func(t *testing.T, r *tableRun, c *tableClient) {
		c.raw.Close()
	}, atOnce: true},
}
