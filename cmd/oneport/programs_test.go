//go:build unix

package main

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oneport-go/oneport/cmd/oneport/internal/zoo"
	"github.com/oneport-go/oneport/internal/testenv"
)

// A proxy runs a program with a configuration, of which $SOCKET is the Unix socket to listen on, $DIR a directory,
// $BACKEND the address of the server behind it, and $CERT a file with the certificate and its key.
type proxy struct {
	program string
	argv    []string // with $CONFIG
	config  string
	backend func(testing.TB) string
}

func nginx(http string) proxy {
	return proxy{program: "nginx", argv: []string{"-c", "$CONFIG", "-p", "$DIR", "-e", "stderr"}, config: `
daemon off; master_process off; pid $DIR/pid; error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path $DIR/a; proxy_temp_path $DIR/b; fastcgi_temp_path $DIR/c; uwsgi_temp_path $DIR/d; scgi_temp_path $DIR/e;
	server {` + http + `}
}`}
}

func haproxy(frontend, backend string) proxy {
	return proxy{program: "haproxy", argv: []string{"-db", "-q", "-f", "$CONFIG"}, config: `
defaults
	mode http
	retries 0
	timeout connect 1s
	timeout client 5s
	timeout server 5s
frontend f
	` + frontend + `
	default_backend b
backend b
	` + backend + `
`}
}

func (p proxy) behind(start func(testing.TB) string) proxy {
	p.backend = start
	return p
}

// start runs the program until the end of the test.
func (p proxy) start(t testing.TB, pki *zoo.PKI) string {
	t.Helper()
	path := testenv.Program(t, p.program)
	dir, err := os.MkdirTemp("", "zoo") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	backend := "127.0.0.1:1" // where nobody listens
	if p.backend != nil {
		backend = p.backend(t)
	}
	socket, config := filepath.Join(dir, "s"), filepath.Join(dir, "config")
	fill := strings.NewReplacer("$SOCKET", socket, "$DIR", dir, "$CONFIG", config, "$BACKEND", backend, "$CERT", zoo.CertFile(t, pki.Server))
	if err := os.WriteFile(config, []byte(fill.Replace(p.config)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	for _, a := range p.argv {
		cmd.Args = append(cmd.Args, fill.Replace(a))
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return "unix:" + socket
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s has ended: %v\n%s", p.program, err, &stderr)
		default:
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%s does not listen\n%s", p.program, &stderr)
		}
	}
}

// TestPrograms probes servers and proxies that are programs of their own.
func TestPrograms(t *testing.T) {
	t.Parallel()
	pki := zoo.NewPKI(t)
	server := func(t testing.TB) string { return zoo.Server(t, pki) }
	for _, a := range []animal{
		{
			name: "nginx", start: nginx(`listen unix:$SOCKET; return 200 "hello\n";`).start,
			exit: 0, findings: []string{"http1-only"},
			ways: map[string]string{"http1": "works", "http1.0": "works", "h2": "not offered", "grpc": "not offered", "handshake": "not offered"},
		},
		{
			name: "nginx-http2", start: nginx(`listen unix:$SOCKET ssl http2; ssl_certificate $CERT; ssl_certificate_key $CERT; return 200 "hello\n";`).start, files: trusted,
			exit: 0, findings: []string{"tls-only"},
			ways: map[string]string{"http1": "not offered", "handshake": "works", "tls-http1": "works", "tls-h2": "works", "tls-grpc": "not offered"},
		},
		{
			name: "nginx-without-http2", start: nginx(`listen unix:$SOCKET ssl; ssl_certificate $CERT; ssl_certificate_key $CERT; return 200 "hello\n";`).start, files: trusted,
			exit: 0, findings: []string{"tls-only", "tls-http1-only"},
			ways: map[string]string{"tls-http1": "works", "tls-h2": "not offered", "tls-grpc": "not offered"},
		},
		{
			name: "nginx-grpc-pass", start: nginx(`listen unix:$SOCKET http2; location / { grpc_pass grpc://$BACKEND; }`).behind(zoo.GRPC).start,
			exit: 0,
			ways: map[string]string{"http1": "not offered", "h2-strict": "works", "grpc": "works"},
		},
		{
			name: "nginx-proxy-protocol", start: nginx(`listen unix:$SOCKET proxy_protocol; return 200 "hello\n";`).start, args: short,
			exit: 1, findings: []string{"proxy-required"},
			ways: map[string]string{"proxy-v1": "works", "proxy-v2": "works"},
		},
		{
			name: "haproxy", start: haproxy("bind unix@$SOCKET", "server s $BACKEND").behind(zoo.HTTP1).start,
			exit: 0,
			ways: map[string]string{"http1": "works", "h2": "works", "h2-strict": "works", "grpc": "not offered"},
		},
		{
			name: "haproxy-oneport", start: haproxy("bind unix@$SOCKET", "server s $BACKEND proto h2").behind(server).start,
			exit: 0,
			ways: map[string]string{"http1": "works", "h2": "works", "h2-strict": "works", "grpc": "works", "mixed": "works"},
		},
		{
			name: "haproxy-alpn", start: haproxy("bind unix@$SOCKET ssl crt $CERT alpn h2,http/1.1", "server s $BACKEND proto h2").behind(server).start, files: trusted,
			exit: 0, findings: []string{"tls-only"},
			ways: map[string]string{"handshake": "works", "tls-http1": "works", "tls-h2": "works", "tls-grpc": "works", "tls-mixed": "works"},
		},
		{
			name: "haproxy-without-a-server", start: haproxy("bind unix@$SOCKET", "server s $BACKEND").start,
			exit: 1, findings: []string{"grpc-answered-by-http", "gateway-error"},
			ways: map[string]string{"http1": "works, but"},
		},
		{
			name: "haproxy-accept-proxy", start: haproxy("bind unix@$SOCKET accept-proxy", "server s $BACKEND").behind(zoo.HTTP1).start, args: short,
			exit: 1, findings: []string{"proxy-required"},
			ways: map[string]string{"proxy-v1": "works", "proxy-v2": "works"},
		},
		{
			name: "haproxy-http1-to-grpc", start: haproxy("bind unix@$SOCKET", "server s $BACKEND").behind(zoo.GRPC).start,
			exit: 1, findings: []string{"grpc-answered-by-http", "gateway-error"},
			ways: map[string]string{"http1": "works, but", "grpc": "refused"},
		},
	} {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			checkAnimal(t, a, pki)
		})
	}
}

// TestQuickstart probes the example that users try first, as they do.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "quickstart")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../examples/quickstart")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	checkAnimal(t, animal{
		start: func(t testing.TB, _ *zoo.PKI) string {
			cmd := exec.Command(program, "-addr", "127.0.0.1:0")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				cmd.Process.Kill()
				cmd.Wait()
			})
			line, err := bufio.NewReader(stdout).ReadString('\n')
			_, addr, ok := strings.Cut(line, "http://")
			addr, _, _ = strings.Cut(addr, "/")
			if err != nil || !ok {
				t.Fatalf("it says %q, %v", line, err)
			}
			return addr
		},
		exit: 0, findings: []string{"certificate-authority"},
		ways: map[string]string{
			"http1": "works", "http1.0": "works", "h2": "works", "h2-strict": "works", "idle": "works", "grpc": "works", "mixed": "works",
			"upgrade": "works", "upgrade-options": "works", "handshake": "works, but", "tls-http1": "works", "tls-h2": "works",
			"tls-h2-no-alpn": "works", "tls-grpc": "works", "tls-mixed": "works",
		},
	}, nil)
}
