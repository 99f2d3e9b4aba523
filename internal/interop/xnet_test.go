//lint:file-ignore SA1019 deprecated or not, it is served behind oneport, and differs from net/http in what it sends

package interop

import (
	"context"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

// serveXNet runs the HTTP/2 server of golang.org/x/net on l until the end of the test.
func serveXNet(t *testing.T, l net.Listener) {
	var srv http2.Server
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer context.AfterFunc(t.Context(), func() { c.Close() })()
				srv.ServeConn(c, &http2.ServeConnOpts{Handler: answer("x/net")})
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
}
