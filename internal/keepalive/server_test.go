package keepalive

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// A scenario is what a client does on a connection of a server with timers.
type scenario struct {
	name string
	kind string // of the server
	conf func(*config)
	run  func(c *client)

	bare []string // what the client is sent, with the server alone and where the connection passes through
	// Where another server has stream 3 open; the same if nil.
	shared []string
	why    string // it is another

	// Between these times the first line of bare comes, if they are not 0.
	from, to time.Duration
}

func withGRPC(opts ...grpc.ServerOption) func(*config) {
	return func(c *config) { c.grpc = opts }
}

func withHTTP(set func(*http.Server)) func(*config) {
	return func(c *config) { set(&c.http) }
}

var scenarios = []scenario{
	{
		name: "too many PINGs on an idle connection", kind: "grpc", conf: withGRPC(),
		run: func(c *client) { c.pings(10, time.Second) },
		// The first resets the clock, and two are forgiven.
		bare:   []string{"GOAWAY 1 ENHANCE_YOUR_CALM too_many_pings", "closed"},
		shared: []string{},
		why:    "they are not for gRPC alone, and the policy of one of the servers is not the other's; ControlBurst and ControlRate hold",
	},
	{
		name: "too many PINGs beside a call", kind: "grpc", conf: withGRPC(),
		run: func(c *client) {
			c.open(5, "grpc", false)
			c.pings(10, time.Minute)
		},
		bare:   []string{"GOAWAY 5 ENHANCE_YOUR_CALM too_many_pings", "closed"},
		shared: []string{}, why: "as above",
	},
	{
		name: "PINGs that the policy allows", kind: "grpc",
		conf: withGRPC(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true})),
		run:  func(c *client) { c.pings(100, 10*time.Second) },
		bare: []string{},
	},
	{
		name: "age, with a call that ends", kind: "grpc",
		conf: withGRPC(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Hour, MaxConnectionAgeGrace: time.Minute})),
		run: func(c *client) {
			c.open(5, "grpc", false)
			c.await("GOAWAY")
			time.Sleep(30 * time.Second)
			c.finish(5)
			time.Sleep(30 * time.Second)
			c.finish(3) // if it is there
		},
		bare: []string{"GOAWAY all NO_ERROR max_age", "PING", "GOAWAY 5 NO_ERROR max_age",
			"PING", "stream 5: grpc-status 0", "closed"},
		shared: []string{"GOAWAY all NO_ERROR max_age", "PING",
			"PING", "stream 5: grpc-status 0", "stream 3: 200", "GOAWAY 5 NO_ERROR", "closed"},
		why:  "the other server's stream comes to its end",
		from: 54 * time.Minute, to: 66 * time.Minute, // grpc-go varies the age by a tenth
	},
	{
		name: "age, with a call that does not end", kind: "grpc",
		conf: withGRPC(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Hour, MaxConnectionAgeGrace: time.Minute})),
		run: func(c *client) {
			c.open(5, "grpc", false)
			c.await("GOAWAY")
			time.Sleep(2 * time.Minute)
			c.finish(3)
		},
		bare: []string{"GOAWAY all NO_ERROR max_age", "PING", "GOAWAY 5 NO_ERROR max_age", "closed"},
		shared: []string{"GOAWAY all NO_ERROR max_age", "PING", "stream 5: 200 grpc-status 14", "stream 5: RST_STREAM NO_ERROR",
			"stream 3: 200", "GOAWAY 5 NO_ERROR", "closed"},
		why:  "the call is UNAVAILABLE as with the end of the connection, and the other server's stream comes to its end",
		from: 54 * time.Minute, to: 66 * time.Minute,
	},
	{
		name: "idle for gRPC", kind: "grpc",
		conf: withGRPC(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Hour})),
		run: func(c *client) {
			time.Sleep(2 * time.Hour)
			c.open(5, "grpc", true)
			time.Sleep(time.Second)
		},
		bare:   []string{"GOAWAY all NO_ERROR max_idle", "PING", "GOAWAY 1 NO_ERROR max_idle", "closed"},
		shared: []string{"PING", "stream 5: grpc-status 0"},
		why:    "another server has a stream, and gRPC gets a new connection",
		from:   time.Hour, to: time.Hour + time.Second,
	},
	{
		name: "idle for HTTP", kind: "http", conf: withHTTP(func(s *http.Server) { s.IdleTimeout = time.Hour }),
		run: func(c *client) {
			time.Sleep(90 * time.Minute) // after two hours grpc-go asks whether the client is there
			c.open(5, "http", true)
			time.Sleep(time.Second)
		},
		bare:   []string{"GOAWAY 1 NO_ERROR", "closed"},
		shared: []string{"stream 5: 200"},
		why:    "another server has a stream, and net/http gets a new connection",
		from:   time.Hour, to: time.Hour + time.Second,
	},
	{
		name: "gRPC asks whether the client is there, and it is", kind: "grpc",
		conf: withGRPC(grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 10 * time.Second})),
		run:  func(c *client) { time.Sleep(150 * time.Second) },
		bare: []string{"PING", "PING"},
		from: time.Minute, to: time.Minute + time.Second,
	},
	{
		name: "gRPC asks, and the client is gone", kind: "grpc",
		conf: withGRPC(grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 10 * time.Second})),
		run: func(c *client) {
			c.open(5, "grpc", false)
			time.Sleep(time.Second)
			c.vanish()
			time.Sleep(2 * time.Minute)
		},
		bare: []string{"closed"},
		from: 70 * time.Second, to: 73 * time.Second,
	},
	{
		name: "net/http asks whether the client is there, and it is", kind: "http",
		conf: withHTTP(func(s *http.Server) {
			s.HTTP2 = &http.HTTP2Config{SendPingTimeout: time.Minute, PingTimeout: 10 * time.Second}
		}),
		run:  func(c *client) { time.Sleep(150 * time.Second) },
		bare: []string{"PING", "PING"},
		from: time.Minute, to: time.Minute + time.Second,
	},
	{
		name: "net/http asks, and the client is gone", kind: "http",
		conf: withHTTP(func(s *http.Server) {
			s.HTTP2 = &http.HTTP2Config{SendPingTimeout: time.Minute, PingTimeout: 10 * time.Second}
		}),
		run: func(c *client) {
			c.open(5, "http", false)
			time.Sleep(time.Second)
			c.vanish()
			time.Sleep(2 * time.Minute)
		},
		bare: []string{"closed"},
		from: 70 * time.Second, to: 73 * time.Second,
	},
}

func TestServers(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			inModes(t, func(t *testing.T, m mode, secure bool) {
				in(t, m, secure, s.kind, s.conf, func(c *client) {
					s.run(c)
					lines, times := c.seen()
					want, from, to := s.bare, s.from, s.to
					if m == shared && s.shared != nil {
						want, from, to = s.shared, 0, 0
					}
					if !slices.Equal(lines, want) {
						var got []string
						for i := range lines {
							got = append(got, fmt.Sprintf("%v %s", times[i], lines[i]))
						}
						t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
					}
					if to > 0 && len(times) > 0 && (times[0] < from || times[0] > to) {
						t.Errorf("%q came after %v", lines[0], times[0])
					}
				})
			})
		})
	}
}
