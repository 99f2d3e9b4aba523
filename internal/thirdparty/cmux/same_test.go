package cmux

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/soheilhy/cmux"
	"golang.org/x/net/http2"
)

// same are the tests of what programs rely on. They pass with v0.1.5 as well.
var same = map[string]func(*testing.T){
	"Matchers":                matchers,
	"MatchersInOwnFunction":   matchersInOwnFunction,
	"PrefaceIsTaken":          prefaceIsTaken,
	"SendSettingsOnOwnStream": sendSettingsOnOwnStream,
	"ReadTimeout":             readTimeout,
	"ReadTimeoutIsCleared":    readTimeoutIsCleared,
	"OwnMatchers":             ownMatchers,
	"OwnMatchWriter":          ownMatchWriter,
	"NoListener":              noListener,
	"NotMatched":              notMatched,
	"NotMatchedAsksHandler":   notMatchedAsksHandler,
	"RootClosed":              rootClosed,
	"MatchedListenerClosed":   matchedListenerClosed,
	"CloseLeavesRootOpen":     closeLeavesRootOpen,
	"TemporaryErrors":         temporaryErrors,
	"HandlerEndsServe":        handlerEndsServe,
	"MuxConn":                 muxConn,
	"MuxConnOverTLS":          muxConnOverTLS,
	"AcceptAfterServe":        acceptAfterServe,
	"IdleForADay":             idleForADay,
}

