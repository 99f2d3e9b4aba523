package cmux

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/soheilhy/cmux"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// better are the tests of what is better than in v0.1.5, without any change in the program. Each fails there.
var better = map[string]func(*testing.T){
	"GRPCByContentType":         grpcByContentType,
	"GRPCByContentTypeOverTLS":  grpcByContentTypeOverTLS,
	"GRPCOnNetHTTP":             grpcOnNetHTTP,
	"GRPCGetsTCPConn":           grpcGetsTCPConn,
	"HTTP2BesideSendSettings":   http2BesideSendSettings,
	"SettingsOnce":              settingsOnce,
	"ServeEndsWithSilentClient": serveEndsWithSilentClient,
	"CloseEndsSilentClients":    closeEndsSilentClients,
	"GracefulStop":              gracefulStop,
	"GracefulStopBeforeServe":   gracefulStopBeforeServe,
	"EndlessFrames":             endlessFrames,
	"ShortFirstMessage":         shortFirstMessage,
	"HostField":                 hostField,
	"UnmatchedIsTold":           unmatchedIsTold,
}

func TestBetter(t *testing.T) {
	for name, test := range better {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// serveGRPC runs a gRPC server on l until the end of the test.
func serveGRPC(t *testing.T, l net.Listener, opts ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(l)
	t.Cleanup(func() { go s.Stop() }) // in the original it can wait for Serve
	return s
}

// serveHTTP runs net/http on l until the end of the test, with HTTP/2.
func serveHTTP(t *testing.T, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

// check makes an RPC.
func check(t *testing.T, l net.Listener, creds credentials.TransportCredentials) {
	t.Helper()
	c, err := grpc.NewClient("passthrough:"+l.Addr().String(), grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("RPC: %v", err)
	}
}

var greeting = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })

// grpcByContentType is the example in the README of cmux, with a gRPC client of today, which waits for SETTINGS.
func grpcByContentType(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	serveGRPC(t, m.Match(cmux.HTTP2HeaderField("content-type", "application/grpc")))
	m.Match(cmux.HTTP1Fast())
	m.Match(cmux.Any())
	serve(t, m, l)
	check(t, l, insecure.NewCredentials())
}

// grpcByContentTypeOverTLS has TLS below the multiplexer.
func grpcByContentTypeOverTLS(t *testing.T) {
	cert := certificate(t)
	l := tls.NewListener(listen(t), &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}})
	m := cmux.New(l)
	serveGRPC(t, m.Match(cmux.HTTP2HeaderFieldPrefix("content-type", "application/grpc")))
	m.Match(cmux.Any())
	serve(t, m, l)
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	check(t, l, credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "localhost"}))
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// grpcOnNetHTTP has a matcher for gRPC in front of net/http, which does not bear an acknowledgement of SETTINGS too
// many.
func grpcOnNetHTTP(t *testing.T) {
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	l := listen(t)
	m := cmux.New(l)
	serveHTTP(t, m.Match(cmux.HTTP2HeaderField("content-type", "application/grpc")), s)
	serve(t, m, l)
	var conns atomic.Int32
	c, err := grpc.NewClient("passthrough:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			conns.Add(1)
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 3 {
		if _, err := healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatalf("RPC: %v", err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("the client needed %d connections, want one", n)
	}
}

// rawConns are credentials that tell what connection grpc-go got.
type rawConns struct {
	credentials.TransportCredentials
	conns chan net.Conn
}

func (r rawConns) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	r.conns <- c
	return r.TransportCredentials.ServerHandshake(c)
}

// grpcGetsTCPConn checks what grpc-go gets, behind a matcher that says nothing of gRPC as well.
func grpcGetsTCPConn(t *testing.T) {
	for name, match := range map[string]func(cmux.CMux) net.Listener{
		"HTTP2HeaderField": func(m cmux.CMux) net.Listener {
			return m.Match(cmux.HTTP2HeaderField("content-type", "application/grpc"))
		},
		"SendSettings": func(m cmux.CMux) net.Listener {
			return m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldPrefixSendSettings("content-type", "application/grpc"))
		},
		"HTTP2": func(m cmux.CMux) net.Listener { return m.Match(cmux.HTTP2()) },
		"Any":   func(m cmux.CMux) net.Listener { return m.Match(cmux.Any()) },
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			m := cmux.New(l)
			creds := rawConns{insecure.NewCredentials(), make(chan net.Conn, 1)}
			serveGRPC(t, match(m), grpc.Creds(creds))
			serve(t, m, l)
			check(t, l, insecure.NewCredentials())
			if c := within(t, creds.conns, "no connection"); c != nil {
				if _, ok := c.(*net.TCPConn); !ok {
					t.Errorf("grpc-go got a %T, want the accepted *net.TCPConn", c)
				}
			}
		})
	}
}

// strictClient speaks HTTP/2 as gRPC's clients do: it sends nothing before it has the server's SETTINGS. It makes a
// request, then sends PING, and returns the frames that it got up to the answer to that.
func strictClient(t *testing.T, l net.Listener) (frames []http2.FrameType) {
	t.Helper()
	c := dial(t, l, http2.ClientPreface)
	fr := http2.NewFramer(c, c)
	fr.WriteSettings()
	for requested := false; ; {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Errorf("after %v: %v", frames, err)
			return frames
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			frames = append(frames, http2.FrameSettings)
			fr.WriteSettingsAck()
			if !requested {
				requested = true
				var block strings.Builder
				enc := hpack.NewEncoder(&block)
				for name, value := range map[string]string{":method": "GET", ":scheme": "http", ":path": "/", ":authority": "x"} {
					enc.WriteField(hpack.HeaderField{Name: name, Value: value})
				}
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true})
			}
		case *http2.PingFrame:
			return append(frames, http2.FramePing)
		case *http2.GoAwayFrame:
			t.Errorf("after %v: GOAWAY %v", frames, f.ErrCode)
			return frames
		case *http2.DataFrame:
			frames = append(frames, http2.FrameData)
			if f.StreamEnded() {
				fr.WritePing(false, [8]byte{})
			}
		}
	}
}

