package probe

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// allWays returns the ways in, in the order in which they are shown. A way in comes after those that it depends on.
func allWays(o Options) []way {
	ways := []way{
		{"http1", Clear, "HTTP/1.1", nil, nil, plain((*attempt).http1)},
		{"http1.0", Clear, "HTTP/1.0, without Host", []string{"http1"}, needsHTTP1, plain((*attempt).http10)},
		{"h2", Clear, "HTTP/2, request at once", nil, nil, plain((*attempt).http2AtOnce)},
		{"h2-strict", Clear, "HTTP/2, waiting for SETTINGS", nil, nil, plain((*attempt).http2Strict)},
		{"idle", Clear, "HTTP/2, idle for " + Seconds(o.Idle), []string{"h2-strict"}, needsAnswer("h2-strict"), plain((*attempt).http2Idle)},
		{"grpc", Clear, "gRPC", nil, nil, plain((*attempt).grpc)},
		{"mixed", Clear, "gRPC and REST on one connection", []string{"h2", "grpc"}, needsBoth("h2", "grpc"), plain((*attempt).mixed)},
		{"grpc-web", Clear, "gRPC-Web", []string{"http1"}, needsHTTP1, plain((*attempt).grpcWeb)},
		{"upgrade", Clear, "Upgrade: h2c", []string{"http1"}, needsHTTP1, plain((*attempt).upgradeGET)},
		{"upgrade-options", Clear, "Upgrade: h2c, OPTIONS first", []string{"http1"}, needsHTTP1, plain((*attempt).upgradeOPTIONS)},
	}
	if o.FromProxy == "" {
		ways = append(ways,
			way{"proxy-v1", Proxy, "with a PROXY header, v1", nil, nil, behindProxy(1)},
			way{"proxy-v2", Proxy, "with a PROXY header, v2", nil, nil, behindProxy(2)})
	} else {
		ways = append(ways, way{"no-proxy", Proxy, "without a PROXY header", nil, nil, behindProxy(noHeader)})
	}
	ways = append(ways,
		way{"handshake", TLS, "handshake", nil, nil, (*attempt).certificate},
		way{"versions", TLS, "versions", []string{"handshake"}, needsTLS, (*attempt).versions},
		way{"alpn", TLS, "ALPN", []string{"handshake"}, needsTLS, (*attempt).alpn},
		way{"tls-http1", TLS, "HTTP/1.1", []string{"handshake"}, needsTLS, overTLS((*attempt).http1, "http/1.1")},
		way{"tls-h2", TLS, "HTTP/2, ALPN h2 or http/1.1", []string{"handshake"}, needsTLS, overTLS((*attempt).http2AtOnce, "h2", "http/1.1")},
		way{"tls-h2-no-alpn", TLS, "HTTP/2, without ALPN", []string{"handshake"}, needsTLS, overTLS((*attempt).http2Strict)},
		way{"tls-grpc", TLS, "gRPC, ALPN h2", []string{"handshake"}, needsTLS, overTLS((*attempt).grpc, "h2")},
		way{"tls-mixed", TLS, "gRPC and REST on one connection", []string{"tls-h2", "tls-grpc"}, needsBoth("tls-h2", "tls-grpc"), overTLS((*attempt).mixed, "h2")},
	)
	if o.Cert != nil {
		ways = append(ways, way{"tls-no-cert", TLS, "HTTP/1.1, no client certificate", []string{"handshake"}, needsTLS, (*attempt).withoutCert})
	}
	return ways
}

// plain makes a way in of what is done on a connection in cleartext.
func plain(do func(*attempt, *wire.Conn)) func(*attempt) {
	return func(a *attempt) {
		c, err := a.dial()
		if err != nil {
			a.failed(nil, err, "")
			return
		}
		do(a, c)
	}
}

// overTLS does the same inside TLS.
func overTLS(do func(*attempt, *wire.Conn), alpn ...string) func(*attempt) {
	return func(a *attempt) {
		c, facts, err := a.handshake(alpn, 0, true)
		a.r.TLS = facts
		if err != nil {
			a.failed(c, err, "")
			return
		}
		if slices.Contains(alpn, "h2") && facts.ALPN == "http/1.1" {
			a.say(NotOffered, Declined, "ALPN chooses http/1.1")
			return
		}
		do(a, c)
		if a.r.Verdict == Works && slices.Contains(alpn, "h2") && facts.ALPN == "" {
			a.say(Fails, Declined, "%s, but ALPN chooses nothing", a.r.Came)
		}
	}
}

