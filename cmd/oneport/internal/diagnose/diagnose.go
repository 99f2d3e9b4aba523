// Package diagnose says what the results of a probe mean: what is a fault and what is normal, the cause, the errors
// that clients report, and what to do. It does no I/O and does not depend on time.
package diagnose

import (
	"slices"

	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// A Severity says how bad a finding is.
type Severity string

const (
	Fault   Severity = "fault"   // clients fail
	Warning Severity = "warning" // some clients do, or will
	Remark  Severity = "note"    // it is good to know
)

// A Finding is a cause of what the results show.
type Finding struct {
	Code     string // stable, for programs
	Severity Severity
	Ways     []string // the ways in that show it
	Title    string   // in one line, what clients will see
	Cause    string
	Says     []Saying
	Fix      []string
	Page     string // of the documentation, with the section
}

// A Saying is what a client says about it.
type Saying struct{ Who, What string }

// Diagnose returns what the results mean. The report that it returns has the verdicts that they get in the light of
// each other: that a port for TLS refuses HTTP in cleartext is no fault.
func Diagnose(r *probe.Report) (*probe.Report, []Finding) {
	judged := *r
	judged.Results = make([]*probe.Result, len(r.Results))
	for i, x := range r.Results {
		y := *x
		judged.Results[i] = &y
	}
	v := &view{Report: &judged, explained: make(map[string]bool)}
	v.judge()
	var findings []Finding
	for _, rule := range rules {
		ways, detail := rule.match(v)
		if len(ways) == 0 {
			continue
		}
		for _, id := range ways {
			v.explained[id] = true
		}
		f := rule.finding(v, detail)
		f.Ways = ways
		findings = append(findings, f)
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return rank(a.Severity) - rank(b.Severity) })
	return &judged, findings
}

func rank(s Severity) int { return slices.Index([]Severity{Fault, Warning, Remark}, s) }

// Failed reports whether there is a fault.
func Failed(r *probe.Report, findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Severity == Fault }) ||
		slices.ContainsFunc(r.Results, func(x *probe.Result) bool { return troubled(x) })
}

// troubled reports whether a way in needs an explanation.
func troubled(r *probe.Result) bool { return r.Verdict == probe.Fails || r.Verdict == probe.Hangs }

func works(r *probe.Result) bool { return r.Verdict == probe.Works || r.Verdict == probe.WorksBut }

// A view is what rules look at.
type view struct {
	*probe.Report
	explained map[string]bool

	clearWorks  bool // something does, in cleartext
	clearSpoken bool // or the answers are at least in HTTP
	http2Spoken bool // in HTTP/2, that is
	tlsSpoken   bool
}

// basic are the ways into a cleartext port that others depend on.
var basic = []string{"http1", "h2", "h2-strict", "grpc"}

// where returns the IDs of the ways in for which f returns true.
func (v *view) where(f func(*probe.Result) bool) []string {
	var ids []string
	for _, r := range v.Results {
		if f(r) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// open returns the troubled ways in for which f returns true and that no rule has explained.
func (v *view) open(f func(*probe.Result) bool) []string {
	return v.where(func(r *probe.Result) bool {
		return (troubled(r) || r.Verdict == probe.Refused) && !v.explained[r.ID] && f(r)
	})
}

func (v *view) anyWorks(ids ...string) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return works(v.Get(id)) })
}

