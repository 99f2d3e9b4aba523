package dispatch

import (
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/oneport-go/oneport/internal/h2"
)

// The differential test: the same client against a server alone, behind a dispatcher that passes everything through,
// and on a connection that is shared with another server. What the client sees of each stream, and whether the
// connection ends, has to be the same, but for what a script lists, with the reason.

// A script is what a client does. Streams from 101 on are its own; lower ones are for sharing the connection.
type script struct {
	name   string
	window uint32 // SETTINGS_INITIAL_WINDOW_SIZE of the client
	run    func(c *end)

	// The streams that the client resets. How far they have come by then depends on who got the connection's window.
	reset map[string]bool

	// What differs behind a dispatcher, in which mode, and why.
	differs map[string]map[string]string
	why     string
}

// rawCodec takes the messages of gRPC as they are.
type rawCodec struct{}

func (rawCodec) Name() string                    { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error)   { return *(v.(*[]byte)), nil }
func (rawCodec) Unmarshal(b []byte, v any) error { *(v.(*[]byte)) = slices.Clone(b); return nil }

// handle answers a request by its path.
func handle(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/big":
		w.Write(make([]byte, 200<<10))
	case "/echo":
		io.Copy(w, r.Body)
	case "/trailers":
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Trailer")
		io.WriteString(w, "body")
		w.Header().Set("X-Trailer", "t")
	case "/abort":
		io.WriteString(w, "part")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "/bytes":
		for range 500 {
			w.Write([]byte("x"))
			http.NewResponseController(w).Flush()
		}
	case "/hints":
		w.Header().Set("Link", "</x>")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "ok")
	case "/hang":
		<-r.Context().Done()
	default:
		io.WriteString(w, "ok")
	}
}

// call answers a call by its method.
func call(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	switch method {
	case "/s/Big":
		return s.SendMsg(new(make([]byte, 200<<10)))
	case "/s/Empty":
		for range 300 {
			if err := s.SendMsg(new([]byte)); err != nil {
				return err
			}
		}
		return nil
	case "/s/Fail":
		return status.Error(codes.FailedPrecondition, "no")
	case "/s/Hang":
		<-s.Context().Done()
		return s.Context().Err()
	}
	for {
		var m []byte
		if err := s.RecvMsg(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(&m); err != nil {
			return err
		}
	}
}

// oneConn is a listener of one connection.
type oneConn struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// serveReal serves a listener with net/http or grpc-go. It returns what ends the server.
func serveReal(kind string, l net.Listener) (stop func()) {
	var wg sync.WaitGroup
	if kind == "grpc" {
		s := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(call))
		wg.Go(func() { s.Serve(l) })
		return func() { s.Stop(); wg.Wait() }
	}
	s := &http.Server{Handler: http.HandlerFunc(handle), Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
	s.Protocols.SetUnencryptedHTTP2(true)
	wg.Go(func() { s.Serve(l) })
	return func() { s.Close(); wg.Wait() }
}

// look runs a script against a server, in a mode, and returns what the client has seen.
func look(t *testing.T, kind, mode string, s script) (view map[string]string) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newDuplex()
		if mode == "bare" {
			l := &oneConn{conns: make(chan net.Conn, 1), done: make(chan struct{})}
			l.conns <- far
			defer serveReal(kind, l)()
		} else {
			d := newDispatcher(2)
			d.Limits = DefaultLimits()
			d.Decide = func(_ net.Conn, fields []hpack.HeaderField) int {
				for _, f := range fields {
					if f.Name == ":path" && strings.HasPrefix(f.Value, "/other") {
						return 1
					}
				}
				return 0
			}
			defer d.Close()
			defer serveReal(kind, d.all()[0])()
			defer serveReal("http", d.all()[1])()
			d.Handle(far)
		}
		c := newEnd(t, near, false)
		defer c.close()
		c.Write([]byte(http2.ClientPreface))
		c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: s.window})
		c.acknowledge()
		c.ask(1, true, kind, "/")
		c.acknowledge()
		if mode == "shared" {
			c.ask(3, true, "http", "/other")
			c.fr.WriteWindowUpdate(3, 2) // for what it answers
			c.acknowledge()
			c.fr.WriteWindowUpdate(0, 2)
			synctest.Wait()
		}
		s.run(c)
		view = fold(c.got())
		for id, seen := range view {
			if s.reset[id] {
				view[id], _, _ = strings.Cut(strings.TrimLeft(seen, " "), " ")
			}
		}
		c.mu.Lock()
		if c.err != nil {
			view["connection"] += " ended"
		}
		c.mu.Unlock()
	})
	return view
}

