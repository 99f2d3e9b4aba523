package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// An attempt is a way in that is being tried.
type attempt struct {
	*prober
	r        *Result
	log      *wire.Log
	ctx      context.Context
	deadline time.Time
	header   byte // the version of the PROXY header that is sent ahead, 0 for that of Options.FromProxy
	closers  []func()
}

// noHeader means that an attempt sends no PROXY header, whatever Options.FromProxy says.
const noHeader = 0xff

// say sets the result.
func (a *attempt) say(v Verdict, o Outcome, format string, args ...any) {
	a.r.Verdict, a.r.Outcome, a.r.Came = v, o, fmt.Sprintf(format, args...)
}

// dial connects. A PROXY header is sent together with the first write: a server that does not expect it may answer and
// close at once, and a second write would make its system discard the answer. The connection is closed when the attempt
// or the context ends.
func (a *attempt) dial() (*wire.Conn, error) {
	began := time.Now()
	nc, err := (&net.Dialer{Deadline: a.deadline}).DialContext(a.ctx, a.network, a.address)
	if err != nil {
		a.log.Note("connect: %v", err)
		return nil, err
	}
	a.step("connect", began)
	stop := context.AfterFunc(a.ctx, func() { nc.Close() })
	a.closers = append(a.closers, func() {
		stop()
		nc.Close()
	})
	nc.SetDeadline(a.deadline)
	a.log.Note("connected to %s", a.address)
	header, err := a.proxyHeader(nc)
	if err != nil {
		return nil, err
	}
	c := wire.NewConn(nc, a.log)
	c.WriteFirst(header)
	return c, nil
}

func (a *attempt) closeAll() {
	for _, c := range a.closers {
		c()
	}
}

func (a *attempt) step(name string, began time.Time) {
	a.r.Steps = append(a.r.Steps, Step{name, time.Since(began)})
}

// proxyHeader returns the PROXY header, with the actual addresses of the connection, or nil if none is to be sent.
func (a *attempt) proxyHeader(c net.Conn) ([]byte, error) {
	version := a.header
	if version == noHeader {
		return nil, nil
	}
	if version == 0 {
		switch a.FromProxy {
		case "v1":
			version = 1
		case "v2":
			version = 2
		default:
			return nil, nil
		}
	}
	from, to := c.LocalAddr(), c.RemoteAddr()
	if _, ok := from.(*net.TCPAddr); !ok {
		// Balancers that connect to a Unix socket announce TCP clients, and servers expect no others.
		local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
		from, to = local, local
	}
	a.log.Add(wire.Sent, fmt.Sprintf("PROXY header v%d", version), fmt.Sprintf("%v to %v", from, to))
	return proxyproto.HeaderProxyFromAddrs(version, from, to).Format()
}

// anyVersion stands for all versions of TLS, including the deprecated ones.
const anyVersion = 1

// handshake connects and does a TLS handshake, in the given version, or in one of those that clients speak. It returns
// facts even if it fails.
func (a *attempt) handshake(alpn []string, version uint16, withCert bool) (*wire.Conn, *TLSFacts, error) {
	facts := &TLSFacts{Offered: alpn}
	raw, err := a.dial()
	if err != nil {
		return nil, facts, err
	}
	config := &tls.Config{
		ServerName:         a.SNI,
		NextProtos:         alpn,
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // it is verified below, since a bad certificate is not the end of what can be found out
		GetClientCertificate: func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			facts.AsksForCert = true
			facts.Authorities = authorities(i.AcceptableCAs)
			if a.Cert != nil && withCert {
				return a.Cert, nil
			}
			return new(tls.Certificate), nil
		},
	}
	if version != 0 {
		config.MinVersion, config.MaxVersion = version, version
		if version == anyVersion {
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, 0
		}
		for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			config.CipherSuites = append(config.CipherSuites, s.ID)
		}
	}
	offer := "no ALPN"
	if alpn != nil {
		offer = "ALPN " + strings.Join(alpn, ", ")
	}
	a.log.Add(wire.Sent, "TLS ClientHello", "server name "+a.SNI, offer)
	began := time.Now()
	tc := tls.Client(raw, config)
	err = tc.HandshakeContext(a.ctx)
	a.step("TLS handshake", began)
	if err != nil {
		facts.Alert = alertOf(err)
		a.log.Note("TLS handshake: %v", err)
		return raw, facts, err
	}
	state := tc.ConnectionState()
	facts.Version, facts.Cipher = tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
	facts.ALPN = state.NegotiatedProtocol
	for i, c := range state.PeerCertificates {
		if i == 8 {
			break
		}
		facts.Chain = append(facts.Chain, certificate(c))
	}
	if len(state.PeerCertificates) > 0 {
		facts.Problems = problems(state.PeerCertificates, a.SNI, a.Roots)
	}
	details := []string{facts.Version, facts.Cipher, "ALPN " + orNone(facts.ALPN)}
	if len(facts.Chain) > 0 {
		details = append(details, "certificate of "+facts.Chain[0].Subject)
	}
	if facts.AsksForCert {
		details = append(details, "asks for a client certificate")
	}
	a.log.Add(wire.Received, "TLS handshake done", details...)
	return wire.NewConn(tc, a.log), facts, nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// alertOf returns the name of the alert that the server has sent, "" if err is something else.
