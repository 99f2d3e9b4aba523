package oneport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport/internal/h2"
)

// A closing listener says when it was closed.
type closing struct {
	*recorder
	once   sync.Once
	closed chan struct{}
}

func (l *closing) Close() error {
	defer l.once.Do(func() { close(l.closed) })
	return l.recorder.Close()
}

// A held connection is connected, and sends nothing before it is released.
type held struct {
	net.Conn
	release <-chan struct{}
}

func (c held) Write(p []byte) (int, error) {
	<-c.release
	return c.Conn.Write(p)
}

// youngClients make a request on a connection of the dialer's.
var youngClients = []struct {
	name    string
	request func(ctx context.Context, addr string, dial func() (net.Conn, error)) error
}{
	{"HTTP/1", getWith("http", func(p *http.Protocols) { p.SetHTTP1(true) })},
	{"h2c", getWith("http", func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })},
	{"HTTP/1 over TLS", getWith("https", func(p *http.Protocols) { p.SetHTTP1(true) })},
	{"h2 over TLS", getWith("https", func(p *http.Protocols) { p.SetHTTP2(true) })},
	{"gRPC", checkWith(insecure.NewCredentials())},
	{"gRPC over TLS", func(ctx context.Context, addr string, dial func() (net.Conn, error)) error {
		return checkWith(credentials.NewTLS(clientTLS()))(ctx, addr, dial)
	}},
}

func getWith(scheme string, set func(*http.Protocols)) func(context.Context, string, func() (net.Conn, error)) error {
	return func(ctx context.Context, addr string, dial func() (net.Conn, error)) error {
		tr := &http.Transport{
			Protocols:       new(http.Protocols),
			TLSClientConfig: clientTLS(),
			DialContext:     func(context.Context, string, string) (net.Conn, error) { return dial() },
		}
		set(tr.Protocols)
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+"/", nil)
		if err != nil {
			return err
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		return err
	}
}

func checkWith(creds credentials.TransportCredentials) func(context.Context, string, func() (net.Conn, error)) error {
	return func(ctx context.Context, addr string, dial func() (net.Conn, error)) error {
		c, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(creds),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return dial() }))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	}
}

// realServers are grpc-go and net/http.
func realServers() (*grpc.Server, *http.Server) {
	gs := grpc.NewServer()
	healthpb.RegisterHealthServer(gs, health.NewServer())
	hs := &http.Server{Handler: protoHandler}
	ConfigureHTTP(hs)
	return gs, hs
}

// patient is for a busy machine.
var patient = Limits{ShutdownGrace: time.Minute, DecideTimeout: time.Minute, HandshakeTimeout: time.Minute}

func nobodyRefused(t *testing.T) Hooks {
	return Hooks{OnRefuse: func(r Refused) {
		if r.Reason != ReasonClientClosed {
			t.Errorf("refused for %q: %v", r.Reason, r.Err)
		}
	}}
}

// servingReal starts the ways to serve with real servers, and returns how to stop them gracefully.
var servingReal = []struct {
	name  string
	start func(t *testing.T, l net.Listener) (shutdown func(context.Context) error)
}{
	{"Mux", func(t *testing.T, l net.Listener) func(context.Context) error {
		m := newMux(l)
		m.Limits, m.Hooks = patient, nobodyRefused(t)
		gs, hs := realServers()
		inside := m.TLS(serverTLS())
		for _, match := range []func(...Matcher) net.Listener{m.Match, inside.Match} {
			grpcL, httpL := match(GRPC()), match(HTTP1(), HTTP2())
			go gs.Serve(grpcL)
			go hs.Serve(httpL)
		}
		return stopInOrder(t, m, gs, hs)
	}},
	{"Requests", func(t *testing.T, l net.Listener) func(context.Context) error {
		m := newMux(l)
		m.Limits, m.Hooks = patient, nobodyRefused(t)
		gs, hs := realServers()
		inside := m.TLS(serverTLS())
		for _, add := range []struct {
			requests func(...Matcher) *RequestMux
			match    func(...Matcher) net.Listener
		}{{m.Requests, m.Match}, {inside.Requests, inside.Match}} {
			q := add.requests()
			grpcL, restL, http1L := q.Match(GRPC()), q.Match(Any()), add.match(HTTP1())
			go gs.Serve(grpcL)
			go hs.Serve(restL)
			go hs.Serve(http1L)
		}
		return stopInOrder(t, m, gs, hs)
	}},
	{"Server", func(t *testing.T, l net.Listener) func(context.Context) error { return startReal(t, l, false) }},
	{"Server, PerConnection", func(t *testing.T, l net.Listener) func(context.Context) error { return startReal(t, l, true) }},
}

