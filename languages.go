package oneport

import (
	"slices"
	"strings"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/http1"
)

// languages is a set of protocols that a client may speak first. The sets of the routes determine what ALPN offers, and
// whether a cleartext client is told that the port takes TLS only.
type languages uint8

const (
	speaksHTTP1 languages = 1 << iota
	speaksHTTP2
	speaksTLS
	speaksOther

	speaksHTTP     = speaksHTTP1 | speaksHTTP2
	speaksAnything = speaksHTTP | speaksTLS | speaksOther
)

// taken is what a matcher can take. It may be more than what it does take.
type taken struct {
	bare  languages // as the first bytes of a connection
	inTLS languages // as the first bytes inside TLS that was terminated
	alpn  []string  // ALPN names that it asks for beside those of HTTP
}

func takes(l languages) taken { return taken{bare: l, inTLS: l} }

// takenBy returns what m can take: anything, if it is not one of this package.
func takenBy(m Matcher) taken {
	if b, ok := m.(*builtin); ok {
		return b.takes
	}
	return takes(speaksAnything)
}

// takenByAny returns what at least one of the matchers can take.
func takenByAny(matchers []Matcher) taken {
	var t taken
	for _, m := range matchers {
		u := takenBy(m)
		t.bare |= u.bare
		t.inTLS |= u.inTLS
		t.alpn = append(t.alpn, u.alpn...)
	}
	return t
}

// takenByAll returns what all of the matchers can take.
func takenByAll(matchers []Matcher) taken {
	t := takes(speaksAnything)
	for _, m := range matchers {
		u := takenBy(m)
		t.bare &= u.bare
		t.inTLS &= u.inTLS
		t.alpn = append(t.alpn, u.alpn...)
	}
	return t
}

// takenByPrefix returns in what languages the prefixes are a beginning.
func takenByPrefix(prefixes []string) taken {
	var l languages
	for _, prefix := range prefixes {
		switch {
		case prefix == "":
			l |= speaksAnything
		case strings.HasPrefix(h2.Preface, prefix):
			l |= speaksHTTP2
		case http1.MethodPrefix([]byte(prefix), http1.Methods):
			l |= speaksHTTP1
		case prefix[0] == tlsHandshakeRecord:
			l |= speaksTLS
		default:
			l |= speaksOther
		}
	}
	return takes(l)
}

// tlsHandshakeRecord is the first byte of a TLS client (RFC 8446, Section 5.1).
const tlsHandshakeRecord = 22

// tlsMajorVersion is its second byte, whatever the version is.
const tlsMajorVersion = 3

// takenByALPN returns what a matcher for the protocols takes.
func takenByALPN(protocols []string) taken {
	t := taken{bare: speaksTLS}
	for _, p := range protocols {
		switch p {
		case alpnHTTP1:
			t.inTLS |= speaksHTTP1
		case alpnHTTP2:
			t.inTLS |= speaksHTTP2
		default:
			t.inTLS |= speaksOther
			t.alpn = append(t.alpn, p)
		}
	}
	return t
}

// tlsOnly reports whether the mux takes TLS but not the language, as the first bytes of a connection.
func (m *Mux) tlsOnly(l languages) bool {
	var all languages
	for _, rt := range *m.routes.Load() {
		all |= takenByAny(rt.matchers).bare
	}
	return all&speaksTLS != 0 && all&l == 0
}

// redirects reports whether to redirect an HTTP/1 client without TLS to https.
func (m *Mux) redirects() bool {
	return slices.ContainsFunc(*m.routes.Load(), func(rt *route) bool {
		return rt.tls != nil && rt.tls.RedirectHTTP
	})
}
