package dispatch

import (
	"context"
	"log/slog"
	"net"
	"runtime/debug"
)

// logPanic reports what a user's code panicked with. It must be called where the stack is still that of the panic.
func logPanic(d *Dispatcher, c net.Conn, v any) {
	d.Logger.LogAttrs(context.Background(), slog.LevelError, "oneport: panic", slog.String("in", "a matcher of a request"), slog.Any("remote", c.RemoteAddr()),
		slog.Any("local", c.LocalAddr()), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
}

// logServerFault reports a server that has broken HTTP/2.
func (v *Conn) logServerFault(err error) {
	v.c.d.Logger.LogAttrs(context.Background(), slog.LevelError, "oneport: a server has broken HTTP/2", slog.Any("remote", v.RemoteAddr()),
		slog.Any("local", v.LocalAddr()), slog.Int("server", v.target.index), slog.Any("err", err))
}
