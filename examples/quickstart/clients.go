package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/oneport-go/oneport/examples/quickstart/greeterpb"
)

// A caller calls the server as one kind of client does.
type caller func(context.Context, *target) (greeting, error)

// A target is the server as a client reaches it.
type target struct {
	dialer
	addr string
	tls  *tls.Config     // for a client without a certificate
	cert tls.Certificate // of a client that has one
}

// A security is how a client protects its connection.
type security int

const (
	cleartext security = iota
	overTLS
	mutualTLS // with a certificate of the client
)

// config returns the client's side of TLS, or nil if there is none.
func (t *target) config(s security) *tls.Config {
	if s == cleartext {
		return nil
	}
	config := t.tls.Clone()
	if s == mutualTLS {
		config.Certificates = []tls.Certificate{t.cert}
	}
	return config
}

// callGRPC calls with a client that waits for the server's SETTINGS before it sends a request.
func callGRPC(s security, name string) caller {
	return func(ctx context.Context, to *target) (greeting, error) {
		creds := insecure.NewCredentials()
		if config := to.config(s); config != nil {
			creds = credentials.NewTLS(config)
		}
		cc, err := grpc.NewClient("passthrough:"+to.addr,
			grpc.WithTransportCredentials(creds),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				return to.DialContext(ctx, "tcp", addr)
			}))
		if err != nil {
			return greeting{}, err
		}
		defer cc.Close()
		r, err := greeterpb.NewGreeterClient(cc).SayHello(ctx, &greeterpb.SayHelloRequest{Name: name})
		return greeting{
			Message:  r.GetMessage(),
			Protocol: r.GetProtocol(),
			TLS:      r.GetTls(),
			Client:   r.GetClient(),
		}, err
	}
}

// callREST calls with net/http's client, which speaks one version of HTTP. Over TLS it offers that by ALPN.
func callREST(s security, name string, version func(*http.Protocols, bool)) caller {
	return func(ctx context.Context, to *target) (greeting, error) {
		tr := &http.Transport{DialContext: to.DialContext, TLSClientConfig: to.config(s), Protocols: new(http.Protocols)}
		version(tr.Protocols, true)
		scheme := "http"
		if s != cleartext {
			scheme = "https"
			if tr.Protocols.HTTP1() {
				tr.TLSClientConfig.NextProtos = []string{"http/1.1"} // which it does not offer by itself
			}
		}
		return get(ctx, tr, scheme+"://"+to.addr+"/v1/hello/"+name)
	}
}

// callMixed sends n REST requests and n RPCs over one connection, as a proxy with a pool of connections does.
func callMixed(n int) caller {
	return func(ctx context.Context, to *target) (greeting, error) {
		tr := &http.Transport{DialContext: to.DialContext, Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		defer tr.CloseIdleConnections()
		// The first request is sent alone, since the Transport would dial once for each of several.
		var rpcs, rests atomic.Int64
		first, err := getOver(ctx, tr, "http://"+to.addr+"/v1/hello/0")
		if err != nil {
			return greeting{}, err
		}
		rests.Add(1)
		errs := make([]error, 2*n)
		var both sync.WaitGroup
		for i := range n {
			name := fmt.Sprint(i)
			both.Go(func() {
				if errs[i] = rpcOver(ctx, tr, to.addr, name); errs[i] == nil {
					rpcs.Add(1)
				}
			})
			if i == 0 {
				continue
			}
			both.Go(func() {
				hello, err := getOver(ctx, tr, "http://"+to.addr+"/v1/hello/"+name)
				switch {
				case err != nil:
					errs[n+i] = err
				case hello.Message == "Hello, "+name && hello.Protocol == first.Protocol:
					rests.Add(1)
				}
			})
		}
		both.Wait()
		return greeting{
			Message:  fmt.Sprintf("%d and %d greetings", rpcs.Load(), rests.Load()),
			Protocol: "gRPC and " + first.Protocol,
		}, errors.Join(errs...)
	}
}

// rpcOver calls SayHello with net/http's client, which shares its connection with other requests and leaves the framing
// of gRPC to us: a byte that says whether the message is compressed, and its length.
func rpcOver(ctx context.Context, tr *http.Transport, addr, name string) error {
	message, err := proto.Marshal(&greeterpb.SayHelloRequest{Name: name})
	if err != nil {
		return err
	}
	const prefixLen = 5
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+greeterpb.Greeter_SayHello_FullMethodName,
		bytes.NewReader(append(body, message...)))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	resp, err := tr.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if status := resp.Trailer.Get("Grpc-Status"); status != "0" || len(answer) < prefixLen {
		return fmt.Errorf("RPC %s: status %q, %d bytes", name, status, len(answer))
	}
	var hello greeterpb.SayHelloResponse
	if err := proto.Unmarshal(answer[prefixLen:], &hello); err != nil {
		return err
	}
	if hello.GetMessage() != "Hello, "+name || hello.GetProtocol() != "gRPC" {
		return fmt.Errorf("RPC %s: answered %v", name, &hello)
	}
	return nil
}

