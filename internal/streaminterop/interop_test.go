package streaminterop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/oneport-go/oneport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cases are the cases of gRPC's interoperability tests that need no credentials of some cloud.
var cases = []struct {
	name string
	run  func(ctx context.Context, c *grpc.ClientConn, opts ...grpc.CallOption)
}{
	{"empty_unary", on(interop.DoEmptyUnaryCall)},
	{"large_unary", on(interop.DoLargeUnaryCall)},
	{"client_streaming", on(interop.DoClientStreaming)},
	{"server_streaming", on(interop.DoServerStreaming)},
	{"ping_pong", on(interop.DoPingPong)},
	{"empty_stream", on(interop.DoEmptyStream)},
	{"timeout_on_sleeping_server", on(interop.DoTimeoutOnSleepingServer)},
	{"cancel_after_begin", on(interop.DoCancelAfterBegin)},
	{"cancel_after_first_response", on(interop.DoCancelAfterFirstResponse)},
	{"custom_metadata", on(interop.DoCustomMetadata)},
	{"status_code_and_message", on(interop.DoStatusCodeAndMessage)},
	{"special_status_message", on(interop.DoSpecialStatusMessage)},
	{"unimplemented_service", func(ctx context.Context, c *grpc.ClientConn, _ ...grpc.CallOption) {
		interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(c))
	}},
	{"unimplemented_method", func(ctx context.Context, c *grpc.ClientConn, _ ...grpc.CallOption) {
		interop.DoUnimplementedMethod(ctx, c)
	}},
}

func on(f func(context.Context, testpb.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn, ...grpc.CallOption) {
	return func(ctx context.Context, c *grpc.ClientConn, opts ...grpc.CallOption) {
		f(ctx, testpb.NewTestServiceClient(c), opts...)
	}
}

// runCases runs all cases. A case that fails ends the process, with a line that says why.
func runCases(t *testing.T, addr string) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, c := range cases {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		c.run(ctx, conn)
		cancel()
	}
	// Compressed, as far as grpc-go's cases take options.
	for _, i := range []int{1, 2, 3, 4} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		cases[i].run(ctx, conn, grpc.UseCompressor(gzip.Name))
		cancel()
	}
}

// A port has gRPC and REST behind routing by request.
type port struct {
	mux  *oneport.Mux
	addr string
}

func newPort(t *testing.T) *port {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &port{mux: oneport.New(l), addr: l.Addr().String()}
	p.mux.Logger = slog.New(slog.DiscardHandler)
	grpcServer := grpc.NewServer()
	testpb.RegisterTestServiceServer(grpcServer, interop.NewTestServer())
	httpServer := &http.Server{Handler: http.HandlerFunc(rest), Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
	httpServer.Protocols.SetUnencryptedHTTP2(true)
	requests := p.mux.Requests()
	grpcL, httpL := requests.Match(oneport.GRPC()), requests.Match(oneport.Any())
	var wg sync.WaitGroup
	wg.Go(func() { grpcServer.Serve(grpcL) })
	wg.Go(func() { httpServer.Serve(httpL) })
	wg.Go(func() { p.mux.Serve() })
	t.Cleanup(func() {
		p.mux.Close()
		grpcServer.Stop()
		httpServer.Close()
		wg.Wait()
	})
	return p
}

// rest answers with what it is sent, or with as many bytes as it is asked for.
func rest(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("trailer", "x-sum")
	var n int
	sum := sha256.New()
	if _, err := fmt.Sscanf(r.URL.Path, "/bytes/%d", &n); err == nil {
		b := bytes.Repeat([]byte("oneport "), 4096)
		for n > 0 {
			m, err := io.MultiWriter(w, sum).Write(b[:min(n, len(b))])
			if err != nil {
				return
			}
			n -= m
		}
	} else {
		http.NewResponseController(w).EnableFullDuplex()
		if _, err := io.Copy(io.MultiWriter(w, sum), r.Body); err != nil {
			return
		}
	}
	w.Header().Set("x-sum", fmt.Sprintf("%x", sum.Sum(nil)))
}

// A proxy sends all that it is asked over one connection, as proxies with a pool do.
type proxy struct {
	transport *http.Transport
	client    *http.Client
	dials     atomic.Int32
	addr      string // of its own port
}

func newProxy(t *testing.T, backend string) *proxy {
	p := new(proxy)
	p.transport = &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			p.dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, backend)
		},
		Protocols:          new(http.Protocols),
		MaxConnsPerHost:    1,
		DisableCompression: true,
	}
	p.transport.Protocols.SetUnencryptedHTTP2(true)
	p.client = &http.Client{Transport: p.transport}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	s := &http.Server{
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.Out.URL.Scheme, r.Out.URL.Host = "http", "x" // the pool is kept by name
				if v := r.In.Header.Get("te"); v != "" {
					r.Out.Header.Set("te", v)
				}
			},
			Transport:     p.transport,
			FlushInterval: -1,
			ErrorLog:      log.New(io.Discard, "", 0),
		},
		Protocols: new(http.Protocols),
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { s.Serve(l); close(done) }()
	t.Cleanup(func() {
		s.Close()
		<-done
		p.transport.CloseIdleConnections()
	})
	return p
}

