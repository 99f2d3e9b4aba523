package oneport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/certs"
	"github.com/oneport-go/oneport/internal/h2"
)

// A testPKI is what both ends of the tests' TLS trust.
type testPKI struct {
	ca             *certs.Authority
	server, client tls.Certificate
}

// pki is made here, outside of synctest, whose clock is another: otherwise its certificates would not be valid in other
// tests.
var pki = newTestPKI()

func newTestPKI() (p testPKI) {
	var err error
	p.ca, err = certs.NewAuthority()
	if err == nil {
		p.server, err = p.ca.Server("127.0.0.1", "example.com", "legacy.example.com")
	}
	if err == nil {
		p.client, err = p.ca.Client("alice")
	}
	if err != nil {
		panic(err)
	}
	return p
}

func serverTLS() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{pki.server}} }

func clientTLS(alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: pki.ca.Pool(), ServerName: "example.com", NextProtos: alpn}
}

// dialTLS connects to l with TLS.
func dialTLS(t testing.TB, l net.Listener, config *tls.Config) *tls.Conn {
	t.Helper()
	c := tls.Client(dial(t, l), config)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTLSMatchers says after how many bytes which matcher for TLS decides how.
func TestTLSMatchers(t *testing.T) {
	t.Parallel()
	const whole = -1
	for _, tt := range []struct {
		m       Matcher
		capture string
		want    Verdict
		n       int
	}{
		{ServerName("api.example.com"), "openssl-tls13.1", Yes, whole},
		{ServerName("other.test", "*.EXAMPLE.com"), "openssl-tls13.1", Yes, whole},
		{ServerName("*.com"), "openssl-tls13.1", No, whole},
		{ServerName("app.example.com"), "chromium-tls.1", Yes, whole},
		{ServerName("*"), "openssl-tls12-noalpn.1", No, whole},
		{ServerName("api.example.com"), "curl-http1.1", No, 1},
		{ALPN("h2"), "openssl-tls13.1", Yes, whole},
		{ALPN("h3", "http/1.1"), "openssl-tls13.1", Yes, whole},
		{ALPN("h3"), "openssl-tls13.1", No, whole},
		{ALPN("h2"), "chromium-tls.1", Yes, whole},
		{ALPN("h2"), "openssl-tls12-noalpn.1", No, whole},
		{ALPN("h2"), "curl-h2c-prior.1", No, 1},
		{TLSVersion(tls.VersionTLS13, 0), "openssl-tls13.1", Yes, whole},
		{TLSVersion(tls.VersionTLS13, 0), "openssl-tls12-noalpn.1", No, whole},
		{TLSVersion(0, tls.VersionTLS12), "openssl-tls12-noalpn.1", Yes, whole},
		{TLSVersion(0, tls.VersionTLS11), "chromium-tls.1", No, whole},
		{TLSVersion(tls.VersionTLS13, tls.VersionTLS13), "chromium-tls.1", Yes, whole},
		{TLSVersion(0, 0), "grpc-go.1", No, 1},
		{Not(ServerName("x.test")), "chromium-tls.1", Yes, whole},
		{All(ServerName("*.example.com"), ALPN("h2"), TLSVersion(tls.VersionTLS13, 0)), "chromium-tls.1", Yes, whole},
	} {
		hello := capture(t, tt.capture)
		want := tt.n
		if want == whole {
			want = len(hello)
		}
		if n, v := decidesAt(t, tt.m, hello); n != want || v != tt.want {
			t.Errorf("%v of %s: %v after %d bytes, want %v after %d", tt.m, tt.capture, v, n, tt.want, want)
		}
	}
}

func TestPreviewClientHello(t *testing.T) {
	t.Parallel()
	hello, v := previewOf(capture(t, "openssl-tls12-noalpn.1")).ClientHello()
	want := &ClientHello{Versions: []uint16{tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10}}
	if v != Yes || !cmp.Equal(hello, want) {
		t.Errorf("%+v, %v", hello, v)
	}
	if _, v := previewOf(capture(t, "chromium-tls.1")[:2018]).ClientHello(); v != Undecided {
		t.Errorf("%v of a ClientHello less its last byte", v)
	}
	if _, v := previewOf([]byte("GET")).ClientHello(); v != No {
		t.Errorf("%v of HTTP", v)
	}
}

// TestTLSPassedOn checks that a server that does its own TLS gets the connection that was accepted.
func TestTLSPassedOn(t *testing.T) {
	t.Parallel()
	root := record(listen(t, "tcp"))
	m := newMux(root)
	l := record(m.Match(ServerName("example.com")))
	m.Match(HTTP1())
	server := &http.Server{Handler: protoHandler, TLSConfig: serverTLS(), ErrorLog: log.New(io.Discard, "", 0)}
	go server.ServeTLS(l, "", "")
	t.Cleanup(func() { server.Close() })
	serve(t, m)
	client := httpClient(t, clientTLS(), func(p *http.Protocols) { p.SetHTTP2(true) })
	if got := get(t, client, "https://"+root.Addr().String()); got != "HTTP/2.0, TLS 1.3 for example.com, h2, client none" {
		t.Error(got)
	}
	if accepted, got := <-root.conns, <-l.conns; accepted != got {
		t.Errorf("the server got %T, not what was accepted", got)
	}
}

// protoHandler answers with how the request has come.
var protoHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil {
		fmt.Fprintf(w, "%s in cleartext", r.Proto)
		return
	}
	name := "none"
	if len(r.TLS.VerifiedChains) > 0 {
		name = r.TLS.VerifiedChains[0][0].Subject.CommonName
	}
	fmt.Fprintf(w, "%s, %s for %s, %s, client %s",
		r.Proto, tls.VersionName(r.TLS.Version), r.TLS.ServerName, r.TLS.NegotiatedProtocol, name)
})

