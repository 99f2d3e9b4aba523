package oneport

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

func (m *Mux) logger() *slog.Logger { return cmp.Or(m.Logger, slog.Default()) }

func (m *Mux) log(level slog.Level, msg string, attrs ...slog.Attr) {
	m.logger().LogAttrs(context.Background(), level, msg, attrs...)
}

// logPanic reports what a user's code panicked with. It must be called where the stack is still that of the panic.
func (m *Mux) logPanic(where string, c net.Conn, v any) {
	stack := debug.Stack()
	if p, ok := v.(*readerPanic); ok {
		v, stack = p.value, p.stack
	}
	m.log(slog.LevelError, "oneport: panic", slog.String("in", where), slog.Any("remote", c.RemoteAddr()),
		slog.Any("local", c.LocalAddr()), slog.Any("panic", v), slog.String("stack", string(stack)))
}

// matched counts and reports a connection that has found its route.
func (c *pending) matched(rt *route) {
	m, p := c.mux, &c.preview
	c.protocol, c.language = p.Protocol(), p.language()
	if c.upgraded {
		c.protocol, c.language = ProtocolHTTP2, ProtocolHTTP2
		m.counters.upgraded.Add(1)
		m.warnOfUpgrade(rt, p)
	}
	if c.tls != nil && c.protocol == ProtocolHTTP2 && p.alpn() == "" {
		m.counters.withoutALPN.Add(1)
	}
	debug := m.logger().Enabled(context.Background(), slog.LevelDebug)
	if !debug && m.OnMatch == nil {
		return
	}
	matched := Matched{
		Conn:          c.raw,
		TLS:           c.tls,
		Route:         rt.name,
		Protocol:      c.protocol,
		Upgraded:      c.upgraded,
		EarlySettings: c.early,
		Waited:        time.Since(c.accepted),
	}
	if debug {
		m.log(slog.LevelDebug, "oneport: connection matched", matched.LogValue().Group()...)
	}
	if m.OnMatch != nil {
		m.OnMatch(matched)
	}
}

// reportRefused counts and reports a connection that is refused, and that rt, if it is not nil, had taken.
func (m *Mux) reportRefused(raw net.Conn, state *tls.ConnectionState, accepted time.Time, rt *route, r *refusal) {
	route, counts := "", &m.counters.refused
	if rt != nil {
		route, counts = rt.name, &rt.refused
	}
	counts[r.reason].Add(1)
	level := slog.LevelWarn
	switch r.reason {
	case ReasonClientClosed, ReasonIdle, ReasonShutdown:
		level = slog.LevelDebug
	case ReasonTimeout:
		if r.mute {
			level = slog.LevelDebug
		}
	}
	enabled := m.logger().Enabled(context.Background(), level)
	if !enabled && m.OnRefuse == nil {
		return
	}
	refused := Refused{
		Conn:          raw,
		TLS:           state,
		Route:         route,
		Protocol:      r.language,
		EarlySettings: r.early,
		Reason:        r.reason,
		Err:           fmt.Errorf("oneport: refused %v on %v: %w", raw.RemoteAddr(), raw.LocalAddr(), r.err),
		Seen:          r.seen,
		Waited:        time.Since(accepted),
	}
	if enabled {
		attrs := refused.LogValue().Group()
		if level >= slog.LevelWarn {
			attrs = append(attrs, help(r.reason.section()))
		}
		m.refusals.log(m, r.reason, level, "oneport: connection refused", attrs)
	}
	if m.OnRefuse != nil {
		m.callHook("OnRefuse", raw, func() { m.OnRefuse(refused) })
	}
}

// help links to the section of docs/troubleshooting.md that says what to do.
func help(section string) slog.Attr {
	return slog.String("help", "https://github.com/oneport-go/oneport/blob/main/docs/troubleshooting.md#"+section)
}

// The sections about records that are not about a refusal.
const (
	sectionAbuse  = "closed-for-exceeding-a-limit"
	sectionAnswer = "the-server-of-a-route-does-not-speak-http2"
	sectionReach  = "no-connection-has-reached-a-route"
)

// callHook calls a hook, and logs its panic.
func (m *Mux) callHook(name string, c net.Conn, call func()) {
	defer func() {
		if v := recover(); v != nil {
			m.logPanic("the hook "+name, c, v)
		}
	}()
	call()
}

// logInterval is the time in which at most one record is logged for each reason and level.
const logInterval = time.Second

// A logLimiter lets one record pass for each reason and level in logInterval, so that a flood of bad connections does
// not become a flood of records. Of the others it logs the last one at the end of the interval, with the number of
// those that it left out.
type logLimiter struct {
	mu   sync.Mutex
	open map[logKey]*logWindow
}

type logKey struct {
	reason RefuseReason
	level  slog.Level
}

// A logWindow is the time after a record.
type logWindow struct {
	timer *time.Timer
	held  int // records
	msg   string
	attrs []slog.Attr // of the last of them
}

// log logs a record that the logger would emit, now or later.
func (l *logLimiter) log(m *Mux, reason RefuseReason, level slog.Level, msg string, attrs []slog.Attr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := logKey{reason, level}
	if w := l.open[key]; w != nil {
		w.held++
		w.msg, w.attrs = msg, attrs
		return
	}
	if l.open == nil {
		l.open = make(map[logKey]*logWindow)
	}
	l.open[key] = &logWindow{timer: time.AfterFunc(logInterval, func() { l.over(m, key) })}
	m.log(level, msg, append(attrs, slog.Int("not_logged", 0))...)
}

// over ends the window of a key, and begins another if there is a record to log.
func (l *logLimiter) over(m *Mux, key logKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.open[key]
	if w == nil {
		return // flushed meanwhile
	}
	if w.held == 0 {
		delete(l.open, key)
		return
	}
	w.emit(m, key)
	w.timer.Reset(logInterval)
}

func (w *logWindow) emit(m *Mux, key logKey) {
	m.log(key.level, w.msg, append(w.attrs, slog.Int("not_logged", w.held-1))...)
	w.held, w.attrs = 0, nil
}

// flush logs what is held back.
func (l *logLimiter) flush(m *Mux) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, w := range l.open {
		w.timer.Stop()
		if w.held > 0 {
			w.emit(m, key)
		}
	}
	l.open = nil
}
