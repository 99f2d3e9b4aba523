package oneport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
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

// A closing listener reports when it was closed.
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

// patient are limits that are generous enough for busy machines.
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
				refused := watchRefusals(m)
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

// TestShutdown shuts down a mux that has a client in every phase.
func TestShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		route := m.Match(HTTP1())
		serve(t, m)
		silent, partial, queued, accepted := dial(t, root), dial(t, root), dial(t, root), dial(t, root)
		write(t, partial, []byte("GET"))
		go io.WriteString(accepted, "GET /accepted HTTP/1.1\r\n")
		server := accept(t, route)
		go io.WriteString(queued, "GET /queued HTTP/1.1\r\n")
		time.Sleep(2 * DefaultShutdownGrace)

		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- m.Shutdown(t.Context()) }()
		if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the silent client got %v", err)
		}
		if resp := readResponse(t, partial); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("the client with half a request got %s", resp.Status)
		}
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Shutdown returned %v before the matched connection had reached its server", err)
		default:
		}
		second := accept(t, route)
		if err := <-done; err != nil || time.Since(start) != beginTime {
			t.Errorf("Shutdown returned %v after %v", err, time.Since(start))
		}
		if _, err := route.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Shutdown, Accept returned %v", err)
		}
		for path, c := range map[string]net.Conn{"/accepted": server, "/queued": second} {
			b := make([]byte, 64)
			if n, _ := c.Read(b); !strings.HasPrefix(string(b[:n]), "GET "+path+" ") {
				t.Errorf("a server read %q, want a request for %s", b[:n], path)
			}
		}
		if _, err := root.dial(); err == nil {
			t.Error("after Shutdown, a client connected")
		}
	})
}

// TestInterruptedBeforeItWaits checks that a client whose request is there before the mux stops, and which has no route
// yet, is answered.
func TestInterruptedBeforeItWaits(t *testing.T) {
	t.Parallel()
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", string(headerFlight(":method", "GET", ":path", "/"))} {
		root := listen(t, "tcp")
		m := newMux(root)
		asked, interrupted := make(chan struct{}, 1), make(chan struct{})
		m.Match(MatcherFunc(func(p *Preview) Verdict {
			if len(p.Bytes()) == 0 {
				return Undecided
			}
			asked <- struct{}{}
			<-interrupted
			return Yes
		}))
		serve(t, m)
		client := dial(t, root)
		write(t, client, []byte(request))
		<-asked
		m.lobby.Stop()
		close(interrupted)
		done := make(chan error, 1)
		go func() { done <- m.Shutdown(t.Context()) }()
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if b, err := io.ReadAll(client); err != nil || !strings.Contains(string(b), "The server is shutting down.") {
			t.Errorf("the client read %q, %v", b, err)
		}
		client.Close()
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
}

// TestShutdownInTime checks that Shutdown ends with its context, and with DecideTimeout, when a server does not accept,
// and leaves nothing.
func TestShutdownInTime(t *testing.T) {
	t.Parallel()
	for limit, want := range map[time.Duration]string{
		DefaultDecideTimeout / 2: context.DeadlineExceeded.Error(),
		0:                        "did not accept them within 10s",
	} {
		synctest.Test(t, func(t *testing.T) {
			root := newPipeListener()
			m := newMux(root)
			m.Match(HTTP1())
			serve(t, m)
			queued := dial(t, root)
			go io.WriteString(queued, "GET / HTTP/1.1\r\n")
			synctest.Wait()
			ctx := t.Context()
			ends := DefaultDecideTimeout
			if limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, limit)
				defer cancel()
				ends = limit
			}
			start := time.Now()
			answer := make(chan string, 1)
			go func() {
				b, _ := bufio.NewReader(queued).ReadString('\n')
				answer <- b
				queued.Close()
			}()
			if err := m.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), want) || time.Since(start) != ends {
				t.Errorf("Shutdown returned %v after %v, want %q after %v", err, time.Since(start), want, ends)
			}
			if got := <-answer; !strings.HasPrefix(got, "HTTP/1.1 503 ") {
				t.Errorf("the client got %q", got)
			}
		})
	}
}

// stubborn is a connection whose deadlines have no effect, or cannot be set.
type stubborn struct {
	net.Conn
	err error
}

func (c stubborn) SetDeadline(time.Time) error      { return c.err }
func (c stubborn) SetReadDeadline(time.Time) error  { return c.err }
func (c stubborn) SetWriteDeadline(time.Time) error { return c.err }

type stubbornListener struct {
	*pipeListener
	err error
}

func (l stubbornListener) Accept() (net.Conn, error) {
	c, err := l.pipeListener.Accept()
	if err != nil {
		return nil, err
	}
	return stubborn{c, l.err}, nil
}