func httpClient(t *testing.T, config *tls.Config, set func(*http.Protocols)) *http.Client {
	tr := &http.Transport{TLSClientConfig: config, Protocols: new(http.Protocols)}
	set(tr.Protocols)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// http2Client speaks HTTP/2 on connections over TLS, whatever ALPN says.
func http2Client(t *testing.T, config *tls.Config) *http.Client {
	client := httpClient(t, nil, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	tr := client.Transport.(*http.Transport)
	tr.DialContext = (&tls.Dialer{Config: config}).DialContext // the Transport takes it for one in cleartext
	client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.URL.Scheme = "http"
		return tr.RoundTrip(r)
	})
	return client
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestTermination serves clients over TLS that the mux terminates, with net/http behind it, by ALPN and without, where
// that decides alone and where the request has to be looked at as well.
func TestTermination(t *testing.T) {
	t.Parallel()
	http1 := func(t *testing.T, config *tls.Config) *http.Client {
		return httpClient(t, config, func(p *http.Protocols) { p.SetHTTP1(true) })
	}
	for _, routes := range []struct {
		name   string
		others []Matcher // above those of the server
		looks  bool      // they need the request
	}{
		{"ALPN alone", nil, false},
		{"ALPN and the server's name", []Matcher{ServerName("other.example.com")}, false},
		{"the request", []Matcher{GRPC(), Header("no-such", "")}, true},
	} {
		for _, tt := range []struct {
			name   string
			client func(*testing.T, *tls.Config) *http.Client
			tcp    bool
			alpn   string // that is negotiated
			proto  string
		}{
			{"h2", func(t *testing.T, config *tls.Config) *http.Client {
				return httpClient(t, config, func(p *http.Protocols) { p.SetHTTP2(true) })
			}, true, "h2", "HTTP/2.0"},
			{"http1.1", http1, true, "http/1.1", "HTTP/1.1"},
			{"HTTP1 without ALPN", http1, true, "", "HTTP/1.1"},
			{"HTTP2 without ALPN", http2Client, true, "", "HTTP/2.0"},
		} {
			t.Run(routes.name+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				config := clientTLS()
				config.Certificates = []tls.Certificate{pki.client}
				if tt.alpn == "http/1.1" {
					config.NextProtos = []string{"http/1.1"}
				}
				root := listen(t, "tcp")
				m := newMux(root)
				matched := make(chan Matched, 1)
				m.OnMatch = func(i Matched) { matched <- i }
				m.Match(HTTP1())
				sc := serverTLS()
				sc.ClientAuth, sc.ClientCAs = tls.VerifyClientCertIfGiven, pki.ca.Pool()
				secure := m.TLS(sc)
				for _, o := range routes.others {
					secure.Match(o)
				}
				l := record(secure.Route(Route{Name: "http", Matchers: []Matcher{HTTP1(), HTTP2()}}))
				server := &http.Server{Handler: protoHandler}
				ConfigureHTTP(server)
				go server.Serve(l)
				t.Cleanup(func() { server.Close() })
				serve(t, m)

				client := tt.client(t, config)
				want := fmt.Sprintf("%s, TLS 1.3 for example.com, %s, client alice", tt.proto, tt.alpn)
				for range 10 {
					if got := get(t, client, "https://"+root.Addr().String()); got != want {
						t.Fatalf("got %q, want %q", got, want)
					}
				}
				i := <-matched
				if i.TLS == nil || i.TLS.NegotiatedProtocol != tt.alpn || i.Route != "tls/http" {
					t.Errorf("matched: %+v", i)
				}
				if _, ok := i.Conn.(*net.TCPConn); !ok {
					t.Errorf("OnMatch was given a %T, not what was accepted", i.Conn)
				}
				got := (<-l.conns)
				tc, isTLS := got.(*tls.Conn)
				if alone := !routes.looks && tt.alpn != ""; alone != isTLS {
					t.Errorf("the server got a %T", got)
				}
				if !isTLS {
					tc, isTLS = got.(interface{ NetConn() net.Conn }).NetConn().(*tls.Conn)
				}
				if !isTLS || tc.NetConn() != i.Conn {
					t.Errorf("below the server's %T there is no *tls.Conn over the accepted connection", got)
				}
				stats := m.Stats()
				// A transport may open a spare connection while it waits for the first one.
				if spare := stats.Accepted - 1; len(stats.ALPN) != 1 || stats.ALPN[tt.alpn] < 1 || stats.ALPN[tt.alpn] > 1+spare {
					t.Errorf("Stats().ALPN = %v, want %q alone", stats.ALPN, tt.alpn)
				}
				if bare := tt.alpn == "" && tt.proto == "HTTP/2.0"; (stats.HTTP2WithoutALPN > 0) != bare {
					t.Errorf("Stats().HTTP2WithoutALPN = %d", stats.HTTP2WithoutALPN)
				}
				if stats.Matched < 1 || stats.Accepted == 1 && (stats.Matched != 1 || stats.Undecided != 0) {
					t.Errorf("Stats() = %+v", stats)
				}
			})
		}
	}
}

