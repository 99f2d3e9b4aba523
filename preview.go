package oneport

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/clienthello"
	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/h2upgrade"
	"github.com/oneport-go/oneport/internal/http1"
)

// Protocol is the protocol of a client's first bytes.
type Protocol uint8

const (
	// ProtocolUnknown stands for any other protocol, and for a client that has sent too little to tell.
	ProtocolUnknown Protocol = iota
	// ProtocolHTTP1 is HTTP/1.0 or HTTP/1.1 (RFC 9112).
	ProtocolHTTP1
	// ProtocolHTTP2 is HTTP/2 that begins with the connection preface (RFC 9113, Section 3.4).
	ProtocolHTTP2
	// ProtocolTLS is a TLS handshake (RFC 8446).
	ProtocolTLS
	// ProtocolSSH is SSH (RFC 4253, Section 4.2).
	ProtocolSSH
)

// String returns the usual name of the protocol, such as "HTTP/2", or "unknown".
func (p Protocol) String() string {
	switch p {
	case ProtocolHTTP1:
		return "HTTP/1"
	case ProtocolHTTP2:
		return "HTTP/2"
	case ProtocolTLS:
		return "TLS"
	case ProtocolSSH:
		return "SSH"
	}
	return "unknown"
}

// Preview is what a [Matcher] sees of a connection or of a request: the bytes that the client has sent so far, and the
// facts parsed from them. Each fact is parsed when a matcher first asks for it, and once for all matchers.
//
// A Preview, and the slice that Bytes returns, are valid only during the call of Match. The methods must not be called
// by several goroutines at once.
type Preview struct {
	facts

	// The parsers keep their memory from one connection to the next.
	http1 http1.Parser
	h2    h2.Parser
	tls   clienthello.Parser
}

// facts are what a Preview has of one connection.
type facts struct {
	conn net.Conn
	data []byte

	// The header list of the one request that this is a preview of, or nil if it is one of a connection.
	stream []hpack.HeaderField

	end   ending
	full  bool          // no more bytes will be looked at
	quiet time.Duration // how long the client has sent nothing, if end is silent

	// The states of the parsers, and how many bytes each was shown.
	http1State http1.State
	h2State    h2.State
	tlsState   clienthello.State
	http1Shown int
	h2Shown    int
	tlsShown   int

	hostPort    string
	hostName    string
	hostVerdict Verdict

	url    *target // of a request-target that has to be parsed
	cookie *string // of HTTP/2, in one piece

	request *Request
	hello   *ClientHello
	readers map[*readerMatcher]*suspended

	secured *tls.ConnectionState // of the TLS that was terminated on the connection

	upgradeRequest *h2upgrade.Request
	upgradeVerdict Verdict  // of there being such a request
	upgraded       *Preview // of that request as one of HTTP/2
}

// ending says whether bytes can follow those at hand, as far as the matchers are concerned.
type ending uint8

const (
	open   ending = iota
	silent        // none have come for a while, and a route may want such a client
	late          // none have come in time
	eof           // none will come
)

// Bytes returns the bytes that the client has sent so far, from the first one on, at most [Limits.MaxPreviewBytes].
// Inside TLS that the mux has terminated these are the decrypted bytes. For a request of a [RequestMux] Bytes returns
// nil. The matcher must not modify or retain the slice.
func (p *Preview) Bytes() []byte { return p.data }

// Ended reports whether the client has closed its side of the connection, so that no bytes will follow. Undecided then
// counts as No.
func (p *Preview) Ended() bool { return p.end == eof }

// LocalAddr returns the local address of the connection.
func (p *Preview) LocalAddr() net.Addr { return p.conn.LocalAddr() }

// RemoteAddr returns the remote address of the connection, that of the client.
func (p *Preview) RemoteAddr() net.Addr { return p.conn.RemoteAddr() }

// TLS returns the state of the TLS that the mux has terminated on the connection, with client certificates, server name
// and ALPN protocol. It is nil if the mux has not terminated TLS. The matcher must not modify it.
func (p *Preview) TLS() *tls.ConnectionState { return p.secured }

// alpn returns the protocol that ALPN has negotiated, if the mux has terminated TLS and there is one.
func (p *Preview) alpn() string {
	if p.secured == nil {
		return ""
	}
	return p.secured.NegotiatedProtocol
}

// ClientHello is the part of a TLS ClientHello (RFC 8446, Section 4.1.2) by which a connection can be routed. GREASE
// values (RFC 8701) are left out.
type ClientHello struct {
	ServerName string   // server name (RFC 6066, Section 3), "" if none was sent; with ECH the public name
	ALPN       []string // application protocols (RFC 7301), in order of preference
	Versions   []uint16 // TLS versions, such as [tls.VersionTLS13]
	ECH        bool     // an encrypted ClientHello, or GREASE for one, was sent (RFC 9849)
}

