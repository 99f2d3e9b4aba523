package oneport

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/dispatch"
)

// GRPCServer is what a [Server] needs of a gRPC server. A *grpc.Server of google.golang.org/grpc is one.
type GRPCServer interface {
	Serve(net.Listener) error
	GracefulStop()
	Stop()
}

// A Server serves gRPC and HTTP on one port, in the clear and over TLS:
//
//	s := &oneport.Server{Addr: ":8080", GRPC: grpcServer, Handler: mux}
//	err := s.ListenAndServe()
//
// gRPC requests go to GRPC, all others to Handler or HTTP. The fields must not be changed once the server serves. The
// methods may be called by several goroutines at once.
//
// Where more is wanted, such as other protocols on the port or routes by host, Configure adds them, or a [Mux] does it all.
type Server struct {
	// Addr is the TCP address of ListenAndServe and ListenAndServeTLS, "host:port". If it is empty they use ":http" and
	// ":https", as net/http does.
	Addr string

	// GRPC is the gRPC server, if there is one. It must be without TLS credentials of its own. Package grpccreds has those
	// to make it with: they tell its handlers of the TLS of TLSConfig, and spare it memory for idle connections in the clear.
	GRPC GRPCServer

	// Handler answers the HTTP requests, if HTTP is nil or has none.
	Handler http.Handler

	// HTTP is the HTTP server, for other settings than those of the one that is made for Handler, which has a
	// ReadHeaderTimeout of 10 seconds and an IdleTimeout of 2 minutes. It is prepared with [ConfigureHTTP] and must not be
	// used otherwise. Its Addr and TLSConfig have no effect.
	HTTP *http.Server

	// TLSConfig, if not nil, has TLS served on the port as well. See [TLSRoute.Config].
	TLSConfig *tls.Config

	// RequireTLS has only TLS served: requests in the clear are answered 400, or redirected.
	RequireTLS bool

	// RedirectHTTP has requests in the clear, where RequireTLS is set, redirected to https. See [TLSRoute.RedirectHTTP].
	RedirectHTTP bool

	// Upgrade takes HTTP/1.1 requests with "Upgrade: h2c". See [Route.Upgrade] for what is to be said against it.
	Upgrade bool

	// PerConnection has each HTTP/2 connection go to one of the servers as a whole, by its first request. Otherwise each of
	// its requests goes to the server it is for, as those of a proxy that sends all kinds over one connection have to. What
	// that costs where a connection has requests of one kind only is in docs/streams.md.
	PerConnection bool

	// OnDispatch, if not nil, is called for each HTTP/2 connection when its first request is on its way to a server, and
	// again when the first request for the other one is, unless PerConnection is set. What holds for [Mux.OnMatch] holds
	// here.
	OnDispatch func(Dispatched)

	// Configure, if not nil, is called for the Mux of each listener before the routes for GRPC and HTTP are added. It may
	// set the fields of the Mux, such as its hooks, and add routes that go before those. DecideTimeout, IdleTimeout,
	// MaxHeaderListBytes, QueueLength, EarlySettings and Logger apply where requests are dispatched one by one as well.
	Configure func(*Mux)

	once    sync.Once
	http    *http.Server // HTTP, or one for Handler, or nil
	httpErr error        // what is wrong with HTTP

	mu      sync.Mutex
	ports   map[*port]struct{}
	closing bool
}

// ListenAndServe listens on Addr and calls Serve. With a TLSConfig the port serves TLS beside what comes in the clear.
func (s *Server) ListenAndServe() error { return s.listenAndServe(":http", s.TLSConfig, s.RequireTLS) }

// ListenAndServeTLS listens on Addr and serves TLS alone, as with RequireTLS, with the certificate of the files in addition
// to those of TLSConfig. The names may be empty if it has any.
func (s *Server) ListenAndServeTLS(certFile, keyFile string) error {
	config := s.TLSConfig.Clone()
	if config == nil {
		config = new(tls.Config)
	}
	if certFile != "" || keyFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return fmt.Errorf("oneport: the certificate of ListenAndServeTLS: %w", err)
		}
		config.Certificates = append(config.Certificates[:len(config.Certificates):len(config.Certificates)], cert)
	}
	return s.listenAndServe(":https", config, true)
}

func (s *Server) listenAndServe(defaultAddr string, config *tls.Config, requireTLS bool) error {
	if err := s.check(config, requireTLS); err != nil {
		return err
	}
	addr := s.Addr
	if addr == "" {
		addr = defaultAddr
	}
	l, err := Listen("tcp", addr)
	if err != nil {
		return err
	}
	return s.serve(l, config, requireTLS)
}

// Serve serves on l, which it closes in the end. It always returns an error: [ErrClosed] after Shutdown or Close, else what
// made it impossible to go on. A configuration that cannot work is such an error, before a connection is accepted. It may
// be called for several listeners at once.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, s.TLSConfig, s.RequireTLS) }