func needsHTTP1(p *prober) string {
	if r := p.result("http1"); r.HTTP == nil || r.Verdict == Refused {
		return "HTTP/1.1 does not work"
	}
	return ""
}

func needsTLS(p *prober) string {
	if r := p.result("handshake"); r.TLS == nil || r.TLS.Version == "" {
		return "TLS does not work"
	}
	return ""
}

// needsAnswer makes the probe try a way in only if another one got an answer.
func needsAnswer(id string) func(*prober) string {
	return func(p *prober) string {
		if r := p.result(id); r.HTTP2 == nil || !r.HTTP2.First {
			return "HTTP/2 does not work"
		}
		return ""
	}
}

// needsBoth makes the probe try gRPC and REST on one connection only if each works by itself.
func needsBoth(rest, grpc string) func(*prober) string {
	return func(p *prober) string {
		r, g := p.result(rest), p.result(grpc)
		switch {
		case g.GRPC == nil || g.Verdict != Works && g.Verdict != WorksBut:
			return "gRPC does not work by itself"
		case r.HTTP == nil || r.Verdict != Works && r.Verdict != WorksBut:
			return "REST does not work by itself"
		case r.HTTP.FromGRPC():
			return "there is only a gRPC server"
		}
		return ""
	}
}

// badVersion is the alert of servers that speak no version that the client speaks.
const badVersion = "protocol version not supported"

// certificate does the handshake that others depend on.
func (a *attempt) certificate() {
	c, facts, err := a.handshake([]string{"h2", "http/1.1"}, 0, true)
	switch facts.Alert {
	case "no application protocol":
		c, facts, err = a.handshake(nil, 0, true)
	case badVersion:
		c, facts, err = a.handshake([]string{"h2", "http/1.1"}, anyVersion, true)
	}
	a.r.TLS = facts
	if err != nil {
		a.failed(c, err, "")
		return
	}
	a.r.FirstByte, a.r.Answered = a.r.Steps[len(a.r.Steps)-1].Took, true
	text := facts.Version
	if len(facts.Chain) > 0 {
		leaf := facts.Chain[0]
		text += fmt.Sprintf(", certificate for %s until %s", nameList(leaf), leaf.NotAfter.UTC().Format("2006-01-02"))
	}
	if facts.AsksForCert {
		text += ", asks for a client certificate"
	}
	a.say(Works, OK, "%s", text)
	if facts.Version == "TLS 1.1" || facts.Version == "TLS 1.0" {
		a.r.Verdict = Fails
		a.r.Came += ", and no newer version"
	}
	for _, p := range facts.Problems {
		switch {
		case a.Insecure, a.Roots == nil && (p.Kind == SelfSigned || p.Kind == Untrusted):
			if a.r.Verdict == Works {
				a.r.Verdict = WorksBut // for some clients
			}
		default:
			a.r.Verdict = Fails
		}
		a.r.Came += ", " + p.Text
		a.log.Note("the certificate is %s", p.Text)
	}
	a.finish(c)
}

func nameList(c Certificate) string {
	switch {
	case len(c.Names) == 0:
		return "no name"
	case len(c.Names) > 2:
		return fmt.Sprintf("%s and %d more", c.Names[0], len(c.Names)-1)
	}
	return strings.Join(c.Names, ", ")
}

// versions does a handshake in each version of TLS.
func (a *attempt) versions() {
	all := []uint16{tls.VersionTLS13, tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10}
	facts := &TLSFacts{Versions: make(map[string]string)}
	a.r.TLS = facts
	var yes, no []string
	for _, v := range all {
		name := tls.VersionName(v)
		c, got, err := a.handshake([]string{"h2", "http/1.1"}, v, true)
		if got.Alert == "no application protocol" || got.Alert != "" && got.AsksForCert {
			err = nil // the version was agreed upon
		}
		if c != nil {
			c.Close()
		}
		if err == nil {
			facts.Versions[name] = "yes"
			yes = append(yes, strings.TrimPrefix(name, "TLS "))
			continue
		}
		facts.Versions[name] = "no"
		no = append(no, strings.TrimPrefix(name, "TLS "))
		if !time.Now().Before(a.deadline) {
			break
		}
	}
	if len(yes) == 0 {
		a.say(Fails, BadTLS, "none by itself")
		return
	}
	text := strings.Join(yes, ", ")
	if len(no) > 0 {
		text += "; not " + strings.Join(no, ", ")
	}
	v := Works
	if facts.Versions["TLS 1.2"] != "yes" && facts.Versions["TLS 1.3"] != "yes" {
		v = Fails
	} else if facts.Versions["TLS 1.0"] == "yes" || facts.Versions["TLS 1.1"] == "yes" {
		v = WorksBut
	}
	a.say(v, OK, "%s", text)
}