// ClientHello returns the client's TLS ClientHello, and Yes. The verdict is Undecided while the message is incomplete,
// and No if the client speaks another protocol or the message is malformed.
func (p *Preview) ClientHello() (*ClientHello, Verdict) {
	if p.hello != nil {
		return p.hello, Yes
	}
	switch p.parseTLS() {
	case clienthello.Complete:
		hello := ClientHello(*p.tls.Hello())
		p.hello = &hello
		return p.hello, Yes
	case clienthello.Incomplete:
		return nil, p.undecided()
	}
	return nil, No
}

// Protocol returns the protocol of the client's bytes, or ProtocolUnknown while several are possible. Before the first
// byte inside TLS it is the protocol that ALPN has negotiated.
func (p *Preview) Protocol() Protocol {
	switch {
	case p.stream != nil:
		return ProtocolHTTP2
	case len(p.data) == 0 && p.alpn() == alpnHTTP1:
		return ProtocolHTTP1
	case len(p.data) == 0 && p.alpn() == alpnHTTP2:
		return ProtocolHTTP2
	case len(p.data) == 0:
	case p.startsHTTP1() == Yes:
		return ProtocolHTTP1
	case p.startsHTTP2() == Yes:
		return ProtocolHTTP2
	case p.isTLS() == Yes:
		return ProtocolTLS
	case bytes.HasPrefix(p.data, []byte(sshPrefix)):
		return ProtocolSSH
	}
	return ProtocolUnknown
}

// Request is the control data and header section of an HTTP request, without its content.
type Request struct {
	Protocol Protocol // ProtocolHTTP1 or ProtocolHTTP2
	Method   string
	Target   string      // request-target of HTTP/1 (RFC 9112, Section 3.2), :path of HTTP/2
	Path     string      // path of Target as sent, without the query
	Host     string      // authority of Target, :authority or Host, with the port if there is one
	Header   http.Header // header fields, without pseudo-header fields; folded values are unfolded
}

// Request returns the first request of the connection, or, in a [RequestMux], the request to route, and Yes. The
// verdict is Undecided while the header section is incomplete, and No if the client speaks another protocol or the
// request is malformed. Matchers that need only a part of it, such as [Header], [Host] and [Path], may decide earlier.
func (p *Preview) Request() (*Request, Verdict) {
	if p.request != nil {
		return p.request, Yes
	}
	switch p.parseHTTP1() {
	case http1.Complete:
		p.request = p.http1Request()
		return p.request, Yes
	case http1.Incomplete:
		return nil, p.undecided()
	}
	switch p.parseHTTP2() {
	case h2.Complete:
		p.request = p.http2Request()
		return p.request, Yes
	case h2.Incomplete:
		return nil, p.undecided()
	}
	return nil, No
}

func (p *Preview) http1Request() *Request {
	method, _ := p.http1.Method()
	target, _ := p.http1.Target()
	host, _ := p.findHost()
	path, _ := p.path()
	r := &Request{
		Protocol: ProtocolHTTP1,
		Method:   string(method.Of(p.data)),
		Target:   string(target.Of(p.data)),
		Path:     path.String(),
		Host:     host.String(),
		Header:   make(http.Header),
	}
	for _, f := range p.http1.Fields() {
		r.Header.Add(string(f.Name.Of(p.data)), http1Value(f.Value.Of(p.data)).String())
	}
	return r
}

func (p *Preview) http2Request() *Request {
	host, _ := p.findHost()
	path, _ := p.path()
	r := &Request{Protocol: ProtocolHTTP2, Path: path.String(), Host: host.String(), Header: make(http.Header)}
	for _, f := range p.h2Fields() {
		switch f.Name {
		case ":method":
			r.Method = f.Value
		case ":path":
			r.Target = f.Value
		}
		if !f.IsPseudo() {
			r.Header.Add(f.Name, f.Value)
		}
	}
	if cookie, ok := p.joinCookies(); ok {
		r.Header["Cookie"] = []string{cookie}
	}
	return r
}

// undecided is the verdict where the bytes at hand leave the question open.
func (p *Preview) undecided() Verdict {
	if p.end != open || p.stream != nil {
		return No
	}
	return Undecided
}

func (p *Preview) parseHTTP1() http1.State {
	if p.stream != nil {
		return http1.Invalid
	}
	if p.http1Shown != len(p.data) {
		p.http1Shown = len(p.data)
		p.http1State = p.http1.Parse(p.data)
	}
	return p.http1State
}

