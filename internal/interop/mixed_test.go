package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
	"github.com/oneport-go/oneport/internal/certs"
)

// TestMixed sends gRPC and REST requests over one HTTP/2 connection, as a proxy with pooled connections does.
func TestMixed(t *testing.T) {
	t.Parallel()
	ca, err := certs.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Server("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name          string
		tls           bool
		perConnection bool
	}{
		{name: "in cleartext"},
		{name: "TLS", tls: true},
		{name: "per connection", perConnection: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			grpcServer := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
			healthpb.RegisterHealthServer(grpcServer, health.NewServer())
			s := &oneport.Server{
				GRPC: grpcServer,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprintf(w, "%s %s %v", r.Proto, r.URL.Path, r.TLS != nil)
				}),
				TLSConfig:     &tls.Config{Certificates: []tls.Certificate{cert}},
				PerConnection: tt.perConnection,
				Configure:     func(m *oneport.Mux) { m.Logger = slog.New(slog.DiscardHandler) },
			}
			l := listen(t)
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()

			var dials int
			tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
			tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				dials++ // the first request waits for it before others are sent
				return new(net.Dialer).DialContext(ctx, network, addr)
			}
			tr.Protocols.SetUnencryptedHTTP2(!tt.tls)
			tr.Protocols.SetHTTP2(tt.tls)
			base := "http://" + l.Addr().String()
			if tt.tls {
				base = "https://" + l.Addr().String()
			}
			client := &http.Client{Transport: tr, Timeout: 20 * time.Second}
			if got, want := rest(client, base+"/first"), fmt.Sprintf("HTTP/2.0 /first %v", tt.tls); got != want {
				t.Errorf("the first request was answered %q, want %q", got, want)
			}

			var both sync.WaitGroup
			var mu sync.Mutex
			failed := 0
			for i := range 100 {
				both.Go(func() {
					path := fmt.Sprintf("/%d", i)
					if got, want := rest(client, base+path), fmt.Sprintf("HTTP/2.0 %s %v", path, tt.tls); got != want {
						t.Errorf("got %q, want %q", got, want)
					}
				})
				both.Go(func() {
					if err := rpc(client, base); err != nil {
						mu.Lock()
						defer mu.Unlock()
						if failed++; !tt.perConnection {
							t.Error(err)
						}
					}
				})
			}
			both.Wait()
			if dials != 1 {
				t.Errorf("%d connections, want 1", dials)
			}
			if tt.perConnection && failed != 100 {
				t.Errorf("%d of 100 RPCs have failed on a connection that is HTTP's as a whole", failed)
			}
			tr.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := s.Shutdown(ctx); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			<-served
		})
	}
}

// rest returns the content of the answer, or what went wrong.
func rest(client *http.Client, url string) string {
	resp, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// rpc calls the health service by hand, as net/http's client does not know gRPC.
func rpc(client *http.Client, base string) error {
	message, err := proto.Marshal(&healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	body := append([]byte{0, 0, 0, 0, byte(len(message))}, message...)
	req, err := http.NewRequest("POST", base+"/grpc.health.v1.Health/Check", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var health healthpb.HealthCheckResponse
	switch {
	case resp.Trailer.Get("Grpc-Status") != "0":
		return fmt.Errorf("status %q, %q", resp.Status, strings.TrimSpace(resp.Trailer.Get("Grpc-Message")))
	case len(answer) < 5:
		return fmt.Errorf("a message of %d bytes", len(answer))
	}
	if err := proto.Unmarshal(answer[5:], &health); err != nil || health.Status != healthpb.HealthCheckResponse_SERVING {
		//nolint:errorlint // the error may be nil
		return fmt.Errorf("answered %v, %v", &health, err)
	}
	return nil
}
