package oneport

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An announced is a connection that begins with a line that has the client's address, as behind a load balancer that
// speaks the PROXY protocol. As packages for that do, it reads the line when it is asked for the first byte or for the
// address, tries that once, and gives up at the read deadline.
type announced struct {
	net.Conn
	once   sync.Once
	client string
	err    error
}

var errNotAnnounced = errors.New("the client's address did not come")

func (c *announced) announce() {
	c.once.Do(func() {
		for b := make([]byte, 1); ; c.client += string(b) {
			if _, err := c.Conn.Read(b); err != nil {
				c.client, c.err = "", errNotAnnounced
				return
			}
			if b[0] == '\n' {
				return
			}
		}
	})
}

func (c *announced) Read(b []byte) (int, error) {
	if c.announce(); c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(b)
}

func (c *announced) RemoteAddr() net.Addr {
	if c.announce(); c.err != nil {
		return c.Conn.RemoteAddr()
	}
	return announcedAddr(c.client)
}

type announcedAddr string

func (announcedAddr) Network() string  { return "announced" }
func (a announcedAddr) String() string { return string(a) }

type announcedListener struct{ net.Listener }

func (l announcedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &announced{Conn: c}, nil
}

// TestAnnounced checks that the address of the client is the announced one for matchers, hooks, logs and servers.
func TestAnnounced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(announcedListener{root})
		var matched, refused, asked string
		m.OnMatch = func(i Matched) { matched = i.Conn.RemoteAddr().String() }
		m.OnRefuse = func(r Refused) { refused = r.Err.Error() }
		route := m.Match(All(HTTP1(), MatcherFunc(func(p *Preview) Verdict {
			asked = p.RemoteAddr().String()
			return Yes
		})))
		serve(t, m)
		good, bad := dial(t, root), dial(t, root)
		go io.WriteString(good, "good client\nGET / HTTP/1.1\r\n\r\n")
		server := accept(t, route)
		if got := server.RemoteAddr().String(); got != "good client" || matched != got || asked != got {
			t.Errorf("the address is %q for the server, %q for the hook and %q for the matcher", got, matched, asked)
		}
		write(t, bad, []byte("bad client\n\x00"))
		if b, err := io.ReadAll(bad); len(b) > 0 || err != nil {
			t.Errorf("the refused client got %q, %v", b, err)
		}
		if !strings.Contains(refused, "refused bad client on") {
			t.Errorf("refused: %s", refused)
		}
	})
}

// TestAddressDoesNotCome checks that a client whose address does not come holds nothing up: not its own refusal, and so
// not Shutdown.
func TestAddressDoesNotCome(t *testing.T) {
	t.Parallel()
	address := func(c interface{ RemoteAddr() net.Addr }) { _ = c.RemoteAddr().String() }
	for _, tt := range []struct {
		name string
		// The matcher of the route above HTTP/1's. It is shown that the mux has begun to stop by stop.
		matcher func(p *Preview, stop <-chan struct{}) Verdict
	}{
		{"interrupted while it waits", func(*Preview, <-chan struct{}) Verdict { return No }},
		{"interrupted before it waits", func(_ *Preview, stop <-chan struct{}) Verdict {
			<-stop
			return No
		}},
		{"asked for by a matcher", func(p *Preview, _ <-chan struct{}) Verdict {
			address(p)
			return No
		}},
		{"asked for by the log of a panic", func(*Preview, <-chan struct{}) Verdict { panic("boom") }},
	} {
		for _, how := range []string{"Shutdown", "evicted"} {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					root := newPipeListener()
					m := newMux(announcedListener{root})
					m.MaxUndecided = 1
					m.OnRefuse = func(r Refused) { address(r.Conn) }
					stop := make(chan struct{})
					m.Match(MatcherFunc(func(p *Preview) Verdict { return tt.matcher(p, stop) }))
					m.Match(HTTP1())
					serve(t, m)
					silent := dial(t, root)
					synctest.Wait()
					start := time.Now()
					if how == "evicted" {
						dial(t, root)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					done := make(chan error, 1)
					go func() {
						if how == "Shutdown" {
							done <- m.Shutdown(ctx)
						}
					}()
					synctest.Wait()
					close(stop)
					silent.SetReadDeadline(time.Now().Add(time.Hour))
					if _, err := silent.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > lingerTime {
						t.Errorf("the silent client got %v after %v", err, time.Since(start))
					}
					if how == "Shutdown" {
						if err := <-done; err != nil || time.Since(start) > lingerTime {
							t.Errorf("Shutdown returned %v after %v", err, time.Since(start))
						}
					}
				})
			})
		}
	}
}

// TestSilenceAfterAddress has a client of a protocol in which the server speaks first come through a load balancer.
func TestSilenceAfterAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		after time.Duration // the address comes
		want  bool          // the client is served
	}{
		{"at once", 0, true},
		{"late", 2 * time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(announcedListener{root})
				refused := watchRefusals(m)
				m.Match(HTTP1())
				route := m.Match(Silence(time.Second))
				serve(t, m)
				client := dial(t, root)
				go func() {
					time.Sleep(tt.after)
					io.WriteString(client, "mail client\n")
				}()
				if !tt.want {
					if r := <-refused; r.Reason != ReasonReadError || !errors.Is(r.Err, errNotAnnounced) {
						t.Errorf("refused for %v, %v", r.Reason, r.Err)
					}
					time.Sleep(tt.after) // for the goroutine above
					return
				}
				if got := accept(t, route).RemoteAddr().String(); got != "mail client" {
					t.Errorf("the server got %s", got)
				}
			})
		})
	}
}