func (p *Preview) parseHTTP2() h2.State { return p.showHTTP2(len(p.data)) }

// showHTTP2 shows the parser the first n bytes, if it has not seen as many yet.
func (p *Preview) showHTTP2(n int) h2.State {
	if p.stream != nil {
		return h2.Complete
	}
	if p.h2Shown < n {
		p.h2Shown = n
		p.h2State = p.h2.Parse(p.data[:n])
	}
	return p.h2State
}

// h2Fields returns the header list of the request, if it is one of HTTP/2, as far as it has come.
func (p *Preview) h2Fields() []hpack.HeaderField {
	if p.stream != nil {
		return p.stream
	}
	return p.h2.Fields()
}

func (p *Preview) parseTLS() clienthello.State { return p.showTLS(len(p.data)) }

// showTLS shows the parser the first n bytes, if it has not seen as many yet.
func (p *Preview) showTLS(n int) clienthello.State {
	if p.stream != nil {
		return clienthello.NotTLS
	}
	if p.tlsShown < n {
		p.tlsShown = n
		p.tlsState = p.tls.Parse(p.data[:n])
	}
	return p.tlsState
}

// isHTTP1 decides with ALPN, or with the request line.
func (p *Preview) isHTTP1() Verdict {
	switch p.alpn() {
	case alpnHTTP1:
		return Yes
	case alpnHTTP2:
		return No
	}
	return p.startsHTTP1()
}

// startsHTTP1 decides with the request line.
func (p *Preview) startsHTTP1() Verdict {
	state := p.parseHTTP1()
	if _, ok := p.http1.Version(); ok {
		return Yes
	}
	if state == http1.Invalid {
		return No
	}
	return p.undecided()
}

// isHTTP2 decides with ALPN, or with the client preface.
func (p *Preview) isHTTP2() Verdict {
	switch p.alpn() {
	case alpnHTTP2:
		return Yes
	case alpnHTTP1:
		return No
	}
	return p.startsHTTP2()
}

// startsHTTP2 decides with the client preface, and has no more parsed than that.
func (p *Preview) startsHTTP2() Verdict {
	state := p.showHTTP2(min(len(p.data), len(h2.Preface)))
	if p.stream != nil || p.h2.PrefaceSeen() {
		return Yes
	}
	if state == h2.NotHTTP2 {
		return No
	}
	return p.undecided()
}

// isTLS decides with the record header and the handshake type, and has no more parsed than that.
func (p *Preview) isTLS() Verdict {
	const recordHeaderLen, typeLen = 5, 1
	state := p.showTLS(min(len(p.data), recordHeaderLen+typeLen))
	if p.tls.RecordSeen() {
		return Yes
	}
	if state == clienthello.NotTLS {
		return No
	}
	return p.undecided()
}

// fieldValue is a value in the head of a request, still where it was parsed.
type fieldValue struct {
	raw []byte // in HTTP/1
	str string // in HTTP/2
}

func http1Value(raw []byte) fieldValue {
	if bytes.IndexByte(raw, '\n') >= 0 {
		return fieldValue{raw: http1.Unfold(nil, raw)}
	}
	return fieldValue{raw: raw}
}

func (v fieldValue) equal(s string) bool {
	if v.raw != nil {
		return string(v.raw) == s
	}
	return v.str == s
}

func (v fieldValue) hasPrefix(prefix string) bool {
	if v.raw != nil {
		return len(v.raw) >= len(prefix) && string(v.raw[:len(prefix)]) == prefix
	}
	return strings.HasPrefix(v.str, prefix)
}

// String returns a copy that may be kept.
func (v fieldValue) String() string {
	if v.raw != nil {
		return string(v.raw)
	}
	return v.str
}

// field matches if a field with the name (RFC 9110, Section 5.1: in any case) has a value that passes the test. It
// decides as soon as such a field has come, or at the end of the head.
func (p *Preview) field(name string, test func(fieldValue) bool) Verdict {
	state := p.parseHTTP1()
	for _, f := range p.http1.Fields() {
		if http1.EqualName(f.Name.Of(p.data), name) && test(http1Value(f.Value.Of(p.data))) {
			return Yes
		}
	}
	switch {
	case state == http1.Complete:
		return No
	case state == http1.Incomplete:
		return p.undecided()
	}
	complete := p.parseHTTP2() == h2.Complete
	switch {
	case strings.HasPrefix(name, ":"):
		v, verdict := p.pseudo(strings.ToLower(name))
		if verdict == Yes {
			return matchIf(test(v))
		}
		return p.settled(verdict)
	case !http1.EqualName(name, "cookie"):
		for _, f := range p.h2Fields() {
			if http1.EqualName(f.Name, name) && test(fieldValue{str: f.Value}) {
				return Yes
			}
		}
	case complete:
		cookie, ok := p.joinCookies()
		return matchIf(ok && test(fieldValue{str: cookie}))
	}
	if complete || p.h2State != h2.Incomplete {
		return No
	}
	return p.undecided()
}

