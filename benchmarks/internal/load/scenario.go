package load

import (
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

// A Scenario is a load, and a way to serve.
type Scenario struct {
	Name  string
	Title string
	Needs []contender.Need

	// Server is how the contender is to serve, but for its name.
	Server contender.Config

	// Baseline is the contender that the others are compared with.
	Baseline string

	// Scenarios of a series differ in one number, X.
	Series string
	X      float64

	// Main is set where the scenario is in the tables of the README, or of the goals in docs/performance.md. It has more
	// rounds than others.
	Main bool

	// MaxRounds bounds the rounds of what takes long and varies little; 0 is no bound of its own. Passes is how many slices
	// each contender has in a round, if not results.Passes.
	MaxRounds, Passes int

	// Slice is how long a slice takes at least, where the usual length is too short for it.
	Slice time.Duration

	// Takes is about how long it takes, in addition to the warm-up and the duration.
	Takes time.Duration

	// Once is set where each client has one operation in a slice, all at the same time.
	Once bool

	// Control is set where the baseline is compared with itself as well.
	Control bool

	// Paced is set where the number of operations in a second is given.
	Paced bool

	// single makes the one client whose operations are counted; nil where they are not.
	single makeWorker

	// One of both: open begins to play in slices, and measure plays what cannot be played so.
	open    func(*Env) (*Session, error)
	measure func(*Env) (*Measurement, error)
}

// Sliced reports whether the scenario can be played in slices.
func (s *Scenario) Sliced() bool { return s.open != nil }

// Measure plays the scenario once.
func (s *Scenario) Measure(e *Env) (*Measurement, error) {
	if s.open != nil {
		return s.oneSlice(e)
	}
	return s.measure(e)
}

// Missing returns the first need that the contender cannot meet, and why.
func (s *Scenario) Missing(c contender.Contender) (need contender.Need, why string) {
	for _, n := range s.Needs {
		if why := c.Lacks[n]; why != "" {
			return n, why
		}
	}
	return "", ""
}

const baseline = "plain"

// How many clients the load has. They are few, so that what is measured is not the waiting for a processor.
const (
	newClients  = 8 // that make new connections
	openClients = 4 // on open connections
	inFlight    = 32
)

// How many connections there are where there are to be many.
const (
	manyConnections    = 10_000 // idle or silent ones
	sharedConnections  = 1000   // with requests on all of them
	securedConnections = 500    // idle ones, with a handshake of TLS on each
)

// Table returns all scenarios for a machine with that many processors.
func Table(processors int) []Scenario {
	tls := contender.Config{TLS: true}
	table := []Scenario{
		{
			Name: "new-http1", Main: true, Control: true, Title: "New connection, one HTTP/1 request",
			Needs:  []contender.Need{contender.HTTP1},
			single: newHTTP1Connection, open: clients(newClients, newHTTP1Connection),
		}, {
			Name: "new-grpc", Main: true, Control: true, Title: "New strict gRPC connection, one RPC",
			Needs:  []contender.Need{contender.GRPC},
			single: newGRPCConnection, open: clients(newClients, newGRPCConnection),
		}, {
			Name: "new-h2c", Main: true, Title: "New HTTP/2 connection with prior knowledge, one request to net/http",
			Needs:  []contender.Need{contender.H2C},
			single: newH2CConnection, open: clients(newClients, newH2CConnection),
		}, {
			Name: "new-tls-http1", Title: "New TLS connection, one HTTP/1 request",
			Needs:  []contender.Need{contender.TLS, contender.HTTP1},
			Server: tls, single: newHTTP1Connection, open: clients(newClients, newHTTP1Connection),
		}, {
			Name: "new-tls-grpc", Title: "New TLS connection, one RPC",
			Needs:  []contender.Need{contender.TLS, contender.GRPC},
			Server: tls, single: newGRPCConnection, open: clients(newClients, newGRPCConnection),
		},
	}
	table = append(table,
		Scenario{
			Name: "one-http1", Main: true, Title: "New connection, one HTTP/1 request, one client at a time",
			Needs: []contender.Need{contender.HTTP1}, open: clients(1, newHTTP1Connection),
		}, Scenario{
			Name: "one-grpc", Main: true, Title: "New strict gRPC connection, one RPC, one client at a time",
			Needs: []contender.Need{contender.GRPC}, open: clients(1, newGRPCConnection),
		}, Scenario{
			Name: "one-h2c", Main: true, Title: "New HTTP/2 connection with prior knowledge, one request to net/http, one client at a time",
			Needs: []contender.Need{contender.H2C}, open: clients(1, newH2CConnection),
		}, Scenario{
			Name: "burst-1000", Title: "1,000 new connections at once, gRPC and HTTP/1, one request on each",
			Needs: []contender.Need{contender.GRPC, contender.HTTP1, contender.Many}, Once: true, Passes: 2, open: clients(1000, newEitherConnection),
		})
	for _, n := range []int{10, 100, 1000} {
		table = append(table, Scenario{
			Name: fmt.Sprintf("churn-%d", n), Title: fmt.Sprintf("New connections of %d clients at once, gRPC and HTTP/1 by turns", n),
			Needs:  []contender.Need{contender.GRPC, contender.HTTP1, contender.Many},
			Series: "clients", X: float64(n), open: clients(n, newEitherConnection),
		})
	}
	table = append(table,
		Scenario{
			Name: "rpc-1", Title: fmt.Sprintf("RPCs on %d open connections, 1 in flight on each", openClients),
			Needs:  []contender.Need{contender.GRPC},
			single: openGRPC(1), open: clients(openClients, openGRPC(1)),
		}, Scenario{
			Name: "rpc-32", Main: true, Control: true, Title: fmt.Sprintf("RPCs on %d open connections, %d in flight on each", openClients, inFlight),
			Needs:  []contender.Need{contender.GRPC},
			Passes: 8, open: clients(openClients, openGRPC(inFlight)),
		}, Scenario{
			Name: "rest-32", Title: fmt.Sprintf("Requests to net/http on %d open HTTP/2 connections, %d in flight on each", openClients, inFlight),
			Needs: []contender.Need{contender.H2C},
			open:  clients(openClients, openREST(inFlight)),
		}, Scenario{
			Name: "http1-keepalive", Title: fmt.Sprintf("HTTP/1 requests on %d open connections", openClients),
			Needs:  []contender.Need{contender.HTTP1},
			single: openHTTP1, open: clients(openClients, openHTTP1),
		}, Scenario{
			Name: "mixed", Main: true, Title: fmt.Sprintf("gRPC and REST by turns on %d open HTTP/2 connections, %d in flight on each", openClients, inFlight),
			Needs:    []contender.Need{contender.Mixed},
			Baseline: "servehttp", Passes: 12, open: clients(openClients, openShared(inFlight)),
		}, Scenario{
			Name: "shared-10", Title: fmt.Sprintf("gRPC and REST by turns on %d open HTTP/2 connections, 10 in flight on each", openClients),
			Needs:    []contender.Need{contender.Mixed},
			Baseline: "servehttp", open: clients(openClients, openShared(10)),
		}, Scenario{
			Name: "shared-100", Title: fmt.Sprintf("gRPC and REST by turns on %d open HTTP/2 connections, 100 in flight on each", openClients),
			Needs:    []contender.Need{contender.Mixed},
			Baseline: "servehttp", open: clients(openClients, openShared(100)),
		}, Scenario{
			Name: "shared-many", Title: "An RPC, then a REST request, on each of 1,000 open HTTP/2 connections",
			Needs:    []contender.Need{contender.Mixed, contender.Many},
			Baseline: "servehttp", MaxRounds: 6, Passes: 2, open: clients(sharedConnections, openSharing),
		}, Scenario{
			Name: "shared-bodies", Title: fmt.Sprintf("256 KiB by gRPC, in a stream of four messages, and 256 KiB by REST, by turns on %d open HTTP/2 connections, 10 in flight on each", openClients),
			Needs:    []contender.Need{contender.Mixed, contender.Bodies},
			Baseline: "servehttp", open: clients(openClients, openSharedBodies),
		}, Scenario{
			Name: "body-64k-http1", Title: "64 KiB there and back by HTTP/1, on open connections",
			Needs:  []contender.Need{contender.HTTP1, contender.Bodies},
			single: bodiesHTTP1(echo()), open: clients(openClients, bodiesHTTP1(echo())),
		}, Scenario{
			Name: "body-64k-grpc", Title: "64 KiB there and back by gRPC, on open connections",
			Needs:  []contender.Need{contender.GRPC, contender.Bodies},
			single: bodiesGRPC(grpcEcho()), open: clients(openClients, bodiesGRPC(grpcEcho())),
		}, Scenario{
			Name: "body-100m-http1", Title: "100 MB there, then back, by HTTP/1",
			Needs:  []contender.Need{contender.HTTP1, contender.Bodies},
			Passes: 1, Takes: 200 * time.Millisecond, open: clients(1, bodiesHTTP1(upload(largePieces), download(largePieces))),
		}, Scenario{
			Name: "body-100m-grpc", Title: "100 MB there, then back, by gRPC",
			Needs:  []contender.Need{contender.GRPC, contender.Bodies},
			Passes: 1, Takes: 200 * time.Millisecond, open: clients(1, bodiesGRPC(grpcUpload(largePieces), grpcDownload(largePieces))),
		})
	for _, n := range []int{1, 10, 100, 1000} {
		table = append(table, Scenario{
			Name: fmt.Sprintf("routes-%d", n), Title: fmt.Sprintf("New connections, gRPC and HTTP/1 by turns, other routes ahead: %d", n),
			Needs:  []contender.Need{contender.Routes, contender.GRPC, contender.HTTP1},
			Server: contender.Config{Routes: n}, Main: n == 100,
			Series: "routes", X: float64(n), open: clients(newClients, newEitherConnection),
		})
	}
	table = append(table,
		Scenario{
			Name: "pending-http1", Title: "10,000 connections on which nothing was said",
			Needs:     []contender.Need{contender.HTTP1, contender.Memory},
			MaxRounds: 6, Takes: 500 * time.Millisecond, measure: pending(manyConnections, connected),
		}, Scenario{
			Name: "pending-grpc", Title: "10,000 gRPC connections ahead of their first RPC",
			Needs:     []contender.Need{contender.GRPC, contender.Memory},
			MaxRounds: 6, Takes: 800 * time.Millisecond, measure: pending(manyConnections, openGRPC(1)),
		}, Scenario{
			Name: "idle-shared", Title: "10,000 idle connections, after an RPC and a REST request on each",
			Needs:    []contender.Need{contender.Mixed, contender.Memory},
			Baseline: "servehttp", MaxRounds: 6, Takes: 2500 * time.Millisecond, measure: idle(manyConnections, openBoth),
		}, Scenario{
			Name: "idle-http1", Title: "10,000 idle HTTP/1 connections, after a request on each",
			Needs:     []contender.Need{contender.HTTP1, contender.Memory},
			MaxRounds: 6, Takes: 800 * time.Millisecond, measure: idle(manyConnections, openHTTP1),
		}, Scenario{
			Name: "idle-grpc", Title: "10,000 idle gRPC connections, after an RPC on each",
			Needs:     []contender.Need{contender.GRPC, contender.Memory},
			MaxRounds: 6, Takes: 2 * time.Second, measure: idle(manyConnections, openGRPC(1)),
		}, Scenario{
			Name: "pending-tls-grpc", Title: "500 gRPC connections over TLS ahead of their first RPC",
			Needs: []contender.Need{contender.TLS, contender.GRPC, contender.Memory, contender.Many}, Server: tls,
			MaxRounds: 6, Takes: 600 * time.Millisecond, measure: pending(securedConnections, openGRPC(1)),
		}, Scenario{
			Name: "idle-tls-grpc", Title: "500 idle gRPC connections over TLS, after an RPC on each",
			Needs: []contender.Need{contender.TLS, contender.GRPC, contender.Memory, contender.Many}, Server: tls,
			MaxRounds: 6, Takes: 600 * time.Millisecond, measure: idle(securedConnections, openGRPC(1)),
		})
	for _, n := range []int{10, 100, 1000, manyConnections} {
		table = append(table, Scenario{
			Name: fmt.Sprintf("silent-%d", n), Title: fmt.Sprintf("A steady load of new connections, gRPC and HTTP/1 by turns, beside %d silent clients", n),
			Needs:  []contender.Need{contender.GRPC, contender.HTTP1, contender.Many},
			Series: "silent", X: float64(n), Paced: true, Slice: silentSlice, Passes: 2, open: silent(n),
		})
		if n == manyConnections {
			// So many take as long to open as they live.
			s := &table[len(table)-1]
			s.MaxRounds, s.Takes = 8, time.Second
			s.measure, s.open = whole(s.open), nil
		}
	}
	for _, rtt := range []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond} {
		for _, withTLS := range []bool{false, true} {
			s := Scenario{
				Name:  fmt.Sprintf("rtt-%d", rtt.Milliseconds()),
				Title: fmt.Sprintf("First RPC of a strict client at a round-trip time of %v", rtt),
				Needs: []contender.Need{contender.GRPC, contender.Many}, Server: contender.Config{RTT: rtt},
				Paced: true, MaxRounds: 8, Passes: 1, Takes: 4 * rtt, open: clients(openClients, newGRPCConnection),
			}
			if withTLS {
				s.Name = fmt.Sprintf("rtt-tls-%d", rtt.Milliseconds())
				s.Title += ", with TLS"
				s.Needs = append(s.Needs, contender.TLS)
				s.Server.TLS = true
			}
			table = append(table, s)
		}
	}
	for _, n := range coreCounts(processors) {
		table = append(table, Scenario{
			Name: fmt.Sprintf("cores-%d", n), Title: fmt.Sprintf("New connections, gRPC and HTTP/1 by turns, with GOMAXPROCS=%d and as many listeners on the port", n),
			Needs:  []contender.Need{contender.Ports, contender.GRPC, contender.HTTP1},
			Server: contender.Config{Procs: n, Listeners: n},
			Series: "cores", X: float64(n), open: clients(max(newClients, 4*n), newEitherConnection),
		})
	}
	for i := range table {
		if table[i].Baseline == "" {
			table[i].Baseline = baseline
		}
	}
	return table
}