// TestTLSConn checks what a server other than net/http's gets where the request was looked at.
func TestTLSConn(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	route := m.TLS(serverTLS()).Match(Header(":path", "/hello"))
	serve(t, m)
	client := dialTLS(t, root, clientTLS("h2"))
	flight := capture(t, "curl-h2c-prior.1")
	write(t, client, flight)
	server := accept(t, route)
	c, ok := server.(*TLSConn)
	if !ok {
		t.Fatalf("the server got a %T", server)
	}
	if state := c.ConnectionState(); state.ServerName != "example.com" || state.NegotiatedProtocol != "h2" {
		t.Errorf("its state is %+v", state)
	}
	if raw, err := c.SyscallConn(); err != nil || raw.Control(func(uintptr) {}) != nil {
		t.Errorf("SyscallConn: %v", err)
	}
	got := make([]byte, len(flight))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, flight) {
		t.Errorf("the server read %q, %v", got, err)
	}
	write(t, c, []byte("answer"))
	if err := c.CloseWrite(); err != nil {
		t.Errorf("CloseWrite: %v", err)
	}
	if got, err := io.ReadAll(client); string(got) != "answer" || err != nil {
		t.Errorf("the client read %q, %v", got, err)
	}
}

// corkedConn is a connection that can keep back what is written.
type corkedConn struct {
	net.Conn
	corked bool
	held   bytes.Buffer
}

func (c *corkedConn) Write(p []byte) (int, error) {
	if c.corked {
		return c.held.Write(p)
	}
	return c.Conn.Write(p)
}

