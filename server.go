package oneport

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"
)

// GRPCServer is the part of a gRPC server that a [Server] uses. *grpc.Server of google.golang.org/grpc implements it.
type GRPCServer interface {
	Serve(net.Listener) error
	GracefulStop()
	Stop()
}

// A Server serves gRPC and HTTP on one port, over cleartext TCP and, if TLSConfig is set, over TLS:
//
//	s := &oneport.Server{Addr: ":8080", GRPC: grpcServer, Handler: mux}
//	err := s.ListenAndServe()
//
// gRPC requests go to GRPC, all others to Handler or HTTP. To serve other protocols on the port, or to route by host,
// add routes in Configure, or use a [Mux].
//
// A Server is a Mux for each listener with these routes, and has its limits, hooks and counters. Do not change the
// fields after the first call of a Serve method. The methods may be called by several goroutines at once.
type Server struct {
	// Addr is the TCP address, "host:port", for ListenAndServe and ListenAndServeTLS. If it is empty, these use ":http"
	// and ":https", as net/http does.
	Addr string

	// GRPC serves gRPC requests. It must not have TLS credentials of its own, since it gets connections on which TLS
	// was terminated. Create it with grpc.Creds(grpccreds.Credentials{}): handlers then find the TLS state in AuthInfo,
	// and an idle cleartext connection needs no read buffer.
	GRPC GRPCServer

	// Handler answers all other requests, if HTTP is nil or has no Handler.
	Handler http.Handler

	// HTTP, if not nil, is the HTTP server to use. The Server prepares it with [ConfigureHTTP] and calls its Serve,
	// Shutdown and Close. The Server's own Addr and TLSConfig apply, not those of HTTP; it is an error if only HTTP has
	// them. If HTTP is nil, Handler gets a server with a ReadHeaderTimeout of 10 seconds, and an IdleTimeout of 620
	// seconds, which is longer than load balancers keep idle connections (Google's keep them for 600 seconds).
	HTTP *http.Server

	// TLSConfig, if not nil, makes the port accept TLS as well. See [Mux.TLS].
	TLSConfig *tls.Config

	// RequireTLS makes the port accept TLS only. Cleartext HTTP is answered 400, or redirected.
	RequireTLS bool

	// RedirectHTTP redirects cleartext HTTP/1 requests to https. It needs RequireTLS. See [TLSMux.RedirectHTTP].
	RedirectHTTP bool

	// Upgrade accepts HTTP/1.1 requests with "Upgrade: h2c" on the cleartext port. See [Route.Upgrade] for the risk.
	Upgrade bool

	// HTTPServices are the full names of gRPC services, such as "package.Service", whose calls go to Handler or HTTP and
	// not to GRPC: those of a handler that speaks the gRPC protocol itself, as connect-go's do.
	HTTPServices []string

	// PerConnection routes each HTTP/2 connection as a whole, by its first request, as a Mux does. By default each
	// request is routed on its own, which clients and proxies need that send gRPC and other requests over one
	// connection. PerConnection saves memory, and CPU time of calls, if no client does that: docs/requests.md has the
	// figures.
	PerConnection bool

	Limits
	Hooks

	// Logger receives one record per event: see [Mux.Logger]. Nil means [slog.Default].
	Logger *slog.Logger

	// Configure, if not nil, is called once for each listener, with the Mux that serves it, before the Server adds its
	// own routes. [Mux.Addr] tells which listener it is. Limits, Hooks and Logger of the Mux have the values of the
	// Server's fields; Configure may change all fields, and add routes that take precedence.
	Configure func(*Mux)

	once    sync.Once
	http    *http.Server // HTTP, or one for Handler, or nil
	httpErr error        // what is wrong with HTTP

	mu      sync.Mutex
	ports   map[*port]struct{}
	ended   Stats // of those that were
	closing bool
}

