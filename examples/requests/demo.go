package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/oneport-go/oneport/examples/quickstart/greeterpb"
)

//go:embed haproxy.cfg
var haproxyConfig []byte

// errNoHAProxy is the error of the demo if HAProxy is not installed.
var errNoHAProxy = errors.New("the demonstration needs the program haproxy (on Debian: apt-get install haproxy)")

// demo shows what reaches the servers through HAProxy.
func demo(ctx context.Context, stdout io.Writer) (err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := newServer(l)
	defer func() { err = errors.Join(err, s.stop()) }()
	proxy, stop, err := startHAProxy(ctx, l.Addr().String())
	if err != nil {
		return err
	}
	defer stop()
	const each = 50
	if err := callBoth(ctx, proxy, each); err != nil {
		return err
	}
	stats := s.mux.Stats()
	fmt.Fprintf(stdout, "%d gRPC calls and %d REST requests, each answered by its own server, came over connections of HAProxy: %d, of which %d carried both kinds.\n",
		each, each, stats.Accepted, stats.Split)
	return nil
}

// callBoth makes requests of both kinds at once, half of them at a time.
func callBoth(ctx context.Context, addr string, each int) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := greeterpb.NewGreeterClient(conn)
	rest := &http.Client{Transport: &http.Transport{}}
	defer rest.CloseIdleConnections()

	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, 2*each)
	for i := range each {
		name := fmt.Sprintf("client %d", i)
		wg.Go(func() {
			r, err := client.SayHello(ctx, &greeterpb.SayHelloRequest{Name: name})
			if err == nil && (r.Message != "Hello, "+name || r.Protocol != "gRPC") {
				err = fmt.Errorf("SayHello answered %q over %s", r.Message, r.Protocol)
			}
			errs[2*i] = err
		})
		wg.Go(func() { errs[2*i+1] = get(ctx, rest, addr, name) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func get(ctx context.Context, c *http.Client, addr, name string) error {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/v1/hello/"+strings.ReplaceAll(name, " ", "%20"), nil)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if want := fmt.Sprintf("{\"message\":\"Hello, %s\",\"protocol\":\"HTTP/2.0\"}\n", name); err == nil && string(b) != want {
		err = fmt.Errorf("GET answered %s, %q", res.Status, b)
	}
	return err
}

// startHAProxy starts HAProxy in front of the server at addr. It returns its address and a function that stops it.
func startHAProxy(ctx context.Context, addr string) (proxy string, stop func(), err error) {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		// Debian installs it where ordinary users do not look.
		if program, err = exec.LookPath("/usr/sbin/haproxy"); err != nil {
			return "", nil, errNoHAProxy
		}
	}
	dir, err := os.MkdirTemp("", "oneport-requests")
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	config := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(config, haproxyConfig, 0o600); err != nil {
		return "", nil, err
	}
	// HAProxy inherits a listening socket, so its port cannot be taken.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return "", nil, err
	}
	defer file.Close()
	var output strings.Builder
	cmd := exec.CommandContext(ctx, program, "-db", "-f", config)
	cmd.Env = append(os.Environ(), "APP_ADDR="+addr, "PROXY_ADDR=fd@3")
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	return l.Addr().String(), func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		os.RemoveAll(dir)
	}, nil
}
