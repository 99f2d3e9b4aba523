package grpccreds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newCertificate makes a certificate that is its own authority.
func newCertificate(t testing.TB, uris ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:              []string{"server.example"},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func poolOf(c tls.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.Leaf)
	return pool
}

// tlsConfigs returns what a server and a client need, who know each other's certificates.
func tlsConfigs(t testing.TB, clientURIs ...string) (server, client *tls.Config) {
	t.Helper()
	serverCert, clientCert := newCertificate(t), newCertificate(t, clientURIs...)
	server = &tls.Config{
		Certificates: []tls.Certificate{serverCert},
		ClientCAs:    poolOf(clientCert),
		ClientAuth:   tls.VerifyClientCertIfGiven,
		NextProtos:   []string{"h2"},
	}
	client = &tls.Config{
		Certificates: []tls.Certificate{clientCert},
		RootCAs:      poolOf(serverCert),
		ServerName:   "server.example",
		NextProtos:   []string{"h2"},
	}
	return server, client
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// call serves gRPC on l with the credentials, and returns what the server knows of a client that calls.
func call(t *testing.T, l net.Listener, address string, server, client credentials.TransportCredentials) (*peer.Peer, error) {
	t.Helper()
	var got *peer.Peer
	s := grpc.NewServer(grpc.Creds(server), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			got, _ = peer.FromContext(ctx)
			return handler(ctx, req)
		}))
	healthpb.RegisterHealthServer(s, health.NewServer())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(l)
	}()
	defer func() {
		s.Stop()
		<-done
	}()
	cc, err := grpc.NewClient(address, grpc.WithTransportCredentials(client))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	_, err = healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
	return got, err
}

// muxOver returns a route for gRPC on a mux over l.
func muxOver(t *testing.T, l net.Listener) net.Listener {
	t.Helper()
	m := oneport.New(l)
	m.Logger = slog.New(slog.DiscardHandler)
	route := m.Match(oneport.GRPC())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Serve()
	}()
	t.Cleanup(func() {
		m.Close()
		<-done
	})
	return route
}

const id = "spiffe://trust.example/workload"

// TestTLS holds what a server behind TLS knows to what one that does TLS itself knows.
func TestTLS(t *testing.T) {
	t.Parallel()
	for _, clientCert := range []bool{true, false} {
		for _, behind := range []string{"the listener", "a mux"} {
			name := behind + ", no client certificate"
			if clientCert {
				name = behind + ", client certificate"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				serverTLS, clientTLS := tlsConfigs(t, id)
				if !clientCert {
					clientTLS.Certificates = nil
				}
				client := credentials.NewTLS(clientTLS)

				bare := listen(t)
				wantPeer, err := call(t, bare, bare.Addr().String(), credentials.NewTLS(serverTLS), client)
				if err != nil {
					t.Fatal(err)
				}
				tcp := listen(t)
				l := tls.NewListener(tcp, serverTLS)
				if behind == "a mux" {
					l = muxOver(t, l)
				}
				gotPeer, err := call(t, l, tcp.Addr().String(), Credentials{RequireTLS: true}, client)
				if err != nil {
					t.Fatal(err)
				}

				want, got := wantPeer.AuthInfo.(credentials.TLSInfo), gotPeer.AuthInfo.(credentials.TLSInfo)
				type comparable struct {
					Type, Protocol, SPIFFE, Suite string
					Complete                      bool
					Certificates                  []*x509.Certificate
					Chains                        int
					Level                         credentials.SecurityLevel
				}
				sum := func(i credentials.TLSInfo) comparable {
					spiffe := ""
					if i.SPIFFEID != nil {
						spiffe = i.SPIFFEID.String()
					}
					return comparable{
						i.AuthType(), i.State.NegotiatedProtocol, spiffe, tls.CipherSuiteName(i.State.CipherSuite),
						i.State.HandshakeComplete, i.State.PeerCertificates, len(i.State.VerifiedChains), i.GetCommonAuthInfo().SecurityLevel,
					}
				}
				equal := cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) })
				if diff := cmp.Diff(sum(want), sum(got), equal); diff != "" {
					t.Error(diff)
				}
				if (got.SPIFFEID != nil) != clientCert || (len(got.State.VerifiedChains) > 0) != clientCert {
					t.Errorf("client certificate %v, but SPIFFE ID %v and %d verified chains",
						clientCert, got.SPIFFEID, len(got.State.VerifiedChains))
				}
			})
		}
	}
}

