package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

// A relay passes one HTTP/2 connection on to a server and watches its frames. It decides when the client's first
// HEADERS frame arrives.
type relay struct {
	addr string
	done chan struct{} // closed when the connection is over

	settings settingsRule // for the server's frames

	mu       sync.Mutex
	problems []error
}

// A timing says when the client's first HEADERS frame reaches the server.
type timing int

const (
	// inFirstFlight sends everything up to it in one write. curl writes it by itself, so that it may come too late to
	// be seen together with the preface.
	inFirstFlight timing = iota
	// afterSettings withholds it, and all that follows, until the server's SETTINGS have come: the client is made to wait
	// as strict ones do by themselves.
	afterSettings
)

// newRelay makes a relay that takes one connection for the server at addr.
func newRelay(t *testing.T, addr string, headers timing) *relay {
	return relayThrough(t, addr, headers, func(client, server *net.TCPConn) (halfCloser, halfCloser) { return client, server })
}

// newTLSRelay is newRelay for TLS, in which it is the man in the middle.
func newTLSRelay(t *testing.T, addr string, headers timing) *relay {
	toServer := clientTLS("h2")
	toServer.ServerName = "127.0.0.1"
	return relayThrough(t, addr, headers, func(client, server *net.TCPConn) (halfCloser, halfCloser) {
		toClient := serverTLS()
		toClient.NextProtos = []string{"h2"}
		return tls.Server(client, toClient), tls.Client(server, toServer)
	})
}

// halfCloser is a connection of which one side can be closed.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func relayThrough(t *testing.T, addr string, headers timing, through func(client, server *net.TCPConn) (halfCloser, halfCloser)) *relay {
	l := listen(t)
	r := &relay{addr: l.Addr().String(), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer l.Close()
		client, err := l.Accept()
		if err != nil {
			return // the test has ended without a connection
		}
		defer client.Close()
		server, err := net.Dial("tcp", addr)
		if err != nil {
			r.problem(err)
			return
		}
		defer server.Close()
		defer context.AfterFunc(t.Context(), func() {
			client.Close()
			server.Close()
		})()
		clientSide, serverSide := through(client.(*net.TCPConn), server.(*net.TCPConn))
		r.run(clientSide, serverSide, headers)
	}()
	t.Cleanup(func() {
		l.Close()
		<-r.done
	})
	return r
}

func (r *relay) run(client, server halfCloser, headers timing) {
	spoke := make(chan struct{}) // closed when the server's SETTINGS have come, or will not
	var toServer sync.WaitGroup
	toServer.Go(func() {
		defer server.CloseWrite()
		r.toServer(server, bufio.NewReader(client), headers, spoke)
	})
	r.toClient(client, server, sync.OnceFunc(func() { close(spoke) }))
	client.CloseWrite()
	toServer.Wait()
}

// toServer ends with an error of a connection, which is none of the test's: either side may close it as it likes.
func (r *relay) toServer(server io.Writer, client *bufio.Reader, headers timing, spoke <-chan struct{}) error {
	var unsent bytes.Buffer
	if _, err := io.CopyN(&unsent, client, int64(len(http2.ClientPreface))); err != nil {
		return err
	}
	frames := http2.NewFramer(nil, io.TeeReader(client, &unsent))
	for first := true; ; {
		header, err := client.Peek(9)
		if err != nil {
			return err
		}
		isHeaders := http2.FrameType(header[3]) == http2.FrameHeaders
		if first && isHeaders && headers == afterSettings {
			<-spoke
		}
		frame, err := frames.ReadFrame()
		if err != nil {
			return err
		}
		r.watch("client", frame)
		first = first && !isHeaders
		if !first || headers == afterSettings {
			if _, err := unsent.WriteTo(server); err != nil {
				return err
			}
		}
	}
}

func (r *relay) toClient(client io.Writer, server io.Reader, spoke func()) error {
	defer spoke()
	frames := http2.NewFramer(nil, io.TeeReader(server, client))
	for {
		frame, err := frames.ReadFrame()
		if err != nil {
			return err
		}
		r.watch("server", frame)
		if settings, ok := frame.(*http2.SettingsFrame); ok && !settings.IsAck() {
			if err := r.settings.check(settings); err != nil {
				r.problem(err)
			}
			spoke()
		}
	}
}

// watch takes note of what must not happen.
func (r *relay) watch(sender string, frame http2.Frame) {
	if goAway, ok := frame.(*http2.GoAwayFrame); ok && goAway.ErrCode != http2.ErrCodeNo {
		r.problem(fmt.Errorf("GOAWAY from the %s: %v %q", sender, goAway.ErrCode, goAway.DebugData()))
	}
	if reset, ok := frame.(*http2.RSTStreamFrame); ok && reset.ErrCode != http2.ErrCodeNo {
		r.problem(fmt.Errorf("RST_STREAM from the %s: %v", sender, reset.ErrCode))
	}
}

func (r *relay) problem(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, err)
}

// wantNoProblem waits for the end of the connection.
func (r *relay) wantNoProblem(t *testing.T) {
	t.Helper()
	<-r.done
	for _, err := range r.problems {
		t.Error(err)
	}
}

// settingsRule is the rule of RFC 9218, Section 2.1: SETTINGS_NO_RFC7540_PRIORITIES is 0 or 1, and does not change
// after the first SETTINGS frame, in which it counts as 0 if it is missing.
type settingsRule struct {
	frames int
	value  uint32
}

const settingNoRFC7540Priorities http2.SettingID = 0x9

func (r *settingsRule) check(f *http2.SettingsFrame) error {
	r.frames++
	return f.ForeachSetting(func(s http2.Setting) error {
		switch {
		case s.ID != settingNoRFC7540Priorities:
		case s.Val > 1:
			return fmt.Errorf("SETTINGS_NO_RFC7540_PRIORITIES is %d in SETTINGS frame %d", s.Val, r.frames)
		case r.frames == 1:
			r.value = s.Val
		case r.value != s.Val:
			return fmt.Errorf("SETTINGS_NO_RFC7540_PRIORITIES is %d at first and %d in SETTINGS frame %d", r.value, s.Val, r.frames)
		}
		return nil
	})
}