func stopInOrder(t *testing.T, m *Mux, gs *grpc.Server, hs *http.Server) func(context.Context) error {
	serve(t, m)
	t.Cleanup(func() {
		gs.Stop()
		hs.Close()
	})
	return func(ctx context.Context) error {
		err := m.Shutdown(ctx)
		gs.GracefulStop()
		return errors.Join(err, hs.Shutdown(ctx))
	}
}

func startReal(t *testing.T, l net.Listener, perConnection bool) func(context.Context) error {
	gs, hs := realServers()
	s := &Server{GRPC: gs, HTTP: hs, TLSConfig: serverTLS(), PerConnection: perConnection, Limits: patient, Hooks: nobodyRefused(t), Logger: quiet}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	return s.Shutdown
}

// TestYoungConnections checks that a client that was accepted a moment before Shutdown, and sends its request a moment
// after it, is served, as by the servers alone; also if TLS has to come before. (TestWaiting has those that say
// nothing.)
func TestYoungConnections(t *testing.T) {
	t.Parallel()
	const tries = 15
	for _, s := range servingReal {
		for _, client := range youngClients {
			t.Run(s.name+"/"+client.name, func(t *testing.T) {
				t.Parallel()
				// On a busy machine grpc-go and net/http can drop a connection that they were about to begin with when they
				// are told to stop, as they do alone (see beginTime); not each time.
				var err error
				for range 4 {
					if err = youngConnections(t, tries, s.start, client.request); err == nil {
						return
					}
				}
				t.Error(err)
			})
		}
	}
}

// youngConnections shuts down a port to which clients have connected, and returns what happened to their requests.
func youngConnections(t *testing.T, clients int, start func(*testing.T, net.Listener) func(context.Context) error,
	request func(context.Context, string, func() (net.Conn, error)) error) error {
	l := &closing{recorder: record(listen(t, "tcp")), closed: make(chan struct{})}
	shutdown := start(t, l)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	results := make(chan error, clients+1)
	for range clients {
		go func() {
			results <- request(ctx, l.Addr().String(), func() (net.Conn, error) {
				c, err := net.Dial("tcp", l.Addr().String())
				return held{c, l.closed}, err
			})
		}()
	}
	for range clients {
		<-l.conns
	}
	go func() { results <- shutdown(ctx) }()
	var errs []error
	for range clients + 1 {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// TestShutdownBeforeHandlers has a gRPC handler that ignores its context.
func TestShutdownBeforeHandlers(t *testing.T) {
	t.Parallel()
	for _, perConnection := range []bool{false, true} {
		entered, release := make(chan struct{}), make(chan struct{})
		gs := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
			close(entered)
			<-release
			return nil
		}))
		s := &Server{GRPC: gs, Handler: protoHandler, PerConnection: perConnection, Logger: quiet}
		l := listen(t, "tcp")
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		c, err := grpc.NewClient("passthrough:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		called := make(chan error, 1)
		go func() {
			_, err := healthpb.NewHealthClient(c).Check(context.Background(), &healthpb.HealthCheckRequest{})
			called <- err
		}()
		<-entered
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Errorf("Shutdown returned %v", err)
		}
		cancel()
		if err := <-called; err == nil {
			t.Error("the call has not failed")
		}
		<-served
		close(release)
		c.Close()
	}
}

// TestShutdownWithoutAccept has a server that does not accept what has a route, and a Shutdown that may take as long as
// it needs.
func TestShutdownWithoutAccept(t *testing.T) {
	t.Parallel()
	for name, match := range map[string]func(m *Mux) net.Listener{
		"Match":    func(m *Mux) net.Listener { return m.Match(Path("/")) },
		"Requests": func(m *Mux) net.Listener { return m.Requests().Match(Path("/")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				refused := make(chan Refused, 1)
				m.OnRefuse = func(r Refused) { refused <- r }
				match(m)
				serve(t, m)
				client := dial(t, root)
				answer := make(chan []byte, 1)
				go func() {
					b, _ := io.ReadAll(client)
					answer <- b
				}()
				write(t, client, []byte(h2.Preface+settingsFrame+getFrame))
				synctest.Wait()
				began := time.Now()
				err := m.Shutdown(context.Background())
				if err == nil || !strings.Contains(err.Error(), "did not accept them") {
					t.Errorf("Shutdown returned %v", err)
				}
				if took := time.Since(began); took < DefaultDecideTimeout || took > DefaultDecideTimeout+lingerTime {
					t.Errorf("Shutdown took %v", took)
				}
				// Both limits are DecideTimeout: for the server to accept its side, and for Shutdown to wait.
				if r := <-refused; r.Reason != ReasonRouteClosed && (name == "Match" || r.Reason != ReasonQueueFull) {
					t.Errorf("refused for %q", r.Reason)
				}
				w := waiting{speaks: ProtocolHTTP2}
				if got := w.told(<-answer); got != "NO_ERROR" {
					t.Errorf("the client was told %s", got)
				}
			})
		})
	}
}