func TestSame(t *testing.T) {
	for name, test := range same {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

var matcherCases = []struct {
	name    string
	matcher cmux.Matcher
	data    string
	want    bool
}{
	{"Any", cmux.Any(), "", true},
	{"Prefix", cmux.PrefixMatcher("ab", "xy"), "xyz", true},
	{"Prefix, the rest missing", cmux.PrefixMatcher("ab", "xyz"), "xy", false},
	{"Prefix, longer and shorter", cmux.PrefixMatcher("a", "abcdef"), "abc", true},
	{"Prefix, other", cmux.PrefixMatcher("ab"), "ba", false},
	{"Prefix, none", cmux.PrefixMatcher(), "x", true},
	{"Prefix, empty", cmux.PrefixMatcher("ab", ""), "x", true},
	{"HTTP1Fast", cmux.HTTP1Fast(), "OPTIONS * HTTP/1.1\r\n\r\n", true},
	{"HTTP1Fast, the method alone", cmux.HTTP1Fast(), "GETTING", true},
	{"HTTP1Fast, PATCH", cmux.HTTP1Fast(), "PATCH / HTTP/1.1\r\n\r\n", false},
	{"HTTP1Fast, PATCH given", cmux.HTTP1Fast("PATCH"), "PATCH / HTTP/1.1\r\n\r\n", true},
	{"HTTP1Fast, HTTP/2", cmux.HTTP1Fast(), http2.ClientPreface, false},
	{"HTTP1", cmux.HTTP1(), "GET / HTTP/1.1\r\n", true},
	{"HTTP1, old", cmux.HTTP1(), "GET / HTTP/1.0\r\n", true},
	{"HTTP1, own method", cmux.HTTP1(), "BREW /pot HTTP/1.1\r\n", true},
	{"HTTP1, other version", cmux.HTTP1(), "GET / HTTP/3.0\r\n", false},
	{"HTTP1, no version", cmux.HTTP1(), "GET /\r\n", false},
	{"HTTP1, HTTP/2", cmux.HTTP1(), http2.ClientPreface, false},
	{"HTTP1, TLS", cmux.HTTP1(), "\x16\x03\x01\x00\x05\x01\x00\n", false},
	{"HTTP2", cmux.HTTP2(), http2.ClientPreface + "\x00", true},
	{"HTTP2, a part", cmux.HTTP2(), http2.ClientPreface[:23], false},
	{"HTTP2, HTTP/1", cmux.HTTP2(), "PUT / HTTP/1.1\r\n\r\n", false},
	{"TLS", cmux.TLS(), "\x16\x03\x01\x02\x00\x01", true},
	{"TLS, SSL 2", cmux.TLS(), "\x80\x2e\x01\x00\x02", false},
	{"TLS, version", cmux.TLS(tls.VersionTLS12), "\x16\x03\x03\x02\x00\x01", true},
	{"TLS, other version", cmux.TLS(tls.VersionTLS12), "\x16\x03\x01\x02\x00\x01", false},
	{"HTTP1HeaderField", cmux.HTTP1HeaderField("upgrade", "websocket"), "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n", true},
	{"HTTP1HeaderField, other value", cmux.HTTP1HeaderField("Upgrade", "websocket"), "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n", false},
	{"HTTP1HeaderField, missing", cmux.HTTP1HeaderField("Upgrade", "websocket"), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false},
	{"HTTP1HeaderField, empty and missing", cmux.HTTP1HeaderField("Upgrade", ""), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true},
	{"HTTP1HeaderField, empty and there", cmux.HTTP1HeaderField("Upgrade", ""), "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n", false},
	{"HTTP1HeaderFieldPrefix", cmux.HTTP1HeaderFieldPrefix("Content-Type", "application/"), "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n", true},
	{"HTTP1HeaderFieldPrefix, empty", cmux.HTTP1HeaderFieldPrefix("Content-Type", ""), "POST / HTTP/1.1\r\nHost: x\r\n\r\n", true},
	{"HTTP1HeaderFieldPrefix, empty, not HTTP/1", cmux.HTTP1HeaderFieldPrefix("Content-Type", ""), "hello\r\n\r\n", false},
	{"HTTP1HeaderField, HTTP/2", cmux.HTTP1HeaderFieldPrefix(":path", "/"), request, false},
	{"HTTP2HeaderField", cmux.HTTP2HeaderField(":path", "/"), request, true},
	{"HTTP2HeaderField, other value", cmux.HTTP2HeaderField(":path", "/x"), request, false},
	{"HTTP2HeaderField, missing", cmux.HTTP2HeaderField("content-type", ""), request, false},
	{"HTTP2HeaderFieldPrefix", cmux.HTTP2HeaderFieldPrefix(":path", ""), request, true},
	{"HTTP2HeaderField, HTTP/1", cmux.HTTP2HeaderField("host", "x"), "GET / HTTP/1.1\r\nhost: x\r\n\r\n", false},
	{"HTTP2HeaderField, the end too early", cmux.HTTP2HeaderField(":path", "/"), request[:len(request)-1], false},
}

// request is a request in HTTP/2: :method GET, :path /.
const request = http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x02\x01\x05\x00\x00\x00\x01\x82\x84"

// matchers asks the matchers about connections, and calls them as functions.
func matchers(t *testing.T) {
	for _, tt := range matcherCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for name, r := range map[string]io.Reader{
				"at once":      strings.NewReader(tt.data),
				"byte by byte": iotest.OneByteReader(strings.NewReader(tt.data)),
			} {
				if got := tt.matcher(r); got != tt.want {
					t.Errorf("%s: %v, want %v", name, got, tt.want)
				}
			}
			l := listen(t)
			m := cmux.New(l)
			wanted := accept(m.Match(tt.matcher))
			others := accept(m.Match(cmux.Any()))
			serve(t, m, l)
			dial(t, l, tt.data).(*net.TCPConn).CloseWrite()
			select {
			case a := <-wanted:
				if !tt.want {
					t.Error("it matches a connection")
				}
				wantRead(t, a, tt.data)
				a.Close()
			case a := <-others:
				if tt.want {
					t.Error("it does not match a connection")
				}
				wantRead(t, a, tt.data)
				a.Close()
			}
		})
	}
}

// matchersInOwnFunction has a program's function call those of the package.
func matchersInOwnFunction(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	field := cmux.HTTP2HeaderField(":path", "/")
	matched := m.Match(func(r io.Reader) bool { return !field(r) }, func(r io.Reader) bool { return field(r) })
	serve(t, m, l)
	dial(t, l, request)
	wantRead(t, mustAccept(t, matched), request)
}

// prefaceIsTaken checks that HTTP2, called by a program, takes the preface from the reader and no more, so that the
// program can go on with the frames.
func prefaceIsTaken(t *testing.T) {
	r := strings.NewReader(request)
	if !cmux.HTTP2()(r) {
		t.Fatal("no match")
	}
	if got, _ := io.ReadAll(r); string(got) != request[len(http2.ClientPreface):] {
		t.Errorf("left is %q", got)
	}
}