// TestTLSRecords has the frames of the first flight come together, each in a record of its own, or with a part of the
// next record behind them. Only where the request has not begun are early SETTINGS sent.
func TestTLSRecords(t *testing.T) {
	t.Parallel()
	var block bytes.Buffer
	hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
	frame := func(write func(*http2.Framer)) string {
		var b strings.Builder
		write(http2.NewFramer(&b, nil))
		return b.String()
	}
	start := string(h2.AppendSettings([]byte(h2.Preface)))
	update := frame(func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 1) })
	request := frame(func(fr *http2.Framer) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	})
	// More than crypto/tls reads from the socket at once.
	var many []string
	for range 40 {
		many = append(many, update)
	}
	for _, tt := range []struct {
		name    string
		records []string
		lacks   int    // how many bytes of the last record are missing at first
		then    string // what follows, after early SETTINGS if there have to be any
		early   bool
	}{
		{name: "one", records: []string{start + request}},
		{name: "two", records: []string{start, request}},
		{name: "three", records: []string{start, update, request}},
		{name: "many", records: slices.Concat([]string{start}, many, []string{request})},
		{name: "without the request", records: []string{start, update}, then: request, early: true},
		{name: "with a part of it", records: []string{start, update, request[:12]}, then: request[12:]},
		{name: "with a part of its record", records: []string{start, update, request}, lacks: 1, early: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			matched := make(chan Matched, 1)
			m.OnMatch = func(i Matched) { matched <- i }
			route := m.TLS(serverTLS()).Match(GRPC())
			serve(t, m)

			conn := &corkedConn{Conn: dial(t, root)}
			config := clientTLS("h2")
			// The last message of the handshake goes with the rest, so that all of it is there when the mux looks.
			config.VerifyConnection = func(tls.ConnectionState) error {
				conn.corked = true
				return nil
			}
			client := tls.Client(conn, config)
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			for _, record := range tt.records {
				write(t, client, []byte(record))
			}
			conn.corked = false
			last := conn.held.Len() - tt.lacks
			write(t, conn, conn.held.Bytes()[:last])
			if tt.early {
				if f, err := http2.NewFramer(nil, client).ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings {
					t.Fatalf("the mux sent %v, %v", f, err)
				}
				write(t, conn, conn.held.Bytes()[last:])
			}
			if tt.then != "" {
				write(t, client, []byte(tt.then))
			}
			server := accept(t, route)
			if i := <-matched; i.EarlySettings != tt.early {
				t.Errorf("early SETTINGS were sent: %v", i.EarlySettings)
			}
			want := strings.Join(tt.records, "") + tt.then
			got := make([]byte, len(want))
			if n, err := io.ReadFull(server, got); err != nil || string(got) != want {
				t.Errorf("the server read %q, %v, want %q", got[:n], err, want)
			}
		})
	}
}

// TestTLSSplits sends the first flights of real clients inside TLS in two parts, wherever they are split.
func TestTLSSplits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		captures string
		matcher  Matcher
		ack      bool // the flight has the acknowledgement of early SETTINGS
	}{
		{"curl-http1.1", Header("User-Agent", "curl/7.88.1"), false},
		{"curl-h2c-prior.1", Header(":path", "/hello"), false},
		{"grpc-go.1 grpc-go.2", GRPC(), true},
	} {
		t.Run(tt.captures, func(t *testing.T) {
			t.Parallel()
			var flight []byte
			for name := range strings.FieldsSeq(tt.captures) {
				flight = append(flight, capture(t, name)...)
			}
			root := newPipeListener()
			m := newMux(root)
			matched := make(chan Matched, 1)
			m.OnMatch = func(i Matched) { matched <- i }
			matcher, seen := looks(tt.matcher)
			route := m.TLS(serverTLS()).Match(matcher)
			serve(t, m)
			config := clientTLS()
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			for split := 1; split < len(flight); split += 3 {
				client := dialTLS(t, root, config)
				go io.Copy(io.Discard, client)
				write(t, client, flight[:split])
				for n := -1; n < split; {
					n = <-seen
				}
				go client.Write(flight[split:]) // which ends when somebody reads, or the connection ends
				server := accept(t, route)
				want := flight
				if i := <-matched; i.EarlySettings && tt.ack {
					want = bytes.Replace(flight, []byte("\x00\x00\x00\x04\x01\x00\x00\x00\x00"), nil, 1)
				}
				got := make([]byte, len(want))
				if n, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("split %d: the server read %q, %v", split, got[:n], err)
				}
				client.NetConn().Close()
				server.Close()
				for len(seen) > 0 {
					<-seen
				}
			}
		})
	}
}

