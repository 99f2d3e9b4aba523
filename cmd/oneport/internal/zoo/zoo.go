// Package zoo has servers of many kinds, correct and faulty, for tests of the probe. Each function starts one for the
// duration of a test and returns its address.
package zoo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/pires/go-proxyproto"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
)

// Listen listens on loopback until the end of the test.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// Hello is what the servers of HTTP answer with.
var Hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello\n") })

// newGRPC makes a server with a health service and reflection.
func newGRPC(opts ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	return s
}

// newHTTP makes a server of HTTP/1 and, if h2c is set, of HTTP/2 in cleartext.
func newHTTP(h2c bool) *http.Server {
	s := &http.Server{Handler: Hello, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(h2c)
	return s
}

// run runs serve until the end of the test, when stop has to make it return.
func run(t testing.TB, serve func() error, stop func()) {
	var wg sync.WaitGroup
	wg.Go(func() { serve() })
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
}

func serveGRPC(t testing.TB, l net.Listener, opts ...grpc.ServerOption) {
	s := newGRPC(opts...)
	run(t, func() error { return s.Serve(l) }, s.Stop)
}

func serveHTTP(t testing.TB, l net.Listener, h2c bool) {
	s := newHTTP(h2c)
	run(t, func() error { return s.Serve(l) }, func() { s.Close() })
}

// HTTP1 is net/http without HTTP/2.
func HTTP1(t testing.TB) string {
	l := Listen(t)
	serveHTTP(t, l, false)
	return l.Addr().String()
}

// H2C is net/http with HTTP/2 in cleartext.
func H2C(t testing.TB) string {
	l := Listen(t)
	serveHTTP(t, l, true)
	return l.Addr().String()
}

// GRPC is grpc-go in cleartext.
func GRPC(t testing.TB) string {
	l := Listen(t)
	serveGRPC(t, l)
	return l.Addr().String()
}

// GRPCTLS is grpc-go with TLS.
func GRPCTLS(t testing.TB, p *PKI) string {
	l := Listen(t)
	serveGRPC(t, l, grpc.Creds(credentials.NewTLS(p.Config(p.Server))))
	return l.Addr().String()
}

// GRPCNoALPN is grpc-go behind a listener that ends TLS and knows nothing of ALPN.
func GRPCNoALPN(t testing.TB, p *PKI) string {
	l := Listen(t)
	serveGRPC(t, tls.NewListener(l, p.Config(p.Server)))
	return l.Addr().String()
}

// TLSHTTP1 is net/http with TLS and HTTP/1 only.
func TLSHTTP1(t testing.TB, p *PKI) string {
	l := Listen(t)
	serveHTTP(t, tls.NewListener(l, p.Config(p.Server, "http/1.1")), false)
	return l.Addr().String()
}

// ALPNClosed is a listener that chooses h2 in front of net/http without HTTP/2, which closes such connections.
func ALPNClosed(t testing.TB, p *PKI) string {
	l := Listen(t)
	serveHTTP(t, tls.NewListener(l, p.Config(p.Server, "h2", "http/1.1")), false)
	return l.Addr().String()
}

// ALPNLie is one in front of a server that does not know of TLS, as behind a proxy, and answers in HTTP/1.
func ALPNLie(t testing.TB, p *PKI) string {
	l := Listen(t)
	serveHTTP(t, opaque{tls.NewListener(l, p.Config(p.Server, "h2", "http/1.1"))}, false)
	return l.Addr().String()
}

// An opaque listener hides what its connections are.
type opaque struct{ net.Listener }

func (l opaque) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return struct{ net.Conn }{c}, err
}

// HTTPS is net/http with TLS, HTTP/2 and HTTP/1, and the certificate.
func HTTPS(t testing.TB, p *PKI, cert tls.Certificate) string {
	return https(t, p.Config(cert))
}

// MutualTLS is the same where clients need a certificate.
func MutualTLS(t testing.TB, p *PKI) string {
	config := p.Config(p.Server)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, p.Pool()
	return https(t, config)
}

// PickyTLS is the same with cipher suites for RSA only, and a certificate for ECDSA.
func PickyTLS(t testing.TB, p *PKI) string {
	config := p.Config(p.Server, "http/1.1")
	config.MaxVersion, config.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	l := Listen(t)
	serveHTTP(t, tls.NewListener(l, config), false)
	return l.Addr().String()
}

// OldTLS is the same with nothing newer than TLS 1.1.
func OldTLS(t testing.TB, p *PKI) string {
	config := p.Config(p.Server)
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	return https(t, config)
}

// TLSFrom10 serves TLS 1.0 to 1.3.
func TLSFrom10(t testing.TB, p *PKI) string {
	config := p.Config(p.Server)
	config.MinVersion = tls.VersionTLS10
	return https(t, config)
}

// NotServing is grpc-go with a health service that says no.
func NotServing(t testing.TB) string {
	l := Listen(t)
	s := grpc.NewServer()
	h := health.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s, h)
	run(t, func() error { return s.Serve(l) }, s.Stop)
	return l.Addr().String()
}

// NoHealth is grpc-go without any service.
func NoHealth(t testing.TB) string {
	l := Listen(t)
	s := grpc.NewServer()
	run(t, func() error { return s.Serve(l) }, s.Stop)
	return l.Addr().String()
}

