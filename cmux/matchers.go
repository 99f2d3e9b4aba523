package cmux

import (
	"crypto/tls"
	"io"
	"reflect"
	"slices"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport"
)

// A builtin is a matcher of this package. Its methods are the functions that programs see. Given to Match as they are,
// they are known by their code, and the oneport matcher takes their place: all of them share the one parse of the
// connection. A program that calls them in a function of its own has them look at the reader that it gives them.
type builtin struct {
	oneport.Matcher

	// limit is how much of a reader the original would take. 0 means as much as the decision needs.
	limit int
}

func (b *builtin) match(r io.Reader) bool {
	if id, ok := r.(*identify); ok {
		id.b = b
		return false
	}
	if b.limit > 0 {
		r = io.LimitReader(r, int64(b.limit))
	}
	return oneport.Matches(b.Matcher, r)
}

// matchWriter answers an HTTP/2 client that waits for SETTINGS, if that is not done by the mux.
func (b *builtin) matchWriter(w io.Writer, r io.Reader) bool {
	switch r.(type) {
	case *identify, sniffed:
	default:
		r = &settingsSender{Reader: r, w: w}
	}
	return b.match(r)
}

// sniffed marks the reader of a connection that is being matched, on which the mux sends SETTINGS.
type sniffed struct{ io.Reader }

// settingsSender is a reader for an HTTP/2 matcher that sends SETTINGS before it waits for more than the preface.
type settingsSender struct {
	io.Reader
	w    io.Writer
	n    int
	sent bool
}

func (s *settingsSender) Read(p []byte) (int, error) {
	if s.n >= len(http2.ClientPreface) && !s.sent {
		s.sent = true
		if err := http2.NewFramer(s.w, nil).WriteSettings(earlySettings()...); err != nil {
			return 0, err
		}
	}
	n, err := s.Reader.Read(p)
	s.n += n
	return n, err
}

// code is where the code of a function is. All method values of one method have it in common.
func code(f any) uintptr { return reflect.ValueOf(f).Pointer() }

var (
	builtinMatcher     = code((*builtin)(nil).match)
	builtinMatchWriter = code((*builtin)(nil).matchWriter)
)

// identify is the reader with which the function of a builtin is asked which one it is.
type identify struct {
	io.Reader
	b *builtin
}

func fromMatcher(f Matcher) oneport.Matcher {
	if code(f) == builtinMatcher {
		var id identify
		f(&id)
		return id.b
	}
	return oneport.ReadMatcher(f)
}

func fromMatchWriter(f MatchWriter) oneport.Matcher {
	if code(f) == builtinMatchWriter {
		var id identify
		f(nil, &id)
		return id.b
	}
	return oneport.ReadWriteMatcher(func(w io.Writer, r io.Reader) bool { return f(w, sniffed{r}) })
}

// anyOf matches what one of its matchers matches. A program's function has to wait for those before it, as calling it
// can have effects.
type anyOf []oneport.Matcher

func (a anyOf) Match(p *oneport.Preview) oneport.Verdict {
	verdict := oneport.No
	for _, m := range a {
		if _, ok := m.(*builtin); !ok && verdict == oneport.Undecided {
			continue
		}
		switch m.Match(p) {
		case oneport.Yes:
			return oneport.Yes
		case oneport.Undecided:
			verdict = oneport.Undecided
		}
	}
	return verdict
}

func matcher(m oneport.Matcher, limit int) Matcher { return (&builtin{m, limit}).match }

// Any returns a matcher that matches every connection, without waiting for a byte.
func Any() Matcher { return matcher(oneport.Any(), 0) }

// PrefixMatcher returns a matcher for connections that start with one of the strings. Without any it matches every
// connection.
func PrefixMatcher(strs ...string) Matcher {
	if len(strs) == 0 {
		return Any()
	}
	limit := 0
	for _, s := range strs {
		limit = max(limit, len(s))
	}
	return matcher(oneport.Prefix(strs...), limit)
}

var defaultHTTPMethods = []string{"OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"}

// HTTP1Fast returns a matcher for connections that start with one of the methods OPTIONS, GET, HEAD, POST, PUT, DELETE,
// TRACE and CONNECT, or of those given. It does not look further than that.
func HTTP1Fast(extMethods ...string) Matcher {
	return PrefixMatcher(slices.Concat(defaultHTTPMethods, extMethods)...)
}

