package main

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
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/certs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A client makes one call or request.
type client struct {
	provider trace.TracerProvider
	addr     string
	tls      *tls.Config // or nil
	local    net.Addr    // of its connection
}

func (c *client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		c.local = conn.LocalAddr()
	}
	return conn, err
}

func (c *client) call(ctx context.Context) error {
	creds := insecure.NewCredentials()
	if c.tls != nil {
		creds = credentials.NewTLS(c.tls)
	}
	cc, err := grpc.NewClient("passthrough:"+c.addr, grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return c.dial(ctx, "tcp", addr) }),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(
			otelgrpc.WithTracerProvider(c.provider), otelgrpc.WithPropagators(traceContext))))
	if err != nil {
		return err
	}
	defer cc.Close()
	_, err = healthpb.NewHealthClient(cc).Check(ctx, new(healthpb.HealthCheckRequest))
	return err
}

func (c *client) get(ctx context.Context, http2 bool) error {
	tr := &http.Transport{DialContext: c.dial, TLSClientConfig: c.tls.Clone(), Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetHTTP2(http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	defer tr.CloseIdleConnections()
	scheme := "http"
	if c.tls != nil {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, "GET", scheme+"://"+c.addr+"/hello/World", nil)
	if err != nil {
		return err
	}
	traced := otelhttp.NewTransport(tr, otelhttp.WithTracerProvider(c.provider), otelhttp.WithPropagators(traceContext))
	res, err := traced.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "Hello, World\n" {
		return fmt.Errorf("%q, %w", b, err)
	}
	return nil
}

// describe returns a line for each span, with the spans above it and some attributes.
func describe(t *testing.T, spans tracetest.SpanStubs, keys ...attribute.Key) []string {
	t.Helper()
	byID := make(map[trace.SpanID]tracetest.SpanStub)
	for _, s := range spans {
		byID[s.SpanContext.SpanID()] = s
		if s.SpanContext.TraceID() != spans[0].SpanContext.TraceID() {
			t.Errorf("%s is in another trace", s.Name)
		}
	}
	var lines []string
	for _, s := range spans {
		var path []string
		for at, ok := s, true; ok; at, ok = byID[at.Parent.SpanID()] {
			path = append(path, fmt.Sprintf("%s (%v)", at.Name, at.SpanKind))
		}
		slices.Reverse(path)
		line := strings.Join(path, " > ")
		for _, key := range keys {
			for _, a := range s.Attributes {
				if a.Key == key {
					line += fmt.Sprintf(", %s=%s", key, a.Value.String())
				}
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// TestSpans has clients of three kinds ask, and checks that the spans of the server continue their traces.
func TestSpans(t *testing.T) {
	t.Parallel()
	serverTLS, clientTLS, err := certs.Configs("localhost")
	if err != nil {
		t.Fatal(err)
	}
	rest := []string{
		"test (internal)",
		"test (internal) > HTTP GET (client), network.protocol.version=VERSION",
		"test (internal) > HTTP GET (client) > GET /hello/{name} (server), " +
			"url.scheme=SCHEME, network.protocol.version=VERSION, network.peer.port=PORT",
		"test (internal) > HTTP GET (client) > GET /hello/{name} (server) > greet (internal)",
	}
	for _, tt := range []struct {
		name, version string
		do            func(*client, context.Context) error
		want          []string
	}{
		{"gRPC", "", (*client).call, []string{
			"test (internal)",
			"test (internal) > grpc.health.v1.Health/Check (client)",
			"test (internal) > grpc.health.v1.Health/Check (client) > grpc.health.v1.Health/Check (server)",
		}},
		{"HTTP1", "1.1", func(c *client, ctx context.Context) error { return c.get(ctx, false) }, rest},
		{"HTTP2", "2.0", func(c *client, ctx context.Context) error { return c.get(ctx, true) }, rest},
	} {
		for name, config := range map[string]*tls.Config{"cleartext": nil, "TLS": clientTLS} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				exporter := tracetest.NewInMemoryExporter()
				provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
				s := newServer(provider)
				s.Logger, s.TLSConfig = slog.New(slog.DiscardHandler), serverTLS
				served := make(chan error, 1)
				go func() { served <- s.Serve(l) }()

				c := &client{provider: provider, addr: l.Addr().String(), tls: config}
				ctx, root := provider.Tracer("test").Start(t.Context(), "test")
				if err := tt.do(c, ctx); err != nil {
					t.Error(err)
				}
				root.End()
				if err := s.Shutdown(t.Context()); err != nil { // with which the spans of the server have ended
					t.Error(err)
				}
				if err := <-served; !errors.Is(err, oneport.ErrClosed) {
					t.Error(err)
				}
				if t.Failed() {
					return
				}

				scheme := "http"
				if config != nil {
					scheme = "https"
				}
				_, port, err := net.SplitHostPort(c.local.String())
				if err != nil {
					t.Fatal(err)
				}
				values := strings.NewReplacer("SCHEME", scheme, "VERSION", tt.version, "PORT", port)
				var want []string
				for _, line := range tt.want {
					want = append(want, values.Replace(line))
				}
				got := describe(t, exporter.GetSpans(), "url.scheme", "network.protocol.version", "network.peer.port")
				if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}