// silentSlice is enough for each of the steady clients to have several connections.
const silentSlice = 250 * time.Millisecond

// coreCounts are the powers of two below the number of processors, and that number.
func coreCounts(processors int) []int {
	var counts []int
	for n := 1; n < processors; n *= 2 {
		counts = append(counts, n)
	}
	return append(counts, processors)
}

// Processors is the number of processors here.
func Processors() int { return runtime.NumCPU() }

// A makeWorker makes the i-th client.
type makeWorker func(e *Env, i int) (worker, error)

// clients is a load of n clients.
func clients(n int, make makeWorker) func(*Env) (*Session, error) {
	return func(e *Env) (*Session, error) {
		s := new(Session)
		for i := range n {
			w, err := make(e, i)
			if err != nil {
				s.close()
				return nil, err
			}
			s.workers = append(s.workers, w)
		}
		return s, nil
	}
}

func newHTTP1Connection(e *Env, _ int) (worker, error) {
	req, _ := e.small()
	client := newHTTP1(e.Addresses.HTTP, req)
	return &closedLoop{op: perConnection(
		func() (net.Conn, error) { return e.dial(e.Addresses.HTTP, "http/1.1") },
		func(c net.Conn) error {
			client.open(c)
			return client.roundTrip()
		},
	)}, nil
}