// acknowledge acknowledges the SETTINGS frames that have come, and forgets what has.
func (e *end) acknowledge() {
	for _, line := range e.got() {
		if strings.HasPrefix(line, "SETTINGS") && line != "SETTINGS ACK" {
			e.fr.WriteSettingsAck()
		}
	}
	synctest.Wait()
}

// ask opens a stream.
func (e *end) ask(id uint32, endStream bool, kind, path string) {
	fields := []string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", path}
	if kind == "grpc" {
		fields = append(fields, "content-type", "application/grpc", "te", "trailers")
	}
	e.headers(id, endStream, fields...)
}

// fold says, for each stream and for the connection, what has come.
func fold(lines []string) map[string]string {
	view := make(map[string]string)
	bytes := make(map[string]int)
	add := func(id, s string) {
		if n := bytes[id]; n > 0 {
			view[id] += fmt.Sprintf(" %d bytes", n)
			bytes[id] = 0
		}
		view[id] += s
	}
	for _, line := range lines {
		kind, rest, _ := strings.Cut(line, " ")
		id, rest, _ := strings.Cut(rest, " ")
		end := ""
		if strings.HasSuffix(rest, " END") || rest == "END" {
			end = " END"
		}
		switch kind {
		case "HEADERS":
			list := strings.Fields(strings.TrimSuffix(rest, end))
			list = slices.DeleteFunc(list, func(f string) bool { return !keep(f) })
			add(id, " "+strings.Join(list, " ")+end)
		case "DATA":
			if text, ok := strings.CutPrefix(rest, "of "); ok {
				n, _ := strconv.Atoi(strings.TrimSuffix(text, end))
				bytes[id] += n
			} else {
				text, _ := strconv.Unquote(strings.TrimSuffix(rest, end))
				bytes[id] += len(text)
			}
			if end != "" {
				add(id, end)
			}
		case "RST_STREAM":
			add(id, " RST "+rest)
		case "GOAWAY":
			code, _, _ := strings.Cut(rest, " ")
			view["connection"] += " GOAWAY " + code
		}
	}
	for id := range bytes {
		add(id, "")
	}
	// What comes behind the end depends on whether the end of the request had come to the server.
	for id, seen := range view {
		if before, _, ok := strings.Cut(seen, " END"); ok {
			view[id] = before + " END"
		}
	}
	return view
}

// keep reports whether a field is to be compared.
func keep(field string) bool {
	name, _, _ := strings.Cut(field[1:], "=")
	return slices.Contains([]string{"status", "rpc-status", "ontent-length", "-trailer", "ink"}, name)
}

var message = append([]byte{0, 0, 0, 0, 5}, "hello"...)

