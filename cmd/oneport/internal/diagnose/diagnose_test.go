package diagnose

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// Results for the tables.

func ok(id string) *probe.Result { return with(id, probe.Works, probe.OK) }

func with(id string, v probe.Verdict, o probe.Outcome) *probe.Result {
	r := &probe.Result{ID: id, Group: probe.Clear, Title: id, Verdict: v, Outcome: o, Came: string(o)}
	for _, n := range probe.Names() {
		if n.ID == id {
			r.Group = probe.Group(n.Group)
		}
	}
	if r.Group == probe.TLS {
		r.TLS = &probe.TLSFacts{}
	}
	if v == probe.Works && (id == "http1" || id == "tls-http1") {
		r.HTTP = &probe.HTTP{Status: 200}
	}
	return r
}

func silent(id string) *probe.Result  { return with(id, probe.Hangs, probe.Silent) }
func closed(id string) *probe.Result  { return with(id, probe.Fails, probe.Closed) }
func resetBy(id string) *probe.Result { return with(id, probe.Fails, probe.Reset) }

// http2By gives a result facts about HTTP/2.
func http2By(r *probe.Result, settings int, f func(*probe.HTTP2)) *probe.Result {
	r.HTTP2 = &probe.HTTP2{Settings: make([]wire.SettingsFrame, settings)}
	r.Answered = settings > 0
	if f != nil {
		f(r.HTTP2)
	}
	return r
}

// foreign makes a result of an answer in another language.
func foreign(id string, l wire.Language) *probe.Result {
	r := with(id, probe.Fails, probe.Foreign)
	r.Language, r.Answered = l, true
	if l == wire.HTTP1 {
		r.Verdict = probe.Refused
	}
	return r
}

func violated(id string, f wire.Fault) *probe.Result {
	return http2By(with(id, probe.Fails, probe.Violated), 1, func(h *probe.HTTP2) { h.Violations = []wire.Violation{{Fault: f, Text: string(f)}} })
}

// tlsBy gives a result facts about TLS.
func tlsBy(r *probe.Result, f func(*probe.TLSFacts)) *probe.Result {
	r.TLS = new(probe.TLSFacts)
	f(r.TLS)
	return r
}

func handshake(f func(*probe.TLSFacts)) *probe.Result {
	return tlsBy(ok("handshake"), func(t *probe.TLSFacts) {
		t.Version = "TLS 1.3"
		if f != nil {
			f(t)
		}
	})
}

func noTLS() *probe.Result { return with("handshake", probe.Fails, probe.NoTLS) }

func alert(id, name string) *probe.Result {
	return tlsBy(with(id, probe.Refused, probe.Alert), func(t *probe.TLSFacts) { t.Version, t.Alert = "TLS 1.3", name })
}

func problem(k probe.ProblemKind) *probe.Result {
	r := handshake(func(t *probe.TLSFacts) { t.Problems = []probe.Problem{{Kind: k, Text: string(k)}} })
	r.Verdict = probe.Fails
	return r
}

// answered turns the verdict of a result.
func answered(r *probe.Result, f func(*probe.Result)) *probe.Result {
	f(r)
	return r
}

