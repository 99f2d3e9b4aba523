package interop

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

// TestLargeRequests checks that requests with header fields of 24 and 80 KiB, as those with the cookies of a single
// sign-on or with a token, are served by each way to use this package, in cleartext and over TLS.
func TestLargeRequests(t *testing.T) {
	t.Parallel()
	server := func(perConnection bool) func(*testing.T) string {
		return func(t *testing.T) string {
			return startServer(t, &oneport.Server{
				GRPC:          newGRPC(grpc.Creds(grpccreds.Credentials{})),
				Handler:       answer("net/http"),
				TLSConfig:     serverTLS(),
				PerConnection: perConnection,
			})
		}
	}
	for name, start := range map[string]func(*testing.T) (addr string){
		"Mux": func(t *testing.T) string {
			p := newPort(t)
			p.route(t, "grpc", serveGRPC, oneport.GRPC())
			p.route(t, "http", serveNetHTTP, oneport.HTTP1(), oneport.HTTP2())
			p.secure(t, serverTLS())
			p.start(t)
			return p.addr
		},
		"Server":        server(false),
		"PerConnection": server(true),
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %t", name, secure), func(t *testing.T) {
				t.Parallel()
				largeRequests(t, start(t), secure)
			})
		}
	}
}

// largeRequests makes the requests by HTTP/1, HTTP/2 and gRPC.
func largeRequests(t *testing.T, addr string, secure bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	crumb := strings.Repeat("c", 4000)
	for _, size := range []int{24 << 10, 80 << 10} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			transport := &http.Transport{Protocols: new(http.Protocols)}
			defer transport.CloseIdleConnections()
			url := "http://" + addr
			if secure {
				url = "https://" + addr
				transport.TLSClientConfig = clientTLS()
			}
			transport.Protocols.SetHTTP1(proto == "HTTP/1.1")
			transport.Protocols.SetHTTP2(proto == "HTTP/2.0" && secure)
			transport.Protocols.SetUnencryptedHTTP2(proto == "HTTP/2.0" && !secure)
			for _, fields := range []http.Header{
				{"X-Token": {strings.Repeat("t", size)}},
				{"Cookie": {strings.Repeat("a="+crumb+"; ", size/len(crumb)) + "z=z"}},
			} {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header = fields
				resp, err := (&http.Client{Transport: transport}).Do(req)
				if err != nil {
					t.Fatalf("%s, %d bytes: %v", proto, size, err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if got, want := string(body), "net/http by "+proto; err != nil || !strings.HasPrefix(got, want) {
					t.Errorf("%s, %d bytes: %s %q, %v", proto, size, resp.Status, got, err)
				}
				transport.CloseIdleConnections() // each first on its connection
			}
		}
		creds := insecure.NewCredentials()
		if secure {
			creds = credentials.NewTLS(&tls.Config{RootCAs: thePKI().authority.Pool()})
		}
		client, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		withToken := metadata.AppendToOutgoingContext(ctx, "token", strings.Repeat("t", size))
		if _, err := healthpb.NewHealthClient(client).Check(withToken, new(healthpb.HealthCheckRequest)); err != nil {
			t.Errorf("gRPC, %d bytes: %v", size, err)
		}
	}
}
