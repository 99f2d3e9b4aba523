package oneport

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-go/oneport/internal/h2open"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// noRoutes are muxes that take no HTTP/2 in cleartext.
var noRoutes = []struct {
	name  string
	route func(*Mux)
	code  http2.ErrCode
}{
	{"HTTP1", func(m *Mux) { m.Match(HTTP1()) }, http2.ErrCodeNo},
	{"TLS", func(m *Mux) { m.TLS(serverTLS()).Match(HTTP2()) }, http2.ErrCodeInadequateSecurity},
	{"HTTP1, and TLS", func(m *Mux) { m.Match(HTTP1()); m.TLS(serverTLS()).Match(HTTP2()) }, http2.ErrCodeInadequateSecurity},
}

// TestTurnedAway checks that a client that no route takes is answered if it asks for something, wherever its bytes are
// split, and not if it waits for the server's SETTINGS.
func TestTurnedAway(t *testing.T) {
	t.Parallel()
	for _, tt := range noRoutes {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			asks := string(headerFlight(":method", "GET", ":path", "/"))
			for split := 3; split <= len(asks); split++ {
				synctest.Test(t, func(t *testing.T) {
					root := newPipeListener()
					m := newMux(root)
					tt.route(m)
					refused := watchRefusals(m)
					serve(t, m)
					client := dial(t, root)
					write(t, client, []byte(asks[:split]))
					synctest.Wait()
					select {
					case r := <-refused:
						if split < len(asks) {
							t.Fatalf("split %d: refused for %v before it has asked", split, r.Err)
						}
						refused <- r
					default:
					}
					go io.WriteString(client, asks[split:])
					settings, goAway, _ := frames(t, client)
					if settings != 1 || goAway == nil || goAway.ErrCode != tt.code {
						t.Fatalf("split %d: answered %d SETTINGS and %v, want %v", split, settings, goAway, tt.code)
					}
					<-refused
				})
			}
			for _, sends := range []string{"PRI", string(capture(t, "grpc-go.1"))} {
				synctest.Test(t, func(t *testing.T) {
					root := newPipeListener()
					m := newMux(root)
					tt.route(m)
					refused := watchRefusals(m)
					serve(t, m)
					client := dial(t, root)
					write(t, client, []byte(sends))
					if got, err := io.ReadAll(client); err != nil || len(got) > 0 {
						t.Errorf("answered %q, %v", got, err)
					}
					if r := <-refused; r.Reason != ReasonNoRoute || r.Protocol != ProtocolHTTP2 || r.EarlySettings || r.Waited != h2open.RestTime {
						t.Errorf("refused for %v after %v, early SETTINGS %v: %v", r.Reason, r.Waited, r.EarlySettings, r.Err)
					}
				})
			}
		})
	}
}

// TestTurnedAwayGRPC checks that a gRPC client regards the connection as failed: the call fails, and the client backs
// off.
func TestTurnedAwayGRPC(t *testing.T) {
	t.Parallel()
	for _, tt := range noRoutes {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			tt.route(m)
			serve(t, m)
			var dials atomic.Int32
			conn, err := grpc.NewClient("passthrough:"+root.Addr().String(),
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
					dials.Add(1)
					return new(net.Dialer).DialContext(ctx, "tcp", addr)
				}))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err = conn.Invoke(ctx, "/service/Method", nil, nil)
			if status.Code(err) != codes.Unavailable {
				t.Errorf("got %v, want the code Unavailable", err)
			}
			if n := dials.Load(); n != 1 {
				t.Errorf("%d connections before the call has failed", n)
			}
		})
	}
}

// TestTurnedAwayByClosedRoute does the same where the route that could take the client is closed.
func TestTurnedAwayByClosedRoute(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		others []Matcher // of routes below, which are open
		early  bool      // one of them might take the client
	}{
		{"alone", nil, false},
		{"beside HTTP1", []Matcher{HTTP1()}, false},
		{"beside HTTP2", []Matcher{HTTP2()}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				refused := watchRefusals(m)
				m.Match(GRPC()).Close()
				for _, o := range tt.others {
					m.Match(o)
				}
				serve(t, m)
				client := dial(t, root)
				write(t, client, capture(t, "grpc-go.1"))
				if tt.early {
					if f, err := http2.NewFramer(nil, client).ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings {
						t.Errorf("the mux sent %v, %v", f, err)
					}
					return
				}
				if got, err := io.ReadAll(client); err != nil || len(got) > 0 {
					t.Errorf("answered %q, %v", got, err)
				}
				if r := <-refused; r.Reason != ReasonRouteClosed || r.EarlySettings || r.Waited != h2open.RestTime {
					t.Errorf("refused for %v after %v, early SETTINGS %v: %v", r.Reason, r.Waited, r.EarlySettings, r.Err)
				}
			})
		})
	}
}
