package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// sums are what was exchanged on a connection.
type sums struct {
	exchanges int
	up, down  int64
}

// exchangeTimeout is for a busy machine.
const exchangeTimeout = 2 * time.Minute

// An exchanger makes an exchange, of one of its kinds.
type exchanger func(ctx context.Context, e exchange) error

// exchangeOn makes n exchanges on a connection of a random kind to a random port.
func exchangeOn(ctx context.Context, s *servers, r *rand.Rand, n int) (name string, sum sums, err error) {
	way := s.names[r.IntN(len(s.names))]
	secure := r.IntN(2) == 0
	kind := []string{"gRPC", "HTTP/1", "HTTP/2", "gRPC and REST"}[r.IntN(4)]
	if kind == "gRPC and REST" && (way == "by connection" || way == "Mux") {
		kind = "HTTP/2" // a connection is for one server there
	}
	name = kind + ", " + way
	if secure {
		name += ", TLS"
	}
	var relays relays
	defer relays.end()
	seed := r.Uint64()
	dial := func() (net.Conn, error) { return relays.dial(s.ports[way], seed) }
	var config *tls.Config
	if secure {
		config = s.client.Clone()
	}
	var streaming, plain exchanger
	if kind == "gRPC" {
		c, err := grpcClient(dial, config)
		if err != nil {
			return name, sum, err
		}
		defer c.Close()
		plain = func(ctx context.Context, e exchange) error { return call(ctx, c, e) }
		streaming = plain
	} else {
		tr := transport(dial, config, kind != "HTTP/1")
		defer tr.CloseIdleConnections()
		plain = func(ctx context.Context, e exchange) error { return rest(ctx, tr, e, secure) }
		if kind == "gRPC and REST" {
			streaming = func(ctx context.Context, e exchange) error { return callByHand(ctx, tr, e, secure) }
		}
	}

	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	atOnce := 1 + r.IntN(6)
	if kind == "HTTP/1" {
		atOnce = 1
	}
	errs := make([]error, n)
	places := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for i := range n {
		do, e := plain, exchange{}
		if streaming != nil && r.IntN(2) == 0 {
			do, e = streaming, newExchange(r, 1+r.IntN(5))
		} else {
			e = newExchange(r, 1)
		}
		places <- struct{}{}
		running.Go(func() {
			if err := do(ctx, e); err != nil {
				errs[i] = fmt.Errorf("exchange %d, %v: %w", i, e, err)
			}
			<-places
		})
		up, down := e.bytes()
		sum.exchanges++
		sum.up += up
		sum.down += down
	}
	running.Wait()
	return name, sum, errors.Join(errs...)
}

func grpcClient(dial func() (net.Conn, error), config *tls.Config) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if config != nil {
		creds = credentials.NewTLS(config)
	}
	return grpc.NewClient("passthrough:localhost", grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return dial() }))
}

// call makes a call of grpc-go's.
func call(ctx context.Context, c *grpc.ClientConn, e exchange) error {
	ctx = metadata.AppendToOutgoingContext(ctx, exchangeHeader, e.String())
	if len(e.up) == 1 {
		in, out := e.message(upwards, 0, e.up[0]).all(), []byte(nil)
		if err := c.Invoke(ctx, "/integrity/Unary", &in, &out); err != nil {
			return err
		}
		return e.message(downwards, 0, e.down[0]).check(&reader{b: out})
	}
	st, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/integrity/Stream")
	if err != nil {
		return err
	}
	for i := range e.up {
		in, out := e.message(upwards, i, e.up[i]).all(), []byte(nil)
		if err := st.SendMsg(&in); err != nil && err != io.EOF {
			return err
		}
		if err := st.RecvMsg(&out); err != nil {
			return err
		}
		if err := e.message(downwards, i, e.down[i]).check(&reader{b: out}); err != nil {
			return fmt.Errorf("message %d to the client: %w", i, err)
		}
	}
	if err := st.CloseSend(); err != nil {
		return err
	}
	if err := st.RecvMsg(new([]byte)); err != io.EOF {
		return fmt.Errorf("at the end: %w", err)
	}
	return nil
}

func transport(dial func() (net.Conn, error), config *tls.Config, http2 bool) *http.Transport {
	tr := &http.Transport{
		Protocols:          new(http.Protocols),
		TLSClientConfig:    config,
		DisableCompression: true,
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return dial() },
	}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetHTTP2(http2 && config != nil)
	tr.Protocols.SetUnencryptedHTTP2(http2 && config == nil)
	return tr
}

func request(ctx context.Context, e exchange, secure bool, path string, body io.Reader) (*http.Request, error) {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://localhost"+path, body)
	if err == nil {
		req.Header.Set(exchangeHeader, e.String())
	}
	return req, err
}

// rest makes a request of REST.
func rest(ctx context.Context, tr *http.Transport, e exchange, secure bool) error {
	req, err := request(ctx, e, secure, "/", e.message(upwards, 0, e.up[0]))
	if err != nil {
		return err
	}
	if e.seed%2 == 0 { // else in chunks, or without a content-length
		req.ContentLength = int64(e.up[0])
		if e.up[0] == 0 {
			req.Body = http.NoBody
		}
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, b)
	}
	if err := e.message(downwards, 0, e.down[0]).check(resp.Body); err != nil {
		return fmt.Errorf("the response: %w", err)
	}
	return nil
}

// callByHand makes a call of gRPC with net/http, on whose connection there can be requests of REST as well. The
// messages are sent without waiting for the answers.
func callByHand(ctx context.Context, tr *http.Transport, e exchange, secure bool) error {
	var parts []io.Reader
	for i, n := range e.up {
		parts = append(parts, &reader{b: prefix(n)}, e.message(upwards, i, n))
	}
	req, err := request(ctx, e, secure, "/integrity/Stream", io.MultiReader(parts...))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for i, n := range e.down {
		got := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, got); err != nil {
			return fmt.Errorf("message %d to the client: %w; %v %v", i, err, resp.Header, resp.Trailer)
		}
		if string(got) != string(prefix(n)) {
			return fmt.Errorf("message %d to the client begins with %x, want %x", i, got, prefix(n))
		}
		if err := e.message(downwards, i, n).check(io.LimitReader(resp.Body, int64(n))); err != nil {
			return fmt.Errorf("message %d to the client: %w", i, err)
		}
	}
	if n, err := io.Copy(io.Discard, resp.Body); n > 0 || err != nil {
		//nolint:errorlint // the error may be nil
		return fmt.Errorf("%d bytes behind the last message, %v", n, err)
	}
	if got := resp.Trailer.Get("Grpc-Status"); got != "0" {
		return fmt.Errorf("the status is %q: %s", got, resp.Trailer.Get("Grpc-Message"))
	}
	return nil
}

// prefix is what comes before a message of n bytes.
func prefix(n int) []byte { return binary.BigEndian.AppendUint32([]byte{0}, uint32(n)) }
