// Integrity makes random exchanges with every way to serve, and checks every byte of them, in both directions: unary
// and streaming gRPC calls, and REST uploads and downloads, over HTTP/1 and HTTP/2, in cleartext and over TLS, routed
// by request and by connection, alone on a connection and mixed. A relay cuts the stream into pieces and delays them.
//
//	go run ./internal/integrity -n 10000
//	go run ./internal/integrity -for 30s
//	go run ./internal/integrity -n 10000 -seed 42
//
// The seed, which is printed, determines the exchanges, but not how they interleave.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/goleak"
)

// config is what the command line says.
type config struct {
	seed    uint64
	n       int
	limit   time.Duration
	workers int
}

func main() {
	var c config
	flag.IntVar(&c.n, "n", 0, "`exchanges` to make; 0 for as many as -for has time for")
	flag.DurationVar(&c.limit, "for", 30*time.Second, "how long to go on, without -n")
	flag.Uint64Var(&c.seed, "seed", 0, "of what is exchanged; 0 for a random one")
	flag.IntVar(&c.workers, "workers", 8, "connections at once")
	flag.Parse()
	if c.seed == 0 {
		c.seed = rand.Uint64()
	}
	fmt.Printf("seed %d\n", c.seed)
	r, err := run(c)
	r.print()
	if err != nil {
		fmt.Fprintf(os.Stderr, "integrity: seed %d: %v\n", c.seed, err)
		os.Exit(1)
	}
}

// result is what was exchanged.
type result struct {
	exchanges   map[string]int // by kind of client
	connections int
	up, down    int64 // bytes of content
	took        time.Duration
}

func (r *result) print() {
	total := 0
	for _, name := range slices.Sorted(maps.Keys(r.exchanges)) {
		fmt.Printf("%8d  %s\n", r.exchanges[name], name)
		total += r.exchanges[name]
	}
	fmt.Printf("%8d  exchanges on %d connections in %v, %.1f MiB up and %.1f MiB down, without a wrong byte\n", total, r.connections,
		r.took.Round(time.Millisecond), float64(r.up)/(1<<20), float64(r.down)/(1<<20))
}

// run makes the exchanges.
func run(c config) (*result, error) {
	others := goleak.IgnoreCurrent()
	began := time.Now()
	r := &result{exchanges: make(map[string]int)}
	s, err := startServers()
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)

	var mu sync.Mutex // guards what follows, and r
	next, left := uint64(0), c.n
	// take returns the number of a connection, and how many exchanges to make on it.
	take := func(most int) (number uint64, exchanges int) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return 0, 0
		case c.n == 0 && time.Since(began) >= c.limit:
			return 0, 0
		case c.n > 0:
			most = min(most, left)
			left -= most
		}
		next++
		return next, most
	}
	var workers sync.WaitGroup
	for range c.workers {
		workers.Go(func() {
			for {
				number, n := take(perConnection)
				if n == 0 {
					return
				}
				name, sum, err := exchangeOn(ctx, s, rand.New(rand.NewPCG(c.seed, number)), n)
				mu.Lock()
				r.connections++
				r.exchanges[name] += sum.exchanges
				r.up += sum.up
				r.down += sum.down
				mu.Unlock()
				if err != nil {
					cancel(fmt.Errorf("connection %d (%s): %w", number, name, err))
				}
			}
		})
	}
	workers.Wait()
	err = context.Cause(ctx)
	if stopped := s.stop(); err == nil {
		err = stopped
	}
	if left := goleak.Find(others); err == nil {
		err = left
	}
	r.took = time.Since(began)
	return r, err
}

// perConnection is how many exchanges a connection has.
const perConnection = 24
