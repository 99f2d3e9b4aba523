package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/oneport-go/oneport/internal/testenv"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

// start serves until the test ends.
func start(t *testing.T) (addr string) {
	t.Helper()
	addr, _, _ = startUntil(t)
	return addr
}

// startUntil serves until stop is called or the test ends. Then done gets what run returned.
func startUntil(t *testing.T) (addr string, stop func(), done <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	result := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		result <- run(ctx, l)
	}()
	t.Cleanup(func() { stop(); <-ended })
	return l.Addr().String(), stop, result
}

func httpClient(t *testing.T) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func do(t *testing.T, c *http.Client, method, url string, content io.Reader) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, content)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, got
}

func TestHTTPClient(t *testing.T) {
	t.Parallel()
	url := "http://" + start(t)
	client := httpClient(t)
	upload := make([]byte, 1<<20)
	rand.Read(upload)
	for _, tt := range []struct {
		method, path string
		content      []byte
		status       int
		want         []byte
	}{
		{"GET", "/", nil, 200, hello},
		{"GET", "/?query", nil, 200, hello},
		{"HEAD", "/", nil, 200, nil},
		{"GET", "/large", nil, 200, large},
		{"HEAD", "/large", nil, 200, nil},
		{"POST", "/echo", upload, 200, upload},
		{"POST", "/echo", nil, 200, nil},
		{"GET", "/echo", nil, 405, []byte("The method is not allowed here.\n")},
		{"POST", "/", upload, 405, []byte("The method is not allowed here.\n")},
		{"GET", "/other", nil, 404, []byte("There is nothing here.\n")},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			res, got := do(t, client, tt.method, url+tt.path, bytes.NewReader(tt.content))
			if res.StatusCode != tt.status || res.ProtoMajor != 2 || !bytes.Equal(got, tt.want) {
				t.Errorf("%s with %d bytes, want %d with %d", res.Status, len(got), tt.status, len(tt.want))
			}
		})
	}
}

// TestStreams has more requests at once than the connection's window has room for, in both directions.
func TestStreams(t *testing.T) {
	t.Parallel()
	url := "http://" + start(t)
	client := httpClient(t)
	do(t, client, "GET", url, nil) // so that there is one connection, with the server's settings
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if i%2 == 0 {
				if _, got := do(t, client, "GET", url+"/large", nil); !bytes.Equal(got, large) {
					t.Errorf("a large response with %d bytes, want %d", len(got), len(large))
				}
				return
			}
			upload := bytes.Repeat([]byte{byte(i)}, 200_000+i)
			if _, got := do(t, client, "POST", url+"/echo", bytes.NewReader(upload)); !bytes.Equal(got, upload) {
				t.Errorf("an echo with %d bytes, want %d", len(got), len(upload))
			}
		})
	}
	wg.Wait()
}

// TestCancel ends requests in the middle, and looks whether the connection's windows are whole after that.
func TestCancel(t *testing.T) {
	t.Parallel()
	url := "http://" + start(t)
	client := httpClient(t)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		pr, pw := io.Pipe()
		req, err := http.NewRequestWithContext(ctx, "POST", url+"/echo", pr)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			pw.Write(make([]byte, 100_000))
			pw.Close()
		}()
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
		cancel()
		res.Body.Close()
		pr.Close()
	}
	upload := make([]byte, 300_000)
	if _, got := do(t, client, "POST", url+"/echo", bytes.NewReader(upload)); !bytes.Equal(got, upload) {
		t.Errorf("an echo with %d bytes, want %d", len(got), len(upload))
	}
}

func TestHTTP1(t *testing.T) {
	t.Parallel()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	res, got := do(t, client, "GET", "http://"+start(t), nil)
	if res.ProtoMajor != 1 || !strings.Contains(string(got), "HTTP/1 works here too") {
		t.Errorf("%s: %s", res.Proto, got)
	}
}

// TestShutdown stops the server while a client waits for the end of its request.
func TestShutdown(t *testing.T) {
	t.Parallel()
	addr, stop, done := startUntil(t)
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr+"/echo", pr)
	if err != nil {
		t.Fatal(err)
	}
	res, err := httpClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	stop()
	for { // until the listener is closed, which comes first
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		c.Close()
	}
	select {
	case err := <-done:
		t.Fatalf("the server has stopped, with the error %v, while a request was running", err)
	default:
	}
	if _, err := io.WriteString(pw, "to the end"); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || string(got) != "to the end" {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestShutdownCutsOff has a client that never ends its request.
func TestShutdownCutsOff(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(slog.Default())
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serve(l)
	}()
	defer func() { l.Close(); <-served }()
	c := dial(t, l.Addr().String())
	c.request(1, false, "POST", "/echo")
	if got := c.next(); got != "HEADERS 1 200" {
		t.Fatal(got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// TestPrograms has other people's clients.
func TestPrograms(t *testing.T) {
	t.Parallel()
	addr := start(t)
	upload := t.TempDir() + "/upload"
	if err := os.WriteFile(upload, large, 0o600); err != nil {
		t.Fatal(err)
	}
	curl := []string{"curl", "--http2-prior-knowledge", "--no-progress-meter", "--fail", "--noproxy", "*"}
	for _, tt := range []struct {
		name string
		argv []string
		want []byte
	}{
		{"curl", append(curl, "http://"+addr+"/"), hello},
		{"curl, a large response", append(curl, "http://"+addr+"/large"), large},
		{"curl, an upload", append(curl, "--data-binary", "@"+upload, "http://"+addr+"/echo"), large},
		{"nghttp", []string{"nghttp", "http://" + addr + "/"}, hello},
		{"nghttp, a large response", []string{"nghttp", "http://" + addr + "/large"}, large},
		{"nghttp, an upload", []string{"nghttp", "-d", upload, "http://" + addr + "/echo"}, large},
		{"nghttp, small windows", []string{"nghttp", "-w", "10", "-W", "11", "http://" + addr + "/large"}, large},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			testenv.Program(t, tt.argv[0])
			var stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), tt.argv[0], tt.argv[1:]...)
			cmd.Stderr = &stderr
			got, err := cmd.Output()
			if err != nil {
				t.Fatalf("%q: %v\n%s", tt.argv, err, &stderr)
			}
			if !bytes.Equal(got, tt.want) {
				t.Errorf("%q: %d bytes, want %d", tt.argv, len(got), len(tt.want))
			}
		})
	}
}
