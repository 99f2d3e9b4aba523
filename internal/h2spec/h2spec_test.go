package h2spec

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/certs"
	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
	xhttp2 "golang.org/x/net/http2"
)

const (
	// The suite waits this long for a frame. net/http takes a second to close a connection after GOAWAY, and some cases
	// wait for the end of the connection.
	timeout = 2 * time.Second

	// Cases spend their time waiting, each on a connection of its own.
	atOnce = 48

	// A case that ends otherwise behind a mux is tried this often before it is believed: some depend on who is faster.
	tries = 3
)

// behindHeaders are the cases that cannot pass behind a route that depends on the header block, and why. All others
// that pass without a mux have to.
var behindHeaders = map[string]string{
	"http2/6.9.2/1": "takes the first SETTINGS frame behind its request for an acknowledgement, and it is net/http's own, " +
		"which RFC 9113, Section 6.5 lets a server send at any time",
}

func TestH2spec(t *testing.T) {
	secure := serverTLS(t)
	alone, aloneTLS := listen(t), listen(t)
	serve(t, alone, nil)
	serve(t, aloneTLS, secure)
	behind, stopBehind := serveBehind(t, nil, nil, oneport.HTTP2())
	behindTLS, stopBehindTLS := serveBehind(t, nil, secure, oneport.HTTP2())
	// Some cases go by the first SETTINGS frame alone, so the early one has net/http's own contents here.
	settings := firstSettings(t, alone.Addr())
	anyRequest := oneport.HeaderFunc(":method", func(string) bool { return true })
	early, stopEarly := serveBehind(t, settings, nil, anyRequest)
	earlyTLS, stopEarlyTLS := serveBehind(t, settings, secure, anyRequest)
	server := serveServer(t, secure)

	clear := []target{
		{name: "without a mux", addr: alone.Addr()},
		{name: "without a mux, once more,", addr: alone.Addr()},
		{name: "behind HTTP2()", addr: behind},
		{name: "behind HeaderFunc", addr: early, cannot: behindHeaders},
		{name: "with a Server", addr: server},
	}
	overTLS := []target{
		{name: "over TLS without a mux", addr: aloneTLS.Addr(), tls: true},
		{name: "over TLS without a mux, once more,", addr: aloneTLS.Addr(), tls: true},
		{name: "over TLS behind HTTP2()", addr: behindTLS, tls: true},
		{name: "over TLS behind HeaderFunc", addr: earlyTLS, tls: true, cannot: behindHeaders},
		{name: "over TLS with a Server", addr: server, tls: true},
	}
	all := cases()
	var wg sync.WaitGroup
	for _, targets := range [][]target{clear, overTLS} {
		for i := range targets {
			wg.Go(func() { targets[i].results = runAll(all, targets[i]) })
		}
	}
	wg.Wait()
	for _, targets := range [][]target{clear, overTLS} {
		compareAll(t, all, targets)
	}

	for _, stats := range []oneport.Stats{stopBehind(), stopBehindTLS()} {
		if n := stats.EarlySettings; n != 0 {
			t.Errorf("behind HTTP2(), which needs no header block, %d connections got early SETTINGS", n)
		}
	}
	for _, stats := range []oneport.Stats{stopEarly(), stopEarlyTLS()} {
		if n := stats.EarlySettings; n == 0 {
			t.Error("behind HeaderFunc, which needs the header block, no connection got early SETTINGS")
		}
	}
}

// compareAll compares the targets from the third on with the first. The second is the same as the first, and shows
// which cases can be compared.
func compareAll(t *testing.T, all map[string]*spec.TestCase, targets []target) {
	want, again := targets[0], targets[1]
	passed := 0
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if w, a := want.results[id], again.results[id]; w.verdict != a.verdict {
			t.Logf("not compared, since not stable %s: %s (%s) %s, and %s", want.name, id, all[id].Desc, w, a)
			continue
		}
		if want.results[id].verdict == passes {
			passed++
		}
		for _, got := range targets[2:] {
			compare(t, id, all[id], want, got)
		}
	}
	t.Logf("%d of %d cases pass %s", passed, len(all), want.name)
}

// compare reports a case that passes at want and not at got, or that cannot but does.
func compare(t *testing.T, id string, tc *spec.TestCase, want, got target) {
	w, g := want.results[id], got.results[id]
	why, cannot := got.cannot[id]
	for range tries {
		if (w.verdict == passes && g.verdict != passes) == cannot {
			if w.verdict != passes && g.verdict == passes {
				t.Logf("%s (%s) passes %s, and %s %s", id, tc.Desc, got.name, w, want.name)
			}
			return
		}
		w, g = run(tc, want), run(tc, got)
	}
	if cannot {
		t.Errorf("%s (%s) passes %s, although it %s", id, tc.Desc, got.name, why)
	} else {
		t.Errorf("%s (%s) passes %s, and %s %s", id, tc.Desc, want.name, g, got.name)
	}
}

// A target is a server that the suite runs against.
type target struct {
	name    string
	addr    net.Addr
	tls     bool
	cannot  map[string]string // the cases that cannot pass, and why
	results map[string]result
}

