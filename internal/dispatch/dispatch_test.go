package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
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

	"github.com/oneport-go/oneport/internal/alarm"
	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/testenv"
)

// newDispatcher returns a dispatcher with targets that decides by the first element of the path.
func newDispatcher(targets int) *Dispatcher {
	d := &Dispatcher{
		Decide:        decideByPath,
		Limits:        testLimits(),
		Logger:        slog.New(slog.DiscardHandler),
		Alarms:        new(alarm.Clock),
		EarlySettings: []http2.Setting{{ID: http2.SettingNoRFC7540Priorities, Val: 1}},
	}
	for range targets {
		d.Target("", &net.TCPAddr{})
	}
	return d
}

// An end is one end of a connection, driven by a test. What it is sent is kept in lines.
type end struct {
	t    *testing.T
	conn net.Conn
	fr   *http2.Framer
	enc  *hpack.Encoder
	buf  bytes.Buffer

	once sync.Once
	out  chan []byte // so that a Write does not wait for the other end to read
	wg   sync.WaitGroup

	mu    sync.Mutex
	lines []string
	err   error
}

func newEnd(t *testing.T, conn net.Conn, preface bool) *end {
	e := &end{t: t, conn: conn, out: make(chan []byte, 100_000)}
	e.fr = http2.NewFramer(e, conn)
	e.fr.AllowIllegalWrites = true
	e.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	e.fr.SetMaxReadFrameSize(h2.LargestFrameSize)
	e.enc = hpack.NewEncoder(&e.buf)
	e.wg.Go(func() {
		for b := range e.out {
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	})
	e.wg.Go(func() { e.read(preface) })
	return e
}

func (e *end) Write(b []byte) (int, error) {
	e.out <- bytes.Clone(b)
	return len(b), nil
}

func (e *end) read(preface bool) {
	err := error(nil)
	if preface {
		b := make([]byte, len(http2.ClientPreface))
		_, err = io.ReadFull(e.conn, b)
	}
	for err == nil {
		var f http2.Frame
		if f, err = e.fr.ReadFrame(); err == nil {
			e.mu.Lock()
			e.lines = append(e.lines, describe(f))
			e.mu.Unlock()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

// describe says what a frame is in a line.
func describe(f http2.Frame) string {
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return "SETTINGS ACK"
		}
		var list []string
		f.ForeachSetting(func(s http2.Setting) error {
			list = append(list, s.String())
			return nil
		})
		return strings.Join(append([]string{"SETTINGS"}, list...), " ")
	case *http2.MetaHeadersFrame:
		list := []string{fmt.Sprintf("HEADERS %d", id)}
		for _, hf := range f.Fields {
			list = append(list, hf.Name+"="+hf.Value)
		}
		if f.StreamEnded() {
			list = append(list, "END")
		}
		return strings.Join(list, " ")
	case *http2.DataFrame:
		s := fmt.Sprintf("DATA %d %q", id, f.Data())
		if len(f.Data()) > 20 {
			s = fmt.Sprintf("DATA %d of %d", id, len(f.Data()))
		}
		if f.StreamEnded() {
			s += " END"
		}
		return s
	case *http2.RSTStreamFrame:
		return fmt.Sprintf("RST_STREAM %d %v", id, f.ErrCode)
	case *http2.WindowUpdateFrame:
		return fmt.Sprintf("WINDOW_UPDATE %d %d", id, f.Increment)
	case *http2.PingFrame:
		if f.IsAck() {
			return fmt.Sprintf("PING ACK %q", f.Data)
		}
		return fmt.Sprintf("PING %q", f.Data)
	case *http2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %v %s", f.LastStreamID, f.ErrCode, f.DebugData())
	}
	return fmt.Sprintf("%v %d", f.Header().Type, id)
}

// got returns what has come since it was called last, once nothing moves any more, without WINDOW_UPDATE.
func (e *end) got() []string {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	lines := slices.DeleteFunc(e.lines, func(s string) bool { return strings.HasPrefix(s, "WINDOW_UPDATE") })
	e.lines = nil
	if len(lines) == 0 {
		return nil
	}
	return lines
}

func (e *end) want(lines ...string) {
	e.t.Helper()
	if diff := cmp.Diff(lines, e.got()); diff != "" {
		e.t.Errorf("-want +got:\n%s", diff)
	}
}

// wantEnd checks that the connection has ended.
func (e *end) wantEnd() {
	e.t.Helper()
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.t.Error("the connection has not ended")
	}
}

func (e *end) block(fields ...string) []byte {
	e.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		e.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return e.buf.Bytes()
}

func (e *end) headers(id uint32, endStream bool, fields ...string) {
	e.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: endStream, EndHeaders: true, BlockFragment: e.block(fields...)})
}

// request opens a stream for a target.
func (e *end) request(id uint32, target string, endStream bool) {
	e.headers(id, endStream, ":method", "GET", ":path", "/"+target)
}

func (e *end) close() {
	e.once.Do(func() {
		e.conn.Close()
		close(e.out)
		e.wg.Wait()
	})
}

// world is a client of a dispatcher, and the servers that have a connection.
type world struct {
	t      *testing.T
	d      *Dispatcher
	owner  *owner
	client *end
}

