// Package caller finds out which server calls Accept of a listener, for listeners that have to treat servers
// differently.
package caller

import "runtime"

// The Serve methods of servers, as they are called in a stack.
const (
	GRPC    = "google.golang.org/grpc.(*Server).Serve"
	NetHTTP = "net/http.(*Server).Serve"
)

// Is reports whether the function with this name is among the callers, near enough to be the one that accepts.
func Is(name string) bool {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		if frame.Function == name {
			return true
		}
		if !more {
			return false
		}
	}
}