type verdict string

const (
	passes  verdict = "passes"
	fails   verdict = "fails"
	skipped verdict = "is skipped"
)

type result struct {
	verdict
	err error
}

func (r result) String() string {
	if r.verdict != fails {
		return string(r.verdict)
	}
	return fmt.Sprintf("fails [%s]", strings.ReplaceAll(r.err.Error(), "\n", " | "))
}

// runAll runs all cases against a target.
func runAll(all map[string]*spec.TestCase, to target) map[string]result {
	results := make(map[string]result)
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for id, tc := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			r := run(tc, to)
			mu.Lock()
			defer mu.Unlock()
			results[id] = r
		})
	}
	wg.Wait()
	return results
}

// run runs one case.
func run(tc *spec.TestCase, to target) result {
	tcp := to.addr.(*net.TCPAddr)
	c := &config.Config{
		Host:         tcp.IP.String(),
		Port:         tcp.Port,
		Path:         "/",
		Timeout:      timeout,
		MaxHeaderLen: 4000, // as the suite's own command sets it
		Strict:       true,
		TLS:          to.tls,
		Insecure:     true, // the suite has no option for an authority
	}
	conn, err := spec.Dial(c)
	if err != nil {
		return result{fails, err}
	}
	defer conn.Close()
	switch err := tc.Run(c, conn); {
	case err == nil, closedByReset(err):
		return result{passes, nil}
	case err == spec.ErrSkipped:
		return result{skipped, nil}
	default:
		return result{fails, err}
	}
}

// closedByReset reports whether a case failed only because h2spec, to which a reset is an end of the connection like
// any other, does not know it: it looks for the error where Go no longer puts it.
func closedByReset(err error) bool {
	failed, ok := errors.AsType[*spec.TestError](err)
	return ok && slices.Contains(failed.Expected, spec.ExpectedConnectionClosed) &&
		strings.HasSuffix(failed.Actual, syscall.ECONNRESET.Error())
}

// cases returns the cases of the suite by their ids, the strict ones included.
func cases() map[string]*spec.TestCase {
	all := make(map[string]*spec.TestCase)
	var add func(g *spec.TestGroup)
	add = func(g *spec.TestGroup) {
		for i, tc := range slices.Concat(g.Tests, g.StrictTests) {
			all[fmt.Sprintf("%s/%d", g.ID(), i+1)] = tc
		}
		for _, sub := range g.Groups {
			add(sub)
		}
	}
	for _, g := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		add(g)
	}
	return all
}

// serveBehind puts net/http behind a mux with one route, inside TLS if it is to be secure. It returns the address, and
// a function that stops the mux.
func serveBehind(t *testing.T, early []xhttp2.Setting, secure *tls.Config, m oneport.Matcher) (net.Addr, func() oneport.Stats) {
	mux := oneport.New(listen(t))
	mux.Logger = slog.New(slog.DiscardHandler) // most cases break the protocol
	mux.EarlySettings = settings(early)
	// What is not HTTP/2 at all is net/http's to answer as well.
	match := mux.Match
	if secure != nil {
		match = mux.TLS(secure).Match
	}
	l := match(m, oneport.Not(oneport.HTTP2()))
	serve(t, l, nil)
	served := make(chan error, 1)
	go func() { served <- mux.Serve() }()
	return l.Addr(), func() oneport.Stats {
		if err := mux.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != oneport.ErrClosed {
			t.Errorf("Serve: %v", err)
		}
		return mux.Stats()
	}
}

// firstSettings returns what the server at addr has in its SETTINGS frame.
func firstSettings(t *testing.T, addr net.Addr) []xhttp2.Setting {
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, xhttp2.ClientPreface)
	fr := xhttp2.NewFramer(c, c)
	fr.WriteSettings()
	f, err := fr.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	var list []xhttp2.Setting
	f.(*xhttp2.SettingsFrame).ForeachSetting(func(s xhttp2.Setting) error {
		list = append(list, s)
		return nil
	})
	return list
}

// serveServer serves HTTP alone with a Server, in cleartext and over TLS.
func serveServer(t *testing.T, secure *tls.Config) net.Addr {
	l := listen(t)
	server := &oneport.Server{HTTP: httpServer(), TLSConfig: secure, Configure: func(m *oneport.Mux) {
		m.Logger = slog.New(slog.DiscardHandler)
	}}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, oneport.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr()
}

// serve runs net/http on l until the end of the test, with TLS if secure is not nil.
func serve(t *testing.T, l net.Listener, secure *tls.Config) {
	srv := httpServer()
	oneport.ConfigureHTTP(srv)
	done := make(chan error, 1)
	go func() {
		if secure == nil {
			done <- srv.Serve(l)
			return
		}
		srv.TLSConfig = secure.Clone()
		done <- srv.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
}

func httpServer() *http.Server {
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, strings.Repeat("oneport ", 32)) // enough for the cases about flow control
		}),
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

func serverTLS(t *testing.T) *tls.Config {
	server, _, err := certs.Configs("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return server
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