// pseudo returns a pseudo-header field of an HTTP/2 request, as soon as it has come. It is No at the end of those that
// there are, and Undecided before.
//
// One of the same name that comes later, or one behind a field that is none, would contradict it. But such a request is
// malformed (RFC 9113, Section 8.3), and no server answers it with anything but an error: so what is decided by the
// first cannot be a way around a rule.
func (p *Preview) pseudo(name string) (fieldValue, Verdict) {
	state := p.parseHTTP2()
	if p.stream != nil {
		state = h2.Complete
	}
	for _, f := range p.h2Fields() {
		switch {
		case f.Name == name:
			return fieldValue{str: f.Value}, Yes
		case !f.IsPseudo():
			return fieldValue{}, No
		}
	}
	if state == h2.Incomplete {
		return fieldValue{}, Undecided
	}
	return fieldValue{}, No
}

// joinCookies returns the cookies of a complete HTTP/2 request, if there are any (RFC 9113, Section 8.2.3).
func (p *Preview) joinCookies() (cookie string, ok bool) {
	if p.cookie != nil {
		return *p.cookie, true
	}
	var crumbs []string
	for _, f := range p.h2Fields() {
		if http1.EqualName(f.Name, "cookie") {
			crumbs = append(crumbs, f.Value)
		}
	}
	if crumbs == nil {
		return "", false
	}
	cookie = strings.Join(crumbs, "; ")
	p.cookie = &cookie
	return cookie, true
}

// settled is the verdict, which is No where nothing can follow that would make it another.
func (p *Preview) settled(v Verdict) Verdict {
	if v == Undecided {
		return p.undecided()
	}
	return v
}

// host finds what the request is for, in lower case. It is found once for all matchers. name is the host without the
// port.
func (p *Preview) host() (host, name string, verdict Verdict) {
	if p.hostVerdict == Undecided {
		var v fieldValue
		if v, p.hostVerdict = p.findHost(); p.hostVerdict == Yes {
			p.hostPort = strings.ToLower(v.String())
			p.hostName = withoutPort(p.hostPort)
		}
	}
	if p.hostVerdict == Undecided {
		return "", "", p.undecided()
	}
	return p.hostPort, p.hostName, p.hostVerdict
}

// hasPort tells the port's colon from those of an IPv6 address, which stands in brackets (RFC 3986, Section 3.2.2).
func hasPort(host string) bool {
	return strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']')
}

func withoutPort(host string) string {
	if hasPort(host) {
		return host[:strings.LastIndexByte(host, ':')]
	}
	return host
}

// findHost finds what net/http has as Request.Host: in HTTP/1 the authority of the request-target, which goes before
// Host (RFC 9112, Section 3.2.2), in HTTP/2 :authority, which goes before host (RFC 9113, Section 8.3.1) unless it is
// empty. The second Host of a request makes it malformed in HTTP/1 (RFC 9112, Section 3.2), and is ignored in HTTP/2.
func (p *Preview) findHost() (fieldValue, Verdict) {
	state := p.parseHTTP1()
	if t := p.http1URL(); t != nil && (t.err || t.host != "") {
		return fieldValue{str: t.host}, matchIf(!t.err)
	}
	for _, f := range p.http1.Fields() {
		if http1.EqualName(f.Name.Of(p.data), "host") {
			return http1Value(f.Value.Of(p.data)), Yes
		}
	}
	switch state {
	case http1.Complete:
		return fieldValue{}, No
	case http1.Incomplete:
		return fieldValue{}, Undecided
	}
	authority, verdict := p.pseudo(":authority")
	if verdict == Undecided || verdict == Yes && authority.str != "" {
		return authority, verdict
	}
	for _, f := range p.h2Fields() {
		if f.Name == "host" {
			return fieldValue{str: f.Value}, Yes
		}
	}
	if p.stream == nil && p.h2State == h2.Incomplete {
		return fieldValue{}, Undecided
	}
	return fieldValue{}, No
}