// HostWanted is a server of HTTP/1.1 that answers nothing older.
func HostWanted(t testing.TB) string {
	return Each(t, func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil || r.Host == "" {
			io.WriteString(c, "HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nhello\n")
		hangUp(c)
	})
}

func https(t testing.TB, config *tls.Config) string {
	l := Listen(t)
	s := &http.Server{Handler: Hello, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	run(t, func() error { return s.ServeTLS(l, "", "") }, func() { s.Close() })
	return l.Addr().String()
}

// ProxyRequired is net/http where every connection has to begin with a PROXY header.
func ProxyRequired(t testing.TB) string {
	l := Listen(t)
	serveHTTP(t, &proxyproto.Listener{
		Listener:   l,
		ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil },
	}, true)
	return l.Addr().String()
}

// each runs f for every connection of l, with a goroutine of its own, and closes the connection after it.
func each(t testing.TB, l net.Listener, f func(ctx context.Context, c net.Conn)) string {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				f(ctx, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		wg.Wait()
	})
	return l.Addr().String()
}

// Each serves every connection with f.
func Each(t testing.TB, f func(net.Conn)) string {
	return each(t, Listen(t), func(_ context.Context, c net.Conn) { f(c) })
}

// Silent accepts, reads, and says nothing.
func Silent(t testing.TB) string {
	return Each(t, func(c net.Conn) { io.Copy(io.Discard, c) })
}

// Resets resets every connection when the client has said something.
func Resets(t testing.TB) string {
	return Each(t, func(c net.Conn) {
		c.Read(make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
	})
}

// Closes closes every connection when the client has said something, in an orderly way.
func Closes(t testing.TB) string {
	return Each(t, func(c net.Conn) {
		c.Read(make([]byte, 1))
		hangUp(c)
	})
}

// hangUp closes in an orderly way even if there is something left to read, for which the kernel would send RST.
func hangUp(c net.Conn) {
	c.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, c)
}

// SSH greets as servers of SSH do.
func SSH(t testing.TB) string {
	return Each(t, func(c net.Conn) {
		io.WriteString(c, "SSH-2.0-zoo\r\n")
		io.Copy(io.Discard, c)
	})
}

// readPreface reads the client's preface and reports whether it was one.
func readPreface(c net.Conn) bool {
	b := make([]byte, len(http2.ClientPreface))
	_, err := io.ReadFull(c, b)
	return err == nil && string(b) == http2.ClientPreface
}

// ClosesAfterSettings sends SETTINGS, waits for the client's request, and closes.
func ClosesAfterSettings(t testing.TB) string {
	return Each(t, func(c net.Conn) {
		if !readPreface(c) {
			return
		}
		fr := http2.NewFramer(c, c)
		fr.WriteSettings()
		for {
			f, err := fr.ReadFrame()
			if _, ok := f.(*http2.HeadersFrame); ok || err != nil {
				hangUp(c)
				return
			}
		}
	})
}

// RawFrames writes frames by hand: with ":status:" for a name, or on a stream of its own, and it acknowledges nothing.
func RawFrames(t testing.TB, field string, stream uint32) string {
	return Each(t, func(c net.Conn) {
		if !readPreface(c) {
			return
		}
		fr := http2.NewFramer(c, c)
		fr.WriteSettings()
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			h, ok := f.(*http2.HeadersFrame)
			if !ok {
				continue
			}
			id := h.StreamID
			if stream != 0 {
				id = stream
			}
			var block bytes.Buffer
			enc := hpack.NewEncoder(&block)
			enc.WriteField(hpack.HeaderField{Name: field, Value: "200"})
			enc.WriteField(hpack.HeaderField{Name: "content-type", Value: "text/plain"})
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
			fr.WriteData(id, true, []byte("hello\n"))
		}
	})
}

// StreamReset answers every request with RST_STREAM.
func StreamReset(t testing.TB, code http2.ErrCode) string {
	return Each(t, func(c net.Conn) {
		if !readPreface(c) {
			return
		}
		fr := http2.NewFramer(c, c)
		fr.WriteSettings()
		for {
			switch f, err := fr.ReadFrame(); f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					fr.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				fr.WriteRSTStream(f.StreamID, code)
			default:
				if err != nil {
					return
				}
			}
		}
	})
}

// RefusesOnce refuses the first request of each connection with REFUSED_STREAM, and answers the others.
func RefusesOnce(t testing.TB) string {
	return Each(t, func(c net.Conn) {
		if !readPreface(c) {
			return
		}
		fr := http2.NewFramer(c, c)
		fr.WriteSettings()
		fr.WriteSettingsAck()
		for {
			f, err := fr.ReadFrame()
			switch p, _ := f.(*http2.PingFrame); {
			case err != nil:
				return
			case p != nil:
				fr.WritePing(true, p.Data)
			}
			h, ok := f.(*http2.HeadersFrame)
			switch {
			case !ok:
			case h.StreamID == 1:
				fr.WriteRSTStream(1, http2.ErrCodeRefusedStream)
			default:
				// 0x88 is ":status: 200" (RFC 7541, Appendix A).
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
			}
		}
	})
}