// ListenAndServe listens on the TCP address Addr with [Listen] and calls [Server.Serve].
func (s *Server) ListenAndServe() error { return s.listenAndServe(":http", s.TLSConfig, s.RequireTLS) }

// ListenAndServeTLS listens on the TCP address Addr and serves TLS only, as with RequireTLS. The certificate from the
// PEM files is added to those of TLSConfig. The file names may be empty if TLSConfig has a certificate.
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
	if addr == "" && s.HTTP != nil && s.HTTP.Addr != "" {
		return fmt.Errorf("oneport: Server.HTTP has the Addr %q, but the Server has none: set Server.Addr", s.HTTP.Addr)
	}
	if addr == "" {
		addr = defaultAddr
	}
	l, err := Listen("tcp", addr)
	if err != nil {
		return err
	}
	return s.serve(l, config, requireTLS)
}

// Serve serves on l, and closes l before it returns. It always returns a non-nil error: [ErrClosed] after Shutdown or
// Close, otherwise the fatal error. An invalid configuration is reported before the first connection is accepted. Serve
// may be called for several listeners at once.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, s.TLSConfig, s.RequireTLS) }

func (s *Server) serve(l net.Listener, config *tls.Config, requireTLS bool) error {
	if err := s.check(config, requireTLS); err != nil {
		l.Close()
		return err
	}
	m := New(l)
	m.Limits, m.Hooks, m.Logger = s.Limits, s.Hooks, s.Logger
	if s.Configure != nil {
		s.Configure(m)
	}
	p := &port{mux: m}
	m.exemptNew(func() {
		if !requireTLS {
			p.route(s, m.Route, m.RequestsRoute, s.Upgrade)
		}
		if config != nil {
			inside := m.TLS(config)
			inside.RedirectHTTP = s.RedirectHTTP
			p.route(s, inside.Route, inside.RequestsRoute, false)
		}
	})
	if !s.track(p) {
		l.Close()
		return ErrClosed
	}
	defer s.untrack(p)

	failed := make(chan error, len(p.behind))
	var serving sync.WaitGroup
	for _, serve := range p.behind {
		serving.Go(func() {
			err := serve()
			// A server that was stopped by itself leaves the others alone.
			stopped := errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed)
			if err != nil && !stopped && !s.isClosing() {
				failed <- err
				p.mux.Close()
			}
		})
	}
	err := m.Serve()
	serving.Wait()
	select {
	case cause := <-failed:
		return fmt.Errorf("oneport: a server failed: %w", cause)
	default:
		return err
	}
}

// A port is a listener of a Server, with what is behind it.
type port struct {
	mux    *Mux
	behind []func() error // the calls of Serve
	served bool           // Serve has returned; connections may be left, of which requests are being answered
}

// route adds the routes that lead to the servers.
func (p *port) route(s *Server, add func(Route) net.Listener, requests func(Route) *RequestMux, upgrade bool) {
	to := func(serve func(net.Listener) error, l net.Listener) {
		p.behind = append(p.behind, func() error { return serve(l) })
	}
	grpc := GRPC()
	if len(s.HTTPServices) > 0 {
		prefixes := make([]string, len(s.HTTPServices))
		for i, name := range s.HTTPServices {
			prefixes[i] = "/" + name + "/"
		}
		grpc = All(grpc, Not(Path(prefixes...)))
	}
	if s.GRPC != nil && s.http != nil && !s.PerConnection {
		q := requests(Route{Name: "http2", Matchers: []Matcher{HTTP2()}, Upgrade: upgrade})
		to(s.GRPC.Serve, q.Route(Route{Name: "grpc", Matchers: []Matcher{grpc}}))
		to(s.http.Serve, q.Route(Route{Name: "http", Matchers: []Matcher{Any()}}))
		to(s.http.Serve, add(Route{Name: "http", Matchers: []Matcher{HTTP1()}}))
		return
	}
	if s.GRPC != nil {
		to(s.GRPC.Serve, add(Route{Name: "grpc", Matchers: []Matcher{grpc}, Upgrade: upgrade}))
	}
	if s.http != nil {
		to(s.http.Serve, add(Route{Name: "http", Matchers: []Matcher{HTTP1(), HTTP2()}, Upgrade: upgrade}))
	}
}