// path finds what net/http has as the Path of Request.URL.
func (p *Preview) path() (fieldValue, Verdict) {
	state := p.parseHTTP1()
	if span, ok := p.http1.Target(); ok && state != http1.Invalid {
		if t := p.http1URL(); t != nil {
			return fieldValue{str: t.path}, matchIf(!t.err)
		}
		path, _ := plainPath(span.Of(p.data))
		return fieldValue{raw: path}, Yes
	}
	if state == http1.Incomplete {
		return fieldValue{}, p.undecided()
	}
	v, verdict := p.pseudo(":path")
	if verdict != Yes {
		return fieldValue{}, p.settled(verdict)
	}
	if path, ok := plainPath(v.str); ok {
		return fieldValue{str: path}, Yes
	}
	if p.url == nil {
		p.url = parseTarget(v.str)
	}
	return fieldValue{str: p.url.path}, matchIf(!p.url.err)
}

// http1URL returns the request-target of HTTP/1, if it is known and has to be parsed.
func (p *Preview) http1URL() *target {
	span, ok := p.http1.Target()
	if !ok {
		return nil
	}
	if p.url != nil {
		return p.url
	}
	raw := span.Of(p.data)
	if _, ok := plainPath(raw); ok {
		return nil
	}
	method, _ := p.http1.Method()
	if string(method.Of(p.data)) == http.MethodConnect && raw[0] != '/' {
		// RFC 9112, Section 3.2.3. net/http parses it in the same way.
		p.url = parseTarget("http://" + string(raw))
	} else {
		p.url = parseTarget(string(raw))
	}
	return p.url
}

// A target is what net/url makes of a request-target, or of :path.
type target struct {
	host, path string
	err        bool
}

func parseTarget(s string) *target {
	u, err := url.ParseRequestURI(s)
	if err != nil {
		return &target{err: true}
	}
	t := &target{host: u.Host, path: u.Path}
	if t.path == "" && t.host != "" {
		t.path = "/" // RFC 9110, Section 4.2.3
	}
	return t
}

// plainPath returns the path of a request-target in origin-form, if net/url would take it as it is.
func plainPath[T string | []byte](target T) (path T, ok bool) {
	if len(target) == 0 || target[0] != '/' {
		return path, false
	}
	path = target
	for i := range len(target) {
		switch c := target[i]; {
		case c < ' ', c == 0x7f:
			return path, false
		case c == '%' && len(path) == len(target):
			return path, false
		case c == '?' && len(path) == len(target):
			path = target[:i]
		}
	}
	return path, true
}

// language is the protocol in which to refuse the client: other than [Preview.Protocol] it guesses where the bytes are
// too few, or were wrong.
func (p *Preview) language() Protocol {
	if known := p.Protocol(); known != ProtocolUnknown || len(p.data) == 0 {
		return known
	}
	if p.parseHTTP2() == h2.Incomplete && len(p.data) >= len("PRI") {
		return ProtocolHTTP2
	}
	if p.parseHTTP1() == http1.Incomplete || p.http1.Err() != nil && p.http1.Err().Status != 0 {
		return ProtocolHTTP1
	}
	if p.parseTLS() == clienthello.Incomplete || p.malformedTLS() {
		return ProtocolTLS
	}
	return ProtocolUnknown
}

// malformedTLS reports whether the bytes are a record of TLS, and no ClientHello.
func (p *Preview) malformedTLS() bool {
	return len(p.data) >= 2 && p.data[0] == tlsHandshakeRecord && p.data[1] == tlsMajorVersion &&
		p.parseTLS() == clienthello.NotTLS
}

// incomplete reports whether the bytes are the beginning of something that can be recognized, and no more.
func (p *Preview) incomplete() bool {
	return p.parseHTTP1() == http1.Incomplete || p.parseHTTP2() == h2.Incomplete || p.parseTLS() == clienthello.Incomplete
}

// endReaders ends the functions that are suspended, and returns with what the last one panicked, if one did.
func (p *Preview) endReaders() (panicked *readerPanic) {
	for m, s := range p.readers {
		delete(p.readers, m)
		if !s.done {
			s.stop()
			panicked = cmp.Or(s.panicked, panicked)
		}
	}
	return panicked
}

// enter makes p the preview of a connection above the one so far, whose TLS state is given if it is inside TLS.
func (p *Preview) enter(c net.Conn, state *tls.ConnectionState) {
	p.reset()
	p.conn, p.secured = c, state
}

// show sets what the client has sent so far, of which no more than limit bytes are looked at.
func (p *Preview) show(data []byte, ended bool, limit int) {
	p.data, p.end, p.full = data, open, len(data) >= limit
	if ended {
		p.end = eof
	}
}

// reset forgets the connection and keeps the parsers' memory.
func (p *Preview) reset() {
	p.http1.Reset()
	p.h2.Reset()
	p.tls.Reset()
	p.facts = facts{}
}
