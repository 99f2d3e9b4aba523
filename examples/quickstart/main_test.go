package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/oneport-go/oneport/examples/quickstart/greeterpb"
)

// asProgram makes the test binary be the program.
const asProgram = "ONEPORT_QUICKSTART_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// start serves until the test ends, with certificates that are made in memory.
func start(t *testing.T) (s *server, addr string) {
	t.Helper()
	l := listen(t)
	_, config, err := makeCertificates(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, l, config), l.Addr().String()
}

func startOn(t *testing.T, l net.Listener, config *tls.Config) *server {
	t.Helper()
	s := newServer(config, slog.New(slog.DiscardHandler), observers{
		judged:     func(net.Addr, verdict) {},
		dispatched: func(net.Addr, string, bool) {},
	})
	served := make(chan error, 1)
	go func() { served <- s.serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dialGRPC(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func httpClient(t *testing.T, http2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	_, addr := start(t)
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		client := httpClient(t, proto == "HTTP/2.0")
		for _, test := range []struct {
			method, path string
			status       int
			contentType  string
			name         string // of who is greeted, if anybody is
			contains     []string
		}{
			{method: "GET", path: "/v1/hello/World", status: 200, contentType: "application/json", name: "World"},
			{method: "GET", path: "/v1/hello/%22J%C3%BCrgen%22%5C%3Cb%3E%0A", status: 200, contentType: "application/json", name: "\"Jürgen\"\\<b>\n"},
			{method: "GET", path: "/v1/hello/a%2Fb", status: 200, contentType: "application/json", name: "a/b"},
			{method: "POST", path: "/v1/hello/World", status: 405, contentType: "text/plain; charset=utf-8"},
			{method: "DELETE", path: "/", status: 405, contentType: "text/plain; charset=utf-8"},
			{method: "GET", path: "/v1/hello/", status: 404, contentType: "text/plain; charset=utf-8"},
			{method: "GET", path: "/unknown", status: 404, contentType: "text/plain; charset=utf-8"},
			{method: "GET", path: "/", status: 200, contentType: "text/html; charset=utf-8", contains: []string{
				"<!DOCTYPE html>\n<html lang=\"en\">", "<title>One port, " + addr + "</title>", "<strong>" + proto + "</strong> without TLS",
				"curl --http2-prior-knowledge http://" + addr + "/v1/hello/World",
				"curl -k https://" + addr + "/v1/hello/World",
				"grpcurl -plaintext -d &#39;{&#34;name&#34;:&#34;World&#34;}&#39; " + addr + " oneport.examples.greeter.v1.Greeter/SayHello",
			}},
		} {
			t.Run(proto+" "+test.method+" "+test.path, func(t *testing.T) {
				req, err := http.NewRequestWithContext(t.Context(), test.method, "http://"+addr+test.path, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != test.status || resp.Proto != proto {
					t.Errorf("got %d by %s, want %d by %s", resp.StatusCode, resp.Proto, test.status, proto)
				}
				if got := resp.Header.Get("Content-Type"); got != test.contentType {
					t.Errorf("got content type %q, want %q", got, test.contentType)
				}
				if test.name != "" {
					var got map[string]any
					if err := json.Unmarshal(body, &got); err != nil {
						t.Fatalf("%s: %v", body, err)
					}
					want := map[string]any{"message": "Hello, " + test.name, "protocol": proto, "tls": false}
					if d := cmp.Diff(want, got); d != "" {
						t.Errorf("answer (-want +got):\n%s", d)
					}
				}
				for _, s := range test.contains {
					if !strings.Contains(string(body), s) {
						t.Errorf("%q is not in\n%s", s, body)
					}
				}
			})
		}
	}
}

func TestPageEscapesHost(t *testing.T) {
	t.Parallel()
	_, addr := start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "a&lt;b"
	resp, err := httpClient(t, false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(body, []byte(req.Host)) || !bytes.Contains(body, []byte("<code>a&amp;lt;b</code>")) {
		t.Errorf("host %s is not escaped in\n%s", req.Host, body)
	}
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	_, addr := start(t)
	cc := dialGRPC(t, addr)
	for _, name := range []string{"World", `"Jürgen"`, ""} {
		r, err := greeterpb.NewGreeterClient(cc).SayHello(t.Context(), &greeterpb.SayHelloRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		got := greeting{Message: r.GetMessage(), Protocol: r.GetProtocol()}
		if d := cmp.Diff(greeting{Message: "Hello, " + name, Protocol: "gRPC"}, got); d != "" {
			t.Errorf("greeting (-want +got):\n%s", d)
		}
	}
	for _, service := range []string{"", "oneport.examples.greeter.v1.Greeter"} {
		r, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.GetStatus(); got != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of service %q: %v", service, got)
		}
	}
}

// startCall starts an RPC, and returns a function that gets another answer on it.
func startCall(t *testing.T, cc *grpc.ClientConn) (next func() []string, end func() error) {
	t.Helper()
	stream, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next = func() []string {
		t.Helper()
		err := stream.Send(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
		})
		if err != nil {
			t.Fatal(err)
		}
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range r.GetListServicesResponse().GetService() {
			names = append(names, s.GetName())
		}
		return names
	}
	end = func() error {
		if err := stream.CloseSend(); err != nil {
			return err
		}
		_, err := stream.Recv()
		return err
	}
	return next, end
}

func TestReflection(t *testing.T) {
	t.Parallel()
	_, addr := start(t)
	next, end := startCall(t, dialGRPC(t, addr))
	if got := next(); !slices.Contains(got, "oneport.examples.greeter.v1.Greeter") || !slices.Contains(got, "grpc.health.v1.Health") {
		t.Errorf("got %q, want the greeter and the health service among them", got)
	}
	if err := end(); err != io.EOF {
		t.Errorf("got %v, want the end of the call", err)
	}
}

func TestShutdownWaitsForCall(t *testing.T) {
	t.Parallel()
	s, addr := start(t)
	cc := dialGRPC(t, addr)
	next, end := startCall(t, cc)
	want := next()

	shut := make(chan error, 1)
	go func() { shut <- s.shutdown(t.Context()) }()
	// The server has sent GOAWAY when the client leaves this state.
	if !cc.WaitForStateChange(t.Context(), connectivity.Ready) {
		t.Fatal("the server does not tell its clients that it shuts down")
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("the server accepts connections while it shuts down")
	}
	if d := cmp.Diff(want, next()); d != "" {
		t.Errorf("answers before (-) and during (+) the shutdown:\n%s", d)
	}
	select {
	case err := <-shut:
		t.Fatalf("shutdown returned during a call: %v", err)
	default:
	}
	if err := end(); err != io.EOF {
		t.Errorf("got %v, want the end of the call", err)
	}
	if err := <-shut; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

func TestShutdownEndsWithContext(t *testing.T) {
	t.Parallel()
	s, addr := start(t)
	next, end := startCall(t, dialGRPC(t, addr))
	next()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if err := end(); err == nil || err == io.EOF {
		t.Errorf("got %v, want a call that was cut off", err)
	}
}

func TestRunErrors(t *testing.T) {
	t.Parallel()
	l := listen(t)
	defer l.Close()
	taken := l.Addr().String()
	for _, test := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-addr", taken}, 1, "cannot serve on " + taken},
		{[]string{"-demo", "-addr", taken}, 1, "cannot serve on " + taken},
		{[]string{"-addr", "nonsense"}, 1, "cannot serve on nonsense"},
		{[]string{"-nonsense"}, 2, "flag provided but not defined: -nonsense"},
		{[]string{"nonsense"}, 2, "unexpected argument: nonsense"},
		{[]string{"-cert", "c.pem"}, 2, "-cert and -key go together"},
		{[]string{"-client-ca", "c.pem"}, 2, "-client-ca goes with -cert and -key"},
		{[]string{"-cert", "c.pem", "-key", "k.pem", "-client-out", "c.pem"}, 2, "-client-out does not go with -cert"},
		{[]string{"-demo", "-client-out", "c.pem"}, 2, "-demo makes certificates of its own"},
		{[]string{"-addr", "127.0.0.1:0", "-cert", "none.pem", "-key", "none.pem"}, 1, "certificates: open none.pem"},
		{[]string{"-addr", "127.0.0.1:0", "-client-out", "none/c.pem"}, 1, "certificates: open none/c.pem"},
	} {
		var stdout, stderr bytes.Buffer
		if got := run(test.args, &stdout, &stderr); got != test.status {
			t.Errorf("%q: exit status %d, want %d", test.args, got, test.status)
		}
		if got := stderr.String(); !strings.HasPrefix(got, test.says) || strings.Count(got, "\n") != 1 || stdout.Len() > 0 {
			t.Errorf("%q: got %q and %q, want the one line %q...", test.args, stdout.String(), got, test.says)
		}
	}
}

func TestRunHelp(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	if got := run([]string{"-help"}, &stdout, &stderr); got != 0 {
		t.Errorf("exit status %d", got)
	}
	if !strings.Contains(stdout.String(), "-demo") || stderr.Len() > 0 {
		t.Errorf("got %q and %q, want the flags and nothing", stdout.String(), stderr.String())
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1:80",
		"[::1]:80":     "[::1]:80",
		"0.0.0.0:80":   "localhost:80",
		"[::]:80":      "localhost:80",
	} {
		a, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := reachable(a); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}

// program is a running quickstart.
type program struct {
	cmd  *exec.Cmd
	addr string
	log  *bufio.Scanner
}

func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent SIGTERM there")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A log that does not have what is awaited ends with the program.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, exe, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	// Under the race detector a program takes another second to end, by default.
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() }) // once the test's context has ended it, if the test has not
	p := &program{cmd: cmd, log: bufio.NewScanner(stderr)}
	if _, err := fmt.Fscanf(stdout, "A tour of what one port can serve, on http://%s", &p.addr); err != nil {
		t.Fatal(err)
	}
	p.addr = strings.TrimSuffix(p.addr, "/")
	return p
}

func (p *program) signal(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// awaitLog reads the log up to a line that contains s.
func (p *program) awaitLog(t *testing.T, s string) {
	t.Helper()
	for p.log.Scan() {
		if strings.Contains(p.log.Text(), s) {
			return
		}
	}
	t.Fatalf("%q does not come in the log: %v", s, p.log.Err())
}

func TestSignal(t *testing.T) {
	t.Parallel()
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		p := startProgram(t)
		resp, err := httpClient(t, false).Get("http://" + p.addr + "/v1/hello/World")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		p.awaitLog(t, `protocol=HTTP/1 route=http tls=false alpn="" upgraded=false early_settings=false`)
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "\x00rubbish")
		p.awaitLog(t, `msg=refused remote=127.0.0.1:`)
		c.Close()
		p.signal(t, sig)
		p.awaitLog(t, "shutting down")
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
	}
}

func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	next, _ := startCall(t, dialGRPC(t, p.addr))
	next()
	p.signal(t, syscall.SIGTERM)
	p.awaitLog(t, "shutting down")
	p.signal(t, syscall.SIGTERM)
	p.cmd.Wait()
	if got := p.cmd.ProcessState.String(); !strings.HasPrefix(got, "signal: terminated") {
		t.Errorf("got %s, want an end by the second signal, as the call is still running", got)
	}
}
