package oneport_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport"
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
		Protocols: new(http.Protocols),
	}
	httpServer.Protocols.SetHTTP1(true)
	httpServer.Protocols.SetUnencryptedHTTP2(true)
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

// A matcher of one's own looks at the parsed request.
func ExampleMatcherFunc() {
	canary := oneport.MatcherFunc(func(p *oneport.Preview) oneport.Verdict {
		req, v := p.Request()
		if v != oneport.Match {
			return v // Undecided: not there yet; NoMatch: there will be none
		}
		if strings.HasPrefix(req.Path, "/v2/") && req.Header.Get("X-Canary") == "1" {
			return oneport.Match
		}
		return oneport.NoMatch
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

// A connection that no route takes is told so in its own language, and reported.
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