// callBareHTTP2 calls with a client that speaks HTTP/2 over TLS without ALPN. There are such clients, although RFC
// 9113, Section 3.2 requires ALPN. net/http's client becomes one by a dialer that gives it a TLS connection for a URL
// with http.
func callBareHTTP2(name string) caller {
	return func(ctx context.Context, to *target) (greeting, error) {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := to.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			config := to.config(overTLS)
			config.ServerName, _, _ = net.SplitHostPort(addr)
			return tls.Client(c, config), nil
		}
		return get(ctx, tr, "http://"+to.addr+"/v1/hello/"+name)
	}
}

// get sends one request on a connection of its own.
func get(ctx context.Context, tr *http.Transport, url string) (greeting, error) {
	defer tr.CloseIdleConnections()
	return getOver(ctx, tr, url)
}

func getOver(ctx context.Context, tr *http.Transport, url string) (greeting, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return greeting{}, err
	}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		return greeting{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return greeting{}, errors.New(resp.Status)
	}
	return decode(resp.Body)
}

func decode(r io.Reader) (answer greeting, err error) {
	err = json.NewDecoder(r).Decode(&answer)
	return answer, err
}

// callUpgrade asks for HTTP/2 with an HTTP/1.1 request (RFC 7540, Section 3.2), which net/http's client does not.
func callUpgrade(name string) caller {
	return func(ctx context.Context, to *target) (greeting, error) {
		c, err := to.DialContext(ctx, "tcp", to.addr)
		if err != nil {
			return greeting{}, err
		}
		defer c.Close()
		defer context.AfterFunc(ctx, func() { c.Close() })()

		// The value of HTTP2-Settings is SETTINGS_ENABLE_PUSH = 0.
		const request = "GET /v1/hello/%s HTTP/1.1\r\nHost: %s\r\n" +
			"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAIAAAAA\r\n\r\n"
		if _, err := fmt.Fprintf(c, request, name, to.addr); err != nil {
			return greeting{}, err
		}
		in := bufio.NewReader(c)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return greeting{}, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusSwitchingProtocols {
			return greeting{}, fmt.Errorf("not upgraded: %s", resp.Status)
		}
		if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
			return greeting{}, err
		}
		framer := http2.NewFramer(c, in)
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		if err := framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush}); err != nil {
			return greeting{}, err
		}
		content, err := readAnswer(framer)
		if err != nil {
			return greeting{}, err
		}
		return decode(bytes.NewReader(content))
	}
}

// readAnswer reads the response on stream 1, which is that of the upgraded request.
func readAnswer(framer *http2.Framer) (content []byte, err error) {
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			if err := framer.WriteSettingsAck(); err != nil {
				return nil, err
			}
		case *http2.MetaHeadersFrame:
			if status := f.PseudoValue("status"); status != "200" {
				return nil, errors.New(status)
			}
		case *http2.DataFrame:
			if content = append(content, f.Data()...); f.StreamEnded() {
				return content, nil
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return nil, fmt.Errorf("unexpected frame %v", f)
		}
	}
}

// callRubbish sends bytes of no known protocol, and waits until the server closes the connection.
func callRubbish(ctx context.Context, to *target) (greeting, error) {
	c, err := to.DialContext(ctx, "tcp", to.addr)
	if err != nil {
		return greeting{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := io.WriteString(c, "\x00\x01rubbish\r\n"); err != nil {
		return greeting{}, err
	}
	answer, err := io.ReadAll(c)
	if len(answer) > 0 {
		return greeting{}, fmt.Errorf("unexpected answer %q", answer)
	}
	return greeting{}, err
}

// A dialer dials a connection and watches it.
type dialer struct {
	mu        sync.Mutex
	local     net.Addr
	firstByte time.Duration // from when the connection was there
}

// DialContext dials as [net.Dialer.DialContext] does.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.local, d.firstByte = c.LocalAddr(), 0
	return &watchedConn{Conn: c, dialer: d, dialed: time.Now()}, nil
}

// localAddr is the client's address as the server sees it.
func (d *dialer) localAddr() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.local == nil {
		return ""
	}
	return d.local.String()
}

// firstByteAfter is the time until the first byte from the server, or zero if none has arrived.
func (d *dialer) firstByteAfter() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.firstByte
}

// watchedConn records for its dialer when the first byte arrives.
type watchedConn struct {
	net.Conn
	dialer *dialer
	dialed time.Time
	read   bool
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.read {
		c.read = true // readers do not overlap
		c.dialer.mu.Lock()
		c.dialer.firstByte = time.Since(c.dialed)
		c.dialer.mu.Unlock()
	}
	return n, err
}
