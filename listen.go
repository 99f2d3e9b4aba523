package oneport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Listen announces on the network address like [net.Listen], for servers with many new connections. The accepted
// connections have the same types and socket options. On Linux most of the options are set once on the listening socket
// and inherited, which saves four of the five setsockopt(2) calls that package net makes for each TCP connection;
// setting TCP_NODELAY remains. See [ListenConfig] for other networks and systems.
func Listen(network, address string) (net.Listener, error) {
	return new(ListenConfig).Listen(context.Background(), network, address)
}

// ListenConfig has the options of a listener; [Listen] uses its zero value. The fields and methods of
// [net.ListenConfig] work as usual: Control sets further options and is called last; KeepAlive and KeepAliveConfig
// change the keep-alive settings. The zero value is ready to use.
//
// On Linux, accepted connections inherit the keep-alive options of the listening socket, Multipath TCP included. On
// kernels that cannot set these options on a Multipath TCP listener (before about 6.11), the listener uses plain TCP.
// On other systems and networks, package net sets the options on each connection.
type ListenConfig struct {
	net.ListenConfig

	// DeferAccept, if positive, makes the kernel hold a connection back until the client has sent its first bytes
	// (TCP_DEFER_ACCEPT), which saves the mux a wait for each connection. A client that stays silent is accepted or
	// dropped by the kernel about this long after it has connected, rounded up to the next retransmission of the
	// handshake.
	//
	// Use it only if all clients of the port speak first, as with HTTP, gRPC and TLS. It delays clients that wait for
	// the server to speak, before a route with [Silence] and the timeouts of the mux begin. Silent connections count
	// towards the kernel's backlog and do not appear in [Stats]. A health check that only connects succeeds whether or
	// not the process accepts.
	//
	// Zero means off. DeferAccept works on Linux, and is ignored on other systems.
	DeferAccept time.Duration

	// ReusePort lets several listeners, of one or several processes of the same user, share an address (SO_REUSEPORT).
	// The kernel distributes new connections among them. A new process can thus begin to accept before the old one
	// stops, and several muxes can share the load of accepting.
	//
	// All of the listeners must set it. A second instance that is started by mistake gets a share of the connections
	// instead of an error. When a listener is closed, the connections that it has not accepted yet are reset.
	//
	// ReusePort works on Linux. On other systems Listen returns an error that wraps [errors.ErrUnsupported].
	ReusePort bool
}

// ControlSocket sets the options of the configuration on a socket that is about to listen, and then calls lc.Control.
// Use it as [net.ListenConfig.Control] where another package creates the listener. Set KeepAlive of that
// net.ListenConfig to a negative value, so that package net leaves the inherited keep-alive options alone.
//
// On systems other than Linux, and on networks other than TCP, ControlSocket only calls lc.Control.
func (lc *ListenConfig) ControlSocket(network, address string, c syscall.RawConn) error {
	if err := lc.controlSocket(network, c); err != nil {
		return err
	}
	if lc.Control != nil {
		return lc.Control(network, address, c)
	}
	return nil
}

// ApplyTo sets the options of the configuration on an existing listener, such as one inherited from systemd or from a
// previous process. Connections that have already arrived may lack them. ReusePort has no effect. If l gives no access
// to its socket, the error wraps [errors.ErrUnsupported].
func (lc *ListenConfig) ApplyTo(l net.Listener) error {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return fmt.Errorf("oneport: the socket of a %T: %w", l, errors.ErrUnsupported)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	listening := *lc
	listening.ReusePort = false
	return listening.controlSocket(l.Addr().Network(), raw)
}

// Listen announces on the network address, as [net.ListenConfig.Listen] does. On TCP networks the listener is a
// [*net.TCPListener].
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		return lc.listenTCP(ctx, network, address)
	}
	if lc.DeferAccept > 0 || lc.ReusePort {
		return nil, fmt.Errorf("oneport: listening on %s %s: DeferAccept and ReusePort are for TCP: %w",
			network, address, errors.ErrUnsupported)
	}
	return lc.ListenConfig.Listen(ctx, network, address)
}
