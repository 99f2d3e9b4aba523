package oneport

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oneport-go/oneport/internal/testenv"
)

// A recordingHandler keeps records at a level or above.
type recordingHandler struct {
	level slog.Level

	mu      sync.Mutex
	records []logged
}

// logged is a record, with its attributes as they would be written.
type logged struct {
	at    time.Time
	level slog.Level
	msg   string
	attrs map[string]any
}

func (h *recordingHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *recordingHandler) Handle(_ context.Context, r slog.Record) error {
	l := logged{time.Now(), r.Level, r.Message, make(map[string]any)}
	r.Attrs(func(a slog.Attr) bool {
		l.attrs[a.Key] = a.Value.Resolve().Any()
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records = append(h.records, l)
	return nil
}

func (h *recordingHandler) WithAttrs([]slog.Attr) slog.Handler { panic("not used") }
func (h *recordingHandler) WithGroup(string) slog.Handler      { panic("not used") }

// all returns the records so far.
func (h *recordingHandler) all() []logged {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.records)
}

// counted returns how many refusals for a reason the records stand for.
func (h *recordingHandler) counted(reason RefuseReason) (n int) {
	for _, r := range h.all() {
		if r.attrs["reason"] == reason.String() {
			n += 1 + int(r.attrs["not_logged"].(int64))
		}
	}
	return n
}

// refuseOne reports a connection that is refused for a reason. A silent client has said nothing.
func refuseOne(m *Mux, reason RefuseReason, silent bool) {
	server, client := net.Pipe()
	defer client.Close()
	defer server.Close()
	m.reportRefused(server, nil, time.Now(), nil, &refusal{reason: reason, err: errors.New("for a test"), mute: silent})
}

// TestLogLimitReasons checks that what is logged for one reason and level takes no place from another.
func TestLogLimitReasons(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMux(newPipeListener())
		h := &recordingHandler{level: slog.LevelDebug}
		m.Logger = slog.New(h)
		refuseOne(m, ReasonTimeout, true) // at Debug
		refuseOne(m, ReasonTimeout, false)
		refuseOne(m, ReasonNoRoute, false)
		m.refusals.log(m, reasonAbuse, slog.LevelWarn, "abuse", nil)
		got := ""
		for _, r := range h.all() {
			got += fmt.Sprintf("%v %v %v\n", r.level, r.attrs["reason"], r.attrs["not_logged"])
		}
		if want := "DEBUG timeout 0\nWARN timeout 0\nWARN no route 0\nWARN <nil> 0\n"; got != want {
			t.Errorf("at once were logged\n%s, want\n%s", got, want)
		}
		time.Sleep(time.Minute)
	})
}

// TestLogLimitSilent checks that clients which say nothing do not use up the place of one that has said something where
// the logger leaves them out.
func TestLogLimitSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMux(newPipeListener())
		h := &recordingHandler{level: slog.LevelInfo}
		m.Logger = slog.New(h)
		for range 10 {
			refuseOne(m, ReasonTimeout, true)
		}
		if m.refusals.open != nil {
			t.Error("records that are not logged have taken a place")
		}
		refuseOne(m, ReasonTimeout, false)
		if records := h.all(); len(records) != 1 || records[0].level != slog.LevelWarn || records[0].attrs["not_logged"] != int64(0) {
			t.Errorf("logged were %v", records)
		}
		time.Sleep(time.Minute)
		if n := len(h.all()); n != 1 {
			t.Errorf("in the end %d records were logged", n)
		}
	})
}

// TestLogLimitCounts lets refusals come at all rates, and checks how many records there are, and that they stand for
// all.
func TestLogLimitCounts(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{0, time.Millisecond, logInterval / 3, logInterval - 1, logInterval, logInterval + 1, 3 * logInterval} {
		t.Run(every.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMux(newPipeListener())
				h := &recordingHandler{level: slog.LevelDebug}
				m.Logger = slog.New(h)
				for range 100 {
					refuseOne(m, ReasonNoRoute, false)
					time.Sleep(every)
				}
				time.Sleep(3 * logInterval)
				synctest.Wait()
				records := h.all()
				if n := h.counted(ReasonNoRoute); n != 100 {
					t.Errorf("%d records stand for %d refusals, want 100", len(records), n)
				}
				for i := 1; i < len(records); i++ {
					if d := records[i].at.Sub(records[i-1].at); d < logInterval {
						t.Errorf("two records are %v apart", d)
					}
				}
				if len(m.refusals.open) > 0 {
					t.Error("when all is over, a window is still open")
				}
			})
		})
	}
}