// sendSettingsOnOwnStream has a program look at a stream of its own.
func sendSettingsOnOwnStream(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	matched := make(chan bool, 1)
	go func() { matched <- cmux.HTTP2MatchHeaderFieldSendSettings(":path", "/")(server, server) }()
	end := len(request) - 11
	io.WriteString(client, request[:end])
	f, err := http2.NewFramer(nil, client).ReadFrame()
	if err != nil || f.Header().Type != http2.FrameSettings {
		t.Fatalf("the client got %v, %v, want SETTINGS", f, err)
	}
	io.WriteString(client, request[end:])
	if !within(t, matched, "no answer") {
		t.Error("no match")
	}
}

// readTimeout has clients that say too little, one of them nothing, go to the listener with Any when the time is up.
func readTimeout(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	m.SetReadTimeout(100 * time.Millisecond)
	m.Match(cmux.HTTP1(), cmux.TLS(), cmux.HTTP2HeaderField(":path", "/"))
	m.Match(func(r io.Reader) bool {
		_, err := io.ReadAll(r)
		ne, ok := errors.AsType[net.Error](err)
		if !ok || !ne.Timeout() {
			t.Errorf("the matcher's read failed with %v, want a timeout", err)
		}
		return false
	})
	others := m.Match(cmux.Any())
	serve(t, m, l)
	for _, first := range []string{"", "GET", "\x16\x03", http2.ClientPreface[:20]} {
		c := dial(t, l, first)
		a := mustAccept(t, others)
		if _, err := io.WriteString(c, " and more"); err != nil {
			t.Fatal(err)
		}
		wantRead(t, a, first+" and more")
	}
}

func readTimeoutIsCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipeListener{conns: make(chan net.Conn)}
		m := cmux.New(l)
		m.SetReadTimeout(time.Second)
		http := m.Match(cmux.HTTP1Fast())
		done := make(chan error, 1)
		go func() { done <- m.Serve() }()
		client, server := net.Pipe()
		defer client.Close()
		l.conns <- server
		go func() {
			io.WriteString(client, "GET /..........")
			time.Sleep(time.Minute)
			io.WriteString(client, "x")
		}()
		c, err := http.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		wantReadPlain(t, c, "GET /..........x")
		close(l.conns)
		<-done
	})
}

// wantReadPlain is wantRead without a deadline of its own.
func wantReadPlain(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got[:n], err, want)
	}
}

// ownMatchers checks that a program's functions are called once, in order, each only when all before it have said no,
// and that each sees everything from the first byte on.
func ownMatchers(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	var mu sync.Mutex
	var calls []string
	own := func(name string, n int, want bool) cmux.Matcher {
		return func(r io.Reader) bool {
			b := make([]byte, n)
			if _, err := io.ReadFull(r, b); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, name+string(b))
			return want
		}
	}
	m.Match(own("a", 2, false), own("b", 3, false), cmux.PrefixMatcher("nothing"))
	matched := m.Match(own("c", 0, false), own("d", 1, true), own("e", 1, true))
	m.Match(own("f", 1, true))
	serve(t, m, l)
	c := dial(t, l, "1")
	for _, s := range "23456789" {
		io.WriteString(c, string(s))
	}
	wantRead(t, mustAccept(t, matched), "123456789")
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(calls, " "); got != "a12 b123 c d1" {
		t.Errorf("calls: %s", got)
	}
}

// ownMatchWriter has a program's function speak first, on the accepted connection, and another that must not speak.
func ownMatchWriter(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	greet := func(w io.Writer, r io.Reader) bool {
		if _, ok := w.(*net.TCPConn); !ok {
			t.Errorf("the writer is a %T", w)
		}
		io.WriteString(w, "who?")
		b := make([]byte, 2)
		_, err := io.ReadFull(r, b)
		return err == nil && string(b) == "me"
	}
	var called atomic.Bool
	first := m.MatchWithWriters(greet, func(w io.Writer, _ io.Reader) bool { called.Store(true); return true })
	second := m.MatchWithWriters(func(w io.Writer, _ io.Reader) bool { called.Store(true); return true })
	serve(t, m, l)
	c := dial(t, l, "")
	wantRead(t, c, "who?")
	io.WriteString(c, "m")
	io.WriteString(c, "e")
	wantRead(t, mustAccept(t, first), "me")
	if called.Load() {
		t.Error("a function behind the one that matched was called")
	}
	second.Addr()
}