// inWorld runs a test with a client that has sent its preface and SETTINGS.
func inWorld(t *testing.T, d *Dispatcher, f func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		w := &world{t: t, d: d, owner: d.Handle(far), client: newEnd(t, near, false)}
		w.client.Write([]byte(http2.ClientPreface))
		w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 5000})
		defer w.client.close()
		f(w)
	})
}

// accept accepts a target's connection, answers its SETTINGS and checks what it has read so far.
func (w *world) accept(target int, lines ...string) *end {
	w.t.Helper()
	c, err := w.d.all()[target].Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	e := newEnd(w.t, c, true)
	e.want(append([]string{"SETTINGS [ENABLE_PUSH = 0] [MAX_HEADER_LIST_SIZE = 5000]"}, lines...)...)
	e.fr.WriteSettings()
	e.fr.WriteSettingsAck()
	time.Sleep(2 * withholdTime)
	return e
}

// shared makes a connection that two servers share, each with a stream.
func (w *world) shared() (a, b *end) {
	w.t.Helper()
	w.client.request(1, "0", false)
	a = w.accept(0, "HEADERS 1 :method=GET :path=/0")
	synctest.Wait() // the server's SETTINGS have come, behind the early ones
	w.client.fr.WriteSettingsAck()
	w.client.fr.WriteSettingsAck()
	w.client.request(3, "1", false)
	b = w.accept(1, "HEADERS 3 :method=GET :path=/1")
	a.got()
	b.got()
	w.client.got()
	return a, b
}

func TestEarlySettings(t *testing.T) {
	inWorld(t, newDispatcher(1), func(w *world) {
		w.client.want("SETTINGS [NO_RFC7540_PRIORITIES = 1]")
		w.client.fr.WritePing(false, [8]byte{'a'})
		w.client.want("SETTINGS ACK", `PING ACK "a\x00\x00\x00\x00\x00\x00\x00"`)
		w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 5000})
		w.client.want("SETTINGS ACK")
		w.client.request(1, "0", true)
		a := w.accept(0, "HEADERS 1 :method=GET :path=/0 END")
		defer a.close()
		w.client.want("SETTINGS") // the server's acknowledgement is left out
		// The acknowledgement of the early frame is left out, too.
		w.client.fr.WriteSettingsAck()
		w.client.fr.WriteSettingsAck()
		a.want("SETTINGS ACK")
		if s := w.d.Stats(); s.Split != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestNoEarlySettingsWhereNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDispatcher(1)
		near, far := net.Pipe()
		e := newEnd(t, near, false)
		defer e.close()
		var flight bytes.Buffer
		flight.WriteString(http2.ClientPreface)
		fr := http2.NewFramer(&flight, nil)
		fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 5000})
		fr.WritePing(false, [8]byte{'a'})
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: e.block(":path", "/0")})
		e.Write(flight.Bytes())
		d.Handle(far)
		w := &world{t: t, d: d, client: e}
		e.want()
		a := w.accept(0, `PING "a\x00\x00\x00\x00\x00\x00\x00"`, "HEADERS 1 :path=/0")
		defer a.close()
		e.want("SETTINGS", "SETTINGS ACK")
	})
}

// Each server is asked for what concerns it, and answers for itself.
func TestShared(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared()
		defer a.close()
		defer b.close()

		w.client.fr.WriteData(1, false, []byte("to a"))
		w.client.fr.WriteData(3, true, []byte("to b"))
		w.client.headers(1, true, "x-trailer", "a")
		a.want(`DATA 1 "to a"`, "HEADERS 1 x-trailer=a END")
		b.want(`DATA 3 "to b" END`)

		b.headers(3, false, ":status", "103")
		b.headers(3, false, ":status", "200")
		b.fr.WriteData(3, false, []byte("from b"))
		w.client.want("HEADERS 3 :status=103", "HEADERS 3 :status=200", `DATA 3 "from b"`)
		a.headers(1, false, ":status", "201")
		a.fr.WriteData(1, false, []byte("from a"))
		a.headers(1, true, "grpc-status", "0")
		w.client.want("HEADERS 1 :status=201", `DATA 1 "from a"`, "HEADERS 1 grpc-status=0 END")
		b.fr.WriteData(3, true, nil)
		w.client.want(`DATA 3 "" END`)

		// Both ask with the same payload, and each gets its answer.
		a.fr.WritePing(false, [8]byte{1})
		b.fr.WritePing(false, [8]byte{1})
		for _, line := range w.client.got() {
			var p [8]byte
			if _, err := fmt.Sscanf(line, "PING %q", new(string)); err != nil {
				t.Error(line)
			}
			copy(p[:], unquote(t, line))
			w.client.fr.WritePing(true, p)
		}
		a.want(`PING ACK "\x01\x00\x00\x00\x00\x00\x00\x00"`)
		b.want(`PING ACK "\x01\x00\x00\x00\x00\x00\x00\x00"`)
		w.client.fr.WritePing(false, [8]byte{2})
		w.client.want(`PING ACK "\x02\x00\x00\x00\x00\x00\x00\x00"`)

		// SETTINGS of the client are acknowledged when both servers have.
		w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000}, http2.Setting{ID: http2.SettingEnablePush, Val: 1})
		a.want("SETTINGS [INITIAL_WINDOW_SIZE = 1000] [ENABLE_PUSH = 0]")
		b.want("SETTINGS [INITIAL_WINDOW_SIZE = 1000] [ENABLE_PUSH = 0]")
		a.fr.WriteSettingsAck()
		w.client.want()
		b.fr.WriteSettingsAck()
		w.client.want("SETTINGS ACK")

		// SETTINGS of servers are made one.
		a.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 20})
		w.client.want("SETTINGS [MAX_CONCURRENT_STREAMS = 20]")
		b.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 30}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		w.client.want()
		b.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 500}, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
		w.client.want("SETTINGS [INITIAL_WINDOW_SIZE = 500] [ENABLE_CONNECT_PROTOCOL = 1]")
		a.want("SETTINGS ACK")
		b.want("SETTINGS ACK", "SETTINGS ACK")

		// Resets reach whom they concern.
		w.client.request(5, "0", false)
		w.client.request(7, "1", false)
		synctest.Wait()
		w.client.fr.WriteRSTStream(5, http2.ErrCodeCancel)
		b.fr.WriteRSTStream(7, http2.ErrCodeInternal)
		a.want("HEADERS 5 :method=GET :path=/0", "RST_STREAM 5 CANCEL")
		b.want("HEADERS 7 :method=GET :path=/1")
		w.client.want("RST_STREAM 7 INTERNAL_ERROR")
		w.client.fr.WriteData(7, true, []byte("late"))
		b.want()
		w.client.want()
	})
}

