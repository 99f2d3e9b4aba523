package oneport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Listen is [net.Listen] for a server with many new connections. The connections that it accepts are of the same types and
// have the same options, but on Linux most of the options are set on the listening socket, once, and inherited: of the
// five system calls to that end which net makes for each TCP connection, only the one that sets TCP_NODELAY remains. What
// [ListenConfig] says of networks and systems holds here.
func Listen(network, address string) (net.Listener, error) {
	return new(ListenConfig).Listen(context.Background(), network, address)
}

// ListenConfig is [Listen] with settings. The fields and methods of [net.ListenConfig] work as they do there: Control for
// options of one's own (it is called last), KeepAlive and KeepAliveConfig for other keep-alive times. The zero value is
// ready to use.
//
// Linux hands the options of keep-alive down from the listening socket to the accepted ones, also those of Multipath TCP.
// Kernels that cannot set them on a listening socket of Multipath TCP (before 6.11 or so) get one of plain TCP. On other
// systems, and for networks other than TCP, net sets the options on each connection, as it always does.
type ListenConfig struct {
	net.ListenConfig

	// DeferAccept, if positive, has the kernel keep connections back until the client has sent something
	// (TCP_DEFER_ACCEPT), which saves the mux a wait for each. A client that stays silent comes when the time is up, if it
	// comes at all; the kernel rounds the time up to its next retransmission of the handshake.
	//
	// It is for ports whose clients all speak first: HTTP, gRPC, TLS. A client of a protocol in which the server does is
	// kept waiting, for a route with [Silence] and for the mux's own times, which begin with Accept. Silent connections
	// take a place among the kernel's half-open ones, and do not appear in [Stats]; a health check that only connects sees
	// an open port whether or not anybody accepts.
	//
	// Zero leaves it off. It works on Linux, and is ignored elsewhere.
	DeferAccept time.Duration

	// ReusePort lets several listeners, also of several processes of the user, have the same address at once
	// (SO_REUSEPORT), among which the kernel divides the new connections. So a new process can start to accept before the
	// old one stops, and accepting can be spread over several muxes.
	//
	// All of them have to ask for it. A second instance started by mistake is no longer told that the address is in use:
	// it gets half of the connections. Connections that a listener has not accepted yet when it is closed are reset.
	//
	// It works on Linux. Elsewhere Listen returns an error that is [errors.ErrUnsupported].
	ReusePort bool
}

// ControlSocket sets the options of the configuration on a socket that is to listen, for a listener that is made elsewhere:
// it is a function for [net.ListenConfig.Control], and calls that of the configuration last. So that the options of
// keep-alive that connections inherit are left alone, and cost nothing, the KeepAlive of that net.ListenConfig should be
// negative.
//
// On systems other than Linux, and on networks other than TCP, it only calls the function of the configuration.
func (lc *ListenConfig) ControlSocket(network, address string, c syscall.RawConn) error {
	if err := lc.controlSocket(network, c); err != nil {
		return err
	}
	if lc.Control != nil {
		return lc.Control(network, address, c)
	}
	return nil
}

// ApplyTo sets the options of the configuration on a listener that is listening already, such as one that was inherited from
// systemd or from a process before. Connections that have arrived by then may lack them. ReusePort, which has to be set
// before, has no effect. The error is [errors.ErrUnsupported] if l gives no access to its socket.
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

// Listen announces on the address, as [net.ListenConfig.Listen] does. On TCP networks the listener is a
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
