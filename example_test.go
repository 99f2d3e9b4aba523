package oneport_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
	"github.com/oneport-go/oneport/internal/certs"
)

// gRPC and HTTP on one port.
func Example() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	mux := oneport.New(l)
	grpcL := mux.Match(oneport.GRPC())
	httpL := mux.Match(oneport.HTTP1(), oneport.HTTP2())

	grpcServer := grpc.NewServer()
	healthpb.RegisterHealthServer(grpcServer, health.NewServer())
	go grpcServer.Serve(grpcL)

	httpServer := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello over %s", r.Proto)
		}),
	}
	oneport.ConfigureHTTP(httpServer)
	go httpServer.Serve(httpL)

	go mux.Serve()

	// A gRPC client and an HTTP client call the same address.
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	status, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(status.Status)

	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Println(string(body))
	http.DefaultClient.CloseIdleConnections()

	// The mux first, so that no connection is on its way any more when the servers stop.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	mux.Shutdown(ctx)
	grpcServer.GracefulStop()
	httpServer.Shutdown(ctx)

	// Output:
	// SERVING
	// hello over HTTP/1.1
}

// gRPC and HTTP on one port, in cleartext and over TLS.
func ExampleServer() {
	certificate, authority := newCertificate() // tls.LoadX509KeyPair reads one
	grpcServer := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	healthpb.RegisterHealthServer(grpcServer, health.NewServer())

	s := &oneport.Server{
		GRPC: grpcServer,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s, TLS %t", r.Proto, r.TLS != nil)
		}),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	l, err := oneport.Listen("tcp", "127.0.0.1:0") // s.ListenAndServe does both for s.Addr
	if err != nil {
		log.Fatal(err)
	}
	go s.Serve(l)

	trust := &tls.Config{RootCAs: authority}
	for _, url := range []string{"http://" + l.Addr().String(), "https://" + l.Addr().String()} {
		fmt.Println(get(url, trust))
	}
	for _, creds := range []credentials.TransportCredentials{insecure.NewCredentials(), credentials.NewTLS(trust)} {
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(creds))
		if err != nil {
			log.Fatal(err)
		}
		status, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(status.Status)
		conn.Close()
	}

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}

	// Output:
	// HTTP/1.1, TLS false
	// HTTP/2.0, TLS true
	// SERVING
	// SERVING
}

// The mux terminates TLS, and offers by ALPN what its routes inside can take.
func ExampleMux_TLS() {
	certificate, authority := newCertificate()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	mux := oneport.New(l)
	secure := mux.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}})
	chat := secure.Match(oneport.ALPN("chat/1"))
	web := secure.Match(oneport.HTTP1(), oneport.HTTP2())
	go mux.Serve()
	defer mux.Close()

	go func() {
		for {
			c, err := chat.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "welcome to the chat")
			c.Close()
		}
	}()
	webServer := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s by ALPN %s", r.Proto, r.TLS.NegotiatedProtocol)
	})}
	oneport.ConfigureHTTP(webServer)
	go webServer.Serve(web)
	defer webServer.Close()

	trust := &tls.Config{RootCAs: authority}
	fmt.Println(get("https://"+l.Addr().String(), trust))

	trust.NextProtos = []string{"chat/1"}
	client, err := tls.Dial("tcp", l.Addr().String(), trust)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	greeting, _ := io.ReadAll(client)
	fmt.Print(string(greeting))

	// Output:
	// HTTP/2.0 by ALPN h2
	// welcome to the chat
}

// A route for gRPC makes the mux read the request inside TLS. ConfigureHTTP lets net/http serve all other requests as
// HTTP/2 over TLS.
func ExampleConfigureHTTP() {
	certificate, authority := newCertificate()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	mux := oneport.New(l)
	secure := mux.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}})
	grpcL := secure.Match(oneport.GRPC())
	httpL := secure.Match(oneport.HTTP1(), oneport.HTTP2())

	grpcServer := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	go grpcServer.Serve(grpcL)
	defer grpcServer.Stop()
	httpServer := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s over %s", r.Proto, tls.VersionName(r.TLS.Version))
	})}
	oneport.ConfigureHTTP(httpServer)
	go httpServer.Serve(httpL)
	defer httpServer.Close()
	go mux.Serve()
	defer mux.Close()

	fmt.Println(get("https://"+l.Addr().String(), &tls.Config{RootCAs: authority}))
	// Output: HTTP/2.0 over TLS 1.3
}