// prepare prepares the HTTP server, once, since ConfigureHTTP changes the user's server. It returns an error for a
// configuration that cannot work.
func (s *Server) prepare() error {
	s.once.Do(func() {
		if s.httpErr = s.checkHTTP(); s.httpErr != nil {
			return
		}
		s.http = s.HTTP
		if s.http == nil && s.Handler != nil {
			s.http = &http.Server{ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 620 * time.Second}
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

// checkHTTP returns an error for an HTTP server that cannot work.
func (s *Server) checkHTTP() error {
	switch {
	case s.HTTP == nil:
		return nil
	case s.HTTP.TLSConfig != nil && s.TLSConfig == nil:
		return errors.New("oneport: Server.HTTP has a TLSConfig, but the Server has none: set Server.TLSConfig")
	case s.HTTP.Handler != nil && s.Handler != nil:
		return errors.New("oneport: the Server has two handlers: set either Handler or HTTP.Handler")
	case !speaksUnencryptedHTTP2(s.HTTP):
		return errors.New("oneport: HTTP/2 is routed to Server.HTTP, which accepts it only over TLS: " +
			"leave Protocols and TLSNextProto nil, or call Protocols.SetUnencryptedHTTP2(true)")
	}
	return nil
}

// check returns an error for a configuration that cannot work, and prepares the servers.
func (s *Server) check(config *tls.Config, requireTLS bool) error {
	switch {
	case s.GRPC == nil && s.Handler == nil && s.HTTP == nil:
		return errors.New("oneport: the Server has nothing to serve: set GRPC, Handler or HTTP")
	case requireTLS && config == nil:
		return errors.New("oneport: the Server has RequireTLS, but no TLSConfig: set it, or call ListenAndServeTLS")
	case len(s.HTTPServices) > 0 && s.Handler == nil && s.HTTP == nil:
		return errors.New("oneport: the Server has HTTPServices, but nothing that answers them: set Handler or HTTP")
	case s.RedirectHTTP && !requireTLS:
		return errors.New("oneport: the Server has RedirectHTTP without RequireTLS, so there is nothing to redirect: set RequireTLS")
	case s.Upgrade && requireTLS:
		return errors.New("oneport: the Server has Upgrade, but accepts only TLS, and h2c is HTTP/2 without TLS: unset Upgrade")
	case s.GRPC != nil && hasTLSCredentials(s.GRPC):
		return errors.New("oneport: Server.GRPC has TLS credentials, but its connections are cleartext or already decrypted: " +
			"use TLSConfig, and grpc.Creds(grpccreds.Credentials{}) for AuthInfo")
	}
	return s.prepare()
}

// speaksUnencryptedHTTP2 reports whether a server serves HTTP/2 without TLS, as [ConfigureHTTP] requires.
func speaksUnencryptedHTTP2(s *http.Server) bool {
	if s.Protocols != nil {
		return s.Protocols.UnencryptedHTTP2()
	}
	// Before net/http had Protocols, a TLSNextProto without "h2" disabled HTTP/2. That still works.
	_, h2 := s.TLSNextProto["h2"]
	return s.TLSNextProto == nil || h2
}

// hasTLSCredentials reports whether a server is a *grpc.Server, or embeds one, that was made with TLS credentials of
// package credentials. There is no other way to learn that before its first connection. The search uses what grpc-go
// exports, the interface credentials.TransportCredentials, and not the names of fields. If it finds nothing, the answer
// is no, and the first connection shows the mistake.
func hasTLSCredentials(s GRPCServer) bool {
	return holdsTLSCredentials(reflect.ValueOf(s), 3)
}

// holdsTLSCredentials looks into structs up to a depth: into all fields of those of grpc-go, whose only transport
// credentials are the server's own, and into what others embed.
func holdsTLSCredentials(v reflect.Value, depth int) bool {
	const pkg = "google.golang.org/grpc"
	v = reflect.Indirect(v)
	if depth == 0 || v.Kind() != reflect.Struct {
		return false
	}
	ofGRPC := v.Type().PkgPath() == pkg
	for field, value := range v.Fields() {
		t := field.Type
		switch {
		case ofGRPC && t.PkgPath() == pkg+"/credentials" && t.Name() == "TransportCredentials":
			// The package itself has credentials for TLS alone; others have packages of their own.
			return !value.IsNil() && reflect.Indirect(value.Elem()).Type().PkgPath() == pkg+"/credentials"
		case (ofGRPC || field.Anonymous) && holdsTLSCredentials(value, depth-1):
			return true
		}
	}
	return false
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
	p.served = true
	s.sumUp()
}

// sumUp adds the counts of ports that are no longer served to those that ended, once they do not change any more.
func (s *Server) sumUp() {
	s.ended.init()
	for p := range s.ports {
		if p.served && p.mux.lobby.IsEmpty() {
			s.ended.add(p.mux.Stats())
			delete(s.ports, p)
		}
	}
}

// Stats returns the current counters, summed over all listeners. It may be called at any time, also after Serve has
// returned.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sumUp()
	var sum Stats
	sum.init()
	sum.add(s.ended)
	for p := range s.ports {
		sum.add(p.mux.Stats())
	}
	return sum
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

// Shutdown stops the server gracefully. It stops accepting, gives connections accepted within the last
// [Limits.ShutdownGrace] that time to be decided, and refuses all others that have no route. Connections that have a
// route reach GRPC and HTTP. Shutdown returns when these have answered all their requests, gRPC streams included.
//
// If ctx ends first, Shutdown closes the remaining connections and returns the context's error. It does not wait for
// handlers that ignore their own context. A Server cannot be used again after Shutdown.
//
// Serve may return before Shutdown does. A program must wait for Shutdown before it exits.
func (s *Server) Shutdown(ctx context.Context) error {
	// What is on the way to a server must reach it first: with its listeners closed, it would lose that.
	ports := s.close()
	var settling sync.WaitGroup
	errs := make([]error, len(ports), 2*len(ports)+2)
	for i, p := range ports {
		settling.Go(func() { errs[i] = p.mux.settle(ctx) })
	}
	settling.Wait()

	var stopping []func() error
	for _, p := range ports {
		stopping = append(stopping, func() error { return p.mux.finish(ctx) })
	}
	if s.GRPC != nil {
		stopping = append(stopping, func() error { return s.stopGRPC(ctx) })
	}
	if s.prepare(); s.http != nil {
		stopping = append(stopping, func() error {
			err := s.http.Shutdown(ctx)
			if err != nil {
				s.http.Close()
			}
			return err
		})
	}
	results := make(chan error, len(stopping))
	for _, stop := range stopping {
		go func() { results <- stop() }()
	}
	for range stopping {
		errs = append(errs, <-results)
	}
	return cmp.Or(errs...)
}

// stopGRPC is GracefulStop that ends with ctx.
func (s *Server) stopGRPC(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.GRPC.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		// Either may wait for handlers that do not end: GracefulStop of grpc-go does so even after Stop.
		go s.GRPC.Stop()
		return ctx.Err()
	}
}

// Close stops the server at once and closes all its connections. It returns the error of closing a listener, if any.
func (s *Server) Close() error {
	var errs []error
	for _, p := range s.close() {
		errs = append(errs, p.mux.Close())
	}
	if s.GRPC != nil {
		s.GRPC.Stop()
	}
	if s.prepare(); s.http != nil {
		errs = append(errs, s.http.Close())
	}
	return errors.Join(errs...)
}
