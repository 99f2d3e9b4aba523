package render

import (
	"encoding/json"
	"io"
	"time"

	"github.com/oneport-go/oneport/cmd/oneport/internal/diagnose"
	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// Version is that of the schema. Fields may be added in a version; one that is removed, or means something else, makes
// a new one. README.md of the command documents each field, which a test checks.
const Version = 1

type jsonReport struct {
	Version     int           `json:"version"`
	Target      string        `json:"target"`
	Network     string        `json:"network"`
	Address     string        `json:"address"`
	Others      []string      `json:"other_addresses,omitempty"`
	ConnectMS   float64       `json:"connect_ms"`
	FromProxy   string        `json:"from_proxy,omitempty"`
	Interrupted bool          `json:"interrupted,omitempty"`
	OK          bool          `json:"ok"`
	Ways        []jsonWay     `json:"ways"`
	Findings    []jsonFinding `json:"findings"`
}

type jsonWay struct {
	ID          string         `json:"id"`
	Group       string         `json:"group"`
	Title       string         `json:"title"`
	Verdict     probe.Verdict  `json:"verdict"`
	Outcome     probe.Outcome  `json:"outcome"`
	Came        string         `json:"came"`
	FirstByteMS *float64       `json:"first_byte_ms,omitempty"`
	TookMS      float64        `json:"took_ms"`
	End         string         `json:"end,omitempty"`
	Language    string         `json:"language,omitempty"`
	Steps       []jsonStep     `json:"steps,omitempty"`
	HTTP        *jsonHTTP      `json:"http,omitempty"`
	HTTP2       *jsonHTTP2     `json:"http2,omitempty"`
	GRPC        *jsonGRPC      `json:"grpc,omitempty"`
	TLS         *jsonTLS       `json:"tls,omitempty"`
	Log         []jsonLogEntry `json:"log,omitempty"`
}

type jsonStep struct {
	Name   string  `json:"name"`
	TookMS float64 `json:"took_ms"`
}

type jsonHTTP struct {
	Proto       string `json:"proto"`
	Status      int    `json:"status"`
	Server      string `json:"server,omitempty"`
	ContentType string `json:"content_type,omitempty"`
	Location    string `json:"location,omitempty"`
}

type jsonHTTP2 struct {
	Settings   []jsonSettings  `json:"settings"`
	ACKed      bool            `json:"settings_acked"`
	Pong       bool            `json:"ping_acked,omitempty"`
	First      bool            `json:"first_request_answered"`
	Second     bool            `json:"second_request_answered"`
	GoAway     *jsonGoAway     `json:"goaway,omitempty"`
	Reset      string          `json:"rst_stream,omitempty"`
	Violations []jsonViolation `json:"violations,omitempty"`
}

type jsonSettings struct {
	AtMS   float64           `json:"at_ms"`
	Values map[string]uint32 `json:"values"`
}

type jsonGoAway struct {
	Code       string `json:"code"`
	LastStream uint32 `json:"last_stream"`
	Debug      string `json:"debug,omitempty"`
}

type jsonViolation struct {
	Fault wire.Fault `json:"fault"`
	Text  string     `json:"text"`
}

type jsonGRPC struct {
	Method   string   `json:"method"`
	Status   string   `json:"status,omitempty"`
	Message  string   `json:"message,omitempty"`
	Health   string   `json:"health,omitempty"`
	Services []string `json:"services,omitempty"`
}

type jsonTLS struct {
	Version     string            `json:"version,omitempty"`
	Cipher      string            `json:"cipher,omitempty"`
	Offered     []string          `json:"alpn_offered,omitempty"`
	ALPN        string            `json:"alpn,omitempty"`
	Alert       string            `json:"alert,omitempty"`
	Chain       []jsonCertificate `json:"certificates,omitempty"`
	Problems    []jsonProblem     `json:"certificate_problems,omitempty"`
	AsksForCert bool              `json:"asks_for_client_certificate,omitempty"`
	Authorities []string          `json:"client_authorities,omitempty"`
	Versions    map[string]string `json:"versions,omitempty"`
	ByOffer     map[string]string `json:"alpn_by_offer,omitempty"`
}

type jsonCertificate struct {
	Subject   string    `json:"subject"`
	Names     []string  `json:"names,omitempty"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

type jsonProblem struct {
	Kind probe.ProblemKind `json:"kind"`
	Text string            `json:"text"`
}

type jsonLogEntry struct {
	AtMS      float64        `json:"at_ms"`
	Direction wire.Direction `json:"direction"`
	Text      string         `json:"text"`
	Details   []string       `json:"details,omitempty"`
}

type jsonFinding struct {
	Code     string            `json:"code"`
	Severity diagnose.Severity `json:"severity"`
	Ways     []string          `json:"ways"`
	Title    string            `json:"title"`
	Cause    string            `json:"cause"`
	Says     []jsonSaying      `json:"clients_say,omitempty"`
	Fix      []string          `json:"fix"`
	Page     string            `json:"page"`
}

type jsonSaying struct {
	Client  string `json:"client"`
	Message string `json:"message"`
}

func ms(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}

// JSON writes a report and what it means, with the frames if verbose is set.
func JSON(w io.Writer, r *probe.Report, findings []diagnose.Finding, verbose bool) error {
	out := jsonReport{
		Version: Version, Target: r.Target, Network: r.Network, Address: r.Address, Others: r.Others,
		ConnectMS: ms(r.Connect), FromProxy: r.FromProxy, Interrupted: r.Interrupted,
		OK: !diagnose.Failed(r, findings) && !r.Interrupted, Ways: []jsonWay{}, Findings: []jsonFinding{},
	}
	for _, x := range r.Results {
		out.Ways = append(out.Ways, wayOf(x, verbose))
	}
	for _, f := range findings {
		j := jsonFinding{
			Code: f.Code, Severity: f.Severity, Ways: f.Ways, Title: f.Title, Cause: f.Cause, Fix: f.Fix, Page: Docs + f.Page,
		}
		for _, s := range f.Says {
			j.Says = append(j.Says, jsonSaying{s.Who, s.What})
		}
		out.Findings = append(out.Findings, j)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(out)
}

func wayOf(x *probe.Result, verbose bool) jsonWay {
	j := jsonWay{
		ID: x.ID, Group: string(x.Group), Title: x.Title, Verdict: x.Verdict, Outcome: x.Outcome, Came: x.Came,
		TookMS: ms(x.Took), End: string(x.End), Language: string(x.Language),
	}
	if x.Answered {
		first := ms(x.FirstByte)
		j.FirstByteMS = &first
	}
	for _, s := range x.Steps {
		j.Steps = append(j.Steps, jsonStep{s.Name, ms(s.Took)})
	}
	if h := x.HTTP; h != nil {
		j.HTTP = &jsonHTTP{h.Proto, h.Status, h.Server, h.ContentType, h.Location}
	}
	if x.HTTP2 != nil {
		j.HTTP2 = http2Of(x.HTTP2)
	}
	if g := x.GRPC; g != nil {
		j.GRPC = &jsonGRPC{Method: g.Via, Message: g.Message, Health: g.Health, Services: g.Services}
		if g.Status >= 0 {
			j.GRPC.Status = probe.GRPCCode(g.Status)
		}
	}
	if x.TLS != nil {
		j.TLS = tlsOf(x.TLS)
	}
	if verbose {
		for _, e := range x.Log {
			j.Log = append(j.Log, jsonLogEntry{ms(e.At), e.Direction, e.Text, e.Details})
		}
	}
	return j
}

func http2Of(h *probe.HTTP2) *jsonHTTP2 {
	j := &jsonHTTP2{Settings: []jsonSettings{}, ACKed: h.ACKed, Pong: h.Pong, First: h.First, Second: h.Second}
	for _, s := range h.Settings {
		values := make(map[string]uint32)
		for _, v := range s.Values {
			values[wire.SettingName(v.ID)] = v.Val
		}
		j.Settings = append(j.Settings, jsonSettings{ms(s.At), values})
	}
	if h.GoAway != nil {
		j.GoAway = &jsonGoAway{h.GoAway.Code.String(), h.GoAway.LastStream, h.GoAway.Debug}
	}
	if h.Reset != 0 {
		j.Reset = h.Reset.String()
	}
	for _, v := range h.Violations {
		j.Violations = append(j.Violations, jsonViolation{v.Fault, v.Text})
	}
	return j
}

func tlsOf(t *probe.TLSFacts) *jsonTLS {
	j := &jsonTLS{
		Version: t.Version, Cipher: t.Cipher, Offered: t.Offered, ALPN: t.ALPN, Alert: t.Alert, AsksForCert: t.AsksForCert,
		Authorities: t.Authorities, Versions: t.Versions, ByOffer: t.ByOffer,
	}
	for _, c := range t.Chain {
		j.Chain = append(j.Chain, jsonCertificate(c))
	}
	for _, p := range t.Problems {
		j.Problems = append(j.Problems, jsonProblem(p))
	}
	return j
}