// TestLogLimitClose checks that no refusal goes uncounted when a mux is closed, those included that are for that
// reason.
func TestLogLimitClose(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*Mux) error{
		"Shutdown": func(m *Mux) error { return m.Shutdown(context.Background()) },
		"Close":    (*Mux).Close,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const rubbish, silent, queued = 10, 7, 5
				root := newPipeListener()
				m := newMux(root)
				h := &recordingHandler{level: slog.LevelDebug}
				m.Logger = slog.New(h)
				m.Match(HTTP1()) // whose server does not accept
				serve(t, m)
				for i := range rubbish + silent + queued {
					client := dial(t, root)
					go io.Copy(io.Discard, client)
					switch {
					case i < rubbish:
						write(t, client, []byte("\x00"))
					case i < rubbish+queued:
						write(t, client, []byte("GET / HTTP/1.1\r\n\r\n"))
					}
				}
				synctest.Wait()
				stop(m)
				if name == "Close" {
					time.Sleep(logInterval) // it waits for nothing
					synctest.Wait()
				}
				for reason, want := range map[RefuseReason]int{ReasonNoRoute: rubbish, ReasonShutdown: silent, ReasonRouteClosed: queued} {
					if got := h.counted(reason); got != want {
						t.Errorf("the records stand for %d refusals for %v, want %d", got, reason, want)
					}
				}
			})
		})
	}
}

