package oneport

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport/grpccreds"
	"github.com/oneport-go/oneport/internal/testenv"
)

// serverVariable is the environment variable that names the server to be. See BenchmarkRequests.
const serverVariable = "ONEPORT_BENCH_SERVER"

// BenchmarkRequests measures requests over one connection, as a proxy with a pool sends them: 64 at a time. The server
// is a process of its own, so that the CPU time reported is the server's alone. The client knows just enough of HTTP/2
// to cost little.
//
// The servers are
//
//	plain      grpc-go on a listener
//	requests   grpc-go, with grpccreds, and net/http behind Mux.Requests
//	ServeHTTP  grpc-go behind net/http, grpc.Server.ServeHTTP
func BenchmarkRequests(b *testing.B) {
	for _, bm := range []struct {
		server, load string
		requests     []benchRequest
	}{
		{"plain", "gRPC", []benchRequest{grpcRequest}},
		{"requests", "gRPC", []benchRequest{grpcRequest}},
		{"ServeHTTP", "gRPC", []benchRequest{grpcRequest}},
		{"requests", "gRPC and REST", []benchRequest{grpcRequest, restRequest}},
		{"ServeHTTP", "gRPC and REST", []benchRequest{grpcRequest, restRequest}},
	} {
		b.Run(bm.load+"/"+bm.server, func(b *testing.B) {
			s := startBenchServer(b, bm.server)
			c := newLoad(b, s.addr, bm.requests)
			c.run(b, 1000) // warms up
			before := s.cpu(b)
			b.ResetTimer()
			c.run(b, b.N)
			b.StopTimer()
			b.ReportMetric(float64(s.cpu(b)-before)/float64(b.N), "server-ns/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}

// A benchRequest is what is sent on a stream, again and again.
type benchRequest struct {
	fields []hpack.HeaderField
	body   []byte
}

var (
	grpcRequest = benchRequest{
		fields: []hpack.HeaderField{
			{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
			{Name: ":path", Value: "/grpc.health.v1.Health/Check"}, {Name: ":authority", Value: "127.0.0.1:8080"},
			{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "grpc-go/1.85.0"}, {Name: "te", Value: "trailers"},
		},
		body: make([]byte, 5), // an empty message
	}
	restRequest = benchRequest{
		fields: []hpack.HeaderField{
			{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"},
			{Name: ":path", Value: "/v1/hello"}, {Name: ":authority", Value: "127.0.0.1:8080"}, {Name: "user-agent", Value: "curl/8.0"},
		},
	}
)

// A benchLoad is a client with one connection.
type benchLoad struct {
	conn     net.Conn
	r        *bufio.Reader
	enc      *hpack.Encoder
	block    bytes.Buffer
	requests []benchRequest
	id       uint32
	out      []byte
	consumed uint32
}

func newLoad(b *testing.B, addr string, requests []benchRequest) *benchLoad {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	c := &benchLoad{conn: conn, r: bufio.NewReaderSize(conn, 64<<10), requests: requests, id: 1}
	c.enc = hpack.NewEncoder(&c.block)
	var buf bytes.Buffer
	buf.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&buf, nil)
	fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	fr.WriteWindowUpdate(0, 1<<30)
	c.out = buf.Bytes()
	return c
}

// send adds the next request to what is to be written.
func (c *benchLoad) send() {
	r := c.requests[int(c.id/2)%len(c.requests)]
	c.block.Reset()
	for _, f := range r.fields {
		c.enc.WriteField(f)
	}
	flags := http2.FlagHeadersEndHeaders
	if r.body == nil {
		flags |= http2.FlagHeadersEndStream
	}
	c.frame(http2.FrameHeaders, flags, c.id, c.block.Bytes())
	if r.body != nil {
		c.frame(http2.FrameData, http2.FlagDataEndStream, c.id, r.body)
	}
	c.id += 2
}

func (c *benchLoad) frame(typ http2.FrameType, flags http2.Flags, id uint32, payload []byte) {
	n := len(payload)
	c.out = append(c.out, byte(n>>16), byte(n>>8), byte(n), byte(typ), byte(flags))
	c.out = append(binary.BigEndian.AppendUint32(c.out, id), payload...)
}

// run makes n requests.
func (c *benchLoad) run(b *testing.B, n int) {
	const atOnce = 64
	open, sent := 0, 0
	for done := 0; done < n; {
		for open < atOnce && sent < n {
			c.send()
			open++
			sent++
		}
		if len(c.out) > 0 && c.r.Buffered() < 9 {
			if _, err := c.conn.Write(c.out); err != nil {
				b.Fatal(err)
			}
			c.out = c.out[:0]
		}
		h, err := c.r.Peek(9)
		if err != nil {
			b.Fatal(err)
		}
		length := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		typ, flags := http2.FrameType(h[3]), http2.Flags(h[4])
		c.r.Discard(9)
		payload, err := c.r.Peek(length)
		if err != nil {
			b.Fatal(err)
		}
		switch typ {
		case http2.FrameSettings:
			if !flags.Has(http2.FlagSettingsAck) {
				c.frame(http2.FrameSettings, http2.FlagSettingsAck, 0, nil)
			}
		case http2.FramePing:
			if !flags.Has(http2.FlagPingAck) {
				c.frame(http2.FramePing, http2.FlagPingAck, 0, payload)
			}
		case http2.FrameData, http2.FrameHeaders:
			if flags.Has(http2.FlagDataEndStream) { // the same bit in HEADERS
				open--
				done++
			}
			if typ == http2.FrameData {
				if c.consumed += uint32(length); c.consumed > 1<<20 {
					c.frame(http2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, c.consumed))
					c.consumed = 0
				}
			}
		case http2.FrameRSTStream, http2.FrameGoAway:
			b.Fatalf("%v %x", typ, payload)
		}
		c.r.Discard(length)
	}
}

// A benchProcess is the process of a server.
type benchProcess struct {
	addr   string
	stdin  io.Writer
	stdout *bufio.Reader
}

func startBenchServer(b *testing.B, kind string) *benchProcess {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverVariable+"="+kind)
	cmd.Stderr = os.Stderr
	s := new(benchProcess)
	s.stdin, s.stdout = testenv.Start(b, cmd)
	line, err := s.stdout.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	s.addr = strings.TrimSpace(line)
	return s
}

// cpu returns the CPU time of the server, in nanoseconds.
func (s *benchProcess) cpu(b *testing.B) (ns int64) {
	if _, err := io.WriteString(s.stdin, "\n"); err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Fscanln(s.stdout, &ns); err != nil {
		b.Fatal(err)
	}
	return ns
}

// benchServer is main in the process of a server. It prints its address, and its CPU time for each line that it reads.
func benchServer(kind string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		slog.Error("listening", "err", err)
		os.Exit(1)
	}
	var options []grpc.ServerOption
	if kind == "requests" {
		options = append(options, grpc.Creds(grpccreds.Credentials{}))
	}
	g := grpc.NewServer(options...)
	healthpb.RegisterHealthServer(g, health.NewServer())
	rest := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"message":"Hello"}`) })
	h := &http.Server{Handler: rest, Protocols: new(http.Protocols)}
	h.Protocols.SetUnencryptedHTTP2(true)
	switch kind {
	case "plain":
		go g.Serve(l)
	case "requests":
		m := New(l)
		requests := m.Requests()
		go g.Serve(requests.Match(GRPC()))
		go h.Serve(requests.Match(Any()))
		go m.Serve()
	case "ServeHTTP":
		h.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.Header.Get("content-type"), "application/grpc") {
				g.ServeHTTP(w, r)
			} else {
				rest(w, r)
			}
		})
		go h.Serve(l)
	}
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(int64(cpuTime()))
	}
}
