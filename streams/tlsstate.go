package streams

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

// TLSState gives the requests of s the state of the client's TLS connection in Request.TLS, where s accepts from a route
// of a [Mux] whose listener is one of TLS. The Server of net/http itself does not find it there, as it takes HTTP/2 over
// TLS only from a *tls.Conn.
//
// It is to be called before s serves, after its Handler is set, which it wraps, as it does ConnContext.
func TLSState(s *http.Server) {
	next, connContext := s.Handler, s.ConnContext
	if next == nil {
		next = http.DefaultServeMux
	}
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		if below, ok := c.(interface{ NetConn() net.Conn }); ok {
			if t, ok := below.NetConn().(interface{ ConnectionState() tls.ConnectionState }); ok {
				state := t.ConnectionState()
				ctx = context.WithValue(ctx, tlsStateKey{}, &state)
			}
		}
		return ctx
	}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(tlsStateKey{}).(*tls.ConnectionState); ok && r.TLS == nil {
			withTLS := *r
			withTLS.TLS = state
			r = &withTLS
		}
		next.ServeHTTP(w, r)
	})
}

type tlsStateKey struct{}
