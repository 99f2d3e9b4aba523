package cmux

import (
	"net"
	"runtime"
	"sync"
)

// listener is what Match returns.
type listener struct {
	mux   *cMux
	route net.Listener

	detect sync.Once
	native bool // connections are accepted by grpc-go
}

// Accept returns a *MuxConn, except to google.golang.org/grpc.(*Server).Serve.
//
// Programs rely on the type: they unwrap it to set socket options, or to find out about TLS, and not all of them look
// whether the assertion holds. grpc-go does not; but only on a *net.TCPConn itself it sets TCP_USER_TIMEOUT and reads
// without holding a buffer for each idle connection, and that is worth a fifth of its CPU time. So, whether a matcher
// looks for gRPC or not, it is the server that decides: the caller of the first Accept is looked for on the stack. To
// grpc-go, which ignores an unexpected acknowledgement of SETTINGS, the oneport listener gives the connection as it was
// accepted. Every other server is given one from which the acknowledgement is taken out, so that gRPC over net/http's
// HTTP/2 works as well.
func (l *listener) Accept() (net.Conn, error) {
	if l.mux.ended.Load() {
		return nil, ErrListenerClosed
	}
	l.detect.Do(func() { l.native = calledBy("google.golang.org/grpc.(*Server).Serve") })
	c, err := l.route.Accept()
	if err != nil {
		return nil, ErrServerClosed
	}
	if l.native {
		return c, nil
	}
	return newMuxConn(c), nil
}

// Close closes the listener below, and this one even if that does not end it.
func (l *listener) Close() error {
	err := l.mux.root.Close()
	l.route.Close()
	return err
}

// Addr returns the address of the listener below.
func (l *listener) Addr() net.Addr { return l.mux.root.Addr() }

// calledBy reports whether the function of the name is among the callers.
func calledBy(name string) bool {
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