// TestOfferedProtocols says what ALPN is offered for which routes.
func TestOfferedProtocols(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		routes []Matcher
		want   []string
	}{
		{[]Matcher{HTTP1()}, []string{"http/1.1"}},
		{[]Matcher{HTTP1("GET"), GRPC()}, []string{"h2", "http/1.1"}},
		{[]Matcher{GRPC()}, []string{"h2"}},
		{[]Matcher{Host("a"), SSH()}, []string{"h2", "http/1.1"}},
		{[]Matcher{SSH(), Silence(time.Second)}, nil},
		{[]Matcher{All(GRPC(), Host("a"))}, []string{"h2"}},
		{[]Matcher{All(ServerName("a"), HTTP1())}, []string{"http/1.1"}},
		{[]Matcher{All(ServerName("a"), TLSVersion(tls.VersionTLS13, 0), AnyOf(GRPC(), GRPCWeb()))}, []string{"h2", "http/1.1"}},
		{[]Matcher{ALPN("acme-tls/1"), HTTP2()}, []string{"h2", "acme-tls/1"}},
		{[]Matcher{ALPN("h2", "x")}, []string{"h2", "x"}},
		{[]Matcher{All(ALPN("http/1.1"), Path("/"))}, []string{"http/1.1"}},
		{[]Matcher{Any()}, []string{"h2", "http/1.1"}},
		{[]Matcher{Not(SSH())}, []string{"h2", "http/1.1"}},
		{[]Matcher{MatcherFunc(func(*Preview) Verdict { return Yes })}, []string{"h2", "http/1.1"}},
		{[]Matcher{Prefix("GET ")}, []string{"http/1.1"}},
		{[]Matcher{Prefix("PRI * HTTP/2.0")}, []string{"h2"}},
		{[]Matcher{Prefix("SSH-2.0")}, nil},
		{[]Matcher{Prefix("")}, []string{"h2", "http/1.1"}},
		{[]Matcher{TLS()}, nil},
	} {
		var routes []*route
		for _, m := range tt.routes {
			routes = append(routes, &route{matchers: []Matcher{m}})
		}
		if got := offeredProtocols(routes); !cmp.Equal(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.routes, got, tt.want)
		}
	}
}

// TestConfigs checks which protocol is negotiated by what configuration, for whom.
func TestConfigs(t *testing.T) {
	t.Parallel()
	own := serverTLS()
	own.NextProtos = []string{"mine"}
	for _, tt := range []struct {
		name      string
		config    func(*tls.Config)
		http1Only []string
		server    string // the name that the client asks for
		alpn      []string
		want      string
	}{
		{name: "routes", alpn: []string{"http/1.1", "h2"}, want: "h2"},
		{name: "no ALPN", want: ""},
		{name: "the user's", config: func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, alpn: []string{"h2", "http/1.1"}, want: "http/1.1"},
		{name: "pinned", http1Only: []string{"a.test", "legacy.*", "legacy.example.com"}, server: "legacy.example.com", alpn: []string{"h2", "http/1.1"}, want: "http/1.1"},
		{name: "pinned for others", http1Only: []string{"legacy.example.com"}, alpn: []string{"h2", "http/1.1"}, want: "h2"},
		{name: "the user's by name", config: func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return own, nil }
		}, alpn: []string{"h2", "mine"}, want: "mine"},
		{name: "the user's by name, without protocols", config: func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return serverTLS(), nil }
			c.Certificates = nil
		}, alpn: []string{"h2"}, want: "h2"},
		{name: "the user's by name, pinned", config: func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return own, nil }
		}, http1Only: []string{"example.com"}, alpn: []string{"h2", "http/1.1"}, want: "http/1.1"},
		{name: "the user's by name, none for this one", config: func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }
		}, alpn: []string{"h2"}, want: "h2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			config := serverTLS()
			if tt.config != nil {
				tt.config(config)
			}
			inside := m.TLS(config)
			inside.HTTP1Only = tt.http1Only
			l := inside.Match(HTTP1(), HTTP2())
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Close()
				}
			}()
			serve(t, m)
			config = clientTLS(tt.alpn...)
			if tt.server != "" {
				config.ServerName = tt.server
			}
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			for _, resumed := range []bool{false, true} {
				c := dialTLS(t, root, config)
				state := c.ConnectionState()
				if state.NegotiatedProtocol != tt.want || state.DidResume != resumed {
					t.Fatalf("negotiated %q, resumed %v; want %q, %v", state.NegotiatedProtocol, state.DidResume, tt.want, resumed)
				}
				c.Write([]byte("?\r\n")) // what no route takes, if one has not taken it already
				io.Copy(io.Discard, c)   // in which the session ticket comes
				c.Close()
			}
		})
	}
}

