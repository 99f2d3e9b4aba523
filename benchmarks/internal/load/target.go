package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// A Target is a server of which only the address is known.
type Target struct {
	Network, Address string // of [net.Dial]
	Authority        string // of the requests, and the name of the server in TLS

	// Path is what a GET asks for, and Method what a call does. It takes an empty message.
	Path, Method string
}

// ParseTarget reads an address: host:port, http://host:port, https://host:port or unix:path. With a scheme, the
// protocols that go with it are asked for.
func ParseTarget(s string) (t *Target, asked []Protocol, err error) {
	t, asked = &Target{Network: "tcp"}, Protocols
	scheme, rest, found := strings.Cut(s, "://")
	if found {
		s = strings.TrimSuffix(rest, "/")
		switch scheme {
		case "http":
			asked = Protocols[:3]
		case "https":
			asked = Protocols[3:]
		default:
			return nil, nil, fmt.Errorf("the scheme is %q; it may be http or https", scheme)
		}
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok && !found {
		t.Network, t.Address, t.Authority = "unix", path, "localhost"
		return t, asked, nil
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		if !found {
			return nil, nil, err
		}
		s = net.JoinHostPort(strings.Trim(s, "[]"), map[string]string{"http": "80", "https": "443"}[scheme])
	}
	t.Address, t.Authority = s, s
	return t, asked, nil
}

// A Protocol is a way to talk to a target.
type Protocol struct {
	Name string
	tls  bool
	alpn string
	kind kind
}

type kind int

const (
	http1 kind = iota
	http2NetHTTP
	strictGRPC
)

// Protocols are all of them, those in the clear first.
var Protocols = []Protocol{
	{Name: "HTTP/1", kind: http1},
	{Name: "h2c", kind: http2NetHTTP},
	{Name: "gRPC", kind: strictGRPC},
	{Name: "HTTP/1 over TLS", tls: true, alpn: "http/1.1", kind: http1},
	{Name: "HTTP/2 over TLS", tls: true, alpn: "h2", kind: http2NetHTTP},
	{Name: "gRPC over TLS", tls: true, alpn: "h2", kind: strictGRPC},
}

// probeTimeout is how long a target may take for its first answer.
const probeTimeout = 5 * time.Second

// Probe finds out whether the target speaks the protocol: it makes the request that the load will consist of.
func (t *Target) Probe(p Protocol) error {
	op := t.newOperation(p, false)
	op.timeout = probeTimeout
	defer op.close()
	return op.do()
}

// operation is what one client does over and over: a request, on a connection that stays open or on a new one each
// time.
type operation struct {
	target   *Target
	protocol Protocol
	open     bool
	timeout  time.Duration

	conn net.Conn
	h1   *http1Client
	h2   *http2Client
}

func (t *Target) newOperation(p Protocol, open bool) *operation {
	o := &operation{target: t, protocol: p, open: open, timeout: opTimeout}
	scheme := "http"
	if p.tls {
		scheme = "https"
	}
	switch p.kind {
	case http1:
		o.h1 = newHTTP1(t.Authority, get(t.Path, anySize))
	case http2NetHTTP:
		o.h2 = newHTTP2(newScript(scheme, t.Authority, get(t.Path, anySize)), false)
	case strictGRPC:
		o.h2 = newHTTP2(newScript(scheme, t.Authority, call(t.Method, anySize)), true)
	}
	return o
}

// do makes a request, on a new connection if there is none.
func (o *operation) do() error {
	err := o.request()
	if err != nil || !o.open {
		o.close()
	}
	return err
}

func (o *operation) request() error {
	deadline := time.Now().Add(o.timeout)
	if o.conn == nil {
		if err := o.dial(deadline); err != nil {
			return err
		}
		if o.h1 != nil {
			o.h1.open(o.conn)
		} else if err := o.h2.open(o.conn); err != nil {
			return err
		}
	} else if err := o.conn.SetDeadline(deadline); err != nil {
		return err
	}
	if o.h1 != nil {
		return o.h1.roundTrip()
	}
	return o.h2.roundTrip()
}

func (o *operation) dial(deadline time.Time) error {
	dialer := net.Dialer{Deadline: deadline}
	c, err := dialer.Dial(o.target.Network, o.target.Address)
	if err != nil {
		return err
	}
	o.conn = c
	c.SetDeadline(deadline)
	if !o.protocol.tls {
		return nil
	}
	host, _, err := net.SplitHostPort(o.target.Authority)
	if err != nil {
		host = o.target.Authority
	}
	tc := tls.Client(c, &tls.Config{
		ServerName:         host,
		NextProtos:         []string{o.protocol.alpn},
		InsecureSkipVerify: true, // it is put under load, and not trusted with anything
	})
	if err := tc.HandshakeContext(context.Background()); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	// HTTP/1 is what is spoken where the server does not say.
	if got := tc.ConnectionState().NegotiatedProtocol; got != o.protocol.alpn && (got != "" || o.protocol.kind != http1) {
		return fmt.Errorf("TLS: the protocol is %q, want %q", got, o.protocol.alpn)
	}
	o.conn = tc
	return nil
}

func (o *operation) close() {
	if o.conn != nil {
		o.conn.Close()
		o.conn = nil
	}
}

// errTooLate is of an operation that was due and not over when the measuring was.
var errTooLate = errors.New("not done when the time was over")