func newGRPCConnection(e *Env, _ int) (worker, error) {
	_, req := e.small()
	return newHTTP2Connection(e, e.Addresses.GRPC, req, true), nil
}

func newH2CConnection(e *Env, _ int) (worker, error) {
	req, _ := e.small()
	return newHTTP2Connection(e, e.Addresses.HTTP, req, false), nil
}

func newHTTP2Connection(e *Env, address string, req *request, strict bool) worker {
	client := newHTTP2(newScript(e.scheme(), address, req), strict)
	return &closedLoop{op: perConnection(
		func() (net.Conn, error) { return e.dial(address, "h2") },
		func(c net.Conn) error {
			if err := client.open(c); err != nil {
				return err
			}
			return client.roundTrip()
		},
	)}
}

// newEitherConnection makes a client that is one of gRPC and of HTTP/1 by turns, so that every run has as many of both.
func newEitherConnection(e *Env, i int) (worker, error) {
	http1, err := newHTTP1Connection(e, i)
	if err != nil {
		return nil, err
	}
	grpc, err := newGRPCConnection(e, i)
	if err != nil {
		return nil, err
	}
	ops := []func() error{http1.(*closedLoop).op, grpc.(*closedLoop).op}
	turn := i
	return &closedLoop{op: func() error {
		turn++
		return ops[turn%2]()
	}}, nil
}

