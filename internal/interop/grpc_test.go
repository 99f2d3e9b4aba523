package interop

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/oneport-go/oneport"
)

// gRPC's clients are strict: they send no HEADERS before the server's SETTINGS have come. So each of these routes works
// only if early SETTINGS are sent.
func TestStrictGRPC(t *testing.T) {
	for _, routes := range []struct {
		name string
		add  func(*testing.T, *port) *recorder
	}{
		{"GRPC", func(t *testing.T, p *port) *recorder {
			return p.route(t, "grpc", serveGRPC, oneport.GRPC())
		}},
		{"Header", func(t *testing.T, p *port) *recorder {
			return p.route(t, "grpc", serveGRPC, oneport.Header("content-type", "application/grpc"))
		}},
		{"GRPC above HTTP2", func(t *testing.T, p *port) *recorder {
			l := p.route(t, "grpc", serveGRPC, oneport.GRPC())
			p.route(t, "http", serveNetHTTP, oneport.HTTP1(), oneport.HTTP2())
			return l
		}},
		{"ReadMatcher", func(t *testing.T, p *port) *recorder {
			return p.route(t, "grpc", serveGRPC, oneport.ReadMatcher(readsGRPC))
		}},
	} {
		for _, client := range []struct {
			name string
			call func(t *testing.T, addr string)
		}{
			{"grpc-go", callGRPCGo},
			{"grpc-js", callGRPCJS},
		} {
			t.Run(routes.name+"/"+client.name, func(t *testing.T) {
				t.Parallel()
				p := newPort(t)
				l := routes.add(t, p)
				p.start(t)
				client.call(t, p.addr)
				p.wantMatch(t, "grpc", oneport.ProtocolHTTP2, true)
				p.wantSameConn(t, l)
			})
		}
	}
}

// A gRPC client that connects ahead of its first call is ready, has its SETTINGS acknowledged, and makes the call over
// the same connection.
func TestIdleGRPC(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	p.route(t, "grpc", serveGRPC, oneport.GRPC())
	p.start(t)

	acknowledged := make(chan struct{})
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return watchACK(c, acknowledged), nil
	}
	conn, err := grpc.NewClient("passthrough:///"+p.addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.Connect()
	select {
	case <-acknowledged:
	case <-time.After(10 * time.Second):
		t.Fatal("the client's SETTINGS were not acknowledged")
	}
	checkHealth(t, conn)
	watchHealth(t, conn)
	p.wantMatch(t, "grpc", oneport.ProtocolHTTP2, true)
}

// watchACK returns c as a connection that closes the channel when an acknowledgement of SETTINGS was read from it.
func watchACK(c net.Conn, acknowledged chan<- struct{}) net.Conn {
	r, w := io.Pipe()
	go awaitACK(r, acknowledged)
	return teeConn{c, io.TeeReader(c, w), w}
}

// teeConn is a connection of which a copy of what is read goes elsewhere.
type teeConn struct {
	net.Conn
	r    io.Reader
	copy *io.PipeWriter
}

func (c teeConn) Close() error {
	c.copy.Close()
	return c.Conn.Close()
}

func (c teeConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// awaitACK closes the channel when an acknowledgement of SETTINGS has come, and reads on to the end.
func awaitACK(r *io.PipeReader, acknowledged chan<- struct{}) {
	framer := http2.NewFramer(io.Discard, r)
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			r.CloseWithError(err)
			return
		}
		if s, ok := f.(*http2.SettingsFrame); ok && s.IsAck() && acknowledged != nil {
			close(acknowledged)
			acknowledged = nil
		}
	}
}

// readsGRPC reads on until the first header block, as matchers written for cmux do.
func readsGRPC(r io.Reader) bool {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(r, preface); err != nil || string(preface) != http2.ClientPreface {
		return false
	}
	framer := http2.NewFramer(io.Discard, r)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return false
		}
		if headers, ok := frame.(*http2.MetaHeadersFrame); ok {
			for _, f := range headers.RegularFields() {
				if f.Name == "content-type" {
					return f.Value == "application/grpc"
				}
			}
			return false
		}
	}
}

// callGRPCGo makes a unary call and a streaming one with grpc-go.
func callGRPCGo(t *testing.T, addr string) {
	conn := dialGRPC(t, addr)
	checkHealth(t, conn)
	watchHealth(t, conn)
}

func dialGRPC(t *testing.T, addr string) *grpc.ClientConn {
	return dialGRPCWith(t, addr, insecure.NewCredentials())
}

func dialGRPCWith(t *testing.T, addr string, creds credentials.TransportCredentials) *grpc.ClientConn {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// checkHealth makes a unary call, and returns what the server says of the client.
func checkHealth(t *testing.T, conn *grpc.ClientConn) (who string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var header metadata.MD
	if err := tryHealth(ctx, conn, "", grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	return strings.Join(header["who"], "")
}

// tryHealth makes a unary call about a service.
func tryHealth(ctx context.Context, conn *grpc.ClientConn, service string, opts ...grpc.CallOption) error {
	r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service}, opts...)
	if err == nil && r.Status != healthpb.HealthCheckResponse_SERVING {
		err = errors.New(r.Status.String())
	}
	return err
}

func watchHealth(t *testing.T, conn *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatalf("Watch: %v", err)
	}
	r, err := stream.Recv()
	if err != nil {
		t.Fatalf("Watch: %v", err)
	}
	if r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Watch: %v", r.Status)
	}
}

// callGRPCJS makes the same calls with grpc-js.
func callGRPCJS(t *testing.T, addr string) { callGRPCJSWith(t, addr) }

func callGRPCJSWith(t *testing.T, args ...string) {
	needsGRPCJS(t)
	const want = "Check SERVING\nWatch SERVING\n"
	if got := output(t, append([]string{"node", "testdata/node/health.mjs"}, args...)...); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
