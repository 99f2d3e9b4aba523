// Package contender defines the servers that are compared. It starts each in a process of its own, asks it which
// resources it has used, and stops it.
package contender

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"

	"github.com/soheilhy/cmux"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
)

// A Need is what a scenario wants of a server.
type Need string

const (
	HTTP1  Need = "HTTP/1"
	GRPC   Need = "gRPC"
	H2C    Need = "HTTP/2 in the clear with net/http"
	TLS    Need = "TLS"
	Mixed  Need = "gRPC and REST on one connection"
	Routes Need = "routes"
	Ports  Need = "several listeners on one port"
	Bodies Need = "the harness's own services"
	Memory Need = "the memory of the server process"
	Many   Need = "much at once, or far away"
)

// A Contender is a way to serve gRPC and HTTP.
type Contender struct {
	Name  string
	About string          // in a few words
	Lacks map[Need]string // what it cannot do, and why

	// Control says that it is the baseline under another name, which shows what the harness makes of no difference.
	Control bool

	// Aside says that it is there for perspective: no page has its ratios. It plays only a few of the rounds, and how
	// wide its intervals are decides nothing.
	Aside bool

	serve func(*setup) error

	// dropIn says that it is a program that is built with oneport's drop-in in the place of cmux.
	dropIn bool

	// find says why the contender cannot be had here, if it cannot; nil if it always can.
	find func() error
}

// Available says why the contender cannot be had here, if it cannot.
func (c Contender) Available() error {
	if c.find == nil {
		return nil
	}
	return c.find()
}

// Table has all contenders, the one that the others are measured against first.
var Table = []Contender{
	{
		Name:  "plain",
		About: "no mux: net/http and grpc-go, each on a port of its own",
		Lacks: map[Need]string{
			Mixed: "two ports",
		},
		serve: servePlain,
	},
	{
		Name:  "oneport",
		About: "oneport.Mux on a listener of net.Listen, which terminates TLS where there is any",
		Lacks: map[Need]string{
			Mixed: "one decision per connection",
		},
		serve: serveOneport,
	},
	{
		Name:  "oneport-listen",
		About: "oneport.Mux on a listener of oneport.Listen, which sets socket options once",
		Lacks: map[Need]string{
			Mixed: "one decision per connection",
		},
		serve: serveOneportListen,
	},
	{
		Name:  "oneport-server",
		About: "oneport.Server on a listener of oneport.Listen, which dispatches HTTP/2 connections by request; grpc-go with grpccreds",
		serve: serveOneportServer,
	},
	{
		Name:  "cmux",
		About: "soheilhy/cmux with its SendSettings matcher for gRPC, above tls.NewListener for TLS",
		Lacks: map[Need]string{
			H2C:   "with the SendSettings matcher net/http ends an HTTP/2 connection with PROTOCOL_ERROR",
			Mixed: "one decision per connection",
		},
		serve: serveCmux,
	},
	{
		Name:  "cmux-dropin",
		About: "the program of cmux, built with oneport's drop-in in its place",
		Lacks: map[Need]string{
			H2C:    "the program is that of cmux",
			Mixed:  "one decision per connection",
			Routes: "the decision is oneport's",
			Ports:  "the decision is oneport's",
			Bodies: "the connection is that of cmux",
			Many:   "the decision is oneport's",
		},
		Aside:  true,
		serve:  serveCmux,
		dropIn: true,
		find:   func() error { _, err := source(); return err },
	},
	{
		Name:  "servehttp",
		About: "grpc.Server.ServeHTTP as a handler of net/http",
		Lacks: map[Need]string{
			Routes: "no mux",
		},
		serve: serveHTTPHandler,
	},
	{
		Name:  "haproxy",
		About: "HAProxy in front of the two servers, which decides by request; its CPU time is with theirs",
		Lacks: inFront("connections to the servers are HAProxy's own"),
		Aside: true,
		serve: haproxy.serve,
		find:  func() error { _, err := haproxy.find(); return err },
	},
	{
		Name:  "nginx",
		About: "nginx in front of the two servers, with TLS on one port and without on two; its CPU time is with theirs",
		Lacks: inFront("connections to the servers are nginx's own"),
		Aside: true,
		serve: nginx.serve,
		find:  func() error { _, err := nginx.find(); return err },
	},
}

// inFront is what a program in front of the servers is not asked for: it is there for perspective.
func inFront(memory string) map[Need]string {
	const perspective = "there for perspective, in the simple scenarios"
	return map[Need]string{
		H2C: perspective, Mixed: perspective, Routes: perspective, Ports: perspective, Bodies: perspective, Memory: memory,
		Many: perspective,
	}
}

// Again is the baseline under another name.
var Again = Contender{
	Name:    "plain-again",
	About:   "plain once more, to check the harness: all its ratios should be 1",
	Lacks:   Table[0].Lacks,
	Control: true,
	Aside:   true,
	serve:   servePlain,
}