func (s *Server) serve(l net.Listener, config *tls.Config, requireTLS bool) error {
	if err := s.check(config, requireTLS); err != nil {
		l.Close()
		return err
	}
	m := New(l)
	if s.Configure != nil {
		s.Configure(m)
	}
	p := &port{mux: m}
	if s.GRPC != nil && s.http != nil && !s.PerConnection {
		p.dispatch(s)
	}
	if !requireTLS {
		p.route(s, m.Route, s.Upgrade)
	}
	if config != nil {
		p.route(s, m.TLSRoute(TLSRoute{Name: "tls", Config: config, RedirectHTTP: s.RedirectHTTP}).Route, false)
	}
	if !s.track(p) {
		l.Close()
		return ErrClosed
	}
	defer s.untrack(p)

	failed := make(chan error, len(p.behind))
	var serving sync.WaitGroup
	for _, serve := range p.behind {
		serving.Go(func() {
			// A server that was stopped by itself leaves the others alone.
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) && !s.isClosing() {
				failed <- err
				p.close()
			}
		})
	}
	err := m.Serve()
	p.close() // if it did not get so far as to do that
	serving.Wait()
	select {
	case cause := <-failed:
		return fmt.Errorf("oneport: a server has stopped serving: %w", cause)
	default:
		return err
	}
}

// Dispatched describes an HTTP/2 connection whose requests a [Server] dispatches one by one.
type Dispatched struct {
	Conn          net.Conn // as its route got it; the accepted connection is below, see [Conn.NetConn]
	Server        string   // that takes part from now on: "grpc" or "http"
	EarlySettings bool     // an early SETTINGS frame was sent: the first request was not there when the mux looked
}

// A port is a listener of a Server, with what is behind it.
type port struct {
	mux     *Mux
	streams *dispatch.Dispatcher // of HTTP/2 connections by request, or nil
	behind  []func() error       // the calls of Serve
}

// dispatch has the requests of HTTP/2 connections dispatched to both servers.
func (p *port) dispatch(s *Server) {
	const toGRPC, toHTTP = 0, 1
	routes := [][]Matcher{toGRPC: {GRPC()}}
	limits := dispatch.DefaultLimits()
	limits.OpenTimeout, limits.IdleTimeout = p.mux.decideTimeout(), p.mux.idleTimeout()
	limits.MaxHeaderListBytes = orDefault(p.mux.MaxHeaderListBytes, limits.MaxHeaderListBytes)
	p.streams = &dispatch.Dispatcher{
		Decide: func(c net.Conn, fields []hpack.HeaderField) int {
			if MatchStream(c, fields, routes) == toGRPC {
				return toGRPC
			}
			return toHTTP
		},
		Limits:        limits,
		EarlySettings: p.mux.earlySettings(),
		Logger:        p.mux.Logger,
	}
	if s.OnDispatch != nil {
		names := []string{toGRPC: "grpc", toHTTP: "http"}
		p.streams.OnServer = func(c net.Conn, target int, early bool) { s.OnDispatch(Dispatched{c, names[target], early}) }
	}
	addr := p.mux.root.Addr()
	for _, serve := range []func(net.Listener) error{toGRPC: s.GRPC.Serve, toHTTP: s.http.Serve} {
		l := p.streams.Target(addr, p.mux.queueLength())
		p.behind = append(p.behind, func() error { return serve(l) })
	}
}

// route adds the routes that lead to the servers.
func (p *port) route(s *Server, add func(Route) net.Listener, upgrade bool) {
	to := func(serve func(net.Listener) error, r Route) {
		l := add(r)
		p.behind = append(p.behind, func() error { return serve(l) })
	}
	if p.streams != nil {
		to(p.acceptStreams, Route{Name: "http2", Matchers: []Matcher{HTTP2()}, Upgrade: upgrade})
		to(s.http.Serve, Route{Name: "http", Matchers: []Matcher{HTTP1()}})
		return
	}
	if s.GRPC != nil {
		to(s.GRPC.Serve, Route{Name: "grpc", Matchers: []Matcher{GRPC()}, Upgrade: upgrade})
	}
	if s.http != nil {
		to(s.http.Serve, Route{Name: "http", Matchers: []Matcher{HTTP1(), HTTP2()}, Upgrade: upgrade})
	}
}

// acceptStreams has the requests of the connections of a route dispatched.
func (p *port) acceptStreams(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		p.streams.Handle(c)
	}
}

// shutdown stops accepting, and lets what is decided reach its server.
func (p *port) shutdown(ctx context.Context) error {
	err := p.mux.Shutdown(ctx)
	if p.streams != nil {
		p.streams.Close()
	}
	return err
}

func (p *port) close() error {
	err := p.mux.Close()
	if p.streams != nil {
		p.streams.Close()
	}
	return err
}

