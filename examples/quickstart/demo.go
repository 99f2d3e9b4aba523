package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"text/tabwriter"
	"time"
)

// demoTimeout bounds the whole demo.
const demoTimeout = 10 * time.Second

// A demoClient is one kind of client.
type demoClient struct {
	name string
	call caller
	want outcome

	// The client sends its request right after the preface, with a separate write. Whether it gets early SETTINGS depends
	// on which of the two has arrived when the mux peeks, and either is right.
	racesSettings bool
}

// An outcome is the result of a call, as the client and the server report it.
type outcome struct {
	Answer  greeting
	Verdict verdict
}

var demoClients = []demoClient{
	{
		name: "grpc-go",
		call: callGRPC(cleartext, "gRPC"),
		want: outcome{
			Answer:  greeting{Message: "Hello, gRPC", Protocol: "gRPC"},
			Verdict: verdict{Protocol: "HTTP/2", Route: "grpc", EarlySettings: true},
		},
	},
	{
		name: "net/http, HTTP/2",
		call: callREST(cleartext, "HTTP2", (*http.Protocols).SetUnencryptedHTTP2),
		want: outcome{
			Answer:  greeting{Message: "Hello, HTTP2", Protocol: "HTTP/2.0"},
			Verdict: verdict{Protocol: "HTTP/2", Route: "http"},
		},
		racesSettings: true,
	},
	{
		name: "net/http, HTTP/1.1",
		call: callREST(cleartext, "HTTP1", (*http.Protocols).SetHTTP1),
		want: outcome{
			Answer:  greeting{Message: "Hello, HTTP1", Protocol: "HTTP/1.1"},
			Verdict: verdict{Protocol: "HTTP/1", Route: "http"},
		},
	},
	{
		name: "Upgrade: h2c",
		call: callUpgrade("Upgrade"),
		want: outcome{
			Answer:  greeting{Message: "Hello, Upgrade", Protocol: "HTTP/2.0"},
			Verdict: verdict{Protocol: "HTTP/2", Route: "http", Upgraded: true},
		},
	},
	{
		name: "grpc-go, TLS",
		call: callGRPC(overTLS, "gRPC"),
		want: outcome{
			Answer:  greeting{Message: "Hello, gRPC", Protocol: "gRPC", TLS: true},
			Verdict: verdict{Protocol: "HTTP/2", Route: "grpc", TLS: true, ALPN: "h2", EarlySettings: true},
		},
	},
	{
		name: "net/http, HTTP/2, TLS",
		call: callREST(overTLS, "HTTP2", (*http.Protocols).SetHTTP2),
		want: outcome{
			Answer:  greeting{Message: "Hello, HTTP2", Protocol: "HTTP/2.0", TLS: true},
			Verdict: verdict{Protocol: "HTTP/2", Route: "http", TLS: true, ALPN: "h2"},
		},
		racesSettings: true,
	},
	{
		name: "net/http, HTTP/1.1, TLS",
		call: callREST(overTLS, "HTTP1", (*http.Protocols).SetHTTP1),
		want: outcome{
			Answer:  greeting{Message: "Hello, HTTP1", Protocol: "HTTP/1.1", TLS: true},
			Verdict: verdict{Protocol: "HTTP/1", Route: "http", TLS: true, ALPN: "http/1.1"},
		},
	},
	{
		name: "HTTP/2, TLS without ALPN",
		call: callBareHTTP2("bare"),
		want: outcome{
			Answer:  greeting{Message: "Hello, bare", Protocol: "HTTP/2.0", TLS: true},
			Verdict: verdict{Protocol: "HTTP/2", Route: "http", TLS: true},
		},
		racesSettings: true,
	},
	{
		name: "grpc-go, mutual TLS",
		call: callGRPC(mutualTLS, "gRPC"),
		want: outcome{
			Answer:  greeting{Message: "Hello, gRPC", Protocol: "gRPC", TLS: true, Client: clientName},
			Verdict: verdict{Protocol: "HTTP/2", Route: "grpc", TLS: true, ALPN: "h2", EarlySettings: true},
		},
	},
	{
		name: "net/http, mutual TLS",
		call: callREST(mutualTLS, "HTTP2", (*http.Protocols).SetHTTP2),
		want: outcome{
			Answer:  greeting{Message: "Hello, HTTP2", Protocol: "HTTP/2.0", TLS: true, Client: clientName},
			Verdict: verdict{Protocol: "HTTP/2", Route: "http", TLS: true, ALPN: "h2"},
		},
		racesSettings: true,
	},
	{
		name: "100 of each on one connection",
		call: callMixed(100),
		want: outcome{
			Answer:  greeting{Message: "100 and 100 greetings", Protocol: "gRPC and HTTP/2.0"},
			Verdict: verdict{Protocol: "HTTP/2", Route: "http and grpc"},
		},
		racesSettings: true,
	},
	{
		name: "rubbish",
		call: callRubbish,
		want: outcome{
			Verdict: verdict{Protocol: "unknown", Refused: "no route"},
		},
	},
}

