// Package grpccreds provides transport credentials for a gRPC server behind a listener that terminates TLS.
//
// A [google.golang.org/grpc.Server] knows the certificates of its clients if it does TLS itself, with
// credentials.NewTLS. If a listener terminates TLS instead, because other servers share the port, peer.Peer.AuthInfo
// stays empty. With [Credentials], AuthInfo is filled in as usual:
//
//	server := grpc.NewServer(grpc.Creds(grpccreds.Credentials{}))
//
// Credentials also save memory: gRPC then needs no read buffer for an idle cleartext connection of a oneport.Server or
// a oneport.RequestMux, as it needs none for a TCP connection on Linux.
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

// Credentials are transport credentials for a gRPC server that gets connections on which TLS was terminated, cleartext
// connections, or both. The zero value is ready to use, by any number of servers at once.
//
// A connection counts as TLS if it has the method ConnectionState of [tls.Conn], or one of the connections below it
// has, as found by their NetConn methods. If the handshake is not complete, Credentials complete it, within
// grpc.ConnectionTimeout. AuthInfo is then a [credentials.TLSInfo] with security level PrivacyAndIntegrity, and with
// the SPIFFE ID if the client's certificate has one. The [tls.Config] of the listener verifies the certificate. Unlike
// credentials.NewTLS, Credentials accept connections without ALPN: the listener has decided about those.
//
// On a cleartext connection AuthInfo is that of [insecure.NewCredentials], with security level NoSecurity, so an
// interceptor can tell the two apart.
//
// On a cleartext connection whose requests are dispatched one by one (oneport.Server, oneport.RequestMux), gRPC takes a
// read buffer from its pool when there are bytes to read. Without Credentials it keeps a buffer of 32 KiB, or of
// grpc.ReadBufferSize, for each such connection.
//
// gRPC sets TCP_USER_TIMEOUT only if it gets a *net.TCPConn. Above TLS, set it on the listening socket.
type Credentials struct {
	// RequireTLS refuses cleartext connections.
	RequireTLS bool
}

var _ credentials.TransportCredentials = Credentials{}

// errClient is the answer to what only clients need.
var errClient = errors.New("grpccreds: these are credentials for servers; clients use credentials.NewTLS")

// errCleartext refuses a connection for RequireTLS.
var errCleartext = errors.New("grpccreds: the connection does not use TLS, but Credentials.RequireTLS is set")

// ServerHandshake finishes the TLS handshake, if there is one to finish, and describes the connection. The connection
// that it returns is c, or one that reads from and writes to c and gives access to the socket below, which channelz
// needs.
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

// ClientHandshake returns an error, since Credentials are for servers only.
func (Credentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errClient
}

// Info returns the protocol information that all connections have in common.
func (cr Credentials) Info() credentials.ProtocolInfo {
	if cr.RequireTLS {
		return credentials.ProtocolInfo{SecurityProtocol: "tls"}
	}
	return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
}

// Clone returns a copy of cr.
func (cr Credentials) Clone() credentials.TransportCredentials { return cr }

// OverrideServerName returns an error, since Credentials are for servers only.
func (Credentials) OverrideServerName(string) error { return errClient }