// TLS returns a matcher for connections that start with a TLS handshake record of one of the versions, SSL 3.0 to TLS
// 1.2 if none is given. That is the version of the record, which says nothing of the version that the client offers
// (RFC 8446, Section 5.1): clients of TLS 1.3 send that of TLS 1.0 or 1.2.
func TLS(versions ...int) Matcher {
	if len(versions) == 0 {
		versions = []int{tls.VersionSSL30, tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} //lint:ignore SA1019 as a number
	}
	prefixes := make([]string, len(versions))
	for i, v := range versions {
		prefixes[i] = string([]byte{22, byte(v >> 8), byte(v)})
	}
	return PrefixMatcher(prefixes...)
}

// HTTP1 returns a matcher for connections that start with the request line of HTTP/1, with any method.
func HTTP1() Matcher {
	return matcher(http1(oneport.MatcherFunc(func(p *oneport.Preview) oneport.Verdict {
		if p.Protocol() == oneport.ProtocolHTTP1 {
			return oneport.Yes
		}
		if _, v := p.Request(); v == oneport.No {
			return oneport.No
		}
		return oneport.Undecided
	})), 0)
}

// HTTP2 returns a matcher for connections that start with the client preface of HTTP/2.
func HTTP2() Matcher { return matcher(oneport.HTTP2(), len(http2.ClientPreface)) }

// HTTP1HeaderField returns a matcher for HTTP/1 connections whose first request has the header field with the value.
// Without the field the value is empty.
func HTTP1HeaderField(name, value string) Matcher {
	return matcher(http1(fieldOr(name, value == "", oneport.Header(name, value))), 0)
}

// HTTP1HeaderFieldPrefix returns a matcher for HTTP/1 connections whose first request has the header field with a value
// that starts with valuePrefix.
func HTTP1HeaderFieldPrefix(name, valuePrefix string) Matcher {
	return matcher(http1(fieldOr(name, valuePrefix == "", oneport.HeaderPrefix(name, valuePrefix))), 0)
}

// http1 leaves an HTTP/2 connection to the routes below as soon as its preface is there.
func http1(m oneport.Matcher) oneport.Matcher { return oneport.All(oneport.Not(oneport.HTTP2()), m) }

// fieldOr is m. If empty is set, a complete head of a request without the field matches as well.
func fieldOr(name string, empty bool, m oneport.Matcher) oneport.Matcher {
	if !empty {
		return m
	}
	return oneport.AnyOf(m, oneport.MatcherFunc(func(p *oneport.Preview) oneport.Verdict {
		r, v := p.Request()
		if v == oneport.Yes && len(r.Header.Values(name)) > 0 {
			return oneport.No
		}
		return v
	}))
}

// HTTP2HeaderField returns a matcher for HTTP/2 connections whose first request has the header field with the value. A
// client that waits for SETTINGS gets them.
func HTTP2HeaderField(name, value string) Matcher {
	return http2Field(oneport.Header(name, value)).match
}

// HTTP2HeaderFieldPrefix returns a matcher for HTTP/2 connections whose first request has the header field with a value
// that starts with valuePrefix. A client that waits for SETTINGS gets them.
func HTTP2HeaderFieldPrefix(name, valuePrefix string) Matcher {
	return http2Field(oneport.HeaderPrefix(name, valuePrefix)).match
}

// HTTP2MatchHeaderFieldSendSettings returns the same matcher as [HTTP2HeaderField]. However many of these matchers
// there are, a client that waits for SETTINGS gets one SETTINGS frame.
func HTTP2MatchHeaderFieldSendSettings(name, value string) MatchWriter {
	return http2Field(oneport.Header(name, value)).matchWriter
}

// HTTP2MatchHeaderFieldPrefixSendSettings returns the same matcher as [HTTP2HeaderFieldPrefix].
func HTTP2MatchHeaderFieldPrefixSendSettings(name, valuePrefix string) MatchWriter {
	return http2Field(oneport.HeaderPrefix(name, valuePrefix)).matchWriter
}

func http2Field(m oneport.Matcher) *builtin { return &builtin{oneport.All(oneport.HTTP2(), m), 0} }

// earlySettings are the early SETTINGS of a oneport.Mux.
func earlySettings() []http2.Setting {
	var settings []http2.Setting
	for _, s := range oneport.DefaultEarlySettings() {
		settings = append(settings, http2.Setting{ID: http2.SettingID(s.ID), Val: s.Value})
	}
	return settings
}