func noListener(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	errs := make(chan error, 10)
	m.HandleError(func(err error) bool { errs <- err; return true })
	serve(t, m, l)
	wantEnd(t, dial(t, l, "GET / HTTP/1.1\r\n\r\n"))
	if err := within(t, errs, "no error"); err == nil || !errors.As(err, new(cmux.ErrNotMatched)) {
		t.Errorf("%v, want ErrNotMatched", err)
	}
}

func notMatched(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	m.Match(cmux.TLS())
	errs := make(chan error, 10)
	m.HandleError(func(err error) bool { errs <- err; return true })
	serve(t, m, l)
	for _, first := range []string{"nonsense", "GET / HTTP/1.1\r\n\r\n", request, ""} {
		c := dial(t, l, first)
		c.(*net.TCPConn).CloseWrite()
		wantEnd(t, c)
		err := within(t, errs, "no error")
		notMatched, ok := err.(cmux.ErrNotMatched)
		if !ok || !notMatched.Temporary() || notMatched.Timeout() ||
			err.Error() != "mux: connection "+c.LocalAddr().String()+" not matched by an matcher" {
			t.Errorf("%q: %T %v", first, err, err)
		}
	}
}

// notMatchedAsksHandler has a handler end it all because of a connection that is not matched.
func notMatchedAsksHandler(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	m.Match(cmux.TLS())
	m.HandleError(func(err error) bool { return false })
	served := serve(t, m, l)
	dial(t, l, "nonsense")
	if err := within(t, served, "Serve has not returned"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
}

func rootClosed(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	first, second := accept(m.Match(cmux.TLS())), accept(m.Match(cmux.HTTP1()))
	served := serve(t, m, l)
	wantEnd(t, dial(t, l, "\x00\x00\x00\n"))
	l.Close()
	if a := within(t, first, "Accept has not returned"); a.err != cmux.ErrServerClosed && a.err != cmux.ErrListenerClosed {
		t.Errorf("Accept returned %v", a.err)
	}
	if a := within(t, second, "Accept has not returned"); a.err != cmux.ErrServerClosed && a.err != cmux.ErrListenerClosed {
		t.Errorf("Accept returned %v", a.err)
	}
	err := within(t, served, "Serve has not returned")
	if oe, ok := err.(*net.OpError); !ok || oe.Op != "accept" || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %T %v, want the error of the listener", err, err)
	}
}

// matchedListenerClosed has a server close its listener, as they do when they are told to stop.
func matchedListenerClosed(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	first, second := m.Match(cmux.TLS()), m.Match(cmux.HTTP1())
	if first.Addr() != l.Addr() {
		t.Errorf("Addr: %v, want %v", first.Addr(), l.Addr())
	}
	accepting := accept(second)
	served := serve(t, m, l)
	if err := first.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := second.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close: %v, want what the listener says when it is closed twice", err)
	}
	within(t, served, "Serve has not returned")
	if a := within(t, accepting, "Accept has not returned"); a.err == nil {
		t.Error("Accept of the other listener returned a connection")
	}
}

func closeLeavesRootOpen(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	matched := accept(m.Match(cmux.Any()))
	served := serve(t, m, l)
	m.Close()
	m.Close()
	if a := within(t, matched, "Accept has not returned"); a.err != cmux.ErrServerClosed {
		t.Errorf("Accept returned %v, want ErrServerClosed", a.err)
	}
	select {
	case err := <-served:
		t.Errorf("Serve returned %v", err)
	default:
	}
	if err := l.Close(); err != nil {
		t.Errorf("closing the listener below: %v", err)
	}
	if err := within(t, served, "Serve has not returned"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
}

// brokenListener fails as often as there are errors before it accepts.
type brokenListener struct {
	net.Listener
	errs chan error
}

func (l brokenListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, err
	default:
		return l.Listener.Accept()
	}
}