// runDemo serves on l, calls the server as each of the clients, and prints the outcomes. The error names those that are
// wrong.
func runDemo(l net.Listener, out io.Writer) error {
	ca, config, err := makeCertificates(l.Addr())
	if err != nil {
		return err
	}
	cert, err := ca.client(clientName)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), demoTimeout)
	defer cancel()
	var verdicts verdicts
	s := newServer(config, slog.New(slog.DiscardHandler), observers{judged: verdicts.judged, dispatched: verdicts.dispatched})
	served := make(chan error, 1)
	go func() { served <- s.serve(l) }()

	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "CLIENT\tPROTOCOL SEEN\tTLS\tSERVED BY\tEARLY SETTINGS\tFIRST BYTE AFTER\tANSWER")
	var errs []error
	for _, c := range demoClients {
		to := &target{addr: reachable(l.Addr()), tls: &tls.Config{RootCAs: ca.pool()}, cert: cert}
		answer, err := c.call(ctx, to)
		got := outcome{Answer: answer, Verdict: verdicts.of(to.localAddr())}
		writeRow(table, c.name, got, to.firstByteAfter())
		if err = cmp.Or(err, c.check(got)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	table.Flush()

	return errors.Join(append(errs, s.shutdown(ctx), <-served)...)
}

// verdicts has what was observed of each connection, by the client's address.
type verdicts struct {
	mu sync.Mutex
	m  map[string]verdict
}

func (vs *verdicts) judged(remote net.Addr, v verdict) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if vs.m == nil {
		vs.m = make(map[string]verdict)
	}
	vs.m[remote.String()] = v
}

// dispatched replaces the route of a connection by the servers that take part in it.
func (vs *verdicts) dispatched(remote net.Addr, server string, earlySettings bool) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	v := vs.m[remote.String()]
	if v.Dispatched {
		server = v.Route + " and " + server
	}
	v.Route, v.Dispatched, v.EarlySettings = server, true, earlySettings
	vs.m[remote.String()] = v
}

func (vs *verdicts) of(remote string) verdict {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	return vs.m[remote]
}

func writeRow(w io.Writer, client string, o outcome, firstByte time.Duration) {
	protocol, overTLS, servedBy, settings, after, answer := o.Verdict.Protocol, "no", o.Verdict.Route, "not sent", "never came", "none"
	if o.Verdict.Upgraded {
		protocol += ", upgraded"
	}
	if o.Verdict.TLS {
		overTLS = "ALPN " + cmp.Or(o.Verdict.ALPN, "none")
	}
	if o.Verdict.Refused != "" {
		servedBy = "refused: " + o.Verdict.Refused
	}
	if o.Verdict.EarlySettings {
		settings = "sent"
	}
	if firstByte > 0 {
		after = firstByte.Round(time.Microsecond).String()
	}
	if o.Answer != (greeting{}) {
		from := o.Answer.Protocol
		if o.Answer.Client != "" {
			from += ", from " + o.Answer.Client
		}
		answer = fmt.Sprintf("%s (%s)", o.Answer.Message, from)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", client, protocol, overTLS, servedBy, settings, after, answer)
}

// check describes how an outcome differs from the expected one.
func (c *demoClient) check(got outcome) error {
	want := c.want
	if c.racesSettings {
		want.Verdict.EarlySettings = got.Verdict.EarlySettings
	}
	var errs []error
	compare := func(what string, got, want any) {
		if got != want {
			errs = append(errs, fmt.Errorf("%s: got %#v, want %#v", what, got, want))
		}
	}
	compare("message", got.Answer.Message, want.Answer.Message)
	compare("protocol of the answer", got.Answer.Protocol, want.Answer.Protocol)
	compare("TLS of the answer", got.Answer.TLS, want.Answer.TLS)
	compare("client of the answer", got.Answer.Client, want.Answer.Client)
	compare("protocol seen", got.Verdict.Protocol, want.Verdict.Protocol)
	compare("route", got.Verdict.Route, want.Verdict.Route)
	compare("TLS", got.Verdict.TLS, want.Verdict.TLS)
	compare("ALPN", got.Verdict.ALPN, want.Verdict.ALPN)
	compare("upgraded", got.Verdict.Upgraded, want.Verdict.Upgraded)
	compare("early SETTINGS sent", got.Verdict.EarlySettings, want.Verdict.EarlySettings)
	compare("reason of the refusal", got.Verdict.Refused, want.Verdict.Refused)
	return errors.Join(errs...)
}