// cases has at least one for every rule. The zoo has the same and more with real servers.
var cases = []struct {
	name     string
	report   probe.Report
	results  []*probe.Result
	want     map[string]Severity // by code
	verdicts map[string]probe.Verdict
}{
	{
		name:    "everything works",
		results: []*probe.Result{ok("http1"), ok("h2"), ok("h2-strict"), ok("grpc"), handshake(nil)},
	},
	{
		name:    "PROXY wanted",
		results: []*probe.Result{closed("http1"), closed("h2"), closed("h2-strict"), closed("grpc"), ok("proxy-v2"), resetBy("handshake")},
		want:    map[string]Severity{"proxy-required": Fault},
	},
	{
		name:    "PROXY wanted by a server that says 400",
		results: []*probe.Result{with("http1", probe.Refused, probe.Declined), closed("h2"), closed("h2-strict"), closed("grpc"), ok("proxy-v1"), resetBy("handshake")},
		want:    map[string]Severity{"proxy-required": Fault},
	},
	{
		name:    "PROXY not expected",
		report:  probe.Report{FromProxy: "v1"},
		results: []*probe.Result{with("http1", probe.Refused, probe.Declined), closed("h2"), closed("h2-strict"), closed("grpc"), ok("no-proxy"), resetBy("handshake")},
		want:    map[string]Severity{"proxy-forgotten": Fault},
	},
	{
		name:     "PROXY taken from anybody",
		results:  []*probe.Result{ok("http1"), ok("h2"), ok("h2-strict"), answered(ok("proxy-v1"), func(r *probe.Result) { r.HTTP = &probe.HTTP{Status: 200} }), noTLS()},
		want:     map[string]Severity{"proxy-optional": Remark},
		verdicts: map[string]probe.Verdict{"proxy-v1": probe.Works, "handshake": probe.NotOffered},
	},
	{
		name:     "PROXY taken for a request",
		results:  []*probe.Result{ok("http1"), ok("h2"), ok("h2-strict"), answered(ok("proxy-v1"), func(r *probe.Result) { r.HTTP = &probe.HTTP{Status: 404} }), noTLS()},
		verdicts: map[string]probe.Verdict{"proxy-v1": probe.NotOffered},
	},
	{
		name:    "silence",
		results: []*probe.Result{silent("http1"), silent("h2"), silent("h2-strict"), silent("grpc"), silent("proxy-v1"), silent("handshake")},
		want:    map[string]Severity{"silent": Fault},
	},
	{
		name:    "resets",
		results: []*probe.Result{resetBy("http1"), closed("h2"), resetBy("h2-strict"), resetBy("grpc"), resetBy("handshake")},
		want:    map[string]Severity{"resets": Fault},
	},
	{
		name:    "closes",
		results: []*probe.Result{closed("http1"), closed("h2"), closed("h2-strict"), closed("grpc"), closed("handshake")},
		want:    map[string]Severity{"closes": Fault},
	},
	{
		name:    "only one way was tried, so nothing is said of all",
		results: []*probe.Result{http2By(closed("grpc"), 0, nil)},
		want:    map[string]Severity{"preface-eof": Fault},
	},
	{
		name:    "SSH",
		results: []*probe.Result{foreign("http1", wire.SSH), foreign("h2", wire.SSH), foreign("h2-strict", wire.SSH), foreign("grpc", wire.SSH), noTLS()},
		want:    map[string]Severity{"not-http": Fault},
	},
	{
		name:    "no end",
		results: []*probe.Result{ok("http1"), http2By(with("h2", probe.Fails, probe.TooMuch), 1, nil), noTLS()},
		want:    map[string]Severity{"too-much": Fault},
	},
	{
		name:    "cmux",
		results: []*probe.Result{ok("http1"), ok("h2"), silent("h2-strict"), silent("grpc"), noTLS()},
		want:    map[string]Severity{"settings-hang": Fault},
	},
	{
		name: "cmux over TLS",
		results: []*probe.Result{
			closed("http1"), closed("h2"), closed("h2-strict"), closed("grpc"), handshake(nil), ok("tls-http1"), ok("tls-h2"), silent("tls-h2-no-alpn"), silent("tls-grpc"),
		},
		want: map[string]Severity{"settings-hang": Fault, "tls-only": Remark},
	},
	{
		name: "cmux that sends SETTINGS",
		results: []*probe.Result{
			ok("http1"), ok("grpc"), noTLS(),
			http2By(with("h2", probe.Fails, probe.WentAway), 2, func(h *probe.HTTP2) { h.First, h.GoAway = true, &wire.GoAway{Code: http2.ErrCodeProtocol} }),
		},
		want: map[string]Severity{"settings-ack": Fault},
	},
	{
		name:    "fields",
		results: []*probe.Result{violated("h2", wire.FaultFieldName), violated("h2-strict", wire.FaultNoStatus), violated("grpc", wire.FaultCompression)},
		want:    map[string]Severity{"bad-fields": Fault},
	},
	{
		name:    "streams",
		results: []*probe.Result{violated("h2", wire.FaultWrongStream)},
		want:    map[string]Severity{"wrong-stream": Fault},
	},
	{
		name:    "other frames",
		results: []*probe.Result{violated("h2", wire.FaultPriorities)},
		want:    map[string]Severity{"broken-frames": Fault},
	},
	{
		name: "no acknowledgement, and none while idle",
		results: []*probe.Result{
			http2By(with("h2", probe.WorksBut, probe.OK), 1, func(h *probe.HTTP2) { h.Violations = []wire.Violation{{Fault: wire.FaultNoACK}} }),
			http2By(with("idle", probe.WorksBut, probe.OK), 1, nil),
		},
		want: map[string]Severity{"settings-not-acked": Warning, "idle": Warning},
	},
	{
		name:    "ALPN chooses what nobody speaks",
		results: []*probe.Result{handshake(nil), ok("tls-http1"), tlsBy(foreign("tls-h2", wire.HTTP1), func(t *probe.TLSFacts) { t.ALPN = "h2" })},
		want:    map[string]Severity{"alpn-lie": Fault},
	},
	{
		name:    "no ALPN, but HTTP/2",
		results: []*probe.Result{handshake(nil), tlsBy(with("tls-grpc", probe.Fails, probe.Declined), func(t *probe.TLSFacts) { t.Version = "TLS 1.3" })},
		want:    map[string]Severity{"no-alpn": Fault},
	},
	{
		name:     "no HTTP/2 over TLS",
		results:  []*probe.Result{handshake(nil), ok("tls-http1"), with("tls-h2", probe.NotOffered, probe.Declined), alert("tls-grpc", "no application protocol")},
		want:     map[string]Severity{"tls-http1-only": Remark},
		verdicts: map[string]probe.Verdict{"tls-grpc": probe.NotOffered},
	},
	{
		name:    "client certificates",
		results: []*probe.Result{handshake(func(t *probe.TLSFacts) { t.AsksForCert = true }), alert("tls-http1", "handshake failure"), alert("tls-grpc", "certificate required")},
		want:    map[string]Severity{"client-cert": Fault},
	},
	{name: "expired", results: []*probe.Result{problem(probe.Expired)}, want: map[string]Severity{"certificate-expired": Fault}},
	{name: "not yet valid", results: []*probe.Result{problem(probe.NotYetValid)}, want: map[string]Severity{"certificate-expired": Fault}},
	{name: "wrong name", results: []*probe.Result{problem(probe.WrongName)}, want: map[string]Severity{"certificate-name": Fault}},
	{
		name: "self-signed, and the user has given authorities", report: probe.Report{HasRoots: true},
		results: []*probe.Result{problem(probe.SelfSigned)}, want: map[string]Severity{"certificate-authority": Fault},
	},
	{
		name:    "an authority that is not known here",
		results: []*probe.Result{answered(problem(probe.Untrusted), func(r *probe.Result) { r.Verdict = probe.WorksBut })},
		want:    map[string]Severity{"certificate-authority": Warning},
	},
	{
		name: "insecure", report: probe.Report{Insecure: true},
		results: []*probe.Result{answered(problem(probe.WrongName), func(r *probe.Result) { r.Verdict = probe.WorksBut })},
		want:    map[string]Severity{"certificate-name": Remark},
	},
	{
		name: "old TLS only",
		results: []*probe.Result{answered(handshake(func(t *probe.TLSFacts) { t.Version = "TLS 1.1" }), func(r *probe.Result) { r.Verdict = probe.Fails }),
			alert("tls-http1", "protocol version not supported")},
		want: map[string]Severity{"old-tls-only": Fault},
	},
	{
		name:    "old TLS as well",
		results: []*probe.Result{handshake(nil), with("versions", probe.WorksBut, probe.OK)},
		want:    map[string]Severity{"old-tls": Warning},
	},
	{
		name:    "an alert",
		results: []*probe.Result{closed("http1"), alert("handshake", "unrecognized name")},
		want:    map[string]Severity{"tls-alert": Fault, "tls-only": Remark},
	},
	{
		name:     "an alert of a cleartext port",
		results:  []*probe.Result{ok("http1"), tlsBy(with("handshake", probe.Refused, probe.Alert), func(t *probe.TLSFacts) { t.Alert = "handshake failure" })},
		verdicts: map[string]probe.Verdict{"handshake": probe.NotOffered},
	},
	{
		name:    "closed after SETTINGS",
		results: []*probe.Result{http2By(closed("h2"), 1, nil), http2By(resetBy("grpc"), 1, nil)},
		want:    map[string]Severity{"closed-after-settings": Fault},
	},
	{
		name:    "closed before SETTINGS, while requests at once are answered",
		results: []*probe.Result{ok("http1"), ok("h2"), http2By(closed("h2-strict"), 0, nil)},
		want:    map[string]Severity{"preface-eof": Fault},
	},
	{
		name:    "one server for both",
		results: []*probe.Result{ok("http1"), ok("h2"), ok("grpc"), with("mixed", probe.Fails, probe.Declined)},
		want:    map[string]Severity{"mixed": Fault},
	},
	{
		name:     "HTTP answers gRPC, which nobody has asked for",
		results:  []*probe.Result{ok("http1"), ok("h2"), answered(with("grpc", probe.Refused, probe.Declined), func(r *probe.Result) { r.HTTP = &probe.HTTP{Status: 404} })},
		verdicts: map[string]probe.Verdict{"grpc": probe.NotOffered},
	},
	{
		name: "HTTP answers gRPC, which was named", report: probe.Report{Service: "a.B"},
		results: []*probe.Result{ok("http1"), ok("h2"), answered(with("grpc", probe.Refused, probe.Declined), func(r *probe.Result) { r.HTTP = &probe.HTTP{Status: 404} })},
		want:    map[string]Severity{"grpc-answered-by-http": Fault},
	},
	{
		name:     "HTTP/1 only",
		results:  []*probe.Result{ok("http1"), foreign("h2", wire.HTTP1), foreign("h2-strict", wire.HTTP1), foreign("grpc", wire.HTTP1), noTLS()},
		want:     map[string]Severity{"http1-only": Remark},
		verdicts: map[string]probe.Verdict{"h2": probe.NotOffered, "grpc": probe.NotOffered, "handshake": probe.NotOffered},
	},
	{
		name: "HTTP/1 only, and gRPC was named", report: probe.Report{Service: "a.B"},
		results: []*probe.Result{ok("http1"), foreign("h2", wire.HTTP1), foreign("grpc", wire.HTTP1)},
		want:    map[string]Severity{"no-grpc": Fault, "http1-only": Remark},
	},
	{
		name:    "RST_STREAM",
		results: []*probe.Result{http2By(with("h2", probe.Refused, probe.StreamReset), 1, nil)},
		want:    map[string]Severity{"stream-reset": Fault},
	},
	{
		name:    "GOAWAY",
		results: []*probe.Result{http2By(with("h2", probe.Fails, probe.WentAway), 1, func(h *probe.HTTP2) { h.GoAway = &wire.GoAway{Code: http2.ErrCodeEnhanceYourCalm} })},
		want:    map[string]Severity{"goaway": Fault},
	},
	{
		name: "https to a cleartext port", report: probe.Report{Scheme: "https"},
		results:  []*probe.Result{ok("http1"), noTLS()},
		want:     map[string]Severity{"tls-to-clear": Fault},
		verdicts: map[string]probe.Verdict{"handshake": probe.Fails},
	},
	{
		name: "http to a port for TLS", report: probe.Report{Scheme: "http"},
		results: []*probe.Result{closed("http1"), closed("h2"), handshake(nil)},
		want:    map[string]Severity{"clear-to-tls": Fault},
	},
	{
		name: "cleartext asked for by name of a port for TLS",
		results: []*probe.Result{
			answered(with("http1", probe.Refused, probe.Declined), func(r *probe.Result) { r.Asked, r.Language = true, wire.HTTP1 }),
			http2By(with("grpc", probe.Fails, probe.Closed), 0, func(*probe.HTTP2) {}),
			handshake(nil),
		},
		want: map[string]Severity{"clear-to-tls": Fault},
	},
	{
		name:    "health checks",
		results: []*probe.Result{ok("http1"), with("http1.0", probe.Refused, probe.Declined)},
		want:    map[string]Severity{"http-1.0": Warning},
	},
	{
		name:    "101 and nothing good",
		results: []*probe.Result{ok("http1"), http2By(with("upgrade", probe.Fails, probe.Foreign), 0, nil)},
		want:    map[string]Severity{"upgrade-broken": Fault},
	},
	{
		name:    "broken HTTP/1",
		results: []*probe.Result{answered(with("http1", probe.Fails, probe.Broken), func(r *probe.Result) { r.Language = wire.HTTP1 })},
		want:    map[string]Severity{"broken-http1": Fault},
	},
	{
		name:    "broken TLS",
		results: []*probe.Result{foreign("http1", wire.TLSRecord), with("handshake", probe.Fails, probe.Broken)},
		want:    map[string]Severity{"broken-tls": Fault},
	},
	{
		name:    "slow",
		results: []*probe.Result{http2By(with("h2", probe.Hangs, probe.Stalled), 1, nil)},
		want:    map[string]Severity{"stalled": Fault},
	},
	{
		name:    "one way hangs",
		results: []*probe.Result{ok("h2"), silent("http1")},
		want:    map[string]Severity{"hangs": Fault},
	},
	{
		name:    "asked for",
		results: []*probe.Result{ok("http1"), answered(with("upgrade", probe.NotOffered, probe.Declined), func(r *probe.Result) { r.Asked = true })},
		want:    map[string]Severity{"not-offered": Fault},
	},
	{
		name:    "nobody knows",
		results: []*probe.Result{ok("http1"), with("h2", probe.Fails, probe.Broken)},
		want:    map[string]Severity{"unexplained": Fault},
	},
	{
		name:    "502",
		results: []*probe.Result{answered(with("http1", probe.WorksBut, probe.OK), func(r *probe.Result) { r.HTTP = &probe.HTTP{Status: 502} })},
		want:    map[string]Severity{"gateway-error": Warning},
	},
	{
		name:    "NOT_SERVING",
		results: []*probe.Result{answered(with("grpc", probe.WorksBut, probe.OK), func(r *probe.Result) { r.GRPC = &probe.GRPC{Health: "NOT_SERVING"} })},
		want:    map[string]Severity{"grpc-status": Warning},
	},
}