func openHTTP1(e *Env, i int) (worker, error) {
	req, _ := e.small()
	return bodiesHTTP1(req)(e, i)
}

func openGRPC(n int) makeWorker {
	return func(e *Env, i int) (worker, error) {
		_, req := e.small()
		if n == 1 {
			return bodiesGRPC(req)(e, i)
		}
		return openPipelined(e, e.Addresses.GRPC, n, true, req)
	}
}

// openREST keeps n requests to net/http in flight on a connection.
func openREST(n int) makeWorker {
	return func(e *Env, _ int) (worker, error) {
		http, _ := e.small()
		return openPipelined(e, e.Addresses.HTTP, n, false, http)
	}
}

// openShared keeps n requests of both kinds in flight on a connection.
func openShared(n int) makeWorker {
	return func(e *Env, _ int) (worker, error) {
		http, grpc := e.small()
		return openPipelined(e, e.Addresses.GRPC, n, false, grpc, http)
	}
}

func openSharedBodies(e *Env, _ int) (worker, error) {
	const pieces = 4
	return openPipelined(e, e.Addresses.GRPC, 10, false, grpcDownload(pieces), download(pieces))
}

// openBoth makes a client for which a request of each kind on an open connection is one operation.
func openBoth(e *Env, _ int) (worker, error) {
	http, grpc := e.small()
	client, err := openHTTP2(e, e.Addresses.GRPC, false, grpc, http)
	if err != nil {
		return nil, err
	}
	return &closedLoop{conn: client.conn, op: times(2, client.roundTrip)}, nil
}

