package attack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/grpccreds"
	"github.com/oneport-go/oneport/internal/testenv"
)

// The test binary is the process of the server, too.
func TestMain(m *testing.M) {
	if kind := os.Getenv("ONEPORT_ATTACKED"); kind != "" {
		if err := serve(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// load is what a server has to bear.
type load struct {
	Addr    string
	Memory  int64 // resident, in bytes
	Running int64 // the most handlers at a time since it was asked last

	Shared, Left int // connections that are shared, and all that are in the hands of oneport
}

const (
	maxBuffered  = 128 << 10 // of the server for slow connections
	shutdownTime = 3 * time.Second
)

// answer is more than a connection takes of it without credit.
var answer = make([]byte, 400<<10)

// serve is the process of the server: net/http, grpc-go, or both by oneport.
func serve(kind string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var running, most atomic.Int64
	work := func(ctx context.Context) {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-ctx.Done()
	}
	rpc := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		if method, _ := grpc.MethodFromServerStream(s); method == "/s/big" {
			return s.SendMsg(wrapperspb.Bytes(answer))
		}
		work(s.Context())
		return nil
	}))
	healthpb.RegisterHealthServer(rpc, health.NewServer())
	web := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/s/hang":
			work(r.Context())
		case "/s/big":
			w.Write(answer)
		}
	})}
	oneport.ConfigureHTTP(web)
	var both *oneport.Server
	switch kind {
	case "grpc":
		go rpc.Serve(l)
	case "http":
		go web.Serve(l)
	default:
		both = &oneport.Server{GRPC: rpc, HTTP: web, Logger: slog.New(slog.DiscardHandler)}
		if kind == "slow" {
			both.MaxBuffered = maxBuffered
		}
		go both.Serve(l)
	}
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "shutdown" {
			ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
			both.Shutdown(ctx)
			cancel()
		}
		debug.FreeOSMemory()
		now := load{Addr: l.Addr().String(), Memory: resident(), Running: most.Swap(running.Load())}
		if both != nil {
			s := both.Stats()
			now.Shared, now.Left = s.Shared, s.Undecided+s.Queued+s.Refusing+s.Passing+s.Shared
		}
		if err := out.Encode(now); err != nil {
			return err
		}
	}
	return nil
}

// resident returns the resident size of the process.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages int64
	fmt.Fscan(strings.NewReader(string(b)), &size, &pages)
	return pages * int64(os.Getpagesize())
}

// A server is the process.
type server struct {
	t   *testing.T
	in  io.Writer
	out *json.Decoder
}

func start(t *testing.T, kind string) *server {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "ONEPORT_ATTACKED="+kind)
	cmd.Stderr = os.Stderr
	in, out := testenv.Start(t, cmd)
	return &server{t: t, in: in, out: json.NewDecoder(out)}
}

// load asks for what the server bears.
func (s *server) load() load { return s.do("") }

// do is load after a command.
func (s *server) do(command string) (l load) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, command+"\n"); err != nil {
		s.t.Fatal(err)
	}
	if err := s.out.Decode(&l); err != nil {
		s.t.Fatal(err)
	}
	return l
}
