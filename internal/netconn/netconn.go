// Package netconn finds the connections below a [net.Conn], their TLS state, and the socket.
//
// A connection that wraps another returns it from a method NetConn, as [tls.Conn.NetConn] does.
package netconn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"net"
	"syscall"
)

// Below returns the connection that c wraps, or nil if c is nil or wraps none.
func Below(c net.Conn) net.Conn {
	if w, ok := c.(interface{ NetConn() net.Conn }); ok {
		return w.NetConn()
	}
	return nil
}

// Chain returns c and the connections below it, from the top down.
func Chain(c net.Conn) iter.Seq[net.Conn] {
	return func(yield func(net.Conn) bool) {
		for ; c != nil; c = Below(c) {
			if !yield(c) {
				return
			}
		}
	}
}

// CloseWrite shuts down the writing side of c, if c itself has a method for that. Otherwise the error wraps
// [errors.ErrUnsupported]. Connections below c are left alone: only c knows what it still has to write.
func CloseWrite(c net.Conn) error {
	if cw, ok := c.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return fmt.Errorf("closing the writing side of a %T: %w", c, errors.ErrUnsupported)
}

// Secured is the interface by which servers recognize a connection with TLS. A type may have the method for connections
// without TLS, too; then HandshakeComplete is false.
type Secured interface {
	ConnectionState() tls.ConnectionState
}

// ConnectionState returns the state of the TLS of c or of the uppermost connection below that has any, and reports
// whether there is one. TLS whose handshake is not complete does not count. It waits for a handshake that is in
// progress, as [tls.Conn.ConnectionState] does.
func ConnectionState(c net.Conn) (state tls.ConnectionState, ok bool) {
	for c := range Chain(c) {
		if s, isSecured := c.(Secured); isSecured {
			if state := s.ConnectionState(); state.HandshakeComplete {
				return state, true
			}
		}
	}
	return tls.ConnectionState{}, false
}

// HiddenState is [ConnectionState] for a connection that hides the TLS below it, since it is not [Secured]. If c is
// Secured, HiddenState returns false.
func HiddenState(c net.Conn) (state tls.ConnectionState, ok bool) {
	if _, shown := c.(Secured); shown {
		return tls.ConnectionState{}, false
	}
	return ConnectionState(c)
}

// HasSocket reports whether c itself gives access to a socket.
func HasSocket(c net.Conn) bool {
	_, ok := rawConn(c)
	return ok
}

// IsSocket reports whether c is a TCP or Unix socket of package net, and not a connection above one.
func IsSocket(c net.Conn) bool {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// Socket returns c or the uppermost connection below it that gives access to a socket, or nil if there is none.
func Socket(c net.Conn) syscall.Conn {
	for c := range Chain(c) {
		if HasSocket(c) {
			return c.(syscall.Conn)
		}
	}
	return nil
}

// SyscallConn gives access to the socket of c or below it. If there is none, the error wraps [errors.ErrUnsupported].
func SyscallConn(c net.Conn) (syscall.RawConn, error) {
	for c := range Chain(c) {
		if raw, ok := rawConn(c); ok {
			return raw, nil
		}
	}
	return nil, fmt.Errorf("no socket below a %T: %w", c, errors.ErrUnsupported)
}

// rawConn calls the method SyscallConn, which fails where a type has it for all of its connections and this one has no
// socket.
func rawConn(c net.Conn) (syscall.RawConn, bool) {
	if sc, ok := c.(syscall.Conn); ok {
		raw, err := sc.SyscallConn()
		return raw, err == nil
	}
	return nil, false
}