// exchange makes a REST request with the body and checks the answer. It reads in steps that depend on rng.
func (p *proxy) exchange(ctx context.Context, rng *rand.Rand, n int, upload bool) error {
	url, body := fmt.Sprintf("http://x/bytes/%d", n), io.Reader(http.NoBody)
	if upload {
		url = "http://x/echo"
		body = io.LimitReader(&repeated{}, int64(n))
	}
	req, err := http.NewRequestWithContext(ctx, "POST", url, body)
	if err != nil {
		return err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	sum, got := sha256.New(), 0
	buf := make([]byte, 64<<10)
	for {
		m, err := res.Body.Read(buf[:1+rng.IntN(len(buf))])
		sum.Write(buf[:m])
		got += m
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if want := fmt.Sprintf("%x", sum.Sum(nil)); got != n || res.Trailer.Get("x-sum") != want {
		return fmt.Errorf("%d bytes of %d with sum %s, and the trailer says %s", got, n, want, res.Trailer.Get("x-sum"))
	}
	return nil
}

// repeated is endless.
type repeated struct{ off int }

func (r *repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "oneport "[r.off%8]
		r.off++
	}
	return len(p), nil
}

func TestAlone(t *testing.T) {
	p := newPort(t)
	runCases(t, p.addr)
	if s := p.mux.Stats(); s.Split != 0 {
		t.Errorf("%d connections do not pass through: %+v", s.Shared, s)
	}
}

// TestShared runs the cases over a connection that REST requests share.
func TestShared(t *testing.T) {
	p := newPort(t)
	x := newProxy(t, p.addr)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	load := func(seed uint64, f func(rng *rand.Rand) error) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 0))
			for ctx.Err() == nil {
				if err := f(rng); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	load(1, func(rng *rand.Rand) error { return x.exchange(ctx, rng, rng.IntN(100), true) })
	load(2, func(rng *rand.Rand) error { return x.exchange(ctx, rng, 10<<20, true) })
	load(3, func(rng *rand.Rand) error { return x.exchange(ctx, rng, 10<<20, false) })
	load(4, func(rng *rand.Rand) error { // cancels early
		ctx, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(20))*time.Millisecond)
		defer cancel()
		if err := x.exchange(ctx, rng, 10<<20, rng.IntN(2) == 0); ctx.Err() == nil {
			return err
		}
		return nil
	})
	load(5, func(rng *rand.Rand) error { return slowReader(ctx, x) })
	runCases(t, x.addr)
	runCases(t, x.addr)
	cancel()
	wg.Wait()
	if s := p.mux.Stats(); s.Accepted != 1 || s.Split != 1 || x.dials.Load() != 1 {
		t.Errorf("not one shared connection: %+v, %d dials", s, x.dials.Load())
	}
}

// slowReader asks for more than a stream's window, and reads a little of it after another request has been answered.
func slowReader(ctx context.Context, x *proxy) error {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://x/bytes/6000000", nil)
	if err != nil {
		return err
	}
	res, err := x.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	rng := rand.New(rand.NewPCG(6, 0))
	for range 10 {
		if err := x.exchange(ctx, rng, 1000, true); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, res.Body, 1000); err != nil {
			return err
		}
	}
	return nil
}
