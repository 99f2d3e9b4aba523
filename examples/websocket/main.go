// Websocket serves WebSockets, server-sent events and gRPC on one port.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "serve on this `address`")
	flag.Parse()
	l, err := oneport.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Serving on %s (Ctrl-C ends it). Try:\n\n", l.Addr())
	fmt.Printf("websocat ws://%s/echo\n", l.Addr())
	fmt.Printf("curl -N http://%s/events\n", l.Addr())
	fmt.Printf("grpcurl -plaintext %s list\n\n", l.Addr())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	if err := serve(ctx, l, tick.C); err != nil {
		log.Fatal(err)
	}
}

// serve serves on l until ctx ends. At each tick, clients of /events get an event.
func serve(ctx context.Context, l net.Listener, tick <-chan time.Time) error {
	rpc := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	healthpb.RegisterHealthServer(rpc, health.NewServer())
	reflection.Register(rpc)
	live := newLive()
	rest := http.NewServeMux()
	rest.HandleFunc("GET /echo", live.echo)
	rest.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { live.events(w, r, tick) })

	s := &oneport.Server{GRPC: rpc, Handler: rest}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		log.Printf("shutting down: waiting at most 10 seconds for %d WebSockets, for streams of events and for running requests", live.sockets.Load())
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		live.end()
		err := s.Shutdown(ctx)
		// Shutdown of net/http does not wait for connections that have become WebSockets.
		stopped <- errors.Join(err, live.wait(ctx))
	})
	if err := s.Serve(l); !errors.Is(err, oneport.ErrClosed) {
		return err
	}
	return <-stopped
}

// writeTimeout is how long a client may take to read what it is sent.
const writeTimeout = 5 * time.Second

// live are the requests that last for as long as the client wants.
type live struct {
	ctx     context.Context // done when they have to end
	cancel  context.CancelFunc
	sockets atomic.Int64
	mu      sync.Mutex // held while a WebSocket begins, and while the end does
	all     sync.WaitGroup
}

func newLive() *live {
	v := new(live)
	v.ctx, v.cancel = context.WithCancel(context.Background())
	return v
}

// begin counts a WebSocket, unless they have to end.
func (v *live) begin() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx.Err() != nil {
		return false
	}
	v.all.Add(1)
	v.sockets.Add(1)
	return true
}

// end has them end, and no more begin.
func (v *live) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cancel()
}

// wait waits until all WebSockets have ended.
func (v *live) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		v.all.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d WebSockets were cut off: %w", v.sockets.Load(), ctx.Err())
	}
}

// echo is a WebSocket that sends back what it gets.
func (v *live) echo(w http.ResponseWriter, r *http.Request) {
	if !v.begin() {
		http.Error(w, "the server is about to end", http.StatusServiceUnavailable)
		return
	}
	defer v.all.Done()
	defer v.sockets.Add(-1)
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	// Close tells the client that the server goes away, and has the Read below fail.
	defer context.AfterFunc(v.ctx, func() { c.Close(websocket.StatusGoingAway, "the server ends") })()
	for {
		kind, message, err := c.Read(context.Background())
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
		err = c.Write(ctx, kind, message)
		cancel()
		if err != nil {
			return
		}
	}
}

// events sends server-sent events until the client leaves or the server ends. The client then connects again.
func (v *live) events(w http.ResponseWriter, r *http.Request, tick <-chan time.Time) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	for i := 1; out.Flush() == nil; i++ {
		select {
		case <-v.ctx.Done():
			return
		case <-r.Context().Done():
			return
		case <-tick:
			// A client that does not read must not hold up the end.
			if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return
			}
			fmt.Fprintf(w, "id: %d\ndata: tick\n\n", i)
		}
	}
}
