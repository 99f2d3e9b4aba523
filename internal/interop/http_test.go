package interop

import (
	"testing"

	"github.com/oneport-go/oneport"
)

func TestHTTP(t *testing.T) {
	for _, tt := range []struct {
		client   client
		protocol oneport.Protocol
		want     string
	}{
		{curlHTTP1, oneport.ProtocolHTTP1, "net/http by HTTP/1.1"},
		{curlHTTP2, oneport.ProtocolHTTP2, "net/http by HTTP/2.0"},
		{nghttp, oneport.ProtocolHTTP2, "net/http by HTTP/2.0"},
		{nodeHTTP2, oneport.ProtocolHTTP2, "net/http by HTTP/2.0"},
	} {
		t.Run(tt.client.name, func(t *testing.T) {
			t.Parallel()
			p := newPort(t)
			p.route(t, "grpc", serveGRPC, oneport.GRPC())
			p.route(t, "http", serveNetHTTP, oneport.HTTP1(), oneport.HTTP2())
			p.start(t)
			if got := tt.client.get(t, p.addr); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			// Whether early SETTINGS are sent depends on the client's speed: see inFirstFlight.
			early := tt.protocol == oneport.ProtocolHTTP2 && p.Stats().EarlySettings > 0
			p.wantMatch(t, "http", tt.protocol, early)
		})
	}
}

// Clients whose first HEADERS come with the preface get no early SETTINGS, and the server gets the accepted connection.
func TestFirstFlight(t *testing.T) {
	for _, client := range http2Clients {
		t.Run(client.name, func(t *testing.T) {
			t.Parallel()
			p := newPort(t)
			p.route(t, "grpc", serveGRPC, oneport.GRPC())
			web := p.route(t, "http", serveNetHTTP, oneport.HTTP1(), oneport.HTTP2())
			p.start(t)
			client.get(t, newRelay(t, p.addr, inFirstFlight).addr) // shows the mux that the server speaks HTTP/2
			p.forgetMatches()
			r := newRelay(t, p.addr, inFirstFlight)
			const want = "net/http by HTTP/2.0"
			if got := client.get(t, r.addr); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			r.wantNoProblem(t)
			p.wantMatch(t, "http", oneport.ProtocolHTTP2, false)
			p.wantSameConn(t, web)
		})
	}
}