// newCertificate makes a certificate for a server on this machine, and the authority that clients have to trust.
func newCertificate() (tls.Certificate, *x509.CertPool) {
	authority, err := certs.NewAuthority()
	if err != nil {
		log.Fatal(err)
	}
	certificate, err := authority.Server("127.0.0.1")
	if err != nil {
		log.Fatal(err)
	}
	return certificate, authority.Pool()
}

// get returns the content of the response.
func get(url string, config *tls.Config) string {
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	return string(content)
}

// A route with a name, chosen by host, and another that takes the rest.
func ExampleMux_Route() {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	mux := oneport.New(l)
	admin := mux.Route(oneport.Route{
		Name:     "admin",
		Matchers: []oneport.Matcher{oneport.Host("admin.example.com")},
	})
	rest := mux.Match(oneport.HTTP1())
	go mux.Serve()
	defer mux.Close()

	for _, host := range []string{"www.example.com", "admin.example.com"} {
		c, _ := net.Dial("tcp", l.Addr().String())
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
		defer c.Close()
	}
	for _, route := range []net.Listener{admin, rest} {
		c, _ := route.Accept()
		req, _ := http.ReadRequest(bufio.NewReader(c))
		fmt.Println(req.Host)
		c.Close()
	}
	// Output:
	// admin.example.com
	// www.example.com
}

// A matcher of your own examines the parsed request.
func ExampleMatcherFunc() {
	canary := oneport.MatcherFunc(func(p *oneport.Preview) oneport.Verdict {
		req, v := p.Request()
		if v != oneport.Yes {
			return v // Undecided: not there yet; No: there will be none
		}
		if strings.HasPrefix(req.Path, "/v2/") && req.Header.Get("X-Canary") == "1" {
			return oneport.Yes
		}
		return oneport.No
	})

	l, _ := net.Listen("tcp", "127.0.0.1:0")
	mux := oneport.New(l)
	canaries := mux.Match(canary)
	mux.Match(oneport.HTTP1())
	go mux.Serve()
	defer mux.Close()

	client, _ := net.Dial("tcp", l.Addr().String())
	defer client.Close()
	fmt.Fprint(client, "GET /v2/things HTTP/1.1\r\nHost: a\r\nX-Canary: 1\r\n\r\n")
	server, _ := canaries.Accept()
	fmt.Println(server.LocalAddr().String() == l.Addr().String())
	server.Close()
	// Output: true
}

// SSH, and a database whose clients wait for the server to speak, beside HTTP.
func ExampleSilence() {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	mux := oneport.New(l)
	mux.Match(oneport.HTTP1())
	mux.Match(oneport.SSH())
	database := mux.Match(oneport.Silence(50 * time.Millisecond))
	go mux.Serve()
	defer mux.Close()

	client, _ := net.Dial("tcp", l.Addr().String()) // and says nothing
	defer client.Close()
	server, _ := database.Accept()
	fmt.Fprintln(server, "welcome")
	server.Close()
	greeting, _ := io.ReadAll(client)
	fmt.Print(string(greeting))
	// Output: welcome
}

// A client that no route takes gets an answer in its own protocol, and is reported to OnRefuse.
func ExampleMux_onRefuse() {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	mux := oneport.New(l)
	mux.Logger = slog.New(slog.DiscardHandler)
	refused := make(chan string, 1)
	mux.OnRefuse = func(r oneport.Refused) {
		refused <- fmt.Sprintf("%v client: %v", r.Protocol, r.Reason)
	}
	mux.Match(oneport.GRPC())
	go mux.Serve()
	defer mux.Close()

	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Print(resp.Status, ": ", string(body))
	fmt.Println(<-refused)
	// Output:
	// 404 Not Found: No server on this port takes this request.
	// HTTP/1 client: no route
}

