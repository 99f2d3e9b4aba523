package contender

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func startContender(t *testing.T, config Config) *Process {
	t.Helper()
	p, err := Start(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestServes has clients that are known to be right use every contender.
func TestServes(t *testing.T) {
	t.Parallel()
	for _, c := range Table {
		if err := c.Available(); err != nil {
			continue
		}
		for _, withTLS := range []bool{false, true} {
			name := c.Name
			if withTLS {
				name += " with TLS"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				config := Config{Contender: c.Name, TLS: withTLS}
				if c.Lacks[Routes] == "" {
					config.Routes = 3
				}
				p := startContender(t, config)
				checkHealth(t, p, config)
				var protocols []func(*http.Protocols)
				protocols = append(protocols, func(p *http.Protocols) { p.SetHTTP1(true) })
				if c.Lacks[H2C] == "" && !withTLS {
					protocols = append(protocols, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
				}
				for _, set := range protocols {
					get(t, p, config, set)
				}
			})
		}
	}
}

func checkHealth(t *testing.T, p *Process, config Config) {
	t.Helper()
	creds := insecure.NewCredentials()
	if config.TLS {
		creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	}
	conn, err := grpc.NewClient("passthrough:///"+p.GRPC, grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(_ context.Context, address string) (net.Conn, error) { return p.Dial(address) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("the health is %v", r.Status)
	}
}

func get(t *testing.T, p *Process, config Config, set func(*http.Protocols)) {
	t.Helper()
	transport := &http.Transport{
		Protocols:       new(http.Protocols),
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	set(transport.Protocols)
	defer transport.CloseIdleConnections()
	scheme := "http://"
	if config.TLS {
		scheme = "https://"
	}
	resp, err := (&http.Client{Transport: transport}).Get(scheme + p.HTTP + PathSmall)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(body); resp.StatusCode != http.StatusOK || got != SmallBody {
		t.Errorf("%s: %s, %q", transport.Protocols, resp.Status, got)
	}
}

func TestSeveralListeners(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("SO_REUSEPORT does this on Linux")
	}
	for _, c := range Table {
		if c.Lacks[Ports] != "" {
			continue
		}
		config := Config{Contender: c.Name, Procs: 2, Listeners: 2}
		p := startContender(t, config)
		checkHealth(t, p, config)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	config := Config{Contender: "plain"}
	p := startContender(t, config)
	before, err := p.Usage(Collected)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		checkHealth(t, p, config)
	}
	after, err := p.Usage(Now)
	if err != nil {
		t.Fatal(err)
	}
	if after.Allocs <= before.Allocs || after.AllocBytes <= before.AllocBytes {
		t.Errorf("nothing was allocated for ten connections: %+v, then %+v", before, after)
	}
	if after.Goroutines < 1 {
		t.Errorf("%d goroutines", after.Goroutines)
	}
	if runtime.GOOS != "windows" && after.Voluntary <= before.Voluntary {
		t.Errorf("ten connections and no context switch: %d, then %d", before.Voluntary, after.Voluntary)
	}
	if before.CPU != 0 && after.CPU <= before.CPU {
		t.Errorf("ten connections took no CPU time: %v, then %v", before.CPU, after.CPU)
	}
	if runtime.GOOS == "linux" {
		trimmed, err := p.Usage(Trimmed)
		if err != nil {
			t.Fatal(err)
		}
		if trimmed.CPU == 0 || trimmed.Resident == 0 || trimmed.Peak < trimmed.Resident {
			t.Errorf("not measured, or less at the most than now: %+v", trimmed)
		}
		if trimmed.GC == 0 {
			t.Error("the garbage collector has run and taken no time")
		}
	}
}

// TestSettle waits for what a process still has to do, and not for one that never rests.
func TestSettle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		busy int // milliseconds
		want int
	}{{"idle", 0, 1}, {"something left", 3, 4}, {"never idle", 1000, 8}} {
		var used, slept time.Duration
		settle(func() time.Duration { return used }, func(d time.Duration) {
			slept += d
			if slept <= time.Duration(tt.busy)*time.Millisecond {
				used += d
			}
		})
		if got := int(slept / time.Millisecond); got != tt.want {
			t.Errorf("%s: it has waited for %d ms, want %d", tt.name, got, tt.want)
		}
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	_, err := Start(Config{Contender: "nobody"})
	if err == nil || !strings.Contains(err.Error(), `no contender "nobody"`) {
		t.Errorf("%v", err)
	}
}

// TestEnds holds the server process to its end: that of its input.
func TestEnds(t *testing.T) {
	t.Parallel()
	p, err := Start(Config{Contender: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if c, err := p.Dial(p.HTTP); err == nil {
		c.Close()
		t.Error("the server outlives its process")
	} else if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	if _, err := p.Usage(Now); err == nil {
		t.Error("a server that has ended has answered")
	}
}

// TestNamespace dials into the network namespace of a server.
func TestNamespace(t *testing.T) {
	t.Parallel()
	config := Config{Contender: "oneport", Namespace: true}
	p, err := Start(config)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EINVAL) {
		t.Skip("network namespaces cannot be made here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if c, err := net.Dial("tcp", p.GRPC); err == nil {
		c.Close()
		t.Error("the server is in our own network namespace")
	}
	checkHealth(t, p, config)
	// The thread is back where it was.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestTail(t *testing.T) {
	t.Parallel()
	var s tail
	if got := s.String(); got != "" {
		t.Errorf("nothing was written: %q", got)
	}
	long := strings.Repeat("x", tailSize)
	io.WriteString(&s, "lost"+long[:tailSize-4])
	io.WriteString(&s, "kept\n")
	got := s.String()
	if strings.Contains(got, "lost") || !strings.HasSuffix(got, "xkept") {
		t.Errorf("%q", got)
	}
}