// Find returns the contender of the name.
func Find(name string) (Contender, bool) {
	for _, c := range append([]Contender{Again}, Table...) {
		if c.Name == name {
			return c, true
		}
	}
	return Contender{}, false
}

// servePlain is what the others are compared with.
func servePlain(s *setup) error {
	httpPort, err := s.listen(s.plainListen())
	if err != nil {
		return err
	}
	grpcPort, err := s.listen(s.plainListen())
	if err != nil {
		return err
	}
	s.addresses = Addresses{HTTP: httpPort.address, GRPC: grpcPort.address}
	creds := insecure.NewCredentials()
	if s.config.TLS {
		creds = credentials.NewTLS(s.tls)
	}
	httpServer, grpcServer := newHTTP(newHandler()), newGRPC(creds)
	for _, l := range httpPort.listeners {
		if s.config.TLS {
			httpServer.TLSConfig = s.tls
			s.run(func() error { return httpServer.ServeTLS(l, "", "") })
		} else {
			s.run(func() error { return httpServer.Serve(l) })
		}
	}
	for _, l := range grpcPort.listeners {
		s.run(func() error { return grpcServer.Serve(l) })
	}
	return nil
}

func serveOneport(s *setup) error { return serveMux(s, s.plainListen()) }

func serveOneportListen(s *setup) error { return serveMux(s, s.tunedListen()) }

func serveMux(s *setup, listen listenFunc) error {
	port, err := s.listen(listen)
	if err != nil {
		return err
	}
	s.addresses = Addresses{HTTP: port.address, GRPC: port.address}
	httpServer, grpcServer := newHTTP(newHandler()), newGRPC(insecure.NewCredentials())
	oneport.ConfigureHTTP(httpServer)
	for _, l := range port.listeners {
		mux := oneport.New(l)
		match := mux.Match
		if s.config.TLS {
			match = mux.TLS(s.tls).Match
		}
		for i := range s.config.Routes {
			match(oneport.Host(unusedHost(i)))
		}
		grpcL := match(oneport.GRPC())
		httpL := match(oneport.HTTP1(), oneport.HTTP2())
		s.run(func() error { return grpcServer.Serve(grpcL) })
		s.run(func() error { return httpServer.Serve(httpL) })
		s.run(mux.Serve)
	}
	return nil
}

func serveOneportServer(s *setup) error {
	port, err := s.listen(s.tunedListen())
	if err != nil {
		return err
	}
	s.addresses = Addresses{HTTP: port.address, GRPC: port.address}
	server := &oneport.Server{
		GRPC: newGRPC(grpccreds.Credentials{}),
		HTTP: newHTTP(newHandler()),
		Configure: func(m *oneport.Mux) {
			for i := range s.config.Routes {
				m.Match(oneport.Host(unusedHost(i)))
			}
		},
	}
	if s.config.TLS {
		server.TLSConfig, server.RequireTLS = s.tls, true
	}
	for _, l := range port.listeners {
		s.run(func() error { return server.Serve(l) })
	}
	return nil
}

func serveCmux(s *setup) error {
	port, err := s.listen(s.plainListen())
	if err != nil {
		return err
	}
	s.addresses = Addresses{HTTP: port.address, GRPC: port.address}
	httpServer, grpcServer := newHTTP(newHandler()), newGRPC(insecure.NewCredentials())
	for _, l := range port.listeners {
		if s.config.TLS {
			l = tls.NewListener(l, s.tls)
		}
		mux := cmux.New(l)
		for i := range s.config.Routes {
			mux.Match(cmux.HTTP1HeaderField("Host", unusedHost(i)))
		}
		grpcL := mux.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc"))
		httpL := mux.Match(cmux.HTTP1Fast())
		s.run(func() error { return grpcServer.Serve(grpcL) })
		s.run(func() error { return httpServer.Serve(httpL) })
		s.run(mux.Serve)
	}
	return nil
}

func serveHTTPHandler(s *setup) error {
	port, err := s.listen(s.plainListen())
	if err != nil {
		return err
	}
	s.addresses = Addresses{HTTP: port.address, GRPC: port.address}
	grpcServer, rest := newGRPC(insecure.NewCredentials()), newHandler()
	httpServer := newHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			grpcServer.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	}))
	for _, l := range port.listeners {
		if s.config.TLS {
			httpServer.TLSConfig = s.tls
			s.run(func() error { return httpServer.ServeTLS(l, "", "") })
		} else {
			s.run(func() error { return httpServer.Serve(l) })
		}
	}
	return nil
}

// unusedHost is a host that no request is for.
func unusedHost(i int) string { return fmt.Sprintf("host%d.example.com", i) }

// newHTTP makes the HTTP server of every contender.
func newHTTP(h http.Handler) *http.Server {
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}