type acceptError struct{ temporary bool }

func (acceptError) Error() string     { return "cannot accept" }
func (acceptError) Timeout() bool     { return false }
func (e acceptError) Temporary() bool { return e.temporary }

func temporaryErrors(t *testing.T) {
	l := brokenListener{listen(t), make(chan error, 10)}
	l.errs <- acceptError{true}
	l.errs <- acceptError{true}
	m := cmux.New(l)
	var handled atomic.Int32
	m.HandleError(func(error) bool { handled.Add(1); return true })
	matched := m.Match(cmux.Any())
	serve(t, m, l)
	dial(t, l, "")
	mustAccept(t, matched)
	if n := handled.Load(); n != 2 {
		t.Errorf("the handler was called %d times, want 2", n)
	}
}

func handlerEndsServe(t *testing.T) {
	for _, tt := range []struct{ temporary, goOn bool }{{true, false}, {false, true}, {false, false}} {
		l := brokenListener{listen(t), make(chan error, 10)}
		l.errs <- acceptError{tt.temporary}
		m := cmux.New(l)
		m.HandleError(func(error) bool { return tt.goOn })
		m.Match(cmux.Any())
		if err := within(t, serve(t, m, l), "Serve has not returned"); err != (acceptError{tt.temporary}) {
			t.Errorf("Serve returned %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("closing the listener below: %v", err)
		}
	}
}

// muxConn checks the type of connection that programs rely on.
func muxConn(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	matched := m.Match(cmux.HTTP1())
	serve(t, m, l)
	c := dial(t, l, "GET / HTTP/1.1\r\n\r\n")
	conn := mustAccept(t, matched).(*cmux.MuxConn)
	wantRead(t, conn, "GET / HTTP/1.1\r\n\r\n")
	if _, ok := conn.Conn.(*net.TCPConn); !ok {
		t.Errorf("below is a %T", conn.Conn)
	}
	if conn.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("the remote address is %v, want %v", conn.RemoteAddr(), c.LocalAddr())
	}
	if _, err := io.Copy(conn, strings.NewReader("hello")); err != nil {
		t.Error(err)
	}
	wantRead(t, c, "hello")
}

func muxConnOverTLS(t *testing.T) {
	l := tls.NewListener(listen(t), &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	m := cmux.New(l)
	matched := m.Match(cmux.HTTP1())
	serve(t, m, l)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
		io.Copy(io.Discard, c)
	}()
	conn := mustAccept(t, matched).(*cmux.MuxConn)
	wantRead(t, conn, "GET / HTTP/1.1\r\n\r\n")
	if below, ok := conn.Conn.(*tls.Conn); !ok || !below.ConnectionState().HandshakeComplete {
		t.Errorf("below is a %T", conn.Conn)
	}
	conn.Close()
	<-done
}

// pipeListener accepts what is put into it.
type pipeListener struct {
	net.Listener
	conns chan net.Conn
}

func (l pipeListener) Accept() (net.Conn, error) {
	if c, ok := <-l.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

// idleForADay has a client that connects ahead, and one that has begun to say something.
func idleForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipeListener{conns: make(chan net.Conn)}
		m := cmux.New(l)
		http := m.Match(cmux.HTTP1Fast())
		done := make(chan error, 1)
		go func() { done <- m.Serve() }()
		for _, first := range []string{"", "G"} {
			client, server := net.Pipe()
			l.conns <- server
			io.WriteString(client, first)
			time.Sleep(24 * time.Hour)
			go io.WriteString(client, "GET /.........."[len(first):])
			c, err := http.Accept()
			if err != nil {
				t.Fatal(err)
			}
			wantReadPlain(t, c, "GET /..........")
			c.Close()
			client.Close()
		}
		close(l.conns)
		if err := <-done; err != net.ErrClosed {
			t.Errorf("Serve returned %v", err)
		}
	})
}

func acceptAfterServe(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	matched := m.Match(cmux.TLS())
	served := serve(t, m, l)
	l.Close()
	within(t, served, "Serve has not returned")
	if _, err := matched.Accept(); err != cmux.ErrListenerClosed && err != cmux.ErrServerClosed {
		t.Errorf("Accept returned %v", err)
	}
}