// TestRouteAddedInside checks that a route is offered to the clients that come after it.
func TestRouteAddedInside(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	secure := m.TLS(serverTLS())
	secure.Match(HTTP1())
	serve(t, m)
	if got := dialTLS(t, root, clientTLS("h2", "http/1.1")).ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("negotiated %q", got)
	}
	secure.Match(HTTP2())
	if got := dialTLS(t, root, clientTLS("h2", "http/1.1")).ConnectionState().NegotiatedProtocol; got != "h2" {
		t.Errorf("negotiated %q after a route for it was added", got)
	}

	// A handshake that has begun to make its configuration before a route was added ends after that.
	late := secure.configs.Load()
	secure.Match(ALPN("late"))
	secure.configs.Store(late)
	if got := dialTLS(t, root, clientTLS("late")).ConnectionState().NegotiatedProtocol; got != "late" {
		t.Errorf("negotiated %q after a route for it was added during a handshake", got)
	}
}

// TestALPNContradicted sends one protocol where another was negotiated, and is answered in the one that was sent.
func TestALPNContradicted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		alpn  []string
		max   uint16
		sends string
		code  http2.ErrCode // of GOAWAY, or
		want  int           // the status
	}{
		{"HTTP1 for h2", []string{"h2"}, 0, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, 400},
		{"neither for h2", []string{"h2"}, 0, "INVALID CONNECTION PREFACE\r\n\r\n", http2.ErrCodeProtocol, 0},
		{"HTTP2 for http1.1", []string{"http/1.1"}, 0, string(capture(t, "curl-h2c-prior.1")), http2.ErrCodeHTTP11Required, 0},
		{"HTTP2 over TLS 1.1", nil, tls.VersionTLS11, string(capture(t, "curl-h2c-prior.1")), http2.ErrCodeInadequateSecurity, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			refused := watchRefusals(m)
			sc := serverTLS()
			sc.MinVersion = tls.VersionTLS10
			secure := m.TLS(sc)
			secure.Match(Header("No-Such", "")) // needs the request
			secure.Match(HTTP1(), HTTP2())
			serve(t, m)
			config := clientTLS(tt.alpn...)
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, tt.max
			client := dialTLS(t, root, config)
			write(t, client, []byte(tt.sends))
			if tt.want != 0 {
				if resp := readResponse(t, client); resp.StatusCode != tt.want {
					t.Errorf("answered %s", resp.Status)
				}
			} else if _, goAway, _ := frames(t, client); goAway == nil || goAway.ErrCode != tt.code {
				t.Errorf("answered %v, want %v", goAway, tt.code)
			}
			if r := <-refused; r.Reason != ReasonProtocolError || r.TLS == nil {
				t.Errorf("refused: %+v", r)
			}
		})
	}
}

// TestHandshakeFails checks what clients see whose handshake comes to nothing, and what is said of them.
func TestHandshakeFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		server func(*tls.Config)
		client func(*tls.Config)
		fails  string // what the client says
		err    string // what the server says
		reason RefuseReason
	}{
		{"no ALPN overlap", nil, func(c *tls.Config) { c.NextProtos = []string{"smtp"} },
			"no application protocol", `client requested unsupported application protocols (["smtp"])`, ReasonHandshake},
		{"no client certificate", func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, pki.ca.Pool() }, nil,
			"certificate required", "client didn't provide a certificate", ReasonHandshake},
		{"unknown client certificate", func(c *tls.Config) {
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		}, func(c *tls.Config) { c.Certificates = []tls.Certificate{pki.client} },
			"unknown certificate authority", "certificate signed by unknown authority", ReasonHandshake},
		{"a certificate that the client does not trust", nil, func(c *tls.Config) { c.RootCAs = x509.NewCertPool() },
			"signed by unknown authority", "remote error: tls: bad certificate", ReasonHandshake},
		{"versions", func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
			"protocol version not supported", "client offered only unsupported versions", ReasonHandshake},
		{"panic", func(c *tls.Config) {
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("oops") }
			c.Certificates = nil
		}, nil, "internal error", "panicked: oops", ReasonPanic},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			refused := watchRefusals(m)
			sc, cc := serverTLS(), clientTLS()
			if tt.server != nil {
				tt.server(sc)
			}
			if tt.client != nil {
				tt.client(cc)
			}
			m.TLSRoute(Route{Name: "secure"}, sc).Match(HTTP1())
			serve(t, m)
			client := tls.Client(dial(t, root), cc)
			client.SetDeadline(time.Now().Add(10 * time.Second))
			_, err := client.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			if err == nil {
				_, err = client.Read(make([]byte, 1)) // in TLS 1.3 the client learns of it later
			}
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("the client got %v, want %q", err, tt.fails)
			}
			r := <-refused
			if r.Reason != tt.reason || r.Protocol != ProtocolTLS || !strings.Contains(r.Err.Error(), tt.err) {
				t.Errorf("refused for %v, %v: %v", r.Reason, r.Protocol, r.Err)
			}
			if r.Route != "secure" && r.Reason != ReasonPanic {
				t.Errorf("the route is %q", r.Route)
			}
		})
	}
}

