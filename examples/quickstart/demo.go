package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/oneport-go/oneport/examples/quickstart/greeterpb"
)

// demoTimeout is what the whole demo has to come to an end.
const demoTimeout = 10 * time.Second

// A demoClient is one kind of client.
type demoClient struct {
	name string
	call func(ctx context.Context, d *dialer, addr string) (greeting, error)
	want outcome

	// The client sends its request in the same moment as the preface, but apart from it. Whether it gets early SETTINGS
	// depends on which of the two the mux has seen when it looks, and either is right.
	racesSettings bool
}

// An outcome is what the client and the server say of a call.
type outcome struct {
	Answer  greeting
	Verdict verdict
}

var demoClients = []demoClient{
	{
		name: "grpc-go",
		call: callGRPC,
		want: outcome{
			Answer:  greeting{Message: "Hello, gRPC", Protocol: "gRPC"},
			Verdict: verdict{Protocol: "HTTP/2", Route: "grpc", EarlySettings: true},
		},
	},
	{
		name: "net/http, HTTP/2",
		call: callHTTP2,
		want: outcome{
			Answer:  greeting{Message: "Hello, HTTP2", Protocol: "HTTP/2.0"},
			Verdict: verdict{Protocol: "HTTP/2", Route: "http"},
		},
		racesSettings: true,
	},
	{
		name: "net/http, HTTP/1.1",
		call: callHTTP1,
		want: outcome{
			Answer:  greeting{Message: "Hello, HTTP1", Protocol: "HTTP/1.1"},
			Verdict: verdict{Protocol: "HTTP/1", Route: "http"},
		},
	},
	{
		name: "rubbish",
		call: callRubbish,
		want: outcome{
			Verdict: verdict{Protocol: "unknown", Refused: "no route"},
		},
	},
}

// runDemo serves on l, calls the server as each of the clients, and shows what came of it. The error says which
// outcomes are wrong.
func runDemo(l net.Listener, out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), demoTimeout)
	defer cancel()
	var verdicts sync.Map // by the client's address
	s := newServer(l, slog.New(slog.DiscardHandler), func(remote net.Addr, v verdict) {
		verdicts.Store(remote.String(), v)
	})
	served := make(chan error, 1)
	go func() { served <- s.serve() }()

	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "CLIENT\tPROTOCOL SEEN\tSERVED BY\tEARLY SETTINGS\tFIRST BYTE AFTER\tANSWER")
	var errs []error
	for _, c := range demoClients {
		var d dialer
		answer, err := c.call(ctx, &d, reachable(l.Addr()))
		got := outcome{Answer: answer}
		if v, ok := verdicts.Load(d.localAddr()); ok {
			got.Verdict = v.(verdict)
		}
		writeRow(table, c.name, got, d.firstByteAfter())
		if err = cmp.Or(err, c.check(got)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	table.Flush()

	return errors.Join(append(errs, s.shutdown(ctx), <-served)...)
}

func writeRow(w io.Writer, client string, o outcome, firstByte time.Duration) {
	servedBy, settings, after, answer := o.Verdict.Route, "not sent", "never came", "none"
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
		answer = fmt.Sprintf("%s (%s)", o.Answer.Message, o.Answer.Protocol)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", client, o.Verdict.Protocol, servedBy, settings, after, answer)
}

// check says how an outcome is not what was wanted.
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
	compare("protocol seen", got.Verdict.Protocol, want.Verdict.Protocol)
	compare("route", got.Verdict.Route, want.Verdict.Route)
	compare("early SETTINGS sent", got.Verdict.EarlySettings, want.Verdict.EarlySettings)
	compare("reason of the refusal", got.Verdict.Refused, want.Verdict.Refused)
	return errors.Join(errs...)
}

// callGRPC calls with a client that waits for the server's SETTINGS before it sends a request.
func callGRPC(ctx context.Context, d *dialer, addr string) (greeting, error) {
	cc, err := grpc.NewClient("passthrough:"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		return greeting{}, err
	}
	defer cc.Close()
	r, err := greeterpb.NewGreeterClient(cc).SayHello(ctx, &greeterpb.SayHelloRequest{Name: "gRPC"})
	return greeting{Message: r.GetMessage(), Protocol: r.GetProtocol()}, err
}

func callHTTP2(ctx context.Context, d *dialer, addr string) (greeting, error) {
	t := &http.Transport{DialContext: d.DialContext, Protocols: new(http.Protocols)}
	t.Protocols.SetUnencryptedHTTP2(true)
	return callREST(ctx, t, "http://"+addr+"/v1/hello/HTTP2")
}

func callHTTP1(ctx context.Context, d *dialer, addr string) (greeting, error) {
	return callREST(ctx, &http.Transport{DialContext: d.DialContext}, "http://"+addr+"/v1/hello/HTTP1")
}

func callREST(ctx context.Context, t *http.Transport, url string) (greeting, error) {
	defer t.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return greeting{}, err
	}
	resp, err := t.RoundTrip(r)
	if err != nil {
		return greeting{}, err
	}
	defer resp.Body.Close()
	var answer greeting
	if resp.StatusCode != http.StatusOK {
		return answer, errors.New(resp.Status)
	}
	err = json.NewDecoder(resp.Body).Decode(&answer)
	return answer, err
}

// callRubbish sends what is no protocol's, and waits until the server closes the connection.
func callRubbish(ctx context.Context, d *dialer, addr string) (greeting, error) {
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return greeting{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := io.WriteString(c, "\x00\x01rubbish\r\n"); err != nil {
		return greeting{}, err
	}
	answer, err := io.ReadAll(c)
	if len(answer) > 0 {
		return greeting{}, fmt.Errorf("unexpected answer %q", answer)
	}
	return greeting{}, err
}

// A dialer dials a connection and watches it.
type dialer struct {
	mu        sync.Mutex
	local     net.Addr
	firstByte time.Duration // from when the connection was there
}

// DialContext dials as [net.Dialer.DialContext] does.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.local, d.firstByte = c.LocalAddr(), 0
	return &watchedConn{Conn: c, dialer: d, dialed: time.Now()}, nil
}

// localAddr is the client's address as the server sees it.
func (d *dialer) localAddr() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.local == nil {
		return ""
	}
	return d.local.String()
}

// firstByteAfter is zero if no byte has come.
func (d *dialer) firstByteAfter() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.firstByte
}

// watchedConn notes for its dialer when the first byte comes.
type watchedConn struct {
	net.Conn
	dialer *dialer
	dialed time.Time
	read   bool
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.read {
		c.read = true // readers do not overlap
		c.dialer.mu.Lock()
		c.dialer.firstByte = time.Since(c.dialed)
		c.dialer.mu.Unlock()
	}
	return n, err
}