// http2BesideSendSettings has gRPC by the matcher that the README of cmux recommends, and net/http beside it.
func http2BesideSendSettings(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	serveGRPC(t, m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc")))
	serveHTTP(t, m.Match(cmux.HTTP2(), cmux.HTTP1Fast()), greeting)
	serve(t, m, l)
	check(t, l, insecure.NewCredentials())
	strictClient(t, l)
}

// settingsOnce has several matchers that send SETTINGS, and a server that sends its own behind them.
func settingsOnce(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	for _, service := range []string{"a", "b", "c"} {
		m.MatchWithWriters(
			cmux.HTTP2MatchHeaderFieldSendSettings("service", service),
			cmux.HTTP2MatchHeaderFieldPrefixSendSettings("service", service+"/"))
	}
	serveHTTP(t, m.Match(cmux.HTTP2()), greeting)
	serve(t, m, l)
	settings := 0
	for _, f := range strictClient(t, l) {
		if f == http2.FrameSettings {
			settings++
		}
	}
	if settings != 2 {
		t.Errorf("the client got %d SETTINGS frames, want 2: an early one, and the server's", settings)
	}
}

func serveEndsWithSilentClient(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	m.Match(cmux.HTTP1Fast())
	served := serve(t, m, l)
	silent := dial(t, l, "")
	talking := dial(t, l, "GE")
	// A third client that is answered shows that the two before it were accepted.
	wantEnd(t, dial(t, l, "nonsense"))
	l.Close()
	if err := within(t, served, "Serve has not returned"); err == nil || !strings.Contains(err.Error(), "use of closed") {
		t.Errorf("Serve returned %v", err)
	}
	wantEnd(t, silent)
	wantEnd(t, talking)
}

func closeEndsSilentClients(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	matched := m.Match(cmux.HTTP1Fast())
	serve(t, m, l)
	silent := dial(t, l, "")
	wantEnd(t, dial(t, l, "nonsense"))
	m.Close()
	if a := within(t, accept(matched), "Accept has not returned"); a.err != cmux.ErrServerClosed {
		t.Errorf("Accept returned %v, want ErrServerClosed", a.err)
	}
	wantEnd(t, silent)
}

// gracefulStop stops a gRPC server gracefully while a silent client hangs on, and waits for Serve to return, as
// programs do that want to end cleanly.
func gracefulStop(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	s := serveGRPC(t, m.Match(cmux.HTTP2HeaderField("content-type", "application/grpc")))
	m.Match(cmux.HTTP1Fast())
	served := serve(t, m, l)
	dial(t, l, "")
	wantEnd(t, dial(t, l, "nonsense"))
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	within(t, stopped, "GracefulStop has not returned")
	within(t, served, "Serve has not returned")
}

// gracefulStopBeforeServe stops a gRPC server whose multiplexer was never started.
func gracefulStopBeforeServe(t *testing.T) {
	m := cmux.New(listen(t))
	l := m.Match(cmux.HTTP2HeaderField("content-type", "application/grpc"))
	accepting := make(chan struct{})
	s := serveGRPC(t, acceptingListener{l, accepting})
	within(t, accepting, "the server does not accept")
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	within(t, stopped, "GracefulStop has not returned")
}

// acceptingListener tells when Accept is called.
type acceptingListener struct {
	net.Listener
	accepting chan struct{}
}

func (l acceptingListener) Accept() (net.Conn, error) {
	close(l.accepting)
	return l.Listener.Accept()
}

// endlessFrames sends frames for as long as they are taken, and no request.
func endlessFrames(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc"))
	serve(t, m, l)
	c := dial(t, l, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	go io.Copy(io.Discard, c)
	frame := []byte("\x00\x40\x00\xfa\x00\x00\x00\x00\x00" + strings.Repeat("x", 1<<14))
	for sent := 0; sent < 64<<20; sent += len(frame) {
		if _, err := c.Write(frame); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a client without a request was still connected after %v and %d bytes", patience, sent)
		} else if err != nil {
			return
		}
	}
	t.Error("a client could send 64 MiB without a request")
}

// shortFirstMessage has a client whose first message is shorter than the names of HTTP methods, and who then waits.
func shortFirstMessage(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	m.Match(cmux.HTTP1Fast())
	socks := m.Match(cmux.PrefixMatcher("\x05"))
	serve(t, m, l)
	dial(t, l, "\x05\x01\x00")
	a := within(t, accept(socks), "the connection has not reached its listener")
	if a.err != nil || a.Conn == nil {
		t.Fatal("no connection: ", a.err)
	}
	wantRead(t, a, "\x05\x01\x00")
}

// hostField matches by a field that net/http keeps elsewhere.
func hostField(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	api := m.Match(cmux.HTTP1HeaderField("Host", "api.example.com"))
	serve(t, m, l)
	dial(t, l, "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
	if a := within(t, accept(api), "the connection has not reached its listener"); a.err != nil {
		t.Error(a.err)
	}
}

func unmatchedIsTold(t *testing.T) {
	l := listen(t)
	m := cmux.New(l)
	m.Match(cmux.HTTP1HeaderField("Service", "a"))
	serve(t, m, l)
	wantRead(t, dial(t, l, "GET / HTTP/1.1\r\nService: b\r\n\r\n"), "HTTP/1.1 404 Not Found\r\n")
}