func unquote(t *testing.T, line string) string {
	var s string
	if _, err := fmt.Sscanf(line, "PING %q", &s); err != nil {
		t.Fatal(line, err)
	}
	return s
}

func TestUnmatched(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("first %t", first), func(t *testing.T) {
			inWorld(t, newDispatcher(1), func(w *world) {
				if !first {
					w.client.request(1, "0", true)
					a := w.accept(0, "HEADERS 1 :method=GET :path=/0 END")
					defer a.close()
				}
				w.client.got()
				w.client.request(3, fmt.Sprint(NotFound), true)
				w.client.request(5, fmt.Sprint(NotFound), false)
				w.client.request(7, fmt.Sprint(Refuse), false)
				w.client.fr.WriteData(5, true, []byte("in vain"))
				want := []string{"HEADERS 3 :status=404 content-length=0 END", "HEADERS 5 :status=404 content-length=0 END", "RST_STREAM 5 NO_ERROR",
					"RST_STREAM 7 REFUSED_STREAM"}
				if first {
					want = append([]string{"SETTINGS ACK"}, want...)
				}
				w.client.want(want...)
				if s := w.d.Stats(); s.NotFound != 2 || s.Refused != 1 {
					t.Errorf("%+v", s)
				}
				if first {
					w.client.request(9, "0", true)
					a := w.accept(0, "HEADERS 9 :method=GET :path=/0 END")
					defer a.close()
				}
			})
		})
	}
}

// A server that drains has the client go elsewhere with new requests; what is under way goes on.
func TestServerDrains(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared()
		defer b.close()
		a.fr.WriteGoAway(h2.MaxStreamID, http2.ErrCodeNo, nil)
		w.client.want("GOAWAY 2147483647 NO_ERROR ")
		w.client.request(5, "0", true)
		a.want("HEADERS 5 :method=GET :path=/0 END")
		a.fr.WriteGoAway(5, http2.ErrCodeNo, nil)
		w.client.request(7, "0", true)
		w.client.want("RST_STREAM 7 REFUSED_STREAM")
		w.client.request(9, "1", true)
		b.want("HEADERS 9 :method=GET :path=/1 END")
		a.headers(1, true, ":status", "200")
		a.headers(5, true, ":status", "200")
		w.client.want("HEADERS 1 :status=200 END", "HEADERS 5 :status=200 END")
		w.client.fr.WriteRSTStream(1, http2.ErrCodeCancel)
		synctest.Wait()
		a.close()
		b.headers(9, true, ":status", "200")
		w.client.want("HEADERS 9 :status=200 END")
		b.headers(3, true, ":status", "200")
		w.client.fr.WriteData(3, true, nil)
		w.client.want("HEADERS 3 :status=200 END", "GOAWAY 9 NO_ERROR ")
		w.client.wantEnd()
		b.wantEnd()
	})
}

// A server that fails takes its own streams with it. The next request for it gets another connection.
func TestServerFails(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared()
		defer b.close()
		a.close()
		w.client.want("RST_STREAM 1 INTERNAL_ERROR")
		b.headers(3, false, ":status", "200")
		w.client.want("HEADERS 3 :status=200")
		w.client.request(5, "0", false)
		a = w.accept(0, "HEADERS 5 :method=GET :path=/0")
		a.fr.WriteGoAway(3, http2.ErrCodeInternal, []byte("out of cheese"))
		w.client.want("RST_STREAM 5 REFUSED_STREAM")
		a.close()
		w.d.all()[0].Close()
		w.client.request(7, "0", true)
		w.client.want("RST_STREAM 7 REFUSED_STREAM")
		b.fr.WriteData(3, true, nil)
		w.client.fr.WriteData(3, true, nil)
		w.client.want(`DATA 3 "" END`)
		b.close()
		w.client.want("GOAWAY 7 NO_ERROR ")
		w.client.wantEnd()
	})
}