// gRPC and REST behind a proxy that sends both over the same HTTP/2 connections, and HTTP/1 for clients that connect
// directly.
func ExampleMux_Requests() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	mux := oneport.New(l)
	requests := mux.Requests(oneport.HTTP2())
	grpcL := requests.Match(oneport.GRPC())
	restL := requests.Match(oneport.Any())
	http1L := mux.Match(oneport.HTTP1())

	grpcServer := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
	healthpb.RegisterHealthServer(grpcServer, health.NewServer())
	go grpcServer.Serve(grpcL)

	httpServer := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello over %s", r.Proto) }),
	}
	oneport.ConfigureHTTP(httpServer)
	go httpServer.Serve(restL)
	go httpServer.Serve(http1L)

	go mux.Serve()

	// A proxy has one connection for both.
	proxy := &http.Transport{Protocols: new(http.Protocols), MaxConnsPerHost: 1}
	proxy.Protocols.SetUnencryptedHTTP2(true)
	defer proxy.CloseIdleConnections()
	client := &http.Client{Transport: proxy}
	call, _ := http.NewRequest("POST", "http://"+l.Addr().String()+"/grpc.health.v1.Health/Check", strings.NewReader("\x00\x00\x00\x00\x00"))
	call.Header.Set("Content-Type", "application/grpc")
	call.Header.Set("TE", "trailers")
	resp, err := client.Do(call)
	if err != nil {
		log.Fatal(err)
	}
	io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Println("gRPC status", resp.Trailer.Get("Grpc-Status"))

	resp, err = client.Get("http://" + l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Println(string(body))
	fmt.Println("connections:", mux.Stats().Accepted)

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	proxy.CloseIdleConnections()
	mux.Shutdown(ctx)
	grpcServer.GracefulStop()
	httpServer.Shutdown(ctx)

	// Output:
	// gRPC status 0
	// hello over HTTP/2.0
	// connections: 1
}

// A server with its own limits, and hooks that report its connections.
func ExampleServer_limits() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	refused := make(chan string, 1)
	server := &oneport.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }),
		Limits: oneport.Limits{
			DecideTimeout:   5 * time.Second,
			MaxUndecided:    50_000,
			MaxPreviewBytes: 4096,
		},
		Hooks: oneport.Hooks{
			OnRefuse: func(r oneport.Refused) { refused <- fmt.Sprintf("%v: %v", r.Protocol, r.Reason) },
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	go server.Serve(l)

	resp, err := http.Get("http://" + l.Addr().String() + "/" + strings.Repeat("x", 5000))
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	fmt.Println(<-refused)

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	server.Shutdown(ctx)
	fmt.Println("refused:", server.Stats().Refused[oneport.ReasonTooLong])

	// Output:
	// 431 Request Header Fields Too Large
	// HTTP/1: too long
	// refused: 1
}

// Routes inside TLS work as in cleartext, and determine the protocols that ALPN offers.
func ExampleTLSMux() {
	certificate, authority := newCertificate() // tls.LoadX509KeyPair reads one
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	mux := oneport.New(l)
	inside := mux.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}})
	inside.RedirectHTTP = true // a client that speaks HTTP/1 without TLS learns where to go
	requests := inside.Requests()

	httpServer := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello over %s and %s", r.Proto, tls.VersionName(r.TLS.Version))
		}),
	}
	oneport.ConfigureHTTP(httpServer)
	go httpServer.Serve(requests.Match(oneport.Any()))
	go httpServer.Serve(inside.Match(oneport.HTTP1()))
	go mux.Serve()

	for _, http2 := range []bool{true, false} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority}, ForceAttemptHTTP2: http2}
		client := &http.Client{Transport: transport}
		resp, err := client.Get("https://" + l.Addr().String())
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(string(body))
		transport.CloseIdleConnections()
	}

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	mux.Shutdown(ctx)
	httpServer.Shutdown(ctx)

	// Output:
	// hello over HTTP/2.0 and TLS 1.3
	// hello over HTTP/1.1 and TLS 1.3
}
