package contender

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"text/template"
	"time"
)

// A proxy is a program in front of the two servers of plain.
type proxy struct {
	program  string // its name, and where it is if not in PATH
	path     string
	args     func(config string) []string
	config   *template.Template
	twoPorts bool // in the clear: one for HTTP/1, and one for HTTP/2
}

// find returns the path of the program.
func (p *proxy) find() (string, error) {
	if path, err := exec.LookPath(p.program); err == nil {
		return path, nil
	}
	return exec.LookPath(p.path)
}

var haproxy = &proxy{
	program: "haproxy", path: "/usr/sbin/haproxy",
	args: func(config string) []string { return []string{"-db", "-f", config} },
	config: template.Must(template.New("haproxy").Parse(`
global
  nbthread {{.Threads}}
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend port
  bind {{.HTTP}}{{if .Certificate}} ssl crt {{.Certificate}} alpn h2,http/1.1{{end}}
  use_backend grpc if { req.hdr(content-type) -m beg application/grpc }
  default_backend web
backend grpc
  server grpc {{.GRPCServer}} proto h2
backend web
  http-reuse always
  server web {{.HTTPServer}}
`)),
}

var nginx = &proxy{
	program: "nginx", path: "/usr/sbin/nginx", twoPorts: true,
	args: func(config string) []string { return []string{"-p", filepath.Dir(config), "-c", config} },
	config: template.Must(template.New("nginx").Parse(`
daemon off;
worker_processes {{.Threads}};
pid {{.Dir}}/pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path {{.Dir}}; proxy_temp_path {{.Dir}}; fastcgi_temp_path {{.Dir}}; uwsgi_temp_path {{.Dir}}; scgi_temp_path {{.Dir}};
  keepalive_requests 1000000;
  http2_max_requests 1000000;
  upstream web { server {{.HTTPServer}}; keepalive 64; keepalive_requests 1000000; }
  upstream grpc { server {{.GRPCServer}}; keepalive 64; keepalive_requests 1000000; }
{{- if .Certificate}}
  ssl_certificate {{.Certificate}};
  ssl_certificate_key {{.Certificate}};
  ssl_session_tickets off;
{{- end}}
  server {
    listen {{.HTTP}}{{if .Certificate}} ssl http2{{end}};
    location / { proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection ""; }
    location /grpc. { grpc_pass grpc://grpc; }
  }
{{- if not .Certificate}}
  server {
    listen {{.GRPC}} http2;
    location / { grpc_pass grpc://grpc; }
  }
{{- end}}
}
`)),
}

// proxyTimeout is how long a proxy may take to listen.
const proxyTimeout = 10 * time.Second

// serve has plain serve in this process, in the clear, and the proxy in front of it.
func (p *proxy) serve(s *setup) error {
	path, err := p.find()
	if err != nil {
		return err
	}
	certificate := s.tls
	s.config.TLS = false
	if err := servePlain(s); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", p.program)
	if err != nil {
		return err
	}
	s.atEnd(func() { os.RemoveAll(dir) })
	values := struct {
		Dir, Certificate, HTTP, GRPC, HTTPServer, GRPCServer string
		Threads                                              int
	}{Dir: dir, HTTPServer: s.addresses.HTTP, GRPCServer: s.addresses.GRPC, Threads: runtime.GOMAXPROCS(0)}
	if s.config.Processors != nil {
		values.Threads = len(s.config.Processors)
	}
	if certificate != nil {
		values.Certificate = filepath.Join(dir, "certificate.pem")
		if err := writeCertificate(values.Certificate, certificate.Certificates[0]); err != nil {
			return err
		}
	}
	if values.HTTP, err = freeAddress(); err != nil {
		return err
	}
	values.GRPC = values.HTTP
	if p.twoPorts && certificate == nil {
		if values.GRPC, err = freeAddress(); err != nil {
			return err
		}
	}
	s.addresses = Addresses{HTTP: values.HTTP, GRPC: values.GRPC}
	var config bytes.Buffer
	if err := p.config.Execute(&config, values); err != nil {
		return err
	}
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, config.Bytes(), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(path, p.args(file)...)
	cmd.Stderr = os.Stderr
	dieWithParent(cmd)
	// The thread that starts the process has to live as long as it (prctl(2), PR_SET_PDEATHSIG).
	started, gone := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		close(gone)
		select {
		case s.ended <- errors.Join(errors.New(p.program+" has ended"), err):
		default:
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.atEnd(func() {
		// It ends its workers itself.
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-gone:
		case <-time.After(proxyTimeout / 4):
			cmd.Process.Kill()
		}
	})
	watch(cmd.Process.Pid)
	for until := time.Now().Add(proxyTimeout); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", values.GRPC)
		if err == nil {
			c.Close()
			return nil
		}
		select {
		case err := <-s.ended:
			return err
		default:
		}
		if time.Now().After(until) {
			return fmt.Errorf("%s does not listen: %w", p.program, err)
		}
	}
}

// freeAddress is one that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return "127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

// writeCertificate writes a certificate and its key in one file.
func writeCertificate(path string, c tls.Certificate) error {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	return os.WriteFile(path, b, 0o600)
}