// What a server has written before it closes is still sent, when the client gives credit for it.
func TestServerClosesWithQueue(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared()
		defer b.close()
		w.client.fr.WriteWindowUpdate(1, 100_000)
		w.client.fr.WriteWindowUpdate(3, 100_000)
		a.got()
		a.headers(1, false, ":status", "200")
		for range 10 {
			a.fr.WriteData(1, false, make([]byte, 10_000))
		}
		a.headers(1, true, "x-trailer", "a")
		if n := len(w.client.got()); n != 1+6+1 { // the seventh in part
			t.Errorf("%d frames", n)
		}
		a.close()
		w.client.want()
		w.client.fr.WriteWindowUpdate(0, 1<<20)
		if lines := w.client.got(); lines[len(lines)-2] != "HEADERS 1 x-trailer=a END" || lines[len(lines)-1] != "RST_STREAM 1 NO_ERROR" {
			t.Errorf("%v", lines)
		}
	})
}

// A client that does not take what servers have left behind does not hold the connection for ever.
func TestNothingTaken(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared()
		w.client.fr.WriteWindowUpdate(1, 100_000)
		a.got()
		a.headers(1, false, ":status", "200")
		for range 10 {
			a.fr.WriteData(1, false, make([]byte, 10_000))
		}
		synctest.Wait()
		a.close()
		b.close()
		w.client.got()
		time.Sleep(59 * time.Second)
		w.client.want()
		time.Sleep(time.Second)
		w.client.wantEnd()
	})
}

// A slow reader of one server does not keep the other's uploads waiting, up to what is held.
func TestSlowReaderIsAlone(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared() // neither gives credit
		defer a.close()
		defer b.close()
		b.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		b.fr.WriteWindowUpdate(3, 1<<20)
		w.client.got()
		// The client sends b as much as HTTP/2 lets it; b takes its 65,535 bytes.
		sent := 0
		for sent+10_000 < 65_535+65_535 {
			w.client.fr.WriteData(3, false, make([]byte, 10_000))
			sent += 10_000
		}
		if n := dataBytes(b.got()); n != 65_535 {
			t.Errorf("b got %d bytes", n)
		}
		w.client.fr.WriteData(1, false, []byte("to a"))
		a.want(`DATA 1 "to a"`)
		b.fr.WriteWindowUpdate(0, 1<<20)
		if n := dataBytes(b.got()); n != sent-65_535 {
			t.Errorf("b got %d more bytes", n)
		}
	})
}

func dataBytes(lines []string) (total int) {
	for _, line := range lines {
		var id, n int
		if _, err := fmt.Sscanf(line, "DATA %d of %d", &id, &n); err == nil {
			total += n
		}
	}
	return total
}

func TestClientGoes(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		a, b := w.shared()
		w.client.fr.WriteGoAway(0, http2.ErrCodeNo, nil)
		a.want("GOAWAY 0 NO_ERROR ")
		b.want("GOAWAY 0 NO_ERROR ")
		w.client.conn.Close()
		a.wantEnd()
		b.wantEnd()
		a.close()
		b.close()
	})
}

// A connection that has made requests, but none that a server got, ends in time, or when its owner dismisses it.
func TestNoServer(t *testing.T) {
	for _, end := range []string{"idle", "closed"} {
		inWorld(t, newDispatcher(1), func(w *world) {
			w.client.request(1, fmt.Sprint(NotFound), true)
			time.Sleep(40 * time.Second)
			w.client.request(3, fmt.Sprint(NotFound), true)
			time.Sleep(40 * time.Second)
			w.client.got()
			if end == "closed" {
				w.owner.client.Dismiss("going away")
				w.client.want("GOAWAY 3 NO_ERROR going away")
			} else {
				time.Sleep(20 * time.Second)
				w.client.want("GOAWAY 3 NO_ERROR " + ErrIdle.Error())
			}
			w.client.wantEnd()
			if why := w.owner.ended(); why == nil {
				t.Error("the owner is not told the end")
			}
		})
	}
}

// A target that is closed has what it has not accepted refused.
func TestTargetCloses(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		w.client.request(1, "0", false)
		w.client.got()
		w.d.all()[0].Close()
		w.client.want("SETTINGS ACK", "RST_STREAM 1 REFUSED_STREAM", "GOAWAY 1 NO_ERROR ")
		w.client.wantEnd()
	})
}

func TestPanicInDecide(t *testing.T) {
	d := newDispatcher(1)
	d.Decide = func(c net.Conn, fields []hpack.HeaderField) int { panic("no") }
	inWorld(t, d, func(w *world) {
		w.client.got()
		w.client.request(1, "0", true)
		w.client.want("SETTINGS ACK", "RST_STREAM 1 REFUSED_STREAM")
	})
}