// TestDispatchedEnd checks that what is dispatched ends with the context of Shutdown, and by Close, whatever it is in
// the middle of: a handler that does not end, answers for which the client gives no credit, or which it does not read.
func TestDispatchedEnd(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/hang") {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		for b := make([]byte, 64<<10); r.Context().Err() == nil; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
	ends := map[string]func(*Mux) error{
		"Close": (*Mux).Close,
		"Shutdown": func(m *Mux) error {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := m.Shutdown(ctx); err != context.DeadlineExceeded {
				return errors.Join(errors.New("Shutdown did not end with its context"), err)
			}
			return nil
		},
	}
	for _, tt := range []struct {
		name   string
		paths  []string
		window uint32
		reads  bool
	}{
		{"handler does not end", []string{"/a/hang"}, 0, true},
		{"handlers do not end", []string{"/a/hang", "/b/hang"}, 0, true},
		{"no credit", []string{"/a/endless"}, 0, true},
		{"no credit, shared", []string{"/a/hang", "/b/endless"}, 0, true},
		{"no credit for the connection, shared", []string{"/a/endless", "/b/endless"}, 1<<31 - 1, true},
		{"not read", []string{"/a/endless"}, 1<<31 - 1, false},
		{"not read, shared", []string{"/a/endless", "/b/endless"}, 1<<31 - 1, false},
	} {
		for how, end := range ends {
			for _, secure := range []bool{false, true} {
				name := tt.name + "/" + how
				if secure {
					name += "/TLS"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					root := listen(t, "tcp")
					m := newMux(root)
					requests := m.Requests
					if secure {
						requests = m.TLS(serverTLS()).Requests
					}
					q := requests()
					var servers sync.WaitGroup
					for _, prefix := range []string{"/a", "/b"} {
						hs := &http.Server{Handler: handler}
						ConfigureHTTP(hs)
						l := q.Match(Path(prefix))
						servers.Go(func() { hs.Serve(l) })
						defer hs.Close()
					}
					serve(t, m)
					var client net.Conn
					if secure {
						client = dialTLS(t, root, clientTLS("h2"))
					} else {
						client = dial(t, root)
					}
					var b bytes.Buffer
					b.WriteString(h2.Preface)
					fr := http2.NewFramer(&b, nil)
					fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: tt.window})
					if !tt.reads {
						fr.WriteWindowUpdate(0, 1<<30)
					}
					for i, path := range tt.paths {
						var block bytes.Buffer
						enc := hpack.NewEncoder(&block)
						for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", path}, {":authority", "a"}} {
							enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
						}
						fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
					}
					write(t, client, b.Bytes())
					// Each answer begins with its HEADERS.
					in := http2.NewFramer(nil, client)
					for seen := 0; seen < len(tt.paths); {
						f, err := in.ReadFrame()
						if err != nil {
							t.Fatal(err)
						}
						if f.Header().Type == http2.FrameHeaders {
							seen++
						}
					}
					if s := m.Stats(); s.Passing+s.Shared != 1 || (s.Shared == 1) != (len(tt.paths) == 2) {
						t.Errorf("Stats say %d passing and %d shared", s.Passing, s.Shared)
					}
					if err := end(m); err != nil {
						t.Error(err)
					}
					client.SetReadDeadline(time.Now().Add(10 * time.Second))
					_, err := io.Copy(io.Discard, client)
					if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
						t.Error("the connection has not ended")
					}
					servers.Wait()
					if s := m.Stats(); s.Passing+s.Shared+s.Queued+s.Undecided+s.Refusing != 0 {
						t.Errorf("Stats afterwards: %+v", s)
					}
				})
			}
		}
	}
}