// TestCleartext has the same credentials on connections without TLS.
func TestCleartext(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		behind func(*testing.T, net.Listener) net.Listener
	}{
		{"the listener", func(_ *testing.T, l net.Listener) net.Listener { return l }},
		{"a mux", muxOver},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := listen(t)
			p, err := call(t, tt.behind(t, l), l.Addr().String(), Credentials{}, insecure.NewCredentials())
			if err != nil {
				t.Fatal(err)
			}
			info, ok := p.AuthInfo.(interface {
				GetCommonAuthInfo() credentials.CommonAuthInfo
			})
			if !ok || p.AuthInfo.AuthType() != "insecure" || info.GetCommonAuthInfo().SecurityLevel != credentials.NoSecurity {
				t.Errorf("got %#v", p.AuthInfo)
			}

			l = listen(t)
			_, err = call(t, tt.behind(t, l), l.Addr().String(), Credentials{RequireTLS: true}, insecure.NewCredentials())
			if status.Code(err) != codes.Unavailable {
				t.Errorf("RequireTLS: %v, want the code Unavailable", err)
			}
		})
	}
}

// TestServerHandshake looks at what becomes of a connection.
func TestServerHandshake(t *testing.T) {
	t.Parallel()
	serverTLS, clientTLS := tlsConfigs(t, id)
	handshake := func(t *testing.T, client net.Conn) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			tls.Client(client, clientTLS).Handshake()
		}()
		t.Cleanup(func() { client.Close(); <-done })
	}

	t.Run("cleartext is passed on as it is", func(t *testing.T) {
		t.Parallel()
		server, _ := testenv.TCP(t)
		got, info, err := Credentials{}.ServerHandshake(server)
		if got != server || err != nil || info.AuthType() != "insecure" {
			t.Errorf("got %v, %v, %v", got, info, err)
		}
	})
	t.Run("cleartext is refused", func(t *testing.T) {
		t.Parallel()
		server, _ := testenv.TCP(t)
		if _, _, err := (Credentials{RequireTLS: true}).ServerHandshake(server); !errors.Is(err, errCleartext) {
			t.Error(err)
		}
	})
	t.Run("the socket below TLS", func(t *testing.T) {
		t.Parallel()
		server, client := testenv.TCP(t)
		handshake(t, client)
		wrapped := wrapper{wrapper{tls.Server(server, serverTLS)}}
		got, info, err := Credentials{}.ServerHandshake(wrapped)
		if err != nil {
			t.Fatal(err)
		}
		if s := info.(credentials.TLSInfo).SPIFFEID.String(); s != id {
			t.Errorf("SPIFFE ID %s", s)
		}
		raw, err := got.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(uintptr) {}); err != nil {
			t.Error(err)
		}
		if n := got.(interface{ NetConn() net.Conn }).NetConn(); n != wrapped {
			t.Errorf("NetConn leads to %v", n)
		}
		got.Close()
		if err := raw.Control(func(uintptr) {}); err == nil {
			t.Error("closing the connection has not closed the socket")
		}
	})
	t.Run("no socket below TLS", func(t *testing.T) {
		t.Parallel()
		client, server := net.Pipe()
		handshake(t, client)
		conn := tls.Server(server, serverTLS)
		got, _, err := Credentials{}.ServerHandshake(conn)
		if got != conn || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("ConnectionState on a connection without TLS", func(t *testing.T) {
		t.Parallel()
		server, _ := testenv.TCP(t)
		_, info, err := Credentials{}.ServerHandshake(stateful{wrapper{server}})
		if err != nil || info.AuthType() != "insecure" {
			t.Errorf("got %v, %v", info, err)
		}
	})
	t.Run("ConnectionState above TLS", func(t *testing.T) {
		t.Parallel()
		server, client := testenv.TCP(t)
		handshake(t, client)
		_, info, err := Credentials{RequireTLS: true}.ServerHandshake(stateful{wrapper{tls.Server(server, serverTLS)}})
		if err != nil || info.AuthType() != "tls" {
			t.Errorf("got %v, %v", info, err)
		}
	})
	t.Run("a client that is silent", func(t *testing.T) {
		t.Parallel()
		server, _ := testenv.TCP(t)
		server.SetDeadline(time.Unix(1, 0)) // what gRPC does, when the time is up
		_, _, err := Credentials{}.ServerHandshake(tls.Server(server, serverTLS))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
	t.Run("a client that goes", func(t *testing.T) {
		t.Parallel()
		server, client := testenv.TCP(t)
		client.Close()
		if _, _, err := (Credentials{}).ServerHandshake(tls.Server(server, serverTLS)); err != io.EOF {
			t.Error(err)
		}
	})
	t.Run("a client of another protocol", func(t *testing.T) {
		t.Parallel()
		server, client := testenv.TCP(t)
		if _, err := io.WriteString(client, "GET / HTTP/1.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		_, _, err := Credentials{}.ServerHandshake(tls.Server(server, serverTLS))
		if _, ok := errors.AsType[tls.RecordHeaderError](err); !ok {
			t.Error(err)
		}
	})
}

// wrapper is a connection above another.
type wrapper struct{ net.Conn }

func (w wrapper) NetConn() net.Conn { return w.Conn }

// SyscallConn fails where there is no socket right below.
func (w wrapper) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := w.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// stateful has a ConnectionState that knows of no TLS.
type stateful struct{ wrapper }

func (stateful) ConnectionState() tls.ConnectionState { return tls.ConnectionState{} }

// TestSPIFFE holds the SPIFFE ID to the one that credentials.NewTLS finds.
func TestSPIFFE(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 255)
	tests := []struct {
		name string
		uris []string
		want string
	}{
		{"none", nil, ""},
		{"one", []string{id}, id},
		{"another scheme", []string{"https://trust.example/workload"}, ""},
		{"with another beside it", []string{id, "https://trust.example/"}, ""},
		{"with another in front", []string{"https://trust.example/", id}, ""},
		{"two", []string{id, id + "2"}, ""},
		{"opaque", []string{"spiffe:opaque"}, ""},
		{"user", []string{"spiffe://u@trust.example/workload"}, ""},
		{"no trust domain", []string{"spiffe:///workload"}, ""},
		{"no path", []string{"spiffe://trust.example"}, ""},
		{"a long trust domain", []string{"spiffe://" + long + "/w"}, "spiffe://" + long + "/w"},
		{"too long a trust domain", []string{"spiffe://" + long + "x/w"}, ""},
		{"long", []string{"spiffe://t/" + strings.Repeat("x", 2037)}, "spiffe://t/" + strings.Repeat("x", 2037)},
		{"too long", []string{"spiffe://t/" + strings.Repeat("x", 2038)}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			serverTLS, clientTLS := tlsConfigs(t, tt.uris...)
			serverTLS.ClientAuth = tls.RequireAnyClientCert // verifying is not what this is about
			idOf := func(info credentials.AuthInfo, err error) string {
				if err != nil {
					t.Fatal(err)
				}
				if u := info.(credentials.TLSInfo).SPIFFEID; u != nil {
					return u.String()
				}
				return ""
			}
			serve := func(handshake func(net.Conn) (net.Conn, credentials.AuthInfo, error)) string {
				client, server := net.Pipe()
				done := make(chan struct{})
				go func() {
					defer close(done)
					tls.Client(client, clientTLS).Handshake()
				}()
				_, info, err := handshake(server)
				client.Close()
				<-done
				return idOf(info, err)
			}
			if got := serve(credentials.NewTLS(serverTLS).ServerHandshake); got != tt.want {
				t.Errorf("credentials.NewTLS: %q, want %q", got, tt.want)
			}
			got := serve(func(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
				return Credentials{}.ServerHandshake(tls.Server(c, serverTLS))
			})
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestClient has a client use the credentials.
func TestClient(t *testing.T) {
	t.Parallel()
	if c, _, err := (Credentials{}).ClientHandshake(t.Context(), "", nil); c != nil || !errors.Is(err, errClient) {
		t.Errorf("ClientHandshake: %v, %v", c, err)
	}
	if err := (Credentials{}).OverrideServerName("a"); !errors.Is(err, errClient) {
		t.Errorf("OverrideServerName: %v", err)
	}
	l := listen(t)
	_, err := call(t, l, l.Addr().String(), Credentials{}, Credentials{RequireTLS: true})
	if !strings.Contains(status.Convert(err).Message(), errClient.Error()) {
		t.Errorf("a client with the credentials: %v", err)
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	for c, want := range map[Credentials]string{{}: "insecure", {RequireTLS: true}: "tls"} {
		if got := c.Info().SecurityProtocol; got != want {
			t.Errorf("%+v: %s, want %s", c, got, want)
		}
		if diff := cmp.Diff(credentials.TransportCredentials(c), c.Clone()); diff != "" {
			t.Error(diff)
		}
	}
}

// uncomparable is a connection of a type that cannot be compared.
type uncomparable struct {
	net.Conn
	state func() tls.ConnectionState
}

func (c uncomparable) ConnectionState() tls.ConnectionState { return c.state() }

// TestUncomparable takes a connection of whatever type.
func TestUncomparable(t *testing.T) {
	t.Parallel()
	_, server := net.Pipe()
	defer server.Close()
	c := uncomparable{server, func() tls.ConnectionState { return tls.ConnectionState{HandshakeComplete: true} }}
	if _, info, err := (Credentials{}).ServerHandshake(c); err != nil || info.AuthType() != "tls" {
		t.Errorf("%v, %v", info, err)
	}
}