// TestLasting checks that a header block that is sent again, at once or later, is not decided again if the decision
// lasts. The first request for each target adds to the table, so the second one has a block that is new, too.
func TestLasting(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		lasting func(int) bool
		asked   string
	}{
		{"unknown", nil, "0 0 0 1 1 1 0 0 1 0"},
		{"all", func(int) bool { return true }, "0 0 1 1 0"},
		{"the first", func(target int) bool { return target == 0 }, "0 0 1 1 1 0 1"},
		{"the second", func(target int) bool { return target == 1 }, "0 0 0 1 1 0 0 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var asked []string
			d := newDispatcher(2)
			d.Lasting = test.lasting
			d.Decide = func(c net.Conn, fields []hpack.HeaderField) int {
				target := decideByPath(c, fields)
				asked = append(asked, strconv.Itoa(target))
				return target
			}
			inWorld(t, d, func(w *world) {
				w.client.request(1, "0", true) // whose fields enter the table
				a := w.accept(0, "HEADERS 1 :method=GET :path=/0 END")
				w.client.got()
				lines := make([][]string, 2)
				for i, target := range []int{0, 0, 1, 1, 1, 0, 0, 1, 0} {
					id := uint32(3 + 2*i)
					w.client.request(id, strconv.Itoa(target), true)
					lines[target] = append(lines[target], fmt.Sprintf("HEADERS %d :method=GET :path=/%d END", id, target))
				}
				synctest.Wait()
				b := w.accept(1, lines[1]...)
				a.want(lines[0]...)
				a.close()
				b.close()
			})
			if got := strings.Join(asked, " "); got != test.asked {
				t.Errorf("asked for %s, want %s", got, test.asked)
			}
		})
	}
}

// The deadlines of a server are its own.
func TestDeadlines(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		w.client.request(1, "0", false)
		a, err := w.d.all()[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b := make([]byte, 1000)
		if _, err := a.Read(b); err != nil {
			t.Error(err)
		}
		a.SetReadDeadline(time.Now().Add(time.Second)) // while the connection passes through
		if _, err := a.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		a.SetReadDeadline(time.Now().Add(time.Hour))
		second := make(chan struct{})
		go func() {
			defer close(second)
			time.Sleep(time.Second)
			w.client.request(3, "1", false)
		}()
		start := time.Now()
		if _, err := io.Copy(io.Discard, a); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > time.Hour {
			t.Error(err, time.Since(start))
		}
		<-second
		a.SetReadDeadline(time.Now().Add(time.Second)) // when it does not
		if _, err := a.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		a.SetReadDeadline(time.Time{})
		w.client.fr.WriteData(1, true, []byte("later"))
		if n, err := a.Read(b); err != nil || !bytes.Contains(b[:n], []byte("later")) {
			t.Errorf("%q, %v", b[:n], err)
		}
		w.d.Close()
	})
}

// Over each bound the client is told to calm down, while its connection passes through and when it does not.
func TestAbuse(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit func(*Limits)
		send  func(e *end)
		want  string
	}{
		{"rapid reset", func(l *Limits) { l.ResetBurst = 50 }, func(e *end) {
			for id := uint32(3); id < 300; id += 2 {
				e.request(id, "0", true)
				e.fr.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		}, "too many streams reset early"},
		{"PING", func(l *Limits) { l.ControlBurst = 50 }, func(e *end) {
			for range 100 {
				e.fr.WritePing(false, [8]byte{})
			}
		}, "too many frames that do nothing for a request"},
		{"SETTINGS", func(l *Limits) { l.ControlBurst = 50 }, func(e *end) {
			for range 100 {
				e.fr.WriteSettings()
			}
		}, "too many frames that do nothing for a request"},
		{"PRIORITY", func(l *Limits) { l.ControlBurst = 50 }, func(e *end) {
			for range 100 {
				e.fr.WritePriority(1, http2.PriorityParam{})
			}
		}, "too many frames that do nothing for a request"},
		{"unknown frames", func(l *Limits) { l.ControlBurst = 50 }, func(e *end) {
			for i := range 100 {
				e.fr.WriteRawFrame(0xf0, 0, 0, make([]byte, i*10))
			}
		}, "too many frames that do nothing for a request"},
		{"empty DATA", func(l *Limits) { l.ControlBurst = 50 }, func(e *end) {
			for range 100 {
				e.fr.WriteData(1, false, nil)
			}
		}, "too many frames that do nothing for a request"},
		{"CONTINUATION", func(l *Limits) { l.MaxContinuations = 50 }, func(e *end) {
			e.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: e.block(":method", "GET")})
			for range 100 {
				e.fr.WriteContinuation(3, false, nil)
			}
		}, "too many CONTINUATION frames in a header block"},
		{"header block", func(l *Limits) { l.MaxHeaderListBytes = 20_000 }, func(e *end) {
			e.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: e.block(":method", "GET")})
			for range 10 {
				e.fr.WriteContinuation(3, false, make([]byte, 10_000))
			}
		}, "header block too large"},
	} {
		for _, mode := range []string{"passing", "splitting"} {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				d := newDispatcher(1)
				tt.limit(&d.Limits)
				d.AlwaysSplit = mode == "splitting"
				var reported error
				inWorld(t, d, func(w *world) {
					w.client.request(1, "0", false)
					a := w.accept(0, "HEADERS 1 :method=GET :path=/0")
					w.client.got()
					tt.send(w.client)
					lines := w.client.got()
					if len(lines) == 0 {
						t.Fatal("no answer")
					}
					if got := lines[len(lines)-1]; !strings.HasPrefix(got, "GOAWAY ") || !strings.HasSuffix(got, " ENHANCE_YOUR_CALM "+tt.want) {
						t.Errorf("last answer %q", got)
					}
					a.wantEnd()
					a.close()
					w.client.wantEnd()
					synctest.Wait()
					reported = w.owner.ended()
				})
				if reported == nil || !strings.HasSuffix(reported.Error(), tt.want) {
					t.Errorf("reported %v", reported)
				}
			})
		}
	}
}

