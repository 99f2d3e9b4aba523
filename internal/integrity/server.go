package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/certs"
)

// servers are grpc-go and net/http behind ports that lead to them in different ways, in cleartext and over TLS.
type servers struct {
	ports  map[string]string // addresses
	names  []string          // of the ports
	client *tls.Config       // of those that use TLS
	stops  []func(context.Context) error
}

// exchangeHeader is the name of the field that says what is exchanged.
const exchangeHeader = "exchange"

func (e exchange) String() string {
	b, _ := json.Marshal(struct {
		Seed     uint64
		Up, Down []int
	}{e.seed, e.up, e.down})
	return string(b)
}

func parseExchange(s string) (exchange, error) {
	var e struct {
		Seed     uint64
		Up, Down []int
	}
	err := json.Unmarshal([]byte(s), &e)
	return exchange{e.Seed, e.Up, e.Down}, err
}

// raw is a codec for bytes as they are.
type raw struct{}

func (raw) Name() string                  { return "proto" }
func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}

// handleGRPC answers each message of an exchange with the next one.
func handleGRPC(_ any, st grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(st.Context())
	if len(md[exchangeHeader]) != 1 {
		return status.Error(codes.InvalidArgument, "there is no exchange")
	}
	e, err := parseExchange(md[exchangeHeader][0])
	if err != nil {
		return err
	}
	for i := range e.up {
		var got []byte
		if err := st.RecvMsg(&got); err != nil {
			return err
		}
		if err := e.message(upwards, i, e.up[i]).check(&reader{b: got}); err != nil {
			return status.Errorf(codes.DataLoss, "message %d to the server: %v", i, err)
		}
		answer := e.message(downwards, i, e.down[i]).all()
		if err := st.SendMsg(&answer); err != nil {
			return err
		}
	}
	var rest []byte
	if err := st.RecvMsg(&rest); err != io.EOF {
		return status.Errorf(codes.DataLoss, "behind the last message: %d bytes, %v", len(rest), err)
	}
	return nil
}

// A reader is as bytes.Reader, but gives the end with the last bytes.
type reader struct{ b []byte }

func (r *reader) Read(p []byte) (int, error) {
	n := copy(p, r.b)
	if r.b = r.b[n:]; len(r.b) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// handleREST reads the request and writes the response.
func handleREST(w http.ResponseWriter, r *http.Request) {
	e, err := parseExchange(r.Header.Get(exchangeHeader))
	if err != nil || len(e.up) != 1 {
		http.Error(w, "there is no exchange", http.StatusBadRequest)
		return
	}
	if err := e.message(upwards, 0, e.up[0]).check(r.Body); err != nil {
		http.Error(w, fmt.Sprintf("the request: %v", err), http.StatusUnprocessableEntity)
		return
	}
	io.Copy(w, e.message(downwards, 0, e.down[0]))
}

func startServers() (*servers, error) {
	config, client, err := certs.Configs("localhost")
	if err != nil {
		return nil, err
	}
	s := &servers{ports: make(map[string]string), client: client}
	for _, way := range []string{"by request", "by connection", "Mux", "Mux by request"} {
		l, err := oneport.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		s.ports[way] = l.Addr().String()
		s.names = append(s.names, way)
		gs := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(handleGRPC))
		hs := &http.Server{Handler: http.HandlerFunc(handleREST)}
		s.stops = append(s.stops, serveWay(way, l, gs, hs, config))
	}
	return s, nil
}

// serveWay starts a port, and returns how to stop it.
func serveWay(way string, l net.Listener, gs *grpc.Server, hs *http.Server, config *tls.Config) func(context.Context) error {
	quiet := slog.New(slog.DiscardHandler)
	ended := make(chan error, 10)
	serve := func(f func() error) { go func() { ended <- f() }() }
	if way == "by request" || way == "by connection" {
		server := &oneport.Server{GRPC: gs, HTTP: hs, TLSConfig: config, PerConnection: way == "by connection", Logger: quiet}
		serve(func() error { return server.Serve(l) })
		return func(ctx context.Context) error {
			err := server.Shutdown(ctx)
			<-ended
			return err
		}
	}
	mux := oneport.New(l)
	mux.Logger = quiet
	oneport.ConfigureHTTP(hs)
	inside := mux.TLS(config)
	n := 1
	for _, to := range []struct {
		match    func(...oneport.Matcher) net.Listener
		requests func(...oneport.Matcher) *oneport.RequestMux
	}{{mux.Match, mux.Requests}, {inside.Match, inside.Requests}} {
		var grpcL, httpL net.Listener
		if way == "Mux" {
			grpcL, httpL = to.match(oneport.GRPC()), to.match(oneport.HTTP2())
		} else {
			q := to.requests()
			grpcL, httpL = q.Match(oneport.GRPC()), q.Match(oneport.Any())
		}
		http1L := to.match(oneport.HTTP1())
		serve(func() error { return gs.Serve(grpcL) })
		serve(func() error { return hs.Serve(httpL) })
		serve(func() error { return hs.Serve(http1L) })
		n += 3
	}
	serve(mux.Serve)
	return func(ctx context.Context) error {
		err := mux.Shutdown(ctx)
		gs.GracefulStop()
		err = errors.Join(err, hs.Shutdown(ctx))
		for range n {
			<-ended
		}
		return err
	}
}

// stop stops all.
func (s *servers) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var errs []error
	for _, stop := range s.stops {
		errs = append(errs, stop(ctx))
	}
	return errors.Join(errs...)
}
