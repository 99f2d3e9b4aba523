package contender

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/oneport-go/oneport"
)

// Config says how a contender is to serve.
type Config struct {
	Contender string
	TLS       bool
	Routes    int // routes that match nothing, ahead of those that match
	Listeners int // on each port, with SO_REUSEPORT; 0 means one without it
	Procs     int // GOMAXPROCS, 0 for Go's default

	// Processors are those that the server may use; nil stands for all.
	Processors []int

	// Namespace has the server listen on the loopback of a network namespace of its own, and RTT gives that a round-trip
	// time.
	Namespace bool
	RTT       time.Duration
}

// Addresses are where a contender serves.
type Addresses struct{ HTTP, GRPC string }

// setup is a contender on its way up.
type setup struct {
	config    Config
	tls       *tls.Config
	addresses Addresses
	ended     chan error // what the Serve methods return
	cleanUp   []func()
}

// atEnd has f called when the server process ends by itself.
func (s *setup) atEnd(f func()) { s.cleanUp = append(s.cleanUp, f) }

func (s *setup) close() {
	for _, f := range slices.Backward(s.cleanUp) {
		f()
	}
}

func newSetup(config Config) (*setup, error) {
	s := &setup{config: config, ended: make(chan error, 1)}
	if config.TLS {
		cert, err := newCertificate()
		if err != nil {
			return nil, fmt.Errorf("making a certificate: %w", err)
		}
		// Every handshake is a full one, as for a client that is new.
		s.tls = &tls.Config{
			Certificates:           []tls.Certificate{cert},
			NextProtos:             []string{"h2", "http/1.1"},
			SessionTicketsDisabled: true,
		}
	}
	return s, nil
}

// run calls a Serve method, which must not return while the process lives.
func (s *setup) run(serve func() error) {
	go func() {
		err := serve()
		select {
		case s.ended <- err:
		default:
		}
	}()
}

// A port is one address with one or more listeners on it.
type port struct {
	address   string
	listeners []net.Listener
}

// listenFunc is the Listen method of a configuration of listeners.
type listenFunc func(ctx context.Context, network, address string) (net.Listener, error)

// plainListen is net.Listen.
func (s *setup) plainListen() listenFunc {
	var lc net.ListenConfig
	if s.config.Listeners > 0 {
		lc.Control = reusePort
	}
	return lc.Listen
}

// tunedListen is oneport.Listen.
func (s *setup) tunedListen() listenFunc {
	lc := oneport.ListenConfig{ReusePort: s.config.Listeners > 0}
	return lc.Listen
}

// listen opens a free port.
func (s *setup) listen(listen listenFunc) (*port, error) {
	p := &port{address: "127.0.0.1:0"}
	for range max(1, s.config.Listeners) {
		l, err := listen(context.Background(), "tcp", p.address)
		if err != nil {
			return nil, err
		}
		p.address = l.Addr().String()
		p.listeners = append(p.listeners, l)
	}
	return p, nil
}

// newGRPC makes the gRPC server of every contender.
func newGRPC(creds credentials.TransportCredentials) *grpc.Server {
	server := grpc.NewServer(grpc.Creds(creds))
	healthpb.RegisterHealthServer(server, health.NewServer())
	grpc_testing.RegisterTestServiceServer(server, testService{})
	return server
}

// newCertificate makes a certificate for a process.
func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