// What is forgiven with time is no abuse.
func TestForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bucket
		for range 100 {
			for range 10 {
				if !b.spend(20, 10) {
					t.Fatal("not forgiven")
				}
			}
			time.Sleep(time.Second)
		}
		for b.spend(20, 10) {
		}
		if b.spend(20, 10) {
			t.Error("forgiven at once")
		}
		time.Sleep(2 * time.Second)
		if !b.spend(20, 10) {
			t.Error("not forgiven")
		}
	})
}

// Faults of the client, where they are the dispatcher's to answer.
func TestFaults(t *testing.T) {
	huge := make([]byte, 20_000)
	for _, tt := range []struct {
		name string
		send func(e *end)
		want string
	}{
		{"DATA on an idle stream", func(e *end) { e.fr.WriteData(9, true, nil) }, "PROTOCOL_ERROR"},
		{"RST_STREAM on an idle stream", func(e *end) { e.fr.WriteRSTStream(9, 0) }, "PROTOCOL_ERROR"},
		{"WINDOW_UPDATE on an idle stream", func(e *end) { e.fr.WriteWindowUpdate(9, 1) }, "PROTOCOL_ERROR"},
		{"PRIORITY of itself", func(e *end) { e.fr.WritePriority(9, http2.PriorityParam{StreamDep: 9}) }, "PROTOCOL_ERROR"},
		{"WINDOW_UPDATE of nothing", func(e *end) { e.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4)) }, "PROTOCOL_ERROR"},
		{"WINDOW_UPDATE of too much", func(e *end) { e.fr.WriteWindowUpdate(0, h2.MaxWindow) }, "FLOW_CONTROL_ERROR"},
		{"HEADERS on an even stream", func(e *end) { e.request(10, "0", true) }, "PROTOCOL_ERROR"},
		{"HEADERS with padding only", func(e *end) {
			e.fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 9, []byte{5})
		}, "PROTOCOL_ERROR"},
		{"HEADERS without a block", func(e *end) { e.fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPriority, 9, []byte{5}) }, "FRAME_SIZE_ERROR"},
		{"HEADERS of an older stream", func(e *end) { e.request(5, "0", true); e.request(3, "0", true) }, "PROTOCOL_ERROR"},
		{"a block that is no HPACK", func(e *end) {
			e.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 9, EndHeaders: true, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}})
		}, "COMPRESSION_ERROR"},
		{"a frame in a block", func(e *end) {
			e.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 9, BlockFragment: e.block(":path", "/0")})
			e.fr.WritePing(false, [8]byte{})
		}, "PROTOCOL_ERROR"},
		{"CONTINUATION alone", func(e *end) { e.fr.WriteContinuation(9, true, nil) }, "PROTOCOL_ERROR"},
		{"PUSH_PROMISE", func(e *end) {
			e.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, "PROTOCOL_ERROR"},
		{"DATA with more padding than payload", func(e *end) { e.fr.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{5, 0}) }, "PROTOCOL_ERROR"},
		{"a frame that is too long", func(e *end) { e.fr.WriteRawFrame(http2.FrameData, 0, 1, huge) }, "FRAME_SIZE_ERROR"},
		{"SETTINGS with half a setting", func(e *end) { e.fr.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }, "FRAME_SIZE_ERROR"},
		{"SETTINGS_ENABLE_PUSH of 2", func(e *end) { e.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2}) }, "PROTOCOL_ERROR"},
		{"a PING that is too short", func(e *end) { e.fr.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) }, "FRAME_SIZE_ERROR"},
		{"DATA beyond the stream's window", func(e *end) {
			e.fr.WriteWindowUpdate(0, 1)
			for range 5 {
				e.fr.WriteData(1, false, huge[:16_000])
			}
		}, "FLOW_CONTROL_ERROR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDispatcher(1)
			d.AlwaysSplit = true
			inWorld(t, d, func(w *world) {
				w.client.request(1, "0", false)
				a := w.accept(0, "HEADERS 1 :method=GET :path=/0")
				w.client.got()
				tt.send(w.client)
				lines := w.client.got()
				if len(lines) == 0 || !strings.HasPrefix(lines[len(lines)-1], "GOAWAY ") || !strings.Contains(lines[len(lines)-1], " "+tt.want+" ") {
					t.Errorf("answers %q", lines)
				}
				a.wantEnd()
				a.close()
				w.client.wantEnd()
			})
		})
	}
}

