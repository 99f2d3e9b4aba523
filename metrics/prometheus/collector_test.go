package oneportprom_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
	"github.com/oneport-go/oneport/internal/certs"
	oneportprom "github.com/oneport-go/oneport/metrics/prometheus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// statsFunc is a source of counters that are made up.
type statsFunc func() oneport.Stats

func (f statsFunc) Stats() oneport.Stats { return f() }

// everything has no counter that is 0.
func everything() oneport.Stats {
	return oneport.Stats{
		Accepted:         1,
		Matched:          2,
		Refused:          map[oneport.RefuseReason]uint64{oneport.ReasonQueueFull: 3},
		RefusedByRoute:   map[string]map[oneport.RefuseReason]uint64{"http": {oneport.ReasonQueueFull: 4}},
		Undecided:        5,
		Queued:           6,
		Refusing:         7,
		Passing:          8,
		Shared:           9,
		Split:            10,
		ALPN:             map[string]uint64{"": 11, "h2": 12},
		HTTP2WithoutALPN: 13,
		Upgraded:         14,
		EarlySettings:    15,
		AcceptErrors:     16,
		Abused:           17,
		Routes: []oneport.RouteStats{
			{Name: "http", Matched: 18, Queued: 19, Requests: 20, Refused: 21},
			{Name: "\xff", Matched: 22},
		},
	}
}