// judge changes verdicts to "not offered" where the other results show that there is no fault.
func (v *view) judge() {
	hs := v.Get("handshake")
	v.clearWorks = v.anyWorks(basic...)
	v.http2Spoken = slices.ContainsFunc(basic, func(id string) bool {
		r := v.Get(id)
		return works(r) && id != "http1" || r.HTTP2 != nil && len(r.HTTP2.Settings) > 0
	})
	v.clearSpoken = v.clearWorks || v.http2Spoken || v.Get("http1").Language == wire.HTTP1
	// A mux without a route for TLS may refuse it by an alert.
	v.tlsSpoken = hs.TLS != nil && (hs.TLS.Version != "" || hs.TLS.Alert != "" && !v.clearWorks)
	for _, r := range v.Results {
		if r.Asked && r.Verdict == probe.NotOffered {
			r.Verdict = probe.Refused
		}
		usual := v.Get("http1")
		if r.Group == probe.Proxy && works(r) && works(usual) && r.HTTP != nil && r.HTTP.Status != usual.HTTP.Status {
			r.Verdict = probe.NotOffered // the header was taken for a request
		}
		if !works(r) && r.Verdict != probe.NotTried && !r.Asked && v.normal(r) {
			r.Verdict = probe.NotOffered
		}
	}
}

// normal reports whether it is no fault that r does not work.
func (v *view) normal(r *probe.Result) bool {
	refusedHTTP1 := r.Outcome == probe.Foreign && r.Language == wire.HTTP1
	gone := r.Outcome == probe.Closed && !r.Answered || r.Outcome == probe.Reset && !r.Answered
	turnedAway := r.Outcome == probe.WentAway && r.Verdict == probe.Refused // with a reason
	switch r.Group {
	case probe.Proxy:
		return true
	case probe.Clear:
		if v.tlsSpoken && !v.clearWorks {
			return true // the port is for TLS
		}
	case probe.TLS:
		if !v.tlsSpoken {
			return v.clearSpoken && v.Scheme != "https"
		}
	}
	switch r.ID {
	case "http1":
		return v.http2Spoken && r.Language != wire.HTTP1 && r.Outcome != probe.Silent && r.Outcome != probe.Stalled
	case "h2", "h2-strict":
		return works(v.Get("http1")) && !v.anyWorks("h2", "h2-strict") && (refusedHTTP1 || gone || turnedAway)
	case "grpc":
		if refusedHTTP1 || gone || turnedAway {
			return works(v.Get("http1")) && !v.anyWorks("h2", "h2-strict") && v.Service == ""
		}
		return v.noGRPC(r, "h2")
	case "tls-grpc":
		if refusedHTTP1 && r.TLS.ALPN == "" || r.TLS != nil && r.TLS.Alert == "no application protocol" {
			return works(v.Get("tls-http1")) && v.Service == ""
		}
		return v.noGRPC(r, "tls-h2")
	case "grpc-web":
		return true
	case "upgrade", "upgrade-options":
		return r.HTTP2 == nil
	case "tls-h2":
		return refusedHTTP1 && r.TLS.ALPN == ""
	case "tls-http1":
		return r.Outcome == probe.Alert && r.TLS.Alert == "no application protocol" ||
			r.Language == wire.HTTP2 || works(v.Get("tls-grpc")) && r.Outcome != probe.Silent
	case "tls-h2-no-alpn":
		return works(v.Get("tls-h2")) || v.Get("tls-h2").Verdict == probe.NotOffered ||
			works(v.Get("tls-http1")) && !v.certWanted(r)
	}
	return false
}

// noGRPC reports whether a server of HTTP has answered a call as it would answer any other request.
func (v *view) noGRPC(r *probe.Result, rest string) bool {
	return r.Outcome == probe.Declined && r.GRPC == nil && works(v.Get(rest)) && v.Service == "" &&
		r.HTTP != nil && r.HTTP.Status < 500
}

// certWanted reports whether the server has refused a client for its certificate.
func (v *view) certWanted(r *probe.Result) bool {
	if r.TLS == nil {
		return false
	}
	switch r.TLS.Alert {
	case "certificate required", "bad certificate", "unknown certificate authority", "unknown certificate",
		"certificate unknown", "unsupported certificate", "access denied":
		return true
	case "handshake failure":
		return v.Get("handshake").TLS != nil && v.Get("handshake").TLS.AsksForCert
	}
	return false
}
