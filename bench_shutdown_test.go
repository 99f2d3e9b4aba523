package oneport

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport/grpccreds"
)

// BenchmarkShutdown measures Shutdown with 1,000 connections in one phase. Of the times for each connection, one is
// that until Shutdown returns, and the others are CPU times of the process, with the clients: to open the connection
// and bring it into the phase, and to end it.
func BenchmarkShutdown(b *testing.B) {
	const conns = 1000
	for _, bm := range []struct {
		phase    string
		requests []benchRequest // nil for a client that says nothing
		reached  func(Stats) int
	}{
		{"undecided", nil, func(s Stats) int { return s.Undecided }},
		{"passing", []benchRequest{grpcRequest}, func(s Stats) int { return s.Passing }},
		{"shared", []benchRequest{restRequest, grpcRequest}, func(s Stats) int { return s.Shared }},
	} {
		b.Run(bm.phase, func(b *testing.B) {
			var opening, ending time.Duration
			for b.Loop() {
				b.StopTimer()
				s := newMux(listen(b, "tcp"))
				s.ShutdownGrace = time.Nanosecond
				end := serveRequests(b, s)
				before := cpuTime()
				var clients []*benchLoad
				for range conns {
					c := newLoad(b, s.Addr().String(), bm.requests)
					clients = append(clients, c)
					if bm.requests != nil {
						c.run(b, len(bm.requests))
					}
				}
				for bm.reached(s.Stats()) < conns {
					time.Sleep(time.Millisecond)
				}
				opening += cpuTime() - before
				for _, c := range clients {
					go c.answer()
				}
				before = cpuTime()
				b.StartTimer()
				if err := s.Shutdown(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				ending += cpuTime() - before
				end()
				b.StartTimer()
			}
			n := float64(b.N * conns)
			b.ReportMetric(float64(b.Elapsed())/n, "ns/conn")
			b.ReportMetric(float64(opening)/n, "opening-cpu-ns/conn")
			b.ReportMetric(float64(ending)/n, "ending-cpu-ns/conn")
		})
	}
}

// serveRequests has grpc-go and net/http serve the requests of m, until the function that it returns is called.
func serveRequests(b *testing.B, m *Mux) (end func()) {
	g := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	healthpb.RegisterHealthServer(g, health.NewServer())
	h := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"message":"Hello"}`)
	})}
	h.Protocols.SetUnencryptedHTTP2(true)
	requests := m.Requests()
	grpcL, restL := requests.Match(GRPC()), requests.Match(Any())
	ended := make(chan error, 3)
	go func() { ended <- g.Serve(grpcL) }()
	go func() { ended <- h.Serve(restL) }()
	go func() { ended <- m.Serve() }()
	return func() {
		g.Stop()
		h.Shutdown(context.Background())
		for range cap(ended) {
			<-ended
		}
	}
}

// answer answers PING until the server ends the connection.
func (c *benchLoad) answer() {
	defer c.conn.Close()
	for {
		h, err := http2.ReadFrameHeader(c.r)
		if err != nil {
			return
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(c.r, payload); err != nil {
			return
		}
		if h.Type == http2.FramePing && !h.Flags.Has(http2.FlagPingAck) {
			c.out = c.out[:0]
			c.frame(http2.FramePing, http2.FlagPingAck, 0, payload)
			c.conn.Write(c.out)
		}
	}
}