var httpScripts = []script{
	{name: "requests", window: 1 << 20, run: func(c *end) {
		for i, path := range []string{"/", "/trailers", "/hints", "/bytes", "/big", "/abort"} {
			c.ask(uint32(101+2*i), true, "http", path)
		}
		c.grant(1 << 20)
	}},
	{name: "echo", window: 1 << 20, run: func(c *end) {
		c.ask(101, false, "http", "/echo")
		for range 5 {
			c.fr.WriteData(101, false, make([]byte, 10_000))
			synctest.Wait()
		}
		c.headers(101, true, "x-trailer", "t")
	}},
	{name: "early answer", window: 1 << 20, run: func(c *end) {
		c.ask(101, false, "http", "/big") // with less of the connection's window than the answer
		synctest.Wait()
		c.grant(1 << 20)
	}},
	{name: "window raised and lowered", window: 100, run: func(c *end) {
		c.ask(101, true, "http", "/big")
		synctest.Wait()
		for _, n := range []uint32{1000, 10, 30_000} {
			c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n})
			synctest.Wait()
			c.fr.WriteWindowUpdate(101, 50)
			synctest.Wait()
		}
	}},
	{name: "resets", window: 1 << 20, run: func(c *end) {
		for id := uint32(101); id < 141; id += 2 {
			c.ask(id, true, "http", "/hang")
			synctest.Wait()
			c.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		synctest.Wait()
		c.ask(141, true, "http", "/")
	}},
	{name: "faults on streams", window: 1 << 20, run: func(c *end) {
		for id := uint32(101); id < 109; id += 2 {
			c.ask(id, id == 101, "http", "/hang")
		}
		synctest.Wait()
		c.fr.WriteData(101, false, []byte("behind END_STREAM"))
		c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 103, make([]byte, 4))
		c.fr.WriteWindowUpdate(105, h2.MaxWindow)
		synctest.Wait()
		c.ask(111, true, "http", "/")
	}},
	{name: "more than the server takes", window: 1 << 20, run: func(c *end) {
		for id := uint32(101); id < 801; id += 2 {
			c.ask(id, false, "http", "/echo")
		}
		synctest.Wait()
		for id := uint32(101); id < 501; id += 2 {
			c.fr.WriteData(id, true, []byte("x"))
		}
	}, differs: moreThanTaken, why: "net/http says PROTOCOL_ERROR to a client that knows better; the dispatcher always lets it try again, and " +
		"what it shares the connection with counts"},
	{name: "header list", window: 1 << 20, run: func(c *end) {
		fields := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
		for range 300 {
			fields = append(fields, "x-field", strings.Repeat("v", 4000)) // indexed
		}
		c.headers(101, true, fields...)
		synctest.Wait()
		c.ask(103, true, "http", "/")
	}, differs: map[string]map[string]string{
		"passing": {"101": " :status=431 content-length=0 END"},
		"shared":  {"101": " :status=431 content-length=0 END"},
	}, why: "the dispatcher cannot tell whose the request is, so it answers, without net/http's page"},
	{name: "connection error", window: 1 << 20, run: func(c *end) {
		c.ask(101, true, "http", "/hang")
		synctest.Wait()
		c.fr.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8))
		time.Sleep(5 * time.Second)
	}},
	{name: "FIN", window: 1 << 20, run: func(c *end) {
		c.ask(101, true, "http", "/big")
		synctest.Wait()
		c.conn.(*duplex).CloseWrite()
		time.Sleep(5 * time.Second)
	}},
}

// moreThanTaken fills in what differs in the script of that name.
var moreThanTaken = func() map[string]map[string]string {
	shared := map[string]string{}
	for id := 601; id < 801; id += 2 {
		shared[strconv.Itoa(id)] = " RST REFUSED_STREAM"
	}
	return map[string]map[string]string{"shared": shared}
}()

