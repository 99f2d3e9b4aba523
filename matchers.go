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

// Verdict is a matcher's answer.
type Verdict uint8

const (
	// Undecided says that the answer depends on bytes that have not come yet.
	Undecided Verdict = iota
	// No says that the connection is not the matcher's, whatever comes.
	No
	// Match says that the connection is the matcher's, whatever comes.
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
		return "Match"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// A Matcher tells from the start of a connection whether it is for the matcher's route.
//
// It is asked again whenever more bytes have come, until it does not answer Undecided; the answers Match and No
// are final. It should answer as early as it can, No above all, since the routes below wait for it. It should
// depend on nothing but the Preview, and is called by several goroutines at once for different connections.
//
// If it has a String method, the result names the route in logs.
type Matcher interface {
	Match(*Preview) Verdict
}

// MatcherFunc makes a function a [Matcher]. A function that panics costs the one connection.
type MatcherFunc func(*Preview) Verdict

// Match calls f. An Undecided of f counts as No once nothing can follow the bytes at hand.
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

// Any matches every connection, without waiting for a byte: a route that has it takes what the routes above it leave.
func Any() Matcher {
	return &builtin{name: "Any", takes: takes(speaksAnything), covers: speaksAnything, f: func(*Preview) Verdict { return Yes }}
}

// Prefix matches a client whose first bytes are one of the given ones. An empty one matches at once.
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

// HTTP1 matches a client that sends an HTTP/1.0 or HTTP/1.1 request (RFC 9112, 3) with one of the methods, by default
// with any in the IANA registry of HTTP methods (RFC 9110, 16.1). It decides with the end of the request line; inside TLS,
// and without methods of its own, with the protocol that ALPN has negotiated, if that is HTTP.
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

// HTTP2 matches a client that starts HTTP/2 with prior knowledge (RFC 9113, 3.3). It decides with the 24 bytes of the
// preface, inside TLS with the protocol that ALPN has negotiated if there is one. It takes every HTTP/2 connection, so routes
// for some of them, such as [GRPC], go above it.
func HTTP2() Matcher {
	return &builtin{name: "HTTP2", takes: takes(speaksHTTP2), covers: speaksHTTP2, f: (*Preview).isHTTP2}
}

// GRPC matches an HTTP/2 connection whose first request is a gRPC call: its content-type is application/grpc, alone or
// followed by "+" or ";". Content type application/grpc-web is not gRPC.
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

// GRPCWeb matches a connection, HTTP/1 or HTTP/2, whose first request is a gRPC-Web call (content-type
// application/grpc-web or application/grpc-web-text, alone or followed by "+" or ";") or the CORS preflight for one,
// which names the field x-grpc-web in access-control-request-headers.
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

// Header matches a connection, HTTP/1 or HTTP/2, whose first request has a field of the name with exactly the value.
// Where the field comes more than once, one of its lines has to have it. Names match in any case (RFC 9110, 5.1),
// values as they are. In HTTP/2 the name may be that of a pseudo-header field, such as ":scheme", and the cookies of a
// request are one value (RFC 9113, Section 8.2.3).
//
// It matches as soon as the field has come; it answers No at the end of the head. HTTP/2 cookies are known only there.
func Header(name, value string) Matcher {
	test := func(v fieldValue) bool { return v.equal(value) }
	return fieldMatcher("Header", []any{name, value}, name, test)
}

func fieldMatcher(matcher string, args []any, name string, test func(fieldValue) bool) *builtin {
	return &builtin{name: matcher, args: args, takes: takes(speaksHTTP), f: func(p *Preview) Verdict { return p.field(name, test) }}
}

// HeaderPrefix is [Header] for values that begin with prefix.
func HeaderPrefix(name, prefix string) Matcher {
	test := func(v fieldValue) bool { return v.hasPrefix(prefix) }
	return fieldMatcher("HeaderPrefix", []any{name, prefix}, name, test)
}

// HeaderFunc is [Header] for values that f accepts.
func HeaderFunc(name string, f func(value string) bool) Matcher {
	test := func(v fieldValue) bool { return f(v.String()) }
	m := fieldMatcher("HeaderFunc", []any{name}, name, test)
	m.foreign = true
	return m
}

// Host matches a connection, HTTP/1 or HTTP/2, whose first request is for one of the hosts: by the authority of its
// target, else by Host (RFC 9112, 3.2; RFC 9113, 8.3.1). Case does not matter. A host without a port matches any port.
// "*.example.com" matches every name below example.com, but not example.com.
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

// Path matches a connection, HTTP/1 or HTTP/2, whose first request is for a path that begins with one of the prefixes.
// The path is what a handler of net/http has in Request.URL.Path: decoded, without the query, also where the target is
// absolute. Dot segments are left alone, and other servers may read a path in other ways, so a route chosen by path is no
// place for access control. The gRPC methods of one service have the prefix "/package.Service/".
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

// TLS matches a client that starts a TLS handshake (RFC 8446, 4.1.2 and 5.1). It decides with the first six bytes: the
// record header and the handshake type.
//
// As the other matchers for TLS it takes nothing out of the connection, so the server behind does the handshake, for instance
// a grpc.Server with credentials.NewTLS, or an http.Server by ServeTLS. To have the mux do it, and route what is inside, see
// [Mux.TLS].
func TLS() Matcher {
	return &builtin{name: "TLS", takes: takes(speaksTLS), covers: speaksTLS, f: (*Preview).isTLS}
}

// ServerName matches a TLS client that names one of the servers in its ClientHello (RFC 6066, 3). "*.example.com" stands for
// all names with exactly one label more than example.com, as in certificates (RFC 9525, 6.3). Case does not matter. A client
// that names no server matches nothing. Inside TLS that the mux has terminated it goes by the name that was sent there.
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

// ALPN matches a TLS client that offers at least one of the application protocols, such as "h2", "http/1.1" or "acme-tls/1"
// (RFC 7301). Inside TLS that the mux has terminated it matches the protocol that was negotiated, and has the protocols
// offered: see [TLSRoute.Config].
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

// TLSVersion matches a TLS client that speaks a version from min to max, such as [tls.VersionTLS13]; zero sets no bound.
// Inside TLS that the mux has terminated it goes by the version that was negotiated.
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

// SSH matches a client that sends the identification string of SSH (RFC 4253, 4.2). Some clients wait for the server's
// string first; AnyOf(SSH(), Silence(time.Second)) serves those too.
func SSH() Matcher {
	m := Prefix(sshPrefix)
	return &builtin{name: "SSH", takes: takes(speaksOther), f: m.Match}
}

// Silence matches a client that has sent nothing for d after it connected, as clients of protocols in which the server
// speaks first do (SMTP, MySQL, FTP). When the time has come, the connection goes to the first route in order that takes
// it as it is: one with Silence or [Any]. A client that waits for d while others could be served in that time is
// costly, so d should be as short as the slowest talking client allows, but longer than a round trip; it has no effect
// unless it is shorter than [Limits.DecideTimeout].
//
// It must stand in a route, alone or within [All], [AnyOf] or [Not]: the mux does not see it inside a [MatcherFunc].
func Silence(d time.Duration) Matcher {
	return &builtin{name: "Silence", args: []any{d}, takes: takes(speaksOther), silence: []time.Duration{d}, f: func(p *Preview) Verdict {
		switch {
		case len(p.data) > 0 || p.end == eof:
			return No
		case p.quiet >= d:
			return Yes
		}
		return p.undecided()
	}}
}

// All matches what every one of the matchers matches. Without any it matches everything.
func All(matchers ...Matcher) Matcher {
	matchers = slices.Clone(matchers)
	foreign := slices.ContainsFunc(matchers, isForeign)
	return &builtin{name: "All", args: anys(matchers), takes: takenByAll(matchers), broken: slices.ContainsFunc(matchers, isBroken), foreign: foreign, silence: silences(matchers), f: func(p *Preview) Verdict {
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
	}}
}

// AnyOf matches what at least one of the matchers matches. Without any it matches nothing.
func AnyOf(matchers ...Matcher) Matcher {
	matchers = slices.Clone(matchers)
	foreign := slices.ContainsFunc(matchers, isForeign)
	return &builtin{name: "AnyOf", args: anys(matchers), takes: takenByAny(matchers), covers: covered(matchers), broken: slices.ContainsFunc(matchers, isBroken), foreign: foreign, silence: silences(matchers), f: func(p *Preview) Verdict {
		verdict := No
		for _, m := range matchers {
			switch m.Match(p) {
			case Yes:
				return Yes
			case Undecided:
				verdict = Undecided
			}
		}
		return verdict
	}}
}

// Not matches what m does not match.
func Not(m Matcher) Matcher {
	return &builtin{name: "Not", args: []any{m}, takes: takes(speaksAnything), broken: isBroken(m), foreign: isForeign(m), silence: silences([]Matcher{m}), f: func(p *Preview) Verdict {
		switch m.Match(p) {
		case Yes:
			return No
		case No:
			return Yes
		}
		return Undecided
	}}
}