// TestWithoutDeadlines checks that connections that have no deadlines are still bounded in time.
func TestWithoutDeadlines(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"timeout", "evicted", "Shutdown"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(stubbornListener{root, errors.ErrUnsupported})
				m.MaxUndecided = 1
				route := m.Match(HTTP1())
				serve(t, m)

				slow := dial(t, root) // is served
				write(t, slow, []byte("GET / "))
				time.Sleep(time.Second)
				go io.WriteString(slow, "HTTP/1.1\r\n")
				server := accept(t, route)
				time.Sleep(time.Hour)
				buf := make([]byte, 100)
				if n, err := server.Read(buf); string(buf[:n]) != "GET / HTTP/1.1\r\n" {
					t.Errorf("the server read %q, %v", buf[:n], err)
				}

				start := time.Now()
				silent := dial(t, root)
				synctest.Wait()
				want := time.Duration(0)
				switch how {
				case "timeout":
					want = DefaultDecideTimeout
				case "evicted":
					dial(t, root)
				case "Shutdown":
					want = DefaultShutdownGrace
					m.Shutdown(t.Context())
				}
				if _, err := silent.Read(buf); err != io.EOF || time.Since(start) != want {
					t.Errorf("the silent client got %v after %v, want the end after %v", err, time.Since(start), want)
				}
			})
		})
	}
	t.Run("Shutdown in time", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			root := newPipeListener()
			m := newMux(stubbornListener{root, nil})
			m.Match(HTTP1())
			serve(t, m)
			client := dial(t, root)
			write(t, client, []byte("GET "))
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := m.Shutdown(ctx); err != context.DeadlineExceeded {
				t.Errorf("Shutdown returned %v", err)
			}
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the client got %v", err)
			}
		})
	})
}

// TestCloseSilent checks that whoever else reads from a silent connection when the mux is closed finds it closed,
// rather than a deadline that was set to interrupt the mux. A test of cmux's own does that.
func TestCloseSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.Match(HTTP1())
		serve(t, m)
		client, server := net.Pipe()
		defer client.Close()
		root.conns <- server
		read := make(chan error, 1)
		go func() {
			_, err := server.Read(nil)
			read <- err
		}()
		synctest.Wait()
		m.Close()
		if err := <-read; !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("reading failed with %v, want %v", err, io.ErrClosedPipe)
		}
	})
}

// TestCloseInAnyOrder closes the listener below, a route and the mux in every order, with clients in every state. That
// no goroutine is left is checked for the whole of the tests.
func TestCloseInAnyOrder(t *testing.T) {
	t.Parallel()
	orders := [][]string{{}}
	for range 4 {
		var longer [][]string
		for _, order := range orders {
			for _, what := range []string{"root", "route", "other", "mux", "shutdown"} {
				if !strings.Contains(strings.Join(order, " "), what) {
					longer = append(longer, append(order[:len(order):len(order)], what))
				}
			}
		}
		orders = longer
	}
	for _, order := range orders {
		t.Run(strings.Join(order, ","), func(t *testing.T) {
			t.Parallel()
			root := listen(t, "tcp")
			m := newMux(root)
			m.QueueLength = 1
			matcher, seen := looks(HTTP1("GET"))
			route := m.Match(matcher)
			other := m.Match(HTTP1("PUT"))
			done := make(chan error, 1)
			go func() { done <- m.Serve() }()

			var clients sync.WaitGroup
			for _, sends := range []string{"", "G", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\x00"} {
				c := dial(t, root)
				write(t, c, []byte(sends))
				for <-seen != len(sends) {
				}
				clients.Go(func() {
					c.SetReadDeadline(time.Now().Add(10 * time.Second))
					if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("the connection of the client that sent %q was left open", sends)
					}
					c.Close()
				})
			}
			accepting := make(chan error, 1)
			go func() {
				for {
					c, err := other.Accept()
					if err != nil {
						accepting <- err
						return
					}
					c.Close()
				}
			}()
			for _, what := range order {
				switch what {
				case "root":
					root.Close()
				case "route":
					route.Close()
				case "other":
					other.Close()
				case "mux":
					m.Close()
				case "shutdown":
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					m.Shutdown(ctx)
				}
			}
			m.Close()
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Errorf("Serve returned %v", err)
			}
			if err := <-accepting; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept returned %v", err)
			}
			clients.Wait()
			if s := m.Stats(); s.Undecided != 0 || s.Queued != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestRouteClosed checks that closing one route does not affect the others, and that its clients are refused.
func TestRouteClosed(t *testing.T) {
	t.Parallel()
	root := listen(t, "tcp")
	m := newMux(root)
	h1, h2 := m.Match(HTTP1()), m.Match(HTTP2())
	serve(t, m)

	queued := dial(t, root)
	write(t, queued, []byte("GET / HTTP/1.1\r\n\r\n"))
	for m.Stats().Queued == 0 {
		time.Sleep(time.Millisecond)
	}
	accepting := make(chan error, 1)
	go func() {
		_, err := h2.Accept()
		accepting <- err
	}()
	h1.Close()
	h1.Close()
	if _, err := h1.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of the closed route returned %v", err)
	}
	late := dial(t, root)
	write(t, late, []byte("GET / HTTP/1.1\r\n\r\n"))
	for _, c := range []net.Conn{queued, late} {
		if resp := readResponse(t, c); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a client of the closed route got %s", resp.Status)
		}
	}
	write(t, dial(t, root), capture(t, "node-http2.1"))
	if err := <-accepting; err != nil {
		t.Errorf("Accept of the other route returned %v", err)
	}
}