// TestEveryCounter checks what becomes of each counter, with the help texts.
func TestEveryCounter(t *testing.T) {
	t.Parallel()
	const want = `
# HELP oneport_accept_errors_total Temporary errors of Accept.
# TYPE oneport_accept_errors_total counter
oneport_accept_errors_total 16
# HELP oneport_connections Current connections that the mux holds, by phase: undecided (without a route), queued (not accepted by the server of their route), refusing (being answered), passing and shared (requests dispatched, to one server or several).
# TYPE oneport_connections gauge
oneport_connections{phase="passing"} 8
oneport_connections{phase="queued"} 6
oneport_connections{phase="refusing"} 7
oneport_connections{phase="shared"} 9
oneport_connections{phase="undecided"} 5
# HELP oneport_connections_abused_total Connections ended because the client exceeded a limit after a server had accepted them.
# TYPE oneport_connections_abused_total counter
oneport_connections_abused_total 17
# HELP oneport_connections_accepted_total Connections accepted from the listener.
# TYPE oneport_connections_accepted_total counter
oneport_connections_accepted_total 1
# HELP oneport_connections_matched_total Connections that a server has accepted.
# TYPE oneport_connections_matched_total counter
oneport_connections_matched_total 2
# HELP oneport_connections_refused_total Connections closed before a server had them, by reason.
# TYPE oneport_connections_refused_total counter
oneport_connections_refused_total{reason="client closed"} 0
oneport_connections_refused_total{reason="handshake"} 0
oneport_connections_refused_total{reason="idle"} 0
oneport_connections_refused_total{reason="no route"} 0
oneport_connections_refused_total{reason="panic"} 0
oneport_connections_refused_total{reason="protocol error"} 0
oneport_connections_refused_total{reason="queue full"} 3
oneport_connections_refused_total{reason="read error"} 0
oneport_connections_refused_total{reason="route closed"} 0
oneport_connections_refused_total{reason="shutdown"} 0
oneport_connections_refused_total{reason="timeout"} 0
oneport_connections_refused_total{reason="too long"} 0
oneport_connections_refused_total{reason="too many"} 0
# HELP oneport_connections_split_total Connections that became shared.
# TYPE oneport_connections_split_total counter
oneport_connections_split_total 10
# HELP oneport_connections_upgraded_total Connections upgraded to HTTP/2 by Upgrade: h2c.
# TYPE oneport_connections_upgraded_total counter
oneport_connections_upgraded_total 14
# HELP oneport_early_settings_total Connections that were sent a SETTINGS frame before they had a server.
# TYPE oneport_early_settings_total counter
oneport_early_settings_total 15
# HELP oneport_http2_without_alpn_total Connections with HTTP/2 inside TLS for which ALPN had negotiated nothing.
# TYPE oneport_http2_without_alpn_total counter
oneport_http2_without_alpn_total 13
# HELP oneport_route_connections_matched_total Connections that the server of the route has accepted. One whose requests are dispatched counts for each server.
# TYPE oneport_route_connections_matched_total counter
oneport_route_connections_matched_total{route="http"} 18
oneport_route_connections_matched_total{route="\"\\xff\""} 22
# HELP oneport_route_connections_queued Current connections in the queue of the route.
# TYPE oneport_route_connections_queued gauge
oneport_route_connections_queued{route="http"} 19
oneport_route_connections_queued{route="\"\\xff\""} 0
# HELP oneport_route_connections_refused_total Connections that the route had taken and that were closed before its server had them, by reason.
# TYPE oneport_route_connections_refused_total counter
oneport_route_connections_refused_total{reason="queue full",route="http"} 4
# HELP oneport_route_requests_refused_total Requests reset because their server could not take them, counted under the route none.
# TYPE oneport_route_requests_refused_total counter
oneport_route_requests_refused_total{route="http"} 21
oneport_route_requests_refused_total{route="\"\\xff\""} 0
# HELP oneport_route_requests_total Requests sent to the server of the route, where requests are dispatched. The route none counts those that no route took.
# TYPE oneport_route_requests_total counter
oneport_route_requests_total{route="http"} 20
oneport_route_requests_total{route="\"\\xff\""} 0
# HELP oneport_tls_handshakes_total Completed TLS handshakes, by negotiated protocol. An empty alpn stands for none.
# TYPE oneport_tls_handshakes_total counter
oneport_tls_handshakes_total{alpn=""} 11
oneport_tls_handshakes_total{alpn="h2"} 12
`
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(oneportprom.NewCollector(statsFunc(everything)))
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// TestEveryReason checks that there is a series for each reason that there is.
func TestEveryReason(t *testing.T) {
	t.Parallel()
	n := 0
	for reason := oneport.ReasonNoRoute; !strings.HasPrefix(reason.String(), "RefuseReason("); reason++ {
		n++
	}
	c := oneportprom.NewCollector(statsFunc(func() oneport.Stats { return oneport.Stats{} }))
	if got := testutil.CollectAndCount(c, "oneport_connections_refused_total"); got != n {
		t.Errorf("%d series for %d reasons", got, n)
	}
}

// TestLint has promlint look at all names and help texts.
func TestLint(t *testing.T) {
	t.Parallel()
	timer := oneportprom.NewDecideTimer()
	timer.Hooks(oneport.Hooks{}).OnMatch(oneport.Matched{})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(oneportprom.NewCollector(statsFunc(everything)), timer)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestSeveralMuxes registers collectors for two muxes, and unregisters one.
func TestSeveralMuxes(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	one, two := oneportprom.NewCollector(statsFunc(everything)), oneportprom.NewCollector(statsFunc(everything))
	registry.MustRegister(one)
	if err := registry.Register(two); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		t.Errorf("a second collector in the same registry: %v", err)
	}
	registry = prometheus.NewPedanticRegistry()
	a := prometheus.WrapRegistererWith(prometheus.Labels{"mux": "a"}, registry)
	b := prometheus.WrapRegistererWith(prometheus.Labels{"mux": "b"}, registry)
	a.MustRegister(one)
	b.MustRegister(two)
	if !a.Unregister(one) {
		t.Error("the first collector was not registered")
	}
	const want = `
# HELP oneport_accept_errors_total Temporary errors of Accept.
# TYPE oneport_accept_errors_total counter
oneport_accept_errors_total{mux="b"} 16
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "oneport_accept_errors_total"); err != nil {
		t.Error(err)
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config, _, err := certs.Configs("localhost")
		if err != nil {
			t.Fatal(err)
		}
		p := newPort()
		timer := oneportprom.NewDecideTimer()
		g := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
		healthpb.RegisterHealthServer(g, health.NewServer())
		s := &oneport.Server{
			GRPC:      g,
			Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }),
			TLSConfig: config,
			Hooks:     timer.Hooks(oneport.Hooks{}),
			Logger:    slog.New(slog.DiscardHandler),
		}
		p.registry.MustRegister(oneportprom.NewCollector(s), timer)
		served := make(chan error, 1)
		go func() { served <- s.Serve(p) }()
		defer func() {
			s.Close()
			<-served
		}()

		// A client that waits for SETTINGS before it sends its two calls.
		cc, err := grpc.NewClient("passthrough:port", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(p.dialContext))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		for range 2 {
			if _, err := healthpb.NewHealthClient(cc).Check(t.Context(), new(healthpb.HealthCheckRequest)); err != nil {
				t.Fatal(err)
			}
		}

		// One connection with REST and gRPC, inside TLS.
		transport := &http.Transport{
			DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return p.dialContext(ctx, addr) },
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // by the clock of the test no certificate is valid yet
			ForceAttemptHTTP2: true,
		}
		mixed, err := transport.NewClientConn(t.Context(), "https", "localhost:443")
		if err != nil {
			t.Fatal(err)
		}
		defer mixed.Close()
		synctest.Wait() // for the mux, which sends SETTINGS before the first request
		for _, path := range []string{"/", "/grpc.health.v1.Health/Check", "/"} {
			empty := strings.NewReader("\x00\x00\x00\x00\x00") // a message of gRPC
			req, err := http.NewRequestWithContext(t.Context(), "POST", "https://localhost"+path, empty)
			if err != nil {
				t.Fatal(err)
			}
			if path != "/" {
				req.Header.Set("Content-Type", "application/grpc")
				req.Header.Set("TE", "trailers")
			}
			res, err := mixed.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}

		// A client that takes its time.
		slow := p.dial(t)
		time.Sleep(3 * time.Second)
		fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := slow.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}

		p.send(t, "\x00\x00\x00")                                 // no protocol that there is
		p.send(t, "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")     // no ClientHello
		p.send(t, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00") // and nothing more for now
		time.Sleep(5 * time.Second)
		p.send(t, "")

		p.want(t, `
oneport_connections_accepted_total 7
oneport_connections_matched_total 3
oneport_connections_refused_total{reason="handshake"} 1
oneport_connections_refused_total{reason="no route"} 1
oneport_connections_split_total 1
oneport_connections{phase="passing"} 1
oneport_connections{phase="shared"} 1
oneport_connections{phase="undecided"} 2
oneport_decide_duration_seconds_count{outcome="matched",route="http"} 1
oneport_decide_duration_seconds_count{outcome="matched",route="http2"} 1
oneport_decide_duration_seconds_count{outcome="matched",route="tls/http2"} 1
oneport_decide_duration_seconds_count{outcome="refused",route=""} 1
oneport_decide_duration_seconds_count{outcome="refused",route="tls"} 1
oneport_decide_duration_seconds_sum{outcome="matched",route="http"} 3
oneport_early_settings_total 3
oneport_route_connections_matched_total{route="http"} 1
oneport_route_connections_matched_total{route="http2/grpc"} 1
oneport_route_connections_matched_total{route="tls/http2/grpc"} 1
oneport_route_connections_matched_total{route="tls/http2/http"} 1
oneport_route_connections_refused_total{reason="handshake",route="tls"} 1
oneport_route_requests_total{route="http2/grpc"} 2
oneport_route_requests_total{route="tls/http2/grpc"} 1
oneport_route_requests_total{route="tls/http2/http"} 2
oneport_tls_handshakes_total{alpn="h2"} 1
`)
	})
}

// TestMux has what a Server does not: queues, temporary errors, requests that no route takes, and abuse.
func TestMux(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPort()
		m := oneport.New(p)
		m.Logger = slog.New(slog.DiscardHandler)
		m.QueueLength, m.QueuePolicy = 1, oneport.QueueRefuse
		m.ControlBurst, m.ControlRate = 1, 1
		http1 := m.Route(oneport.Route{Name: "http1", Matchers: []oneport.Matcher{oneport.HTTP1()}})
		requests := m.Requests()
		a := requests.Route(oneport.Route{Name: "a", Matchers: []oneport.Matcher{oneport.Path("/a")}})
		p.registry.MustRegister(oneportprom.NewCollector(m))
		served := make(chan error, 1)
		go func() { served <- m.Serve() }()
		defer func() {
			m.Close()
			<-served
		}()

		p.errs <- syscall.ECONNABORTED
		for range 3 { // one to be accepted, one for the queue, and one too many
			p.send(t, "GET / HTTP/1.1\r\n\r\n")
			if m.Stats().Routes[0].Matched == 0 {
				accept(t, http1)
			}
		}
		p.send(t, preface+request(t, "/b"))
		flood := p.send(t, preface+request(t, "/a"))
		accept(t, a)
		go io.WriteString(flood, strings.Repeat("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", 10))
		time.Sleep(time.Minute)

		p.want(t, `
oneport_accept_errors_total 1
oneport_connections_abused_total 1
oneport_connections_accepted_total 5
oneport_connections_matched_total 2
oneport_connections_refused_total{reason="queue full"} 1
oneport_connections_split_total 1
oneport_connections{phase="queued"} 1
oneport_connections{phase="undecided"} 1
oneport_route_connections_matched_total{route="http1"} 1
oneport_route_connections_matched_total{route="requests/a"} 1
oneport_route_connections_queued{route="http1"} 1
oneport_route_connections_refused_total{reason="queue full",route="http1"} 1
oneport_route_requests_total{route="requests/a"} 1
oneport_route_requests_total{route="requests/none"} 1
`)
	})
}

// preface is what an HTTP/2 client sends before its first request.
const preface = http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// request returns the frame of a request without content.
func request(t *testing.T, path string) string {
	t.Helper()
	var block, frame strings.Builder
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", path}} {
		encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	err := http2.NewFramer(&frame, nil).WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return frame.String()
}

// accept has a server accept a connection, and discard what it gets.
func accept(t *testing.T, l net.Listener) {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go io.Copy(io.Discard, c)
	synctest.Wait()
}

// TestConcurrent scrapes while clients connect, make a request and go.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	const clients, connections = 8, 25
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	timer := oneportprom.NewDecideTimer()
	s := &oneport.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }),
		Hooks:   timer.Hooks(oneport.Hooks{}),
		Logger:  slog.New(slog.DiscardHandler),
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(oneportprom.NewCollector(s), timer)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		s.Close()
		<-served
	}()

	var all, scraping sync.WaitGroup
	done := make(chan struct{})
	scraping.Go(func() {
		for {
			if _, err := registry.Gather(); err != nil {
				t.Error(err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range clients {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for range connections {
				res, err := client.Get("http://" + l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
			}
		})
	}
	all.Wait()
	close(done)
	scraping.Wait()
	got := exposition(t, registry)
	for _, name := range []string{
		"oneport_connections_accepted_total",
		"oneport_connections_matched_total",
		`oneport_route_connections_matched_total{route="http"}`,
		`oneport_decide_duration_seconds_count{outcome="matched",route="http"}`,
	} {
		if want := fmt.Sprint(name, " ", clients*connections); !slices.Contains(got, want) {
			t.Errorf("no line %s in\n%s", want, strings.Join(got, "\n"))
		}
	}
}
