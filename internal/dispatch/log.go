package dispatch

import (
	"context"
	"log/slog"
	"net"
	"runtime/debug"
	"time"
)

// logPanic reports what a user's code panicked with. It must be called where the stack is still that of the panic.
func logPanic(d *Dispatcher, c net.Conn, v any) {
	d.Logger.LogAttrs(context.Background(), slog.LevelError, "oneport: panic", slog.String("in", "a matcher of a request"), slog.Any("remote", c.RemoteAddr()),
		slog.Any("local", c.LocalAddr()), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
}

// logInterval is the time in which at most one record is logged about the server of a target.
const logInterval = time.Second

// logServerFault reports a server that has violated HTTP/2.
func (v *Conn) logServerFault(err error) {
	t := v.target
	last, now := t.faulty.Load(), time.Now().UnixNano()
	if now-last < int64(logInterval) || !t.faulty.CompareAndSwap(last, now) {
		return
	}
	v.c.d.Logger.LogAttrs(context.Background(), slog.LevelError, "oneport: a server has violated HTTP/2", slog.Any("remote", v.RemoteAddr()),
		slog.Any("local", v.LocalAddr()), slog.String("route", t.name), slog.Any("err", err))
}
