package keepalive

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/oneport-go/oneport"
)

// A relay is a connection to the client's server that can come to swallow all that is sent, with which each side thinks
// that the other is still there.
type relay struct {
	net.Conn
	swallow atomic.Bool
	ended   atomic.Bool
	wg      sync.WaitGroup
}

func (r *relay) pass(to, from net.Conn) {
	r.wg.Go(func() {
		defer to.Close()
		defer r.ended.Store(true)
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if r.swallow.Load() {
				continue
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

// serveByPath serves a listener with grpc-go alone, or with two of it by oneport, of which one has the method /s/Other.
func serveByPath(t *testing.T, l net.Listener, m mode, secure bool, opts []grpc.ServerOption) (stop func()) {
	if m == bare {
		return serve(t, l, m, secure, "grpc", &config{grpc: opts})
	}
	mux := oneport.New(l)
	mux.Logger = slog.New(slog.DiscardHandler)
	var q *oneport.RequestMux
	if secure {
		q = mux.TLS(keys.server.Clone()).Requests()
	} else {
		q = mux.Requests()
	}
	stops := []func(){
		serve(t, q.Match(oneport.Path("/s/Other")), bare, false, "grpc", &config{}),
		serve(t, q.Match(oneport.Any()), bare, false, "grpc", &config{grpc: opts}),
	}
	served := make(chan error)
	go func() { served <- mux.Serve() }()
	return func() {
		mux.Close()
		<-served
		for _, stop := range stops {
			stop()
		}
	}
}

// TestClients has grpc-go's client keep its connection alive.
func TestClients(t *testing.T) {
	for _, tt := range []struct {
		name   string
		idle   bool // there is no call
		server []grpc.ServerOption
		gone   bool // the server is, after a minute
		lives  map[mode]bool
		code   codes.Code // of the call, if it does not live
	}{
		{name: "busy, as allowed", server: []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second})},
			lives: map[mode]bool{bare: true, passing: true, shared: true}},
		{name: "idle, as allowed", idle: true,
			server: []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true})},
			lives:  map[mode]bool{bare: true, passing: true, shared: true}},
		{name: "busy, too often", lives: map[mode]bool{shared: true}, code: codes.Unavailable},
		{name: "idle, too often", idle: true, lives: map[mode]bool{shared: true}},
		{name: "busy, server gone", gone: true, code: codes.Unavailable,
			server: []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second})}},
		{name: "idle, server gone", gone: true, idle: true,
			server: []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true})}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inModes(t, func(t *testing.T, m mode, secure bool) {
				synctest.Test(t, func(t *testing.T) {
					l := newListener()
					defer serveByPath(t, l, m, secure, tt.server)()
					var mu sync.Mutex
					var relays []*relay
					dial := func(context.Context, string) (net.Conn, error) {
						server, err := l.dial()
						if err != nil {
							return nil, err
						}
						near, far := net.Pipe()
						r := &relay{Conn: near}
						r.pass(far, server)
						r.pass(server, far)
						mu.Lock()
						defer mu.Unlock()
						relays = append(relays, r)
						return r, nil
					}
					creds := insecure.NewCredentials()
					if secure {
						creds = credentials.NewTLS(keys.client.Clone())
					}
					cc, err := grpc.NewClient("passthrough:///localhost", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(creds),
						grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})), grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(0),
						grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: tt.idle}))
					if err != nil {
						t.Fatal(err)
					}
					defer func() {
						cc.Close()
						for _, r := range relays {
							r.wg.Wait()
						}
					}()
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					var m1 []byte
					if err := cc.Invoke(ctx, "/s/First", new([]byte), &m1); err != nil {
						t.Fatal(err)
					}
					if m == shared {
						if _, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/s/Other"); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
					}
					var call grpc.ClientStream
					if !tt.idle {
						if call, err = cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/s/Call"); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(time.Minute)
					relays[0].swallow.Store(tt.gone)
					ended := make(chan error, 1)
					if call != nil {
						go func() { ended <- call.RecvMsg(new([]byte)) }()
					}
					wait := time.Hour
					if tt.gone {
						wait = 40*time.Second + time.Second // Time and Timeout
					}
					time.Sleep(wait)
					synctest.Wait()
					if lives := !relays[0].ended.Load(); lives != tt.lives[m] {
						t.Errorf("the connection lives: %t", lives)
					}
					if call == nil {
						return
					}
					select {
					case err := <-ended:
						if tt.lives[m] || status.Code(err) != tt.code {
							t.Errorf("the call ended with %v", err)
						}
						return
					default:
					}
					if !tt.lives[m] {
						t.Error("the call has not ended")
						return
					}
					if err := call.CloseSend(); err != nil {
						t.Error(err)
					}
					if err := <-ended; err != nil && !errors.Is(err, io.EOF) {
						t.Errorf("the call ended with %v", err)
					}
				})
			})
		})
	}
}
