package oneport

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oneport-go/oneport/internal/clienthello"
	"github.com/oneport-go/oneport/internal/http1"
)

// Verdict is the answer of a [Matcher].
type Verdict uint8

const (
	// Undecided means that the answer depends on bytes that have not arrived yet.
	Undecided Verdict = iota
	// No means that the matcher does not match, whatever bytes follow.
	No
	// Yes means that the matcher matches, whatever bytes follow.
	Yes
)

// String returns the name of the constant.
func (v Verdict) String() string {
	switch v {
	case Undecided:
		return "Undecided"
	case No:
		return "No"
	case Yes:
		return "Yes"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// A Matcher decides from the first bytes of a connection, or from a request, whether its route takes it.
//
// Match is called again whenever more bytes have arrived, until it returns [Yes] or [No]; both are final. It should
// return No as early as possible, since the routes below wait for it. The answer should depend only on the Preview.
// Match may be called by several goroutines at once, for different connections.
//
// If a Matcher has a String method, the result is part of the route's name where [Route.Name] is empty.
type Matcher interface {
	Match(*Preview) Verdict
}

// MatcherFunc is a function that implements [Matcher]. If it panics, only the connection that it was called for is
// closed, with [ReasonPanic].
type MatcherFunc func(*Preview) Verdict

// Match calls f. It returns No in place of Undecided if no more bytes can follow.
func (f MatcherFunc) Match(p *Preview) Verdict {
	if v := f(p); v != Undecided {
		return v
	}
	return p.undecided()
}

// String returns "MatcherFunc".
func (f MatcherFunc) String() string { return "MatcherFunc" }

// builtin is a matcher of this package.
type builtin struct {
	name    string
	args    []any
	takes   taken
	covers  languages       // of these it takes all
	broken  bool            // a matcher in it is nil
	foreign bool            // it calls code that is not of this package
	hosts   []string        // if not nil, it matches these hosts, and nothing else
	silence []time.Duration // it can match a client that has sent nothing for one of these
	f       func(*Preview) Verdict
}

func (m *builtin) Match(p *Preview) Verdict { return m.f(p) }

func (m *builtin) String() string {
	args := make([]string, len(m.args))
	for i, a := range m.args {
		switch a := a.(type) {
		case string:
			args[i] = fmt.Sprintf("%q", a)
		default:
			args[i] = fmt.Sprint(a)
		}
	}
	return m.name + "(" + strings.Join(args, ", ") + ")"
}

// isForeign reports whether a matcher is, or calls, code that is not of this package.
func isForeign(m Matcher) bool {
	b, ok := m.(*builtin)
	return !ok || b.foreign
}

// silences returns how long a client may have to be silent for one of the matchers to match it.
func silences(matchers []Matcher) (d []time.Duration) {
	for _, m := range matchers {
		if b, ok := m.(*builtin); ok {
			d = append(d, b.silence...)
		}
	}
	return d
}

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

// Any matches every connection and every request at once, without waiting for a byte. A route with Any takes what the
// routes above it leave.
func Any() Matcher {
	return &builtin{name: "Any", takes: takes(speaksAnything), covers: speaksAnything, f: func(*Preview) Verdict { return Yes }}
}

// Prefix matches a client whose first bytes are one of the prefixes. An empty prefix matches at once.
func Prefix(prefixes ...string) Matcher {
	prefixes = slices.Clone(prefixes)
	return &builtin{name: "Prefix", args: anys(prefixes), takes: takenByPrefix(prefixes), f: func(p *Preview) Verdict {
		possible := false
		for _, prefix := range prefixes {
			n := min(len(prefix), len(p.data))
			if string(p.data[:n]) != prefix[:n] {
				continue
			}
			if n == len(prefix) {
				return Yes
			}
			possible = true
		}
		if possible {
			return p.undecided()
		}
		return No
	}}
}

// HTTP1 matches a client that sends an HTTP/1.0 or HTTP/1.1 request (RFC 9112, Section 3) with one of the methods.
// Without methods it matches those in the IANA registry of HTTP methods (RFC 9110, Section 16.1). It decides at the end
// of the request line. Inside TLS, HTTP1 without methods decides at once by the protocol that ALPN has negotiated, if
// that is "h2" or "http/1.1".
func HTTP1(methods ...string) Matcher {
	if len(methods) == 0 {
		return &builtin{name: "HTTP1", takes: takes(speaksHTTP1), covers: speaksHTTP1, f: func(p *Preview) Verdict {
			if !http1.MethodPrefix(p.data, http1.Methods) {
				return No
			}
			return p.isHTTP1()
		}}
	}
	methods = slices.Clone(methods)
	return &builtin{name: "HTTP1", args: anys(methods), takes: takes(speaksHTTP1), f: func(p *Preview) Verdict {
		if !http1.MethodPrefix(p.data, methods) || p.alpn() == alpnHTTP2 {
			return No
		}
		return p.startsHTTP1()
	}}
}

// HTTP2 matches a client that starts HTTP/2 with prior knowledge (RFC 9113, Section 3.3). It decides by the 24 bytes of
// the connection preface. Inside TLS it decides at once by the protocol that ALPN has negotiated, if there is one.
// HTTP2 takes every HTTP/2 connection, so routes for some of them, such as [GRPC], must be added before it.
func HTTP2() Matcher {
	return &builtin{name: "HTTP2", takes: takes(speaksHTTP2), covers: speaksHTTP2, f: (*Preview).isHTTP2}
}

// GRPC matches a gRPC call; in a [Mux] and a [TLSMux], an HTTP/2 connection whose first request is one. Its
// content-type is application/grpc, alone or followed by "+" or ";". Content type application/grpc-web does not match.
func GRPC() Matcher {
	return &builtin{name: "GRPC", takes: takes(speaksHTTP2), f: func(p *Preview) Verdict {
		if v := p.isHTTP2(); v != Yes {
			return v
		}
		return p.field("content-type", isGRPC)
	}}
}

func isGRPC(contentType fieldValue) bool {
	const base = "application/grpc"
	return contentType.equal(base) || contentType.hasPrefix(base+"+") || contentType.hasPrefix(base+";")
}

// GRPCWeb matches a gRPC-Web call over HTTP/1 or HTTP/2; in a [Mux] and a [TLSMux], a connection whose first request is
// one. Its content-type is application/grpc-web or application/grpc-web-text, alone or followed by "+" or ";". GRPCWeb
// also matches the CORS preflight of such a call, which names the field x-grpc-web in access-control-request-headers.
func GRPCWeb() Matcher {
	call := func(v fieldValue) bool {
		for _, base := range [...]string{"application/grpc-web", "application/grpc-web-text"} {
			if v.equal(base) || v.hasPrefix(base+"+") || v.hasPrefix(base+";") {
				return true
			}
		}
		return false
	}
	preflight := func(v fieldValue) bool {
		for name := range strings.SplitSeq(v.String(), ",") {
			if strings.EqualFold(strings.TrimSpace(name), "x-grpc-web") {
				return true
			}
		}
		return false
	}
	return &builtin{name: "GRPCWeb", takes: takes(speaksHTTP), f: func(p *Preview) Verdict {
		v := p.field("content-type", call)
		if v == Yes {
			return v
		}
		if w := p.field("access-control-request-headers", preflight); w != No {
			return w
		}
		return v
	}}
}

// Header matches an HTTP/1 or HTTP/2 request that has a header field with this name and exactly this value; in a [Mux]
// and a [TLSMux], a connection whose first request has it. If the field occurs several times, one of its field lines
// must have the value. Names are compared case-insensitively (RFC 9110, Section 5.1), values exactly. In HTTP/2, name
// can also be a pseudo-header field, such as ":scheme".
//
// In HTTP/1, Header matches as soon as the field has arrived, and returns No only at the end of the header section.
func Header(name, value string) Matcher {
	test := func(v fieldValue) bool { return v.equal(value) }
	return fieldMatcher("Header", []any{name, value}, name, test)
}

func fieldMatcher(matcher string, args []any, name string, test func(fieldValue) bool) *builtin {
	return &builtin{name: matcher, args: args, takes: takes(speaksHTTP), f: func(p *Preview) Verdict { return p.field(name, test) }}
}

// HeaderPrefix matches an HTTP/1 or HTTP/2 request that has a header field with this name and a value that begins with
// prefix. Otherwise it is like [Header].
func HeaderPrefix(name, prefix string) Matcher {
	test := func(v fieldValue) bool { return v.hasPrefix(prefix) }
	return fieldMatcher("HeaderPrefix", []any{name, prefix}, name, test)
}

// HeaderFunc matches an HTTP/1 or HTTP/2 request that has a header field with this name and a value for which f returns
// true. Otherwise it is like [Header]. f may be called by several goroutines at once.
func HeaderFunc(name string, f func(value string) bool) Matcher {
	test := func(v fieldValue) bool { return f(v.String()) }
	m := fieldMatcher("HeaderFunc", []any{name}, name, test)
	m.foreign = true
	return m
}

// Host matches an HTTP/1 or HTTP/2 request for one of the hosts; in a [Mux] and a [TLSMux], a connection whose first
// request is for one. The host of a request is the authority of its target, otherwise its Host field (RFC 9112, Section
// 3.2; RFC 9113, Section 8.3.1). Case is ignored. A host without a port matches every port. "*.example.com" matches all
// names below example.com, but not example.com itself.
func Host(hosts ...string) Matcher {
	patterns := hostPatterns(hosts)
	exact := make([]string, len(hosts))
	for i, p := range patterns {
		exact[i] = p.host
	}
	if slices.ContainsFunc(patterns, func(p hostPattern) bool { return p.below }) {
		exact = nil
	}
	return &builtin{name: "Host", args: anys(hosts), takes: takes(speaksHTTP), hosts: exact, f: func(p *Preview) Verdict {
		host, name, verdict := p.host()
		if verdict != Yes {
			return verdict
		}
		return matchIf(slices.ContainsFunc(patterns, func(p hostPattern) bool { return p.matches(host, name) }))
	}}
}

// A hostPattern is an argument of Host.
type hostPattern struct {
	host        string
	port, below bool // it names a port; it is for the names below host
}

func hostPatterns(hosts []string) []hostPattern {
	patterns := make([]hostPattern, len(hosts))
	for i, h := range hosts {
		host, below := strings.CutPrefix(strings.ToLower(h), "*")
		patterns[i] = hostPattern{host, hasPort(host), below}
	}
	return patterns
}

// matches reports whether the host, which is name without its port, is one of the pattern. Both are in lower case.
func (p hostPattern) matches(host, name string) bool {
	got := name
	if p.port {
		got = host
	}
	return got == p.host && !p.below || p.below && len(got) > len(p.host) && strings.HasSuffix(got, p.host)
}

// Path matches an HTTP/1 or HTTP/2 request for a path that begins with one of the prefixes; in a [Mux] and a [TLSMux],
// a connection whose first request is for one. The path is what a handler of net/http has in Request.URL.Path: decoded,
// without the query, also where the target is absolute. Dot segments are left alone, and other servers may interpret a
// path differently, so do not use Path for access control. The gRPC methods of one service have the prefix
// "/package.Service/".
func Path(prefixes ...string) Matcher {
	prefixes = slices.Clone(prefixes)
	return &builtin{name: "Path", args: anys(prefixes), takes: takes(speaksHTTP), f: func(p *Preview) Verdict {
		path, verdict := p.path()
		if verdict != Yes {
			return verdict
		}
		return matchIf(slices.ContainsFunc(prefixes, path.hasPrefix))
	}}
}

// TLS matches a client that starts a TLS handshake (RFC 8446, Sections 4.1.2 and 5.1). It decides by the first six
// bytes, the record header and the handshake type.
//
// The matchers for TLS consume nothing, so the server behind the route does the handshake: a grpc.Server with
// credentials.NewTLS, say, or an http.Server with ServeTLS. To terminate TLS in the mux and route what is inside, use
// [Mux.TLS].
func TLS() Matcher {
	return &builtin{name: "TLS", takes: takes(speaksTLS), covers: speaksTLS, f: (*Preview).isTLS}
}

// ServerName matches a TLS client whose ClientHello names one of the servers (RFC 6066, Section 3). "*.example.com"
// stands for all names with exactly one more label than example.com, as in certificates (RFC 9525, Section 6.3). Case
// is ignored. A client that sends no server name does not match. Inside TLS that the mux has terminated, ServerName
// matches the name that the client sent in the handshake.
func ServerName(names ...string) Matcher {
	names = slices.Clone(names)
	takes := taken{bare: speaksTLS, inTLS: speaksAnything}
	return &builtin{name: "ServerName", args: anys(names), takes: takes, f: func(p *Preview) Verdict {
		var name string
		if p.secured != nil {
			name = p.secured.ServerName
		} else if hello, verdict := p.ClientHello(); verdict == Yes {
			name = hello.ServerName
		} else {
			return verdict
		}
		return matchIf(slices.ContainsFunc(names, func(pattern string) bool { return clienthello.MatchServerName(pattern, name) }))
	}}
}

// ALPN matches a TLS client that offers at least one of the application protocols (RFC 7301), such as "h2", "http/1.1"
// or "acme-tls/1". Inside TLS that the mux has terminated, it matches the negotiated protocol, and the mux offers the
// protocols in the handshake: see [Mux.TLS].
func ALPN(protocols ...string) Matcher {
	protocols = slices.Clone(protocols)
	return &builtin{name: "ALPN", args: anys(protocols), takes: takenByALPN(protocols), f: func(p *Preview) Verdict {
		if p.secured != nil {
			return matchIf(slices.Contains(protocols, p.alpn()))
		}
		hello, verdict := p.ClientHello()
		if verdict != Yes {
			return verdict
		}
		return matchIf(slices.ContainsFunc(hello.ALPN, func(offered string) bool { return slices.Contains(protocols, offered) }))
	}}
}

// TLSVersion matches a TLS client that supports a version from min to max, such as [tls.VersionTLS13]. Zero means no
// bound. Inside TLS that the mux has terminated, it matches the negotiated version.
func TLSVersion(min, max uint16) Matcher {
	within := func(v uint16) bool { return v >= min && (max == 0 || v <= max) }
	version := func(v uint16) string {
		if v == 0 {
			return "any"
		}
		return tls.VersionName(v)
	}
	args := []any{version(min), version(max)}
	takes := taken{bare: speaksTLS, inTLS: speaksAnything}
	return &builtin{name: "TLSVersion", args: args, takes: takes, f: func(p *Preview) Verdict {
		if p.secured != nil {
			return matchIf(within(p.secured.Version))
		}
		hello, verdict := p.ClientHello()
		if verdict != Yes {
			return verdict
		}
		return matchIf(slices.ContainsFunc(hello.Versions, within))
	}}
}

func matchIf(b bool) Verdict {
	if b {
		return Yes
	}
	return No
}

const sshPrefix = "SSH-"

// SSH matches a client that sends the SSH identification string (RFC 4253, Section 4.2). Some clients wait for the
// server's string first; AnyOf(SSH(), Silence(time.Second)) takes these as well.
func SSH() Matcher {
	m := Prefix(sshPrefix)
	return &builtin{name: "SSH", takes: takes(speaksOther), f: m.Match}
}

// Silence matches a client that sends nothing for d after it has connected, as clients do whose server speaks first
// (SMTP, MySQL, FTP). After d, the connection goes to the first route that takes a silent client: one with Silence or
// [Any].
//
// Choose d longer than the time that slow clients of the other protocols need for their first byte, which is more than
// a round trip, and no longer than necessary, since all silent clients wait for d. Silence has no effect unless d is
// shorter than [Limits.DecideTimeout].
//
// Silence must be a matcher of a route, directly or inside [All], [AnyOf] or [Not]: the mux cannot see it inside a
// [MatcherFunc].
func Silence(d time.Duration) Matcher {
	return &builtin{
		name:    "Silence",
		args:    []any{d},
		takes:   takes(speaksOther),
		silence: []time.Duration{d},
		f: func(p *Preview) Verdict {
			switch {
			case len(p.data) > 0 || p.end == eof:
				return No
			case p.quiet >= d:
				return Yes
			}
			return p.undecided()
		},
	}
}

// All matches if every one of the matchers does. Without matchers it matches everything.
func All(matchers ...Matcher) Matcher {
	matchers = slices.Clone(matchers)
	return &builtin{
		name:    "All",
		args:    anys(matchers),
		takes:   takenByAll(matchers),
		broken:  slices.ContainsFunc(matchers, isBroken),
		foreign: slices.ContainsFunc(matchers, isForeign),
		silence: silences(matchers),
		f: func(p *Preview) Verdict {
			verdict := Yes
			for _, m := range matchers {
				switch m.Match(p) {
				case No:
					return No
				case Undecided:
					verdict = Undecided
				}
			}
			return verdict
		},
	}
}

// AnyOf matches if at least one of the matchers does. Without matchers it matches nothing.
func AnyOf(matchers ...Matcher) Matcher {
	matchers = slices.Clone(matchers)
	return &builtin{
		name:    "AnyOf",
		args:    anys(matchers),
		takes:   takenByAny(matchers),
		covers:  covered(matchers),
		broken:  slices.ContainsFunc(matchers, isBroken),
		foreign: slices.ContainsFunc(matchers, isForeign),
		silence: silences(matchers),
		f:       func(p *Preview) Verdict { return matchAny(matchers, p) },
	}
}

// Not matches if m does not.
func Not(m Matcher) Matcher {
	return &builtin{
		name:    "Not",
		args:    []any{m},
		takes:   takes(speaksAnything),
		broken:  isBroken(m),
		foreign: isForeign(m),
		silence: silences([]Matcher{m}),
		f: func(p *Preview) Verdict {
			switch m.Match(p) {
			case Yes:
				return No
			case No:
				return Yes
			}
			return Undecided
		},
	}
}