// openSharing makes a client as openBoth does, whose connection is shared. net/http ends one on which nothing was said for
// two seconds, and to open many takes longer on a busy machine.
func openSharing(e *Env, i int) (worker, error) {
	w, err := openBoth(e, i)
	if err != nil {
		return nil, err
	}
	if err := w.(*closedLoop).op(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// connected makes a client that has a connection, and says nothing.
func connected(e *Env, _ int) (worker, error) {
	c, err := e.Server.Dial(e.Addresses.HTTP)
	if err != nil {
		return nil, err
	}
	return &closedLoop{conn: c, op: func() error { return nil }}, nil
}

func openPipelined(e *Env, address string, n int, strict bool, requests ...*request) (worker, error) {
	client, err := openHTTP2(e, address, strict, requests...)
	if err != nil {
		return nil, err
	}
	return &pipelined{client: client, n: n}, nil
}

func openHTTP2(e *Env, address string, strict bool, requests ...*request) (*http2Client, error) {
	c, err := e.dial(address, "h2")
	if err != nil {
		return nil, err
	}
	client := newHTTP2(newScript(e.scheme(), address, requests...), strict)
	if err := client.open(c); err != nil {
		c.Close()
		return nil, err
	}
	return client, nil
}

// bodiesHTTP1 makes a client for which the requests, one after the other on an open connection, are one operation.
func bodiesHTTP1(requests ...*request) makeWorker {
	return func(e *Env, _ int) (worker, error) {
		c, err := e.dial(e.Addresses.HTTP, "http/1.1")
		if err != nil {
			return nil, err
		}
		client := newHTTP1(e.Addresses.HTTP, requests...)
		client.open(c)
		return &closedLoop{conn: c, op: times(len(requests), client.roundTrip)}, nil
	}
}

func bodiesGRPC(requests ...*request) makeWorker {
	return func(e *Env, _ int) (worker, error) {
		client, err := openHTTP2(e, e.Addresses.GRPC, true, requests...)
		if err != nil {
			return nil, err
		}
		return &closedLoop{conn: client.conn, op: times(len(requests), client.roundTrip)}, nil
	}
}

func times(n int, f func() error) func() error {
	return func() error {
		for range n {
			if err := f(); err != nil {
				return err
			}
		}
		return nil
	}
}