// TestHandshakeEnds checks that a client that begins a handshake and does not go on is refused when its time is up,
// when the mux stops, and when it goes.
func TestHandshakeEnds(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "pipe"} {
		for _, tt := range []struct {
			name   string
			end    func(m *Mux, client net.Conn)
			reason RefuseReason
		}{
			{"timeout", func(*Mux, net.Conn) {}, ReasonTimeout},
			{"shutdown", func(m *Mux, _ net.Conn) { m.Shutdown(context.Background()) }, ReasonShutdown},
			{"client goes", func(_ *Mux, c net.Conn) { c.Close() }, ReasonClientClosed},
		} {
			t.Run(network+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				var root net.Listener = newPipeListener()
				if network == "tcp" {
					root = listen(t, "tcp")
				}
				m := newMux(root)
				refused := watchRefusals(m)
				config := serverTLS()
				if m.HandshakeTimeout = time.Hour; tt.reason == ReasonTimeout {
					m.HandshakeTimeout = 20 * time.Millisecond
				}
				begun := make(chan struct{})
				config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
					close(begun)
					return nil, nil
				}
				m.TLS(config).Match(HTTP1())
				serve(t, m)
				client := dial(t, root)
				hello := capture(t, "openssl-tls13.1")
				write(t, client, hello)
				<-begun
				go io.Copy(io.Discard, client)
				tt.end(m, client)
				if r := <-refused; r.Reason != tt.reason || r.Protocol != ProtocolTLS {
					t.Errorf("refused for %v: %v", r.Reason, r.Err)
				}
			})
		}
	}
}

// TestPlainHTTP checks what clients without TLS are told by a port that takes TLS only.
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sends    string
		redirect bool
		status   int
		location string
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, 400, ""},
		{"GET /a%20b?c=d HTTP/1.1\r\nHost: a.test:8443\r\n\r\n", true, 308, "https://a.test:8443/a%20b?c=d"},
		{"POST http://b.test/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nab", true, 308, "https://b.test/x"},
		{"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", true, 308, "https://a.test/"},
		{"HEAD / HTTP/1.0\r\n\r\n", true, 400, ""},
		{"GET / HTTP/1.1\r\nHost: a@b/\r\n\r\n", true, 400, ""},
		{"GET / HTTP/1.1\r\nHost : a\r\n\r\n", true, 400, ""},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", DefaultMaxPreviewBytes) + "\r\n\r\n", true, 400, ""},
	} {
		t.Run(fmt.Sprintf("%.40q", tt.sends), func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			inside := m.TLS(serverTLS())
			inside.RedirectHTTP = tt.redirect
			inside.Match(HTTP1())
			m.Match(SSH())
			serve(t, m)
			client := dial(t, root)
			client.SetDeadline(time.Now().Add(10 * time.Second))
			go io.WriteString(client, tt.sends)
			method, _, _ := strings.Cut(tt.sends, " ")
			resp, err := http.ReadResponse(bufio.NewReader(client), &http.Request{Method: method})
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || resp.Header.Get("Location") != tt.location {
				t.Errorf("answered %s, Location %q", resp.Status, resp.Header.Get("Location"))
			}
		})
	}
	t.Run("HTTP2", func(t *testing.T) {
		t.Parallel()
		root := listen(t, "tcp")
		m := newMux(root)
		m.TLS(serverTLS()).Match(GRPC())
		serve(t, m)
		client := dial(t, root)
		write(t, client, capture(t, "curl-h2c-prior.1"))
		if _, goAway, debug := frames(t, client); goAway == nil || goAway.ErrCode != http2.ErrCodeInadequateSecurity || !strings.Contains(debug, "TLS") {
			t.Errorf("answered %v, %q", goAway, debug)
		}
	})
	t.Run("to a route that takes all for TLS", func(t *testing.T) {
		t.Parallel()
		root := listen(t, "tcp")
		m := newMux(root)
		m.TLS(serverTLS(), Any()).Match(HTTP1())
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
		if resp := readResponse(t, client); resp.StatusCode != 400 {
			t.Errorf("answered %s", resp.Status)
		}
		client = dial(t, root)
		write(t, client, capture(t, "grpc-go.1"))
		if _, goAway, debug := frames(t, client); goAway == nil || goAway.ErrCode != http2.ErrCodeInadequateSecurity || !strings.Contains(debug, "TLS") {
			t.Errorf("answered %v, %q", goAway, debug)
		}
	})
}

