// Package probe connects to a port in every way that HTTP and gRPC clients do, each on a connection of its own, and
// records what came. Package diagnose says what that means.
//
// It is harmless: it opens at most MaxConns connections at a time and about thirty in all, sends ordinary requests, and
// bounds how long it waits and how much it reads, whatever the server sends.
package probe

import (
	"slices"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// A Verdict is the judgement on one way in.
type Verdict string

const (
	Works      Verdict = "works"
	WorksBut   Verdict = "works, but"
	Refused    Verdict = "refused"     // clearly, in a language that the client understands
	Fails      Verdict = "fails"       // in a way that the client has to guess about
	Hangs      Verdict = "hangs"       // the client waits until it gives up
	NotOffered Verdict = "not offered" // the port is not for this, which is no fault
	NotTried   Verdict = "not tried"
)

// A Group is a kind of connection that ways in share.
type Group string

const (
	Clear Group = "clear"
	Proxy Group = "PROXY"
	TLS   Group = "TLS"
)

// An Outcome says how a way in ended, by what the server did.
type Outcome string

const (
	OK          Outcome = "ok"
	Silent      Outcome = "silent"       // no byte in the time there was
	Stalled     Outcome = "stalled"      // some bytes, but no complete answer in the time there was
	Closed      Outcome = "closed"       // before the answer
	Reset       Outcome = "reset"        // the TCP connection, before the answer
	Foreign     Outcome = "foreign"      // the answer is of another protocol, see Language
	Declined    Outcome = "declined"     // an answer of the protocol that says no
	WentAway    Outcome = "goaway"       // GOAWAY before the answer, or after the first one
	StreamReset Outcome = "stream-reset" // RST_STREAM instead of an answer
	Violated    Outcome = "violation"    // what the server sends is against the rules of HTTP/2
	TooMuch     Outcome = "too-much"     // the server sends more than the probe reads
	Alert       Outcome = "alert"        // of TLS
	NoTLS       Outcome = "not-tls"      // the answer to a ClientHello is something else
	BadTLS      Outcome = "bad-tls"      // TLS that the client cannot go on with
	Broken      Outcome = "broken"       // another error
	Stopped     Outcome = "interrupted"
	Untried     Outcome = "not-tried"
)

// A Result is the result of one way in.
type Result struct {
	ID        string
	Group     Group
	Title     string
	Verdict   Verdict
	Outcome   Outcome
	Came      string        // in one line
	FirstByte time.Duration // since the request, or the ClientHello, was sent
	Answered  bool          // there was a first byte
	Took      time.Duration
	End       wire.Ending // what the server did when the probe had ended its side; "" if the connection did not last so long
	Asked     bool        // for by name, so that it has to work
	Language  wire.Language
	Steps     []Step
	HTTP      *HTTP
	HTTP2     *HTTP2
	GRPC      *GRPC
	TLS       *TLSFacts
	Log       []wire.Event
}

// A Step is something that took time.
type Step struct {
	Name string
	Took time.Duration
}

// HTTP is what the response said.
type HTTP struct {
	Proto       string
	Status      int
	Reason      string
	Server      string
	ContentType string
	Location    string
	Start       string // of the content
}

// HTTP2 is what was seen of an HTTP/2 connection.
type HTTP2 struct {
	Settings   []wire.SettingsFrame
	ACKed      bool // the client's SETTINGS were acknowledged
	ACKAt      time.Duration
	Pong       bool // a PING was acknowledged before the first request, where one was sent
	GoAway     *wire.GoAway
	Reset      http2.ErrCode // of RST_STREAM
	Violations []wire.Violation
	First      bool // the first request was answered
	Second     bool // the second, too
}

// Has reports whether the server has broken a rule.
func (h *HTTP2) Has(f wire.Fault) bool {
	return h != nil && slices.ContainsFunc(h.Violations, func(v wire.Violation) bool { return v.Fault == f })
}

// GRPC is the answer to a call.
type GRPC struct {
	Via      string // the method that was answered
	Status   int
	Message  string
	Health   string   // the serving status
	Services []string // by reflection
}

// TLSFacts is what the handshake has shown.
type TLSFacts struct {
	Version     string
	Cipher      string
	Offered     []string // by ALPN
	ALPN        string   // what was negotiated
	Alert       string   // of the server
	Chain       []Certificate
	Problems    []Problem
	AsksForCert bool
	Authorities []string // whose client certificates the server asks for
	Versions    map[string]string
	ByOffer     map[string]string // the outcome of each ALPN offer
}

// A Certificate is one of the server's.
type Certificate struct {
	Subject   string
	Names     []string
	Issuer    string
	NotBefore time.Time
	NotAfter  time.Time
}

// A ProblemKind is a reason why a client does not accept a certificate.
type ProblemKind string

const (
	Expired     ProblemKind = "expired"
	NotYetValid ProblemKind = "not-yet-valid"
	WrongName   ProblemKind = "wrong-name"
	SelfSigned  ProblemKind = "self-signed"
	Untrusted   ProblemKind = "unknown-authority"
)

// A Problem is what is wrong with the certificate.
type Problem struct {
	Kind ProblemKind
	Text string
}

// A Report is all that a probe has found out.
type Report struct {
	Target      string
	Network     string
	Address     string // that was connected to
	Others      []string
	Connect     time.Duration
	Timeout     time.Duration
	Scheme      string // http or https if the target is a URL
	Service     string // that the user has named
	FromProxy   string
	HasCert     bool
	HasRoots    bool
	Insecure    bool
	Interrupted bool
	Results     []*Result
}

// Get returns the result of a way in, which was not tried if there is none.
func (r *Report) Get(id string) *Result {
	for _, x := range r.Results {
		if x.ID == id {
			return x
		}
	}
	return &Result{ID: id, Verdict: NotTried, Outcome: Untried}
}
