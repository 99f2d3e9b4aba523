package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// content is what net/http answers.
const content = "served"

// goodClients make one request on a connection of its own.
var goodClients = []struct {
	kind    string
	request func(ctx context.Context, d *dialer, addr string, secure bool) error
}{
	{"HTTP/1", func(ctx context.Context, d *dialer, addr string, secure bool) error {
		var p http.Protocols
		p.SetHTTP1(true)
		return get(ctx, d, addr, secure, &p)
	}},
	{"HTTP/2", func(ctx context.Context, d *dialer, addr string, secure bool) error {
		var p http.Protocols
		p.SetHTTP2(secure)
		p.SetUnencryptedHTTP2(!secure)
		return get(ctx, d, addr, secure, &p)
	}},
	{"gRPC", check},
}

// A dialer counts the connections that it opens.
type dialer struct{ opened atomic.Int64 }

func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		d.opened.Add(1)
	}
	return c, err
}

func get(ctx context.Context, d *dialer, addr string, secure bool, p *http.Protocols) error {
	t := &http.Transport{Protocols: p, TLSClientConfig: clientConfig(), DialContext: d.DialContext}
	defer t.CloseIdleConnections()
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+addr, nil)
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || string(got) != content {
		return fmt.Errorf("%s: %s", resp.Status, got)
	}
	return nil
}

// check uses grpc-go, which sends no HEADERS before the server's SETTINGS.
func check(ctx context.Context, d *dialer, addr string, secure bool) error {
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(clientConfig())
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if r.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("the health is %v", r.Status)
	}
	return nil
}

const (
	// Each kind of good client makes a request this often. More often, and the ports of the connections that have just
	// been closed would run out.
	requestEvery = 25 * time.Millisecond

	// A request that takes longer has failed.
	requestTimeout = 10 * time.Second
)

// goodReport is what became of the requests of a kind of client.
type goodReport struct {
	Kind              string
	Requests, Failed  int
	Opened            int // connections: more than requests if a gRPC client was refused before its call, and connected again
	FirstError        string
	P50, P99, Longest time.Duration
}

// runGood makes requests until ctx ends.
func runGood(ctx context.Context, addr string, secure bool) []goodReport {
	reports := make([]goodReport, len(goodClients))
	var running sync.WaitGroup
	for i, client := range goodClients {
		running.Go(func() {
			var d dialer
			reports[i] = runGoodClient(ctx, func(ctx context.Context) error { return client.request(ctx, &d, addr, secure) })
			reports[i].Kind, reports[i].Opened = client.kind, int(d.opened.Load())
		})
	}
	running.Wait()
	return reports
}

// runGoodClient does not wait for a request before it makes the next, so that slow ones are not counted too rarely.
func runGoodClient(ctx context.Context, request func(context.Context) error) goodReport {
	var r goodReport
	var took []time.Duration
	var mu sync.Mutex
	var running sync.WaitGroup
	tick := time.NewTicker(requestEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
			defer cancel()
			start := time.Now()
			err := request(ctx)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(start))
			if err != nil && r.Failed == 0 {
				r.FirstError = err.Error()
			}
			if err != nil {
				r.Failed++
			}
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	running.Wait()
	slices.Sort(took)
	r.Requests = len(took)
	r.P50 = took[len(took)/2]
	r.P99 = took[len(took)*99/100]
	r.Longest = took[len(took)-1]
	return r
}