var grpcScripts = []script{
	{name: "calls", window: 1 << 20, run: func(c *end) {
		for i, path := range []string{"/s/Echo", "/s/Fail", "/s/Empty", "/s/Big"} {
			id := uint32(101 + 2*i)
			c.ask(id, false, "grpc", path)
			c.fr.WriteData(id, true, message)
			synctest.Wait()
		}
		c.grant(1 << 20)
	}},
	{name: "early answer", window: 1 << 20, run: func(c *end) {
		c.ask(101, false, "grpc", "/s/Big")
		synctest.Wait()
		c.grant(1 << 20)
	}},
	{name: "messages both ways", window: 1 << 20, run: func(c *end) {
		c.ask(101, false, "grpc", "/s/Echo")
		for range 20 {
			c.fr.WriteData(101, false, message)
			synctest.Wait()
		}
		c.fr.WriteData(101, true, nil)
	}},
	{name: "resets", window: 1 << 20, run: func(c *end) {
		for id := uint32(101); id < 141; id += 2 {
			c.ask(id, false, "grpc", "/s/Hang")
			synctest.Wait()
			c.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		c.ask(141, false, "grpc", "/s/Fail")
	}},
	{name: "FIN", window: 1 << 20, run: func(c *end) {
		c.ask(101, false, "grpc", "/s/Big")
		synctest.Wait()
		c.conn.(*duplex).CloseWrite()
		time.Sleep(5 * time.Second)
	}},
}

// grant gives the client's credit for the connection.
func (e *end) grant(n uint32) {
	synctest.Wait()
	e.fr.WriteWindowUpdate(0, n)
	synctest.Wait()
}

// randomScript returns a script of a seed.
func randomScript(seed uint64) script {
	windows := []uint32{0, 10, 5000, 65_535, 1 << 20}
	s := script{name: fmt.Sprint("random ", seed), window: windows[seed%uint64(len(windows))], reset: make(map[string]bool)}
	s.run = func(c *end) {
		rng := rand.New(rand.NewPCG(seed, 3))
		type stream struct{ ended, reset bool }
		streams := map[uint32]*stream{}
		var ids []uint32
		pick := func() (uint32, *stream) {
			if len(ids) == 0 {
				return 0, nil
			}
			id := ids[rng.IntN(len(ids))]
			return id, streams[id]
		}
		paths := []string{"/", "/trailers", "/hints", "/bytes", "/big", "/echo", "/hang"}
		next := uint32(101)
		for range 40 {
			switch rng.IntN(8) {
			case 0, 1:
				end := rng.IntN(2) == 0
				c.ask(next, end, "http", paths[rng.IntN(len(paths))])
				streams[next] = &stream{ended: end}
				ids = append(ids, next)
				next += 2
			case 2:
				if id, st := pick(); st != nil && !st.ended && !st.reset {
					st.ended = rng.IntN(3) == 0
					c.fr.WriteData(id, st.ended, make([]byte, rng.IntN(300)))
				}
			case 3:
				if id, st := pick(); st != nil && !st.reset && rng.IntN(3) == 0 {
					st.reset, s.reset[fmt.Sprint(id)] = true, true
					c.fr.WriteRSTStream(id, http2.ErrCodeCancel)
				}
			case 4:
				if id, st := pick(); st != nil && !st.reset {
					c.fr.WriteWindowUpdate(id, uint32(1+rng.IntN(50_000)))
				}
			case 5:
				c.fr.WriteWindowUpdate(0, uint32(1+rng.IntN(50_000)))
			case 6:
				c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: windows[rng.IntN(len(windows))]})
			case 7:
				c.fr.WritePing(false, [8]byte{1})
			}
			synctest.Wait()
		}
		for _, id := range ids { // those that go on come to their end
			if st := streams[id]; !st.reset {
				c.fr.WriteWindowUpdate(id, 1<<20)
				if !st.ended {
					c.fr.WriteData(id, true, nil)
				}
			}
			synctest.Wait()
		}
		c.grant(1 << 24)
	}
	return s
}

func TestDifferential(t *testing.T) {
	seeds := uint64(20)
	if n, err := strconv.ParseUint(os.Getenv("ONEPORT_MODEL_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	scripts := map[string][]script{"http": httpScripts, "grpc": grpcScripts}
	for seed := range seeds {
		scripts["http"] = append(scripts["http"], randomScript(seed))
	}
	for kind, list := range scripts {
		for _, s := range list {
			t.Run(kind+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				bare := look(t, kind, "bare", s)
				for _, mode := range []string{"passing", "shared"} {
					want := make(map[string]string)
					for id, seen := range bare {
						want[id] = seen
					}
					for id, seen := range s.differs[mode] {
						want[id] = seen
					}
					if diff := cmp.Diff(want, look(t, kind, mode, s)); diff != "" {
						t.Errorf("%s: -bare +%s:\n%s", mode, mode, diff)
					}
				}
			})
		}
	}
}