// TestLogNothing checks that what is not logged and not asked for costs nothing.
func TestLogNothing(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("the race detector allocates")
	}
	m := newMux(newPipeListener())
	m.Logger = slog.New(&recordingHandler{level: slog.LevelError})
	server, client := net.Pipe()
	defer server.Close()
	defer client.Close()
	c := &pending{mux: m, raw: server, accepted: time.Now(), decision: new(decision)}
	r := &refusal{reason: ReasonNoRoute, err: errors.New("for a test")}
	rt := m.Match(Any()).(*route)
	if n := testing.AllocsPerRun(100, func() {
		m.reportRefused(server, nil, c.accepted, rt, r)
		c.matched(rt)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got := m.Stats().Refused[ReasonNoRoute]; got < 100 {
		t.Errorf("Stats counts %d", got)
	}
}

// TestHelp checks that what is logged at level Warn about connections links to a section that exists, and that it says
// the reason.
func TestHelp(t *testing.T) {
	t.Parallel()
	const page = "docs/troubleshooting.md"
	sections := anchors(readPage(t, page))
	link := func(r logged) string {
		t.Helper()
		help, _ := r.attrs["help"].(string)
		section, ok := strings.CutPrefix(help, "https://github.com/oneport-go/oneport/blob/main/"+page+"#")
		if !ok || !slices.Contains(sections, section) {
			t.Errorf("%v, %v: help=%q leads nowhere", r.msg, r.attrs["reason"], help)
		}
		return section
	}
	m := newMux(newPipeListener())
	defer m.Close()
	h := &recordingHandler{level: slog.LevelDebug}
	m.Logger = slog.New(h)
	for reason := ReasonNoRoute; reason < reasons; reason++ {
		refuseOne(m, reason, false)
	}
	server, client := net.Pipe()
	defer server.Close()
	defer client.Close()
	q := m.Requests()
	(&dispatched{requests: q, raw: server}).reportAbuse(errors.New("for a test"))
	records := h.all()
	if len(records) != int(reasons) { // one for each reason, which begin with 1, and the abuse
		t.Fatalf("%d records", len(records))
	}
	linked := make(map[string]bool)
	for _, r := range records {
		if r.level >= slog.LevelWarn {
			linked[link(r)] = true
		} else if r.attrs["help"] != nil {
			t.Errorf("%v, at level %v, has help", r.attrs["reason"], r.level)
		}
	}
	for _, section := range sections { // none is left behind when a reason is renamed
		if strings.HasPrefix(section, "refused-") && !linked[section] {
			t.Errorf("no record links to %s#%s", page, section)
		}
	}
}

// TestLogValues checks what is written of the values that hooks are given.
func TestLogValues(t *testing.T) {
	t.Parallel()
	server, client := net.Pipe()
	defer server.Close()
	defer client.Close()
	state := &tls.ConnectionState{Version: tls.VersionTLS13, ServerName: "example.com", NegotiatedProtocol: "h2"}
	addr := server.LocalAddr().String()
	common := func(more map[string]any) map[string]any {
		m := map[string]any{
			"remote": addr, "local": addr, "route": "tls/grpc", "protocol": "HTTP/2",
			"tls": map[string]any{"version": "TLS 1.3", "server_name": "example.com", "alpn": "h2"},
		}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	cause := errors.New("the cause")
	for _, tt := range []struct {
		value slog.LogValuer
		want  map[string]any
	}{
		{Matched{Conn: server, TLS: state, Route: "tls/grpc", Protocol: ProtocolHTTP2, EarlySettings: true, Waited: time.Second},
			common(map[string]any{"upgraded": false, "early_settings": true, "waited": time.Second})},
		{Refused{Conn: server, TLS: state, Route: "tls/grpc", Protocol: ProtocolHTTP2, Reason: ReasonTooMany,
			Err: fmt.Errorf("refused: %w", cause), Seen: 24, Waited: time.Minute},
			common(map[string]any{"reason": "too many", "err": "the cause", "bytes": int64(24), "early_settings": false, "waited": time.Minute})},
		{Refused{Conn: server, TLS: state, Route: "tls/grpc", Protocol: ProtocolHTTP2, Reason: ReasonIdle, Err: cause},
			common(map[string]any{"reason": "idle", "err": "the cause", "bytes": int64(0), "early_settings": false, "waited": time.Duration(0)})},
		{Dispatched{Conn: server, TLS: state, Route: "tls/grpc", EarlySettings: true}, common(map[string]any{"early_settings": true})},
		{Abused{Conn: server, TLS: state, Route: "tls/grpc", Err: cause}, common(map[string]any{"err": "the cause"})},
		{Dispatched{Conn: server, Route: "http"},
			map[string]any{"remote": addr, "local": addr, "route": "http", "protocol": "HTTP/2", "early_settings": false}},
	} {
		if diff := cmp.Diff(tt.want, plain(slog.AnyValue(tt.value))); diff != "" {
			t.Errorf("%T: %s", tt.value, diff)
		}
	}
}

// plain returns a value with its groups as maps, and with errors and addresses as strings.
func plain(v slog.Value) any {
	v = v.Resolve()
	if v.Kind() != slog.KindGroup {
		switch v := v.Any().(type) {
		case error:
			return v.Error()
		case net.Addr:
			return v.String()
		default:
			return v
		}
	}
	m := make(map[string]any)
	for _, a := range v.Group() {
		m[a.Key] = plain(a.Value)
	}
	return m
}

// TestLogLevels checks which refusals are worth a warning.
func TestLogLevels(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		sends string
		then  func(m *Mux, client net.Conn)
		hook  bool
		want  string
	}{
		{name: "closes at once", then: func(_ *Mux, c net.Conn) { c.Close() }, want: "DEBUG client closed"},
		{name: "says nothing", want: "DEBUG timeout"},
		{name: "says nothing until Shutdown", then: func(m *Mux, _ net.Conn) { m.Close() }, want: "DEBUG shutdown"},
		{name: "says half of it", sends: "GET / HT", want: "WARN timeout"},
		{name: "says half of it and closes", sends: "GET / HT", then: func(_ *Mux, c net.Conn) { c.Close() }, want: "DEBUG client closed"},
		{name: "says rubbish", sends: "\x00", want: "WARN no route"},
		{name: "says rubbish, with a hook", sends: "\x00", hook: true, want: "WARN no route"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				var logged lockedBuffer
				m.Logger = slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
				if tt.hook {
					m.OnRefuse = func(Refused) {}
				}
				m.Match(HTTP1())
				serve(t, m)
				client := dial(t, root)
				go io.Copy(io.Discard, client)
				write(t, client, []byte(tt.sends))
				synctest.Wait()
				if tt.then != nil {
					tt.then(m, client)
				}
				time.Sleep(time.Minute)
				var record struct{ Level, Reason string }
				if err := json.Unmarshal([]byte(logged.String()), &record); err != nil {
					t.Fatalf("%v in %q", err, logged.String())
				}
				if got := record.Level + " " + record.Reason; got != tt.want {
					t.Errorf("logged %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// TestLogLimit checks that a flood of bad connections is no flood of records, and that none goes uncounted.
func TestLogLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		var logged lockedBuffer
		m.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		m.Match(HTTP1())
		serve(t, m)
		for range 50 {
			c := dial(t, root)
			write(t, c, []byte("\x00"))
			c.Close()
			time.Sleep(100 * time.Millisecond)
		}
		m.Close()
		log := logged.String()
		records, total := strings.Count(log, "\n"), 0
		for line := range strings.Lines(log) {
			_, n, _ := strings.Cut(strings.TrimSpace(line), "not_logged=")
			held, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(line)
			}
			total += 1 + held
		}
		if records > 6 || total != 50 {
			t.Errorf("in 5 seconds %d records of %d connections were logged: %s", records, total, log)
		}
	})
}
