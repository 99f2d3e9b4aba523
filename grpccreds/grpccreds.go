// Package grpccreds tells a gRPC server about TLS that was terminated in front of it.
//
// A [google.golang.org/grpc.Server] knows its clients' certificates if it does TLS itself, with credentials.NewTLS. Where
// a listener does it, because other servers share the port, the server gets connections on which TLS is done or about to
// be, and peer.Peer.AuthInfo stays empty. With [Credentials] it has there what it would have otherwise:
//
//	server := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
//
// They also have gRPC read from connections on which requests are dispatched one by one, by oneport.Server or package
// streams, as it does from a socket of Linux: without a buffer for each connection that is idle.
package grpccreds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/oneport-go/oneport/internal/netconn"
)

// Credentials are the transport credentials of a gRPC server whose connections come with TLS done. The zero value serves
// such connections and those in the clear. Credentials may be used by any number of servers at once.
//
// A connection with TLS is one that has the method ConnectionState of [tls.Conn], itself or below what its method NetConn
// leads to. A *tls.Conn has it, and so has any connection of a mux above TLS. If the handshake is still to be done it is
// done, in the time that grpc.ConnectionTimeout grants. The peer's AuthInfo is then a [credentials.TLSInfo] with security
// level PrivacyAndIntegrity, and the SPIFFE ID if the client's certificate has one; verifying the certificate is up to
// the [tls.Config] of the listener. Unlike credentials.NewTLS, Credentials do not insist on ALPN: whether HTTP/2 without it
// is welcome was decided by whoever handed the connection over.
//
// On a connection in the clear the AuthInfo is that of [insecure.NewCredentials], of security level NoSecurity. An
// interceptor can tell the two apart by it, so one server can be on both sides.
//
// On a connection in the clear whose requests are dispatched one by one (oneport.Server, package streams) gRPC takes a
// buffer from its pool when there is something to read. Otherwise it would keep one of 32 KiB, or what
// grpc.ReadBufferSize says, for each such connection.
//
// gRPC sets TCP_USER_TIMEOUT only on a *net.TCPConn that it got as such. Above TLS, set it on the listening socket.
type Credentials struct {
	// RequireTLS refuses connections in the clear.
	RequireTLS bool
}

var _ credentials.TransportCredentials = Credentials{}

// errClient is the answer to what only clients need.
var errClient = errors.New("grpccreds: these are credentials for servers; clients use credentials.NewTLS")

// errCleartext refuses a connection for RequireTLS.
var errCleartext = errors.New("grpccreds: the connection is without TLS, which Credentials.RequireTLS requires")

// ServerHandshake finishes the TLS handshake, if there is one to finish, and describes the connection. The connection
// that it returns is c, or reads and writes c and gives access to the socket below, as channelz wants it.
func (cr Credentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	state, ok, err := connectionState(c)
	switch {
	case err == io.EOF:
		return nil, nil, err // which gRPC knows as a client that went away
	case err != nil:
		return nil, nil, fmt.Errorf("grpccreds: the TLS handshake failed: %w", err)
	case !ok && cr.RequireTLS:
		return nil, nil, errCleartext
	case !ok:
		return insecure.NewCredentials().ServerHandshake(lean(c))
	}
	return withSocket(c), credentials.TLSInfo{
		State:          state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		SPIFFEID:       spiffeID(state),
	}, nil
}

// connectionState returns the state of TLS, after the handshake. It reports whether there is TLS.
func connectionState(c net.Conn) (state tls.ConnectionState, ok bool, err error) {
	for c := range netconn.Chain(c) {
		if h, ok := c.(interface{ Handshake() error }); ok {
			if err := h.Handshake(); err != nil {
				return state, false, err
			}
		}
		if s, ok := c.(netconn.Secured); ok {
			// A connection that has the method for all cases says so where there is no TLS.
			if state = s.ConnectionState(); state.HandshakeComplete {
				return state, true, nil
			}
		}
	}
	return state, false, nil
}

// withSocket returns c in a form in which the socket can be found.
func withSocket(c net.Conn) net.Conn {
	if netconn.HasSocket(c) {
		return c
	}
	if socket := netconn.Socket(netconn.Below(c)); socket != nil {
		return &socketConn{c, socket}
	}
	return c
}

// socketConn is a connection and the socket below it.
type socketConn struct {
	net.Conn
	socket syscall.Conn
}

// SyscallConn implements [syscall.Conn].
func (c *socketConn) SyscallConn() (syscall.RawConn, error) { return c.socket.SyscallConn() }

// NetConn returns the connection that the server was given.
func (c *socketConn) NetConn() net.Conn { return c.Conn }

// ClientHandshake returns an error: only servers have a use for Credentials.
func (Credentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errClient
}

// Info says what holds for every connection.
func (cr Credentials) Info() credentials.ProtocolInfo {
	if cr.RequireTLS {
		return credentials.ProtocolInfo{SecurityProtocol: "tls"}
	}
	return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
}

// Clone returns a copy.
func (cr Credentials) Clone() credentials.TransportCredentials { return cr }

// OverrideServerName returns an error: only clients have a use for it.
func (Credentials) OverrideServerName(string) error { return errClient }