// alpn does a handshake with each offer of application protocols.
func (a *attempt) alpn() {
	facts := &TLSFacts{ByOffer: make(map[string]string)}
	a.r.TLS = facts
	var taken []string
	offers := []struct {
		name string
		alpn []string
	}{{"h2", []string{"h2"}}, {"http/1.1", []string{"http/1.1"}}, {"none", nil}, {"unknown", []string{"oneport-probe"}}}
	for _, o := range offers {
		c, got, err := a.handshake(o.alpn, 0, true)
		if c != nil {
			c.Close()
		}
		switch {
		case got.Alert != "" && got.AsksForCert:
			facts.ByOffer[o.name] = "not known without a client certificate"
		case got.Alert != "":
			facts.ByOffer[o.name] = "refused: " + got.Alert
		case err != nil:
			facts.ByOffer[o.name] = "failed: " + wire.Printable(err.Error())
		case got.ALPN == "":
			facts.ByOffer[o.name] = "none"
		default:
			facts.ByOffer[o.name] = got.ALPN
			taken = append(taken, got.ALPN)
		}
	}
	text := "takes " + strings.Join(taken, ", ")
	if len(taken) == 0 {
		text = "takes no protocol"
	}
	for _, name := range []string{"none", "unknown"} {
		words := map[string]string{"none": "a client without ALPN", "unknown": "an unknown protocol"}[name]
		if got := facts.ByOffer[name]; strings.HasPrefix(got, "refused") || strings.HasPrefix(got, "failed") {
			text += "; refuses " + words
		}
	}
	a.say(Works, OK, "%s", text)
}

// withoutCert makes a request without the client certificate that others have.
func (a *attempt) withoutCert() {
	c, facts, err := a.handshake([]string{"http/1.1"}, 0, false)
	a.r.TLS = facts
	if err != nil {
		a.failed(c, err, "")
	} else {
		a.http1(c)
	}
	switch {
	case a.r.Verdict == Refused && facts.Alert != "":
		a.say(NotOffered, Alert, "refused, as it should be: %s", facts.Alert)
	case a.r.Verdict == Works:
		a.say(Works, OK, "%s: the certificate is not required", a.r.Came)
	}
}

// behindProxy looks for a server behind a PROXY header, or, with noHeader, for one without: in HTTP/1, in HTTP/2, and
// in TLS, until something is there.
func behindProxy(version byte) func(*attempt) {
	return func(a *attempt) {
		a.header = version
		whole := a.deadline
		for i, ask := range []func(*attempt){(*attempt).askHTTP1, (*attempt).askHTTP2, (*attempt).askTLS} {
			a.deadline = time.Now().Add(time.Until(whole) / time.Duration(3-i))
			a.r.HTTP, a.r.HTTP2, a.r.TLS, a.r.Language = nil, nil, nil, ""
			ask(a)
			if a.r.Verdict != Fails && a.r.Verdict != Hangs {
				break
			}
		}
		a.deadline = whole
	}
}

func (a *attempt) askHTTP1() { plain((*attempt).http1)(a) }

// askHTTP2 wants the client's SETTINGS acknowledged: some servers send their own before they have read anything.
func (a *attempt) askHTTP2() {
	c, err := a.dial()
	if err != nil {
		a.failed(nil, err, "")
		return
	}
	s := a.session(c, bufio.NewReader(c))
	defer a.keep(c, s)
	if err := s.Until(func() bool { return s.ACKs > 0 || s.GoAway != nil }); err != nil {
		a.failed(c, err, "")
		return
	}
	if s.GoAway != nil {
		a.wentAway(s)
		return
	}
	a.say(Works, OK, "HTTP/2 SETTINGS and an acknowledgement")
}

func (a *attempt) askTLS() {
	c, facts, err := a.handshake([]string{"h2", "http/1.1"}, 0, true)
	a.r.TLS = facts
	if err != nil {
		a.failed(c, err, "")
		return
	}
	a.say(Works, OK, "%s", facts.Version)
	a.finish(c)
}