// Faults on a stream cost the stream.
func TestStreamFaults(t *testing.T) {
	d := newDispatcher(1)
	d.AlwaysSplit = true
	inWorld(t, d, func(w *world) {
		w.client.request(1, "0", true)
		a := w.accept(0, "HEADERS 1 :method=GET :path=/0 END")
		defer a.close()
		w.client.got()
		a.got()
		w.client.fr.WriteData(1, true, []byte("more"))
		w.client.want("RST_STREAM 1 STREAM_CLOSED")
		a.want("RST_STREAM 1 CANCEL")
		w.client.request(3, "0", true)
		w.client.headers(3, true, "x-trailer", "a")
		w.client.want("RST_STREAM 3 STREAM_CLOSED")
		a.want("HEADERS 3 :method=GET :path=/0 END", "RST_STREAM 3 CANCEL")
		w.client.request(5, "0", false)
		w.client.headers(5, false, "x-trailer", "a")
		w.client.want("RST_STREAM 5 PROTOCOL_ERROR")
		w.client.request(7, "0", true)
		a.got()
		a.headers(7, true, ":status", "200")
		w.client.want("HEADERS 7 :status=200 END")
		w.client.fr.WriteData(7, true, []byte("more"))
		w.client.want("RST_STREAM 7 STREAM_CLOSED")
		w.client.request(9, "0", true)
		a.want("HEADERS 9 :method=GET :path=/0 END")
	})
}

// A fault while the connection passes through is the server's to answer: it gets it, and nothing behind it.
func TestFaultPasses(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		w.client.request(1, "0", false)
		a := w.accept(0, "HEADERS 1 :method=GET :path=/0")
		defer a.close()
		w.client.fr.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7))
		w.client.request(3, "1", true)
		w.client.got()
		synctest.Wait()
		a.mu.Lock()
		if a.err == nil || !strings.Contains(a.err.Error(), "FRAME_SIZE_ERROR") {
			t.Errorf("the server reads %v, %v", a.lines, a.err)
		}
		a.mu.Unlock()
		if s := w.d.Stats(); s.Streams != 1 || s.Split != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWriteWaits(t *testing.T) {
	inWorld(t, newDispatcher(2), func(w *world) {
		// a has much more credit than is queued for a server.
		w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
		w.client.fr.WriteWindowUpdate(0, 1<<20)
		w.client.request(1, "0", false)
		c, err := w.d.all()[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		a := newEnd(t, c, true)
		defer a.close()
		a.fr.WriteSettings()
		a.fr.WriteSettingsAck()
		w.client.request(3, "1", false)
		sc, err := w.d.all()[1].Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := newEnd(t, sc, true)
		defer b.close()
		b.fr.WriteSettings()
		b.fr.WriteSettingsAck()
		synctest.Wait()
		// b uses up the client's window, as far as it gets credit.
		v, vb := c.(*Conn), sc.(*Conn)
		b.headers(3, false, ":status", "200")
		for sent := 0; sent < 1<<20+65_535; {
			synctest.Wait()
			v.c.mu.Lock()
			n := min(vb.downloadServer.credit, 16_000, int64(1<<20+65_535-sent))
			v.c.mu.Unlock()
			b.fr.WriteData(3, false, make([]byte, n))
			sent += int(n)
		}
		w.client.got()
		// Now a uses the credit that it still has.
		a.headers(1, false, ":status", "200")
		for range 50 {
			a.fr.WriteData(1, false, make([]byte, 16_000))
		}
		synctest.Wait()
		v.c.mu.Lock()
		queued := v.bytes
		v.c.mu.Unlock()
		if most := int64(w.d.Limits.MaxBuffered) + 16_000; queued > most {
			t.Errorf("%d bytes are queued", queued)
		}
		w.client.want("HEADERS 1 :status=200")
		w.client.fr.WriteWindowUpdate(0, 1<<20)
		if n := dataBytes(w.client.got()); n != 50*16_000 {
			t.Errorf("the client got %d bytes", n)
		}
	})
}

// A server that reads only when it has written does not wait for credit that cannot be read.
func TestNoDeadlock(t *testing.T) {
	d := newDispatcher(2)
	d.Limits.MaxStreams = 10_000
	inWorld(t, d, func(w *world) {
		w.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
		w.client.fr.WriteWindowUpdate(0, 1<<20)
		w.client.request(1, "0", false)
		c, err := w.d.all()[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var frames bytes.Buffer
		fr := http2.NewFramer(&frames, nil)
		fr.WriteSettings()
		fr.WriteSettingsAck()
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0x88}})
		if _, err := c.Write(frames.Bytes()); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1000)); n == 0 {
			t.Fatal(err)
		}
		written := make(chan struct{})
		go func() {
			c.Read(make([]byte, 1000)) // comes to the split
			<-written
			io.Copy(io.Discard, c)
		}()
		w.client.request(3, "1", true)
		sc, err := w.d.all()[1].Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer sc.Close()

		// The client's window is used up, so that all that is written has to be queued.
		v := c.(*Conn)
		v.c.mu.Lock()
		v.c.download.credit = 0
		v.c.mu.Unlock()
		for id := uint32(5); id < 8000; id += 2 { // more than may be unread
			w.client.request(id, "0", true)
			w.client.fr.WritePriority(id, http2.PriorityParam{Weight: 1})
			w.client.fr.WriteRawFrame(http2.FramePriorityUpdate, 0, 0, append([]byte{0, 0, byte(id >> 8), byte(id)}, make([]byte, 200)...))
			if id == 4001 {
				w.client.fr.WriteWindowUpdate(0, 1<<20)
			}
		}
		synctest.Wait()
		frames.Reset()
		for range 20 {
			fr.WriteData(1, false, make([]byte, 16_000))
		}
		if _, err := c.Write(frames.Bytes()); err != nil {
			t.Error(err)
		}
		close(written)
		if n := dataBytes(w.client.got()); n != 20*16_000 {
			t.Errorf("the client got %d bytes", n)
		}
	})
}

