package oneport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/testenv"
)

// fewFiles is the environment variable by which the test binary is a server that may open few files, and which kind of
// one.
const fewFiles = "ONEPORT_TEST_FEW_FILES"

// TestFewFilesServer is that server. It serves until its standard input ends.
func TestFewFilesServer(t *testing.T) {
	if os.Getenv(fewFiles) == "" {
		t.Skip("is run by TestFewFiles")
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 400, Max: 400}); err != nil {
		t.Fatal(err)
	}
	gs := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		<-stream.Context().Done()
		return nil
	}))
	healthpb.RegisterHealthServer(gs, health.NewServer())
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			w.Write(make([]byte, 4*h2.DefaultWindow))
		}
	})
	s := &Server{GRPC: gs, Handler: handler, PerConnection: os.Getenv(fewFiles) == "by connection", Logger: quiet}
	l := listen(t, "tcp")
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	fmt.Println("serving", l.Addr())
	io.Copy(io.Discard, os.Stdin)
	s.Close()
	if err := <-served; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// serveFewFiles starts the server, and returns its address.
func serveFewFiles(t *testing.T, kind string) net.Addr {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFewFilesServer$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), fewFiles+"="+kind)
	_, lines := testenv.Start(t, cmd)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr, err := net.ResolveTCPAddr("tcp", strings.TrimSpace(strings.TrimPrefix(line, "serving ")))
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// goodClients makes a request of each kind in cleartext.
func goodClients(t *testing.T, addr net.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, client := range youngClients {
		if strings.Contains(client.name, "TLS") {
			continue
		}
		err := client.request(ctx, addr.String(), func() (net.Conn, error) { return net.Dial("tcp", addr.String()) })
		if err != nil {
			t.Errorf("%s: %v", client.name, err)
		}
	}
}

// TestFewFiles checks that good clients are served throughout by a process that has no files left: clients that ask for
// nothing make room, and those that are gone take none, whatever was queued for them.
func TestFewFiles(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"by request", "by connection"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			addr := serveFewFiles(t, kind)
			for i := range 600 {
				c, err := net.Dial("tcp", addr.String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				write(t, c, []byte(h2.Preface+settingsFrame))
				if i >= 350 && i%25 == 0 {
					goodClients(t, addr)
				}
			}
			goodClients(t, addr)
		})
	}
	t.Run("answers queued", func(t *testing.T) {
		t.Parallel()
		addr := serveFewFiles(t, "by request")
		flight := requestsWithoutCredit()
		for i := range 420 {
			leaveWithAnswersQueued(t, addr, flight)
			if i%20 == 0 {
				goodClients(t, addr)
			}
		}
		goodClients(t, addr)
	})
}

// requestsWithoutCredit are a request that is not answered, and one whose answer is longer than the window of the
// connection.
func requestsWithoutCredit() []byte {
	var b, block bytes.Buffer
	fr, enc := http2.NewFramer(&b, nil), hpack.NewEncoder(&block)
	b.WriteString(h2.Preface)
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	for i, fields := range [][]string{
		{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/long"},
		{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/t.T/Hang", "content-type", "application/grpc", "te", "trailers"},
	} {
		block.Reset()
		for f := 0; f < len(fields); f += 2 {
			enc.WriteField(hpack.HeaderField{Name: fields[f], Value: fields[f+1]})
		}
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	}
	return b.Bytes()
}

// leaveWithAnswersQueued makes the requests, and leaves when all has come that there is credit for.
func leaveWithAnswersQueued(t *testing.T, addr net.Addr, flight []byte) {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	write(t, c, flight)
	fr := http2.NewFramer(nil, c)
	for credit := uint32(h2.DefaultWindow); credit > 0; {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*http2.DataFrame); ok {
			credit -= d.Length
		}
	}
}