func alertOf(err error) string {
	if oe, ok := errors.AsType[*net.OpError](err); ok && oe.Op == "remote error" {
		return strings.TrimPrefix(oe.Err.Error(), "tls: ")
	}
	return ""
}

func certificate(c *x509.Certificate) Certificate {
	out := Certificate{
		Subject: wire.Printable(c.Subject.String()), Issuer: wire.Printable(c.Issuer.String()),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
	for _, n := range c.DNSNames {
		out.Names = append(out.Names, wire.Printable(n))
	}
	for _, ip := range c.IPAddresses {
		out.Names = append(out.Names, ip.String())
	}
	if len(out.Names) > 20 {
		out.Names = append(out.Names[:20], "…")
	}
	return out
}

// authorities returns the names of the authorities whose certificates a server asks for.
func authorities(raw [][]byte) []string {
	var out []string
	for _, b := range raw {
		if len(out) == 10 {
			return append(out, "…")
		}
		out = append(out, distinguishedName(b))
	}
	return out
}

// problems returns the problems of a certificate. It checks each separately, since clients report only the first.
func problems(chain []*x509.Certificate, name string, roots *x509.CertPool) []Problem {
	var out []Problem
	leaf, now := chain[0], time.Now()
	const day = "2006-01-02"
	switch {
	case now.After(leaf.NotAfter):
		out = append(out, Problem{Expired, "expired on " + leaf.NotAfter.UTC().Format(day)})
	case now.Before(leaf.NotBefore):
		out = append(out, Problem{NotYetValid, "not valid before " + leaf.NotBefore.UTC().Format(day)})
	}
	if err := leaf.VerifyHostname(name); err != nil {
		out = append(out, Problem{WrongName, fmt.Sprintf("not for %s, but for %s", name, namesOf(leaf))})
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: leaf.NotAfter.Add(-time.Second),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		if bytes.Equal(leaf.RawSubject, leaf.RawIssuer) && leaf.CheckSignatureFrom(selfIssuer(leaf)) == nil {
			out = append(out, Problem{SelfSigned, "self-signed"})
		} else {
			out = append(out, Problem{Untrusted, fmt.Sprintf("signed by %s, which is not known here", wire.Printable(issuer(leaf)))})
		}
	}
	return out
}

// selfIssuer is the certificate as one of an authority, which it need not claim to be to have signed itself.
func selfIssuer(c *x509.Certificate) *x509.Certificate {
	parent := *c
	parent.BasicConstraintsValid, parent.IsCA, parent.KeyUsage = true, true, parent.KeyUsage|x509.KeyUsageCertSign
	return &parent
}

func issuer(c *x509.Certificate) string {
	if c.Issuer.CommonName != "" {
		return c.Issuer.CommonName
	}
	if s := c.Issuer.String(); s != "" {
		return s
	}
	return fmt.Sprintf("an authority without a name (key %x)", sha256.Sum256(c.RawIssuer))[:48]
}

func namesOf(c *x509.Certificate) string {
	names := certificate(c).Names
	switch {
	case len(names) == 0:
		return "no name"
	case len(names) > 3:
		return strings.Join(names[:3], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}

// timeFor reports whether there is time for another request of a server that has taken as long as from began to now: a
// slow server is no fault.
func (a *attempt) timeFor(began time.Time) bool {
	return time.Until(a.deadline) > 2*time.Since(began)
}

// seconds is the timeout in words.
func (a *attempt) seconds() string { return Seconds(a.Timeout) }

// Seconds writes a duration as it is read in a sentence.
func Seconds(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%d s", d/time.Second)
	}
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// failed sets the result by an error, and by what the server had sent before it.
func (a *attempt) failed(c *wire.Conn, err error, so string) {
	if c != nil {
		a.firstByte(c)
	}
	if f, ok := errors.AsType[*wire.Foreign](err); ok {
		a.foreign(f)
		return
	}
	if alert := alertOf(err); alert != "" {
		if a.r.TLS != nil {
			a.r.TLS.Alert = alert
		}
		a.say(Refused, Alert, "TLS alert: %s", alert)
		return
	}
	if re, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		head := re.RecordHeader[:]
		if c != nil {
			head = c.Head()
		}
		a.r.Language = wire.LanguageOf(head)
		a.say(Fails, NoTLS, "%s in place of TLS", a.r.Language.Words())
		return
	}
	if v, ok := wire.FaultOf(err); ok {
		o := Violated
		if v.Fault == wire.FaultFlood || v.Fault == wire.FaultHeaderList {
			o = TooMuch
		}
		a.say(Fails, o, "%s", v.Text)
		return
	}
	ending := wire.EndingOf(err)
	if ending == wire.Interrupted && !errors.Is(a.ctx.Err(), context.Canceled) {
		ending = wire.TimedOut // of the whole
	}
	some := c != nil && len(c.Head()) > 0
	switch ending {
	case wire.TimedOut:
		if !some && so == "" {
			a.log.Note("the server has sent nothing for %s; this is where a client hangs", a.seconds())
			a.say(Hangs, Silent, "nothing in %s", a.seconds())
			return
		}
		a.log.Note("nothing more before the timeout of %s", a.seconds())
		a.say(Hangs, Stalled, "%snot complete after %s", after(so), a.seconds())
	case wire.Closed, wire.Truncated:
		a.log.Note("the server closed the connection")
		a.say(Fails, Closed, "%sclosed", after(so))
		if !some && so == "" {
			a.r.Came = "closed without a byte"
		}
	case wire.Reset:
		a.log.Note("the server reset the connection")
		a.say(Fails, Reset, "%sreset", after(so))
	case wire.TooMuch:
		a.log.Note("%v", err)
		a.say(Fails, TooMuch, "%smore than %d KiB, given up", after(so), wire.MaxBytes>>10)
	case wire.Interrupted:
		a.say(NotTried, Stopped, "interrupted")
	default:
		a.log.Note("%v", err)
		a.say(Fails, Broken, "%s%v", after(so), err)
	}
}

func after(so string) string {
	if so == "" {
		return ""
	}
	return so + ", then "
}

func (a *attempt) firstByte(c *wire.Conn) {
	if d, ok := c.FirstByte(); ok {
		a.r.FirstByte, a.r.Answered = d, true
	}
}

// foreign sets the result where the answer is of another protocol.
func (a *attempt) foreign(f *wire.Foreign) {
	a.r.Language = f.Language
	if res := f.Response; res != nil {
		a.r.HTTP = httpFacts(res)
		a.log.Note("an HTTP/1 response in place of HTTP/2 frames: the program that answered does not speak HTTP/2 here")
		a.say(Refused, Foreign, "%s in HTTP/1", statusText(res))
		return
	}
	a.say(Fails, Foreign, "%s", f.Language.Words())
}

func httpFacts(res *wire.Response) *HTTP {
	start, _, _ := strings.Cut(strings.TrimSpace(string(res.Content)), "\n")
	return &HTTP{
		Proto: res.Proto, Status: res.StatusCode, Reason: wire.Printable(strings.TrimPrefix(res.Status, fmt.Sprint(res.StatusCode)+" ")),
		Server: wire.Printable(res.Header.Get("Server")), ContentType: wire.Printable(res.Header.Get("Content-Type")),
		Location: wire.Printable(res.Header.Get("Location")), Start: wire.Printable(start),
	}
}

// statusText is the status of a response with its reason.
func statusText(res *wire.Response) string {
	return strings.TrimSpace(res.Status)
}

// expectHTTP1 returns an error if the answer is not HTTP/1. It only peeks.
func expectHTTP1(c *wire.Conn, br *bufio.Reader) error {
	const want = "HTTP/1."
	for n := 1; n <= len(want); n++ {
		b, err := br.Peek(n)
		if len(b) == n && strings.HasPrefix(want, string(b)) {
			continue
		}
		if len(b) == 0 {
			return err
		}
		if strings.HasPrefix(want, string(b)) {
			return io.ErrUnexpectedEOF
		}
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // for as much as it takes to tell what it is
		br.Peek(9)
		f := &wire.Foreign{Language: wire.LanguageOf(c.Head())}
		c.Log().Add(wire.Received, f.Language.Words(), string(c.Head()))
		return f
	}
	return nil
}