func TestDiagnose(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, c := range cases {
		for code := range c.want {
			seen[code] = true
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			report := c.report
			report.Results = c.results
			before := make([]probe.Verdict, len(c.results))
			for i, r := range c.results {
				before[i] = r.Verdict
			}
			judged, findings := Diagnose(&report)
			got := make(map[string]Severity)
			var order []int
			for _, f := range findings {
				got[f.Code] = f.Severity
				order = append(order, rank(f.Severity))
				if f.Title == "" || f.Cause == "" || len(f.Fix) == 0 || f.Page == "" || len(f.Ways) == 0 {
					t.Errorf("something is missing: %+v", f)
				}
			}
			want := c.want
			if want == nil {
				want = map[string]Severity{}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			if !slices.IsSorted(order) {
				t.Errorf("what is worst does not come first: %v", order)
			}
			for id, want := range c.verdicts {
				if got := judged.Get(id).Verdict; got != want {
					t.Errorf("%s: %q, want %q", id, got, want)
				}
			}
			for i, r := range c.results {
				if r.Verdict != before[i] {
					t.Errorf("%s: the result that was given is changed", r.ID)
				}
			}
			failed := slices.Contains(order, rank(Fault))
			if Failed(judged, findings) != failed {
				t.Errorf("Failed is %t, with faults %t", !failed, failed)
			}
		})
	}
	for _, r := range rules {
		if !seen[r.code] {
			t.Errorf("no case for %s", r.code)
		}
	}
}