// prepare makes the HTTP server ready, once: what it is given is the user's only until then. It reports what cannot work.
func (s *Server) prepare() error {
	s.once.Do(func() {
		if s.httpErr = s.checkHTTP(); s.httpErr != nil {
			return
		}
		s.http = s.HTTP
		if s.http == nil && s.Handler != nil {
			s.http = &http.Server{ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
		}
		if s.http == nil {
			return
		}
		if s.http.Handler == nil {
			s.http.Handler = s.Handler
		}
		ConfigureHTTP(s.http)
	})
	return s.httpErr
}

// checkHTTP reports what of the HTTP server cannot work.
func (s *Server) checkHTTP() error {
	switch {
	case s.HTTP == nil:
		return nil
	case s.HTTP.Handler != nil && s.Handler != nil:
		return errors.New("oneport: the Server has two handlers: set Handler or HTTP.Handler, not both")
	case !speaksUnencryptedHTTP2(s.HTTP):
		return errors.New("oneport: HTTP/2 is routed to the Server's HTTP, which does not speak it: " +
			"leave Protocols and TLSNextProto nil, or call Protocols.SetUnencryptedHTTP2(true)")
	}
	return nil
}

// check reports what cannot work, and prepares what can.
func (s *Server) check(config *tls.Config, requireTLS bool) error {
	switch {
	case s.GRPC == nil && s.Handler == nil && s.HTTP == nil:
		return errors.New("oneport: the Server has nothing to serve with: set GRPC, Handler or HTTP")
	case requireTLS && config == nil:
		return errors.New("oneport: the Server has RequireTLS and no TLSConfig")
	case s.RedirectHTTP && !requireTLS:
		return errors.New("oneport: the Server has RedirectHTTP without RequireTLS, and so nothing to redirect")
	case s.Upgrade && requireTLS:
		return errors.New("oneport: the Server has Upgrade and takes TLS alone: h2c is HTTP/2 in the clear")
	case s.GRPC != nil && hasTLSCredentials(s.GRPC):
		return errors.New("oneport: the Server's GRPC has TLS credentials, and would want TLS inside of what it gets, which is " +
			"in the clear or decrypted: use TLSConfig, and grpc.Creds(grpccreds.Credentials{}) for the peers' AuthInfo")
	}
	return s.prepare()
}

// speaksUnencryptedHTTP2 reports whether a server serves what ConfigureHTTP says of HTTP/2.
func speaksUnencryptedHTTP2(s *http.Server) bool {
	if s.Protocols != nil {
		return s.Protocols.UnencryptedHTTP2()
	}
	// Before there was Protocols, a TLSNextProto without it was the way to do without HTTP/2, which still counts.
	_, h2 := s.TLSNextProto["h2"]
	return s.TLSNextProto == nil || h2
}

// hasTLSCredentials reports whether a server is a *grpc.Server that was made with TLS credentials of package credentials.
// There is no other way to learn that before its first connection, and if grpc-go's fields have other names one day, the
// answer is no and the first connection tells.
func hasTLSCredentials(s GRPCServer) bool {
	v := reflect.Indirect(reflect.ValueOf(s))
	for _, name := range []string{"opts", "creds"} {
		if v.Kind() != reflect.Struct {
			return false
		}
		v = v.FieldByName(name)
	}
	if v.Kind() != reflect.Interface || v.IsNil() {
		return false
	}
	t := v.Elem().Type()
	return t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "google.golang.org/grpc/credentials" && t.Elem().Name() == "tlsCreds"
}

func (s *Server) track(p *port) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	if s.ports == nil {
		s.ports = make(map[*port]struct{})
	}
	s.ports[p] = struct{}{}
	return true
}

func (s *Server) untrack(p *port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ports, p)
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// close marks the server as closing and returns its ports.
func (s *Server) close() []*port {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	return slices.Collect(maps.Keys(s.ports))
}

// Shutdown stops the server gracefully: it stops accepting, refuses the connections that have no route yet, lets the
// others reach GRPC and HTTP, and waits until these have answered the requests that they have, gRPC's streams included.
// If ctx ends first it cuts off what is left and returns the context's error. A Server cannot be used again after that.
//
// Serve can return long before Shutdown does: a program has to wait for Shutdown before it ends.
func (s *Server) Shutdown(ctx context.Context) error {
	// The ports go first: with its route closed, a server would lose what is on the way to it.
	ports := s.close()
	errs := make([]error, len(ports), len(ports)+2)
	var stopping sync.WaitGroup
	for i, p := range ports {
		stopping.Go(func() { errs[i] = p.shutdown(ctx) })
	}
	stopping.Wait()

	var grpcErr, httpErr error
	if s.GRPC != nil {
		stopping.Go(func() {
			cutOff := context.AfterFunc(ctx, s.GRPC.Stop)
			s.GRPC.GracefulStop()
			if !cutOff() {
				grpcErr = ctx.Err()
			}
		})
	}
	if s.prepare(); s.http != nil {
		stopping.Go(func() {
			if httpErr = s.http.Shutdown(ctx); httpErr != nil {
				s.http.Close()
			}
		})
	}
	stopping.Wait()
	return cmp.Or(append(errs, grpcErr, httpErr)...)
}

// Close stops the server at once, with all its connections. It returns the error of closing a listener, if there is one.
func (s *Server) Close() error {
	var errs []error
	for _, p := range s.close() {
		errs = append(errs, p.close())
	}
	if s.GRPC != nil {
		s.GRPC.Stop()
	}
	if s.prepare(); s.http != nil {
		errs = append(errs, s.http.Close())
	}
	return errors.Join(errs...)
}
