package oneport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"sync"
	"time"
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

	// GRPC is the gRPC server, if there is one. It must be without TLS credentials of its own: behind TLSConfig, package
	// grpccreds has those that tell its handlers of the TLS.
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

	// Configure, if not nil, is called for the Mux of each listener before the routes for GRPC and HTTP are added. It may
	// set the fields of the Mux, such as its hooks, and add routes that go before those.
	Configure func(*Mux)

	once sync.Once
	http *http.Server // HTTP, or one for Handler, or nil

	mu      sync.Mutex
	muxes   map[*Mux]struct{}
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
	s.prepare()
	m := New(l)
	if s.Configure != nil {
		s.Configure(m)
	}
	var behind []func() error // the Serve calls of the servers
	if !requireTLS {
		behind = append(behind, s.route(m.Route, s.Upgrade)...)
	}
	if config != nil {
		secure := m.TLSRoute(TLSRoute{Name: "tls", Config: config, RedirectHTTP: s.RedirectHTTP})
		behind = append(behind, s.route(secure.Route, false)...)
	}
	if !s.track(m) {
		l.Close()
		return ErrClosed
	}
	defer s.untrack(m)

	failed := make(chan error, len(behind))
	var serving sync.WaitGroup
	for _, serve := range behind {
		serving.Go(func() {
			// A server that was stopped by itself leaves the others alone.
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) && !s.isClosing() {
				failed <- err
				m.Close()
			}
		})
	}
	err := m.Serve()
	m.Close() // if it did not get so far as to do that
	serving.Wait()
	select {
	case cause := <-failed:
		return fmt.Errorf("oneport: a server has stopped serving: %w", cause)
	default:
		return err
	}
}

// route adds the routes of the servers, and returns what serves them.
func (s *Server) route(add func(Route) net.Listener, upgrade bool) (behind []func() error) {
	if s.GRPC != nil {
		l := add(Route{Name: "grpc", Matchers: []Matcher{GRPC()}, Upgrade: upgrade})
		behind = append(behind, func() error { return s.GRPC.Serve(l) })
	}
	if s.http != nil {
		l := add(Route{Name: "http", Matchers: []Matcher{HTTP1(), HTTP2()}, Upgrade: upgrade})
		behind = append(behind, func() error { return s.http.Serve(l) })
	}
	return behind
}

// prepare makes the HTTP server ready, once.
func (s *Server) prepare() {
	s.once.Do(func() {
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
}

// check reports what cannot work.
func (s *Server) check(config *tls.Config, requireTLS bool) error {
	switch {
	case s.GRPC == nil && s.Handler == nil && s.HTTP == nil:
		return errors.New("oneport: the Server has nothing to serve with: set GRPC, Handler or HTTP")
	case s.HTTP != nil && s.HTTP.Handler != nil && s.Handler != nil:
		return errors.New("oneport: the Server has two handlers: set Handler or HTTP.Handler, not both")
	case requireTLS && config == nil:
		return errors.New("oneport: the Server has RequireTLS and no TLSConfig")
	case s.RedirectHTTP && !requireTLS:
		return errors.New("oneport: the Server has RedirectHTTP without RequireTLS, and so nothing to redirect")
	case s.Upgrade && requireTLS:
		return errors.New("oneport: the Server has Upgrade and takes TLS alone: h2c is HTTP/2 in the clear")
	case s.HTTP != nil && !speaksUnencryptedHTTP2(s.HTTP):
		return errors.New("oneport: HTTP/2 is routed to the Server's HTTP, which does not speak it: " +
			"leave Protocols and TLSNextProto nil, or call Protocols.SetUnencryptedHTTP2(true)")
	case s.GRPC != nil && hasTLSCredentials(s.GRPC):
		return errors.New("oneport: the Server's GRPC has TLS credentials, and would want TLS inside of what it gets, which is " +
			"in the clear or decrypted: use TLSConfig, and grpc.Creds(grpccreds.Credentials{}) for the peers' AuthInfo")
	}
	return nil
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

func (s *Server) track(m *Mux) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	if s.muxes == nil {
		s.muxes = make(map[*Mux]struct{})
	}
	s.muxes[m] = struct{}{}
	return true
}

func (s *Server) untrack(m *Mux) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.muxes, m)
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// close marks the server as closing and returns its muxes.
func (s *Server) close() []*Mux {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	muxes := make([]*Mux, 0, len(s.muxes))
	for m := range s.muxes {
		muxes = append(muxes, m)
	}
	return muxes
}

// Shutdown stops the server gracefully: it stops accepting, refuses the connections that have no route yet, lets the
// others reach GRPC and HTTP, and waits until these have answered the requests that they have, gRPC's streams included.
// If ctx ends first it cuts off what is left and returns the context's error. A Server cannot be used again after that.
func (s *Server) Shutdown(ctx context.Context) error {
	// The muxes go first: with its route closed, a server would lose what is on the way to it.
	muxes := s.close()
	errs := make([]error, len(muxes), len(muxes)+2)
	var stopping sync.WaitGroup
	for i, m := range muxes {
		stopping.Go(func() { errs[i] = m.Shutdown(ctx) })
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
	for _, err := range append(errs, grpcErr, httpErr) {
		if err != nil {
			return err
		}
	}
	return nil
}

// Close stops the server at once, with all its connections. It returns the error of closing a listener, if there is one.
func (s *Server) Close() error {
	var errs []error
	for _, m := range s.close() {
		errs = append(errs, m.Close())
	}
	if s.GRPC != nil {
		s.GRPC.Stop()
	}
	if s.prepare(); s.http != nil {
		errs = append(errs, s.http.Close())
	}
	return errors.Join(errs...)
}