// overTCP returns both ends of a client's connection to a dispatcher for two servers, and the first server's side after
// a request for it.
func overTCP(t *testing.T) (d *Dispatcher, client, sock net.Conn, v *Conn) {
	t.Helper()
	sock, client = testenv.TCP(t)
	d = newDispatcher(2)
	t.Cleanup(d.Close)
	d.Handle(sock)
	var flight bytes.Buffer
	flight.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&flight, nil)
	fr.WriteSettings()
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0x04, 2, '/', '0'}})
	if _, err := client.Write(flight.Bytes()); err != nil {
		t.Fatal(err)
	}
	c, err := d.all()[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	v = c.(*Conn)
	want := len(http2.ClientPreface) + h2.FrameHeaderLen + h2.SettingLen + h2.FrameHeaderLen + 4
	if _, err := io.ReadFull(v, make([]byte, want)); err != nil {
		t.Fatal(err)
	}
	return d, client, sock, v
}

func TestAddresses(t *testing.T) {
	_, client, sock, v := overTCP(t)
	if v.RemoteAddr().String() != client.LocalAddr().String() || v.LocalAddr().String() != client.RemoteAddr().String() {
		t.Errorf("addresses %v and %v", v.RemoteAddr(), v.LocalAddr())
	}
	if v.NetConn() != sock {
		t.Errorf("NetConn is %v", v.NetConn())
	}
	if _, err := v.SyscallConn(); err != nil {
		t.Error(err)
	}
}

// FuzzModel lets the model run with seeds of the fuzzer's.
func FuzzModel(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { model(t, seed) })
}

// FuzzClient has a client send anything. Whatever it is, nothing panics, and when the client has gone so is everything.
func FuzzClient(f *testing.F) {
	seed := func(g func(e *http2.Framer)) {
		var b bytes.Buffer
		g(http2.NewFramer(&b, nil))
		f.Add(b.Bytes(), uint8(3), false)
	}
	headers := func(fr *http2.Framer, id uint32, path string) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: append([]byte{0x04, byte(len(path))}, path...)})
	}
	seed(func(fr *http2.Framer) {
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		headers(fr, 1, "/0")
		fr.WriteData(1, false, []byte("a"))
		headers(fr, 3, "/1")
		fr.WriteData(3, true, []byte("b"))
		fr.WriteRSTStream(1, 0)
		fr.WritePing(false, [8]byte{})
		fr.WriteGoAway(0, 0, nil)
	})
	seed(func(fr *http2.Framer) {
		fr.WriteSettings()
		headers(fr, 1, "/-1")
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x04}, PadLength: 3})
		fr.WriteContinuation(3, true, []byte{2, '/', '0'})
		fr.WriteWindowUpdate(0, 100)
		fr.WriteWindowUpdate(3, 100)
		fr.WriteSettingsAck()
	})
	f.Fuzz(func(t *testing.T, flight []byte, chunk uint8, split bool) {
		d := newDispatcher(2)
		d.AlwaysSplit = split
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var wg sync.WaitGroup
			for _, target := range d.all() {
				wg.Go(func() {
					for {
						c, err := target.Accept()
						if err != nil {
							return
						}
						wg.Go(func() { answer(ctx, c) })
					}
				})
			}
			near, far := net.Pipe()
			d.Handle(far)
			wg.Go(func() { io.Copy(io.Discard, near) })
			b := append([]byte(http2.ClientPreface), flight...)
			for n := int(chunk) + 1; len(b) > 0; {
				n = min(n, len(b))
				if _, err := near.Write(b[:n]); err != nil {
					break
				}
				b = b[n:]
			}
			synctest.Wait()
			near.Close()
			d.Close()
			wg.Wait()
		})
	})
}

// answer is a server that answers requests, and nothing else.
func answer(_ context.Context, c net.Conn) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	var out bytes.Buffer
	fr := http2.NewFramer(&out, c)
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				fr.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, EndHeaders: true, BlockFragment: []byte{0x88}})
		case *http2.DataFrame:
			if f.Length > 0 {
				fr.WriteWindowUpdate(0, f.Length)
			}
			fr.WriteData(f.StreamID, f.StreamEnded(), nil)
		case *http2.PingFrame:
			if !f.IsAck() {
				fr.WritePing(true, f.Data)
			}
		}
		if _, err := c.Write(out.Bytes()); err != nil {
			return
		}
		out.Reset()
	}
}