// TestTLSRefused checks that what no route inside TLS takes is refused inside TLS.
func TestTLSRefused(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	m.TLS(serverTLS()).Match(Host("a.test"))
	serve(t, m)
	client := dialTLS(t, root, clientTLS("http/1.1"))
	write(t, client, []byte("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n"))
	if resp := readResponse(t, client); resp.StatusCode != 404 {
		t.Errorf("answered %s", resp.Status)
	}
}

// TestTLSFacts checks that routes inside TLS can depend on the TLS state.
func TestTLSFacts(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	sc := serverTLS()
	sc.ClientAuth, sc.ClientCAs = tls.VerifyClientCertIfGiven, pki.ca.Pool()
	secure := m.TLS(sc)
	secure.Match(ServerName("other.test"), TLSVersion(0, tls.VersionTLS12), ALPN("other"))
	alice := secure.Match(MatcherFunc(func(p *Preview) Verdict {
		chains := p.TLS().VerifiedChains
		return matchIf(len(chains) > 0 && chains[0][0].Subject.CommonName == "alice")
	}))
	named := secure.Match(All(ServerName("example.com"), TLSVersion(tls.VersionTLS13, 0), Not(ALPN("other")), HTTP1()))
	serve(t, m)
	for _, certificates := range [][]tls.Certificate{nil, {pki.client}} {
		config := clientTLS("http/1.1")
		config.Certificates = certificates
		dialTLS(t, root, config)
		route := named
		if certificates != nil {
			route = alice
		}
		if c, ok := accept(t, route).(*tls.Conn); !ok {
			t.Errorf("the server got a %T", c)
		}
	}
}

// TestTLSCheck names the configurations with which Serve fails at once.
func TestTLSCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		config *tls.Config
		inside []Matcher
		want   string
	}{
		{nil, []Matcher{HTTP1()}, "config of Mux.TLS is nil"},
		{&tls.Config{}, []Matcher{HTTP1()}, "no certificate"},
		{serverTLS(), nil, "a TLSMux has no routes"},
	} {
		m := newMux(listen(t, "tcp"))
		secure := m.TLS(tt.config)
		for _, matcher := range tt.inside {
			secure.Match(matcher)
		}
		if err := m.Serve(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Serve returned %v, want %q", err, tt.want)
		}
	}
}

// TestTLSClosed checks that the listeners inside TLS end with the mux.
func TestTLSClosed(t *testing.T) {
	t.Parallel()
	m := newMux(listen(t, "tcp"))
	l := m.TLS(serverTLS()).Match(HTTP1())
	m.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept returned %v", err)
	}
}

// TestTicketKeys checks that the keys of session tickets are those of the user's config, also when they are changed.
func TestTicketKeys(t *testing.T) {
	t.Parallel()
	config := serverTLS()
	config.SetSessionTicketKeys([][32]byte{{1}})
	root := listen(t, "tcp")
	m := newMux(root)
	secure := m.TLS(config)
	secure.HTTP1Only = []string{"other.example.com"}
	serveAs(t, secure.Match(HTTP1()), "example")
	serve(t, m)
	client := clientTLS("http/1.1")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	resumed := func() bool {
		conn := tls.Client(dial(t, root), client)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		write(t, conn, []byte("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"))
		if _, err := io.ReadAll(conn); err != nil { // the tickets come in front of the answer
			t.Fatal(err)
		}
		return conn.ConnectionState().DidResume
	}
	for i, want := range []bool{false, true, false, true} {
		if i == 2 {
			config.SetSessionTicketKeys([][32]byte{{2}})
		}
		if got := resumed(); got != want {
			t.Errorf("connection %d: resumed %t, want %t", i, got, want)
		}
	}
}
