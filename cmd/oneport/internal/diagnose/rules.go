package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// A rule is a cause that results can have. The rules are asked in order, and what one has explained is no longer open
// to the next, so specific rules come before general ones.
type rule struct {
	code     string
	severity Severity
	title    string // {detail} and {target} are filled in, as in cause and fix
	cause    string
	says     []Saying
	fix      []string
	page     string

	// match returns the ways in that the rule explains, none if it does not apply, and a detail for the text.
	match func(*view) (ways []string, detail string)

	// severe, if not nil, decides on the severity in the case at hand.
	severe func(*view) Severity
}

func (r rule) finding(v *view, detail string) Finding {
	fill := strings.NewReplacer("{detail}", strings.TrimSuffix(detail, "."), "{target}", v.Target)
	f := Finding{
		Code: r.code, Severity: r.severity, Title: fill.Replace(r.title), Cause: fill.Replace(r.cause),
		Says: r.says, Page: r.page,
	}
	for _, c := range r.fix {
		f.Fix = append(f.Fix, fill.Replace(c))
	}
	if r.severe != nil {
		f.Severity = r.severe(v)
	}
	return f
}

const (
	troubleshooting = "docs/troubleshooting.md#"
	hangPage        = "docs/handshake-hang.md"
)

// outcome returns a function that reports whether a way in has ended in one of the outcomes.
func outcome(o ...probe.Outcome) func(*probe.Result) bool {
	return func(r *probe.Result) bool { return slices.Contains(o, r.Outcome) }
}

// everything returns the basic ways in and the handshake if all of them were tried, got no byte and have ended in one
// of the outcomes.
func (v *view) everything(o ...probe.Outcome) []string {
	all := append([]string{"handshake"}, basic...)
	for _, id := range all {
		if r := v.Get(id); r.Answered || v.explained[id] || !slices.Contains(o, r.Outcome) {
			return nil
		}
	}
	return all
}

// mute reports whether no basic way in got an answer that rules out a server that expects a PROXY header.
func (v *view) mute() bool {
	return !slices.ContainsFunc(basic, func(id string) bool {
		return !slices.Contains([]probe.Outcome{probe.Silent, probe.Stalled, probe.Closed, probe.Reset, probe.Declined, probe.Untried}, v.Get(id).Outcome)
	})
}

// clearWanted reports whether cleartext has to work: the URL says so, or -only names a basic way in.
func (v *view) clearWanted() bool {
	return v.Scheme == "http" || slices.ContainsFunc(basic, func(id string) bool { return v.Get(id).Asked })
}

func (v *view) problem(kinds ...probe.ProblemKind) ([]string, string) {
	r := v.Get("handshake")
	if r.TLS == nil {
		return nil, ""
	}
	for _, p := range r.TLS.Problems {
		if slices.Contains(kinds, p.Kind) {
			return []string{r.ID}, p.Text
		}
	}
	return nil, ""
}

// Pages returns the pages and sections that findings refer to.
func Pages() []string {
	var out []string
	for _, r := range rules {
		out = append(out, r.page)
	}
	return out
}

func certSeverity(v *view) Severity {
	if v.Insecure {
		return Remark
	}
	return Fault
}

var rules = []rule{
	{
		code: "proxy-required", severity: Fault, page: troubleshooting + "empty-replies-from-a-port-for-a-balancer",
		title: "Clients are turned away: the server expects a PROXY header first.",
		cause: "The port answers only with a PROXY header ({detail}). It is meant for a load balancer that sends one.",
		says: []Saying{
			{"curl", "(52) Empty reply from server; by HTTP/2 (18); over TLS (35) Recv failure: Connection reset by peer"},
			{"grpc-go", `connection error: desc = "error reading server preface: EOF"`},
		},
		fix: []string{
			"Connect through the balancer, or to a port without the PROXY protocol.",
			"If clients of the balancer fail, switch on the PROXY protocol there (HAProxy: send-proxy-v2; nginx: proxy_protocol on).",
			"To probe what is behind the header: oneport probe -from-proxy v2 {target}",
		},
		match: func(v *view) ([]string, string) {
			if v.tlsSpoken || !v.mute() {
				return nil, ""
			}
			var versions []string
			for _, id := range []string{"proxy-v1", "proxy-v2"} {
				if works(v.Get(id)) {
					versions = append(versions, strings.TrimPrefix(id, "proxy-"))
				}
			}
			if versions == nil {
				return nil, ""
			}
			return v.open(func(r *probe.Result) bool { return true }), strings.Join(versions, ", ")
		},
	},
	{
		code: "proxy-forgotten", severity: Fault, page: troubleshooting + "400-bad-request-behind-a-balancer",
		title: "Everything behind the balancer fails: the server does not expect the PROXY header.",
		cause: "Nothing works with a PROXY header; without one the port answers. The server takes the header for the start of a request.",
		says: []Saying{
			{"clients of the balancer", "400 Bad Request; 502 Bad Gateway; an empty reply"},
			{"net/http's log", "(nothing), and 400 for each connection"},
			{"grpc-go's log", `http2Server.HandleStreams received bogus greeting from client: "PROXY TCP4 …"`},
		},
		fix: []string{
			"Make the server read the header: in Go, wrap the listener with github.com/pires/go-proxyproto, below oneport.New.",
			"Or switch the PROXY protocol off on the balancer.",
		},
		match: func(v *view) ([]string, string) {
			if v.FromProxy == "" || v.clearWorks || v.tlsSpoken || !works(v.Get("no-proxy")) {
				return nil, ""
			}
			return v.open(func(r *probe.Result) bool { return true }), ""
		},
	},
	{
		code: "silent", severity: Fault, page: troubleshooting + "operation-timed-out-with-0-bytes-received",
		title: "Every client hangs: the port accepts connections and says nothing.",
		cause: "Neither HTTP/1, HTTP/2, TLS nor a PROXY header gets a single byte. The kernel accepts connections by itself: the program is stuck or does not accept, a balancer has no server behind it, or the port is for another protocol.",
		says: []Saying{
			{"curl", "(28) Operation timed out after 5000 milliseconds with 0 bytes received"},
			{"grpc-go", "context deadline exceeded while waiting for connections to become ready"},
			{"browsers", "ERR_TIMED_OUT; they load for minutes"},
		},
		fix: []string{
			"Check that the program runs and accepts connections (ss -ltn: Recv-Q is the number that it has not accepted).",
			"Check the balancer's list of healthy servers, and the port number.",
		},
		match: func(v *view) ([]string, string) { return v.everything(probe.Silent), "" },
	},
	{
		code: "resets", severity: Fault, page: troubleshooting + "connection-reset-by-peer",
		title: "Every connection is reset.",
		cause: "The connection is made, and then torn down with RST before any answer: by a balancer without a server behind it, a firewall, a full accept queue, a mesh that requires mutual TLS, or a program that closes connections without reading them.",
		says: []Saying{
			{"curl", "(56) Recv failure: Connection reset by peer; by HTTP/2 (55); over TLS (35)"},
			{"grpc-go", `connection error: desc = "error reading server preface: connection reset by peer"`},
			{"browsers", "ERR_CONNECTION_RESET"},
		},
		fix: []string{
			"Probe from behind the firewall and the balancer, to see which of them resets.",
			"Check the limits on connections and addresses of the program that accepts.",
		},
		match: func(v *view) ([]string, string) {
			ids := v.everything(probe.Reset, probe.Closed)
			if !slices.ContainsFunc(ids, func(id string) bool { return v.Get(id).Outcome == probe.Reset }) {
				return nil, ""
			}
			return ids, ""
		},
	},
	{
		code: "closes", severity: Fault, page: troubleshooting + "error-reading-server-preface-eof",
		title: "Every connection is closed without an answer.",
		cause: "The connection is made and then closed cleanly before any byte. The program that accepts it has no server to hand it to, rejects the address that it comes from, or expects something else first.",
		says: []Saying{
			{"curl", "(52) Empty reply from server; by HTTP/2 (18); over TLS (35) SSL_ERROR_SYSCALL"},
			{"grpc-go", `connection error: desc = "error reading server preface: EOF"`},
			{"browsers", "ERR_EMPTY_RESPONSE"},
		},
		fix: []string{"Look at the log of the program, or of the balancer: one of them decided to close."},
		match: func(v *view) ([]string, string) {
			return v.everything(probe.Closed), ""
		},
	},
	{
		code: "not-http", severity: Fault, page: troubleshooting + "received-http09-when-not-allowed",
		title: "This is not a port for HTTP: it sent {detail}.",
		cause: "Whatever the probe sends, the answer is {detail}.",
		says: []Saying{
			{"curl", "(1) Received HTTP/0.9 when not allowed"},
			{"grpc-go", `error reading server preface: http2: frame too large`},
		},
		fix: []string{"Check the port number."},
		match: func(v *view) ([]string, string) {
			ids := v.open(func(r *probe.Result) bool {
				return (r.Outcome == probe.Foreign || r.Outcome == probe.NoTLS) &&
					slices.Contains([]wire.Language{wire.SSH, wire.OtherText, wire.OtherBinary}, r.Language)
			})
			if len(ids) == 0 || v.clearWorks || v.tlsSpoken {
				return nil, ""
			}
			return v.open(func(r *probe.Result) bool { return true }), v.Get(ids[0]).Language.Words()
		},
	},
	{
		code: "too-much", severity: Fault, page: troubleshooting + "transfer-closed-with-outstanding-read-data-remaining",
		title: "The server does not stop sending: {detail}.",
		cause: "It is more than a client accepts, so the probe stopped reading. Clients have limits of their own and end the connection, or run out of memory.",
		says: []Saying{
			{"net/http", "http2: response header list larger than advertised limit; PROTOCOL_ERROR"},
			{"grpc-go", "RESOURCE_EXHAUSTED; INTERNAL: stream terminated by RST_STREAM"},
			{"curl", "(56) Too large response headers"},
		},
		fix: []string{"Use -v to see what it sends. It may not be the server that you expect."},
		match: func(v *view) ([]string, string) {
			ids := v.open(outcome(probe.TooMuch))
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "settings-hang", severity: Fault, page: hangPage,
		title: "gRPC clients will hang: the server waits for their request, and they wait for its SETTINGS.",
		cause: "HTTP/2 works for a client that sends its request at once, and not for one that waits for the server's SETTINGS, as gRPC clients do. A mux in front of the server looks for the request before it hands the connection on: typically cmux with HTTP2HeaderField.",
		says: []Saying{
			{"grpc-go", "context deadline exceeded while waiting for connections to become ready"},
			{"grpc-java", "DEADLINE_EXCEEDED: … [buffered_nanos=…, waiting_for_connection]"},
			{"grpcio", "UNAVAILABLE: … connection attempt timed out before receiving SETTINGS frame"},
			{"grpc-js", "DEADLINE_EXCEEDED: Deadline exceeded after …, LB pick: …"},
			{"grpcurl", "Failed to dial target host: context deadline exceeded"},
		},
		fix: []string{
			"The program that accepts the connection has to send SETTINGS as soon as the preface has arrived, as oneport does: use oneport.Server, or a Mux with oneport.GRPC().",
			"cmux's own HTTP2MatchHeaderFieldSendSettings breaks HTTP/2 of net/http on the same port; it is enough only where gRPC is alone.",
		},
		match: func(v *view) ([]string, string) {
			hangs := func(r *probe.Result) bool { return r.Verdict == probe.Hangs && r.Outcome == probe.Silent }
			var ids []string
			if works(v.Get("h2")) || v.Get("h2").HTTP2 != nil && v.Get("h2").HTTP2.First {
				ids = v.open(func(r *probe.Result) bool { return hangs(r) && (r.ID == "h2-strict" || r.ID == "grpc") })
			}
			if works(v.Get("tls-h2")) {
				ids = append(ids, v.open(func(r *probe.Result) bool { return hangs(r) && (r.ID == "tls-grpc" || r.ID == "tls-h2-no-alpn") })...)
			}
			return ids, ""
		},
	},
	{
		code: "settings-ack", severity: Fault, page: hangPage + "#cmuxs-workaround",
		title: "HTTP/2 breaks after the first request: the server receives an acknowledgement for SETTINGS that it did not send.",
		cause: "Two SETTINGS frames arrived, one from the server and one from a mux in front of it. The client has to acknowledge both. The server receives an acknowledgement that it does not expect, and closes the connection with PROTOCOL_ERROR. Typically this is cmux with HTTP2MatchHeaderFieldSendSettings in front of net/http.",
		says: []Saying{
			{"net/http", "http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=PROTOCOL_ERROR"},
			{"grpc-go", "UNAVAILABLE: … code: PROTOCOL_ERROR; the connection is draining"},
			{"curl", "(92) HTTP/2 stream 1 was not closed cleanly; (16) Error in the HTTP2 framing layer"},
			{"browsers", "ERR_HTTP2_PROTOCOL_ERROR, now and then"},
		},
		fix: []string{
			"A mux that sends SETTINGS for the server has to drop their acknowledgement, as oneport does: replace cmux with oneport or, without code changes, with its drop-in module.",
		},
		match: func(v *view) ([]string, string) {
			return v.open(func(r *probe.Result) bool {
				return r.Outcome == probe.WentAway && r.HTTP2 != nil && len(r.HTTP2.Settings) > 1 &&
					r.HTTP2.GoAway != nil && r.HTTP2.GoAway.Code == http2.ErrCodeProtocol
			}), ""
		},
	},
	{
		code: "bad-fields", severity: Fault, page: troubleshooting + "invalid-pseudo-header",
		title: "Clients drop the response: {detail}.",
		cause: "The server, or a proxy, writes header fields that HTTP/2 does not allow. Clients must treat the response as malformed and reset the stream.",
		says: []Saying{
			{"grpc-go", `INTERNAL: invalid pseudo-header ":status:"; malformed header: missing HTTP status`},
			{"grpc-java", "INTERNAL: http2 exception; Mixture of request and response pseudo-headers; Invalid HTTP/2 pseudo-header"},
			{"curl", "(92) HTTP/2 stream 1 was not closed cleanly: PROTOCOL_ERROR (err 1)"},
			{"nghttp", "[INVALID; error=Invalid HTTP header field was received]"},
		},
		fix: []string{"A response begins with :status, and names are in lower case and without colons (RFC 9113, Sections 8.2 and 8.3.2). Leave frames to net/http or grpc-go where you can; where you cannot, see examples/rawframes."},
		match: func(v *view) ([]string, string) {
			return v.violated(wire.FaultFieldName, wire.FaultNoStatus, wire.FaultCompression)
		},
	},
	{
		code: "wrong-stream", severity: Fault, page: troubleshooting + "invalid-pseudo-header",
		title: "Clients wait forever, or end the connection: {detail}.",
		cause: "A response belongs on the stream of its request (RFC 9113, Section 5.1). The server numbers streams itself.",
		says: []Saying{
			{"grpc-go", "DEADLINE_EXCEEDED: context deadline exceeded (it ignores such frames)"},
			{"grpc-java", "UNAVAILABLE: http2 exception; Stream 2 does not exist"},
			{"curl", "(52) Empty reply from server; (16) Error in the HTTP2 framing layer"},
		},
		fix:   []string{"Respond on the stream of the request's HEADERS frame."},
		match: func(v *view) ([]string, string) { return v.violated(wire.FaultWrongStream) },
	},
	{
		code: "broken-frames", severity: Fault, page: troubleshooting + "invalid-pseudo-header",
		title: "Clients end the connection: {detail}.",
		cause: "The server violates HTTP/2, which is a connection error.",
		says: []Saying{
			{"grpc-go", "UNAVAILABLE: error reading server preface; connection error: PROTOCOL_ERROR"},
			{"curl", "(16) Error in the HTTP2 framing layer"},
			{"nghttp2, Chrome", "SETTINGS: SETTINGS_NO_RFC7540_PRIORITIES cannot be changed (if that is the violation)"},
		},
		fix: []string{"Use -v to see the frame. See examples/rawframes for a server that follows the rules."},
		match: func(v *view) ([]string, string) {
			ids := v.open(outcome(probe.Violated))
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "settings-not-acked", severity: Warning, page: troubleshooting + "settings_timeout",
		title: "Some clients end the connection after a while: their SETTINGS are not acknowledged.",
		cause: "The server answers requests, but never acknowledges the client's SETTINGS, which it must do as soon as possible (RFC 9113, Section 6.5.3).",
		says: []Saying{
			{"grpcio, C++", "UNAVAILABLE: … SETTINGS frame not acknowledged (settings_timeout)"},
			{"nghttp", "[ERROR] … SETTINGS_TIMEOUT (0x04)"},
		},
		fix: []string{"Send SETTINGS with the ACK flag for each SETTINGS frame of the client."},
		match: func(v *view) ([]string, string) {
			return v.where(func(r *probe.Result) bool { return r.HTTP2.Has(wire.FaultNoACK) && r.Verdict != probe.NotOffered }), ""
		},
	},
	{
		code: "alpn-lie", severity: Fault, page: troubleshooting + "the-frame-header-looked-like-an-http11-header",
		title: "HTTP/2 over TLS fails: ALPN chooses h2, and then the server does not speak HTTP/2.",
		cause: "The program that terminates TLS offers h2, and hands the connection to a server that speaks HTTP/1 only. That server answers in HTTP/1, or closes the connection. A tls.Listener with h2 in its NextProtos in front of http.Server.Serve does so, or a balancer with an HTTP/1 backend.",
		says: []Saying{
			{"grpc-go", "error reading server preface: http2: failed reading the frame payload: http2: frame too large, note that the frame header looked like an HTTP/1.1 header"},
			{"net/http", "the same, without the first words"},
			{"grpc-java", "First received frame was not SETTINGS. Hex dump for first 5 bytes: 485454502f"},
			{"curl", "(55) Send failure: Broken pipe; (16) Error in the HTTP2 framing layer; (52) Empty reply from server"},
			{"browsers", "ERR_HTTP2_PROTOCOL_ERROR"},
		},
		fix: []string{
			"net/http: serve with ServeTLS, which does both, or take h2 out of NextProtos.",
			"oneport: Mux.TLS offers by ALPN what its routes take; oneport.ConfigureHTTP prepares the server.",
		},
		match: func(v *view) ([]string, string) {
			return v.open(func(r *probe.Result) bool {
				closed := (r.Outcome == probe.Closed || r.Outcome == probe.Reset) && !r.Answered && works(v.Get("tls-http1"))
				http1 := r.Outcome == probe.Foreign && r.Language == wire.HTTP1
				return r.Group == probe.TLS && r.TLS != nil && r.TLS.ALPN == "h2" && (http1 || closed)
			}), ""
		},
	},
	{
		code: "no-alpn", severity: Fault, page: troubleshooting + "missing-selected-alpn-property",
		title: "Current gRPC clients refuse this server: it does not choose h2 by ALPN.",
		cause: "HTTP/2 works inside TLS, but the handshake does not announce it. grpc-go since 1.67 requires h2 to be chosen and gives up otherwise; browsers fall back to HTTP/1.1.",
		says: []Saying{
			{"grpc-go", "credentials: cannot check peer: missing selected ALPN property"},
			{"grpcio", "UNAVAILABLE: … Cannot check peer: missing selected ALPN property."},
			{"grpc-java", "UNAVAILABLE: Failed ALPN negotiation: Unable to find compatible protocol"},
			{"nghttp", "HTTP/2 protocol was not selected. (nghttp2 expects h2)"},
		},
		fix: []string{
			`crypto/tls: NextProtos: []string{"h2"} in the server's config (credentials.NewTLS does it by itself).`,
			"nginx: listen … ssl http2; HAProxy: alpn h2,http/1.1 on the bind line. oneport: Mux.TLS derives it from the routes.",
		},
		match: func(v *view) ([]string, string) {
			return v.open(func(r *probe.Result) bool {
				return (r.ID == "tls-grpc" || r.ID == "tls-h2") && r.TLS != nil && r.TLS.Version != "" && r.TLS.ALPN == "" && r.Outcome == probe.Declined
			}), ""
		},
	},
	{
		code: "client-cert", severity: Fault, page: troubleshooting + "remote-error-tls-certificate-required",
		title: "Clients without a certificate that the server accepts are refused: {detail}.",
		cause: "The server requires mutual TLS, and did not accept what this client presented.",
		says: []Saying{
			{"Go", "remote error: tls: certificate required; remote error: tls: bad certificate"},
			{"grpc-go", `connection error: desc = "error reading server preface: remote error: tls: certificate required"`},
			{"curl", "(56) … tlsv13 alert certificate required; (55); (35) … alert bad certificate, unknown ca"},
			{"browsers", "ERR_BAD_SSL_CLIENT_AUTH_CERT"},
		},
		fix: []string{
			"Give the client a certificate that the server's ClientCAs have signed, with the extended key usage for clients; for the probe, use -cert and -key.",
			`Alert unknown certificate authority: another authority signed the certificate. Alert bad certificate: the certificate is missing, expired, or not for clients.`,
		},
		match: func(v *view) ([]string, string) {
			ids := v.open(func(r *probe.Result) bool { return v.certWanted(r) })
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, "TLS alert: " + v.Get(ids[0]).TLS.Alert
		},
	},
	{
		code: "certificate-expired", page: troubleshooting + "certificate-has-expired-or-is-not-yet-valid",
		title: "Clients refuse the certificate: {detail}.",
		cause: "By the clock of this machine, the certificate is not valid now.",
		says: []Saying{
			{"Go, grpc-go", "tls: failed to verify certificate: x509: certificate has expired or is not yet valid"},
			{"curl", "(60) SSL certificate problem: certificate has expired"},
			{"grpc-java", "UNAVAILABLE: … CertificateExpiredException: NotAfter: …"},
			{"browsers", "NET::ERR_CERT_DATE_INVALID"},
		},
		fix:    []string{"Renew the certificate, and make the server load the new one (tls.Config.GetCertificate, or a restart). Check the clocks of both sides."},
		match:  func(v *view) ([]string, string) { return v.problem(probe.Expired, probe.NotYetValid) },
		severe: certSeverity,
	},
	{
		code: "certificate-name", page: troubleshooting + "certificate-is-valid-for-another-name",
		title: "Clients refuse the certificate: it is {detail}.",
		cause: "Clients compare the name that they connect to with those in the certificate (RFC 9525, Section 6).",
		says: []Saying{
			{"Go, grpc-go", "tls: failed to verify certificate: x509: certificate is valid for …, not …"},
			{"curl", "(60) SSL: no alternative certificate subject name matches target host name"},
			{"grpc-java", "UNAVAILABLE: … CertificateException: No name matching … found"},
			{"browsers", "NET::ERR_CERT_COMMON_NAME_INVALID"},
		},
		fix: []string{
			"Connect with a name that is in the certificate; for the probe, -sni sets the name.",
			"Or issue a certificate for this name. A server with several certificates chooses by server name, and may have chosen its default.",
		},
		match:  func(v *view) ([]string, string) { return v.problem(probe.WrongName) },
		severe: certSeverity,
	},
	{
		code: "certificate-authority", page: troubleshooting + "certificate-signed-by-unknown-authority",
		title: "Clients that do not know the authority refuse the certificate: it is {detail}.",
		cause: "No authority that is trusted on this machine has signed it, or the server leaves out an intermediate certificate.",
		says: []Saying{
			{"Go, grpc-go", "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
			{"curl", "(60) SSL certificate problem: self-signed certificate; unable to get local issuer certificate"},
			{"grpc-java", "UNAVAILABLE: … PKIX path building failed"},
			{"the server's log", "remote error: tls: bad certificate; tls: unknown certificate authority"},
			{"browsers", "NET::ERR_CERT_AUTHORITY_INVALID"},
		},
		fix: []string{
			"If it is your own authority: make clients trust it (RootCAs; curl --cacert; for the probe, -ca).",
			"If it is a public one: make the server send the whole chain.",
		},
		match: func(v *view) ([]string, string) { return v.problem(probe.SelfSigned, probe.Untrusted) },
		severe: func(v *view) Severity {
			switch {
			case v.Insecure:
				return Remark
			case v.HasRoots:
				return Fault
			}
			return Warning
		},
	},
	{
		code: "old-tls-only", severity: Fault, page: troubleshooting + "server-selected-unsupported-protocol-version",
		title: "Current clients cannot connect: the server offers nothing newer than TLS 1.1.",
		cause: "TLS 1.0 and 1.1 are deprecated (RFC 8996), and clients no longer speak them.",
		says: []Saying{
			{"Go, grpc-go", "remote error: tls: protocol version not supported; tls: server selected unsupported protocol version 302"},
			{"curl", "(35) … unsupported protocol; alert protocol version"},
			{"browsers", "ERR_SSL_VERSION_OR_CIPHER_MISMATCH"},
		},
		fix: []string{"Allow TLS 1.2 and 1.3; in Go, leave tls.Config.MinVersion and MaxVersion unset."},
		match: func(v *view) ([]string, string) {
			hs := v.Get("handshake")
			if hs.TLS == nil || hs.TLS.Version != "TLS 1.0" && hs.TLS.Version != "TLS 1.1" {
				return nil, ""
			}
			return v.open(func(r *probe.Result) bool {
				return r.ID == "handshake" || r.ID == "versions" || r.TLS != nil && r.TLS.Alert == "protocol version not supported"
			}), ""
		},
	},
	{
		code: "old-tls", severity: Warning, page: troubleshooting + "server-selected-unsupported-protocol-version",
		title: "The server offers old versions of TLS: {detail}.",
		cause: "TLS 1.0 and 1.1 are deprecated (RFC 8996).",
		fix:   []string{"tls.Config.MinVersion = tls.VersionTLS12, which is the default in Go."},
		match: func(v *view) ([]string, string) {
			r := v.Get("versions")
			if r.Verdict != probe.WorksBut {
				return nil, ""
			}
			return []string{"versions"}, r.Came
		},
	},
	{
		code: "tls-alert", severity: Fault, page: troubleshooting + "remote-error-tls-handshake-failure",
		title: "TLS is refused: alert {detail}.",
		cause: "The server speaks TLS, but cannot agree with the client on a version, a cipher suite, a server name or an application protocol.",
		says: []Saying{
			{"Go, grpc-go", "remote error: tls: handshake failure; … no application protocol; … unrecognized name; … internal error"},
			{"curl", "(35) … alert handshake failure; tlsv1 unrecognized name"},
			{"browsers", "ERR_SSL_VERSION_OR_CIPHER_MISMATCH; ERR_SSL_UNRECOGNIZED_NAME_ALERT"},
		},
		fix: []string{
			"handshake failure: compare versions and cipher suites (an ECDSA certificate and suites for RSA only, say). In TLS 1.2 a server that requires a client certificate may send this alert, too.",
			"unrecognized name: ask for another name; for the probe, with -sni. no application protocol: check NextProtos, or the routes of the mux.",
		},
		match: func(v *view) ([]string, string) {
			ids := v.open(outcome(probe.Alert, probe.BadTLS))
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, strings.TrimPrefix(v.Get(ids[0]).Came, "TLS alert: ")
		},
	},
	{
		code: "clear-to-tls", severity: Fault, page: troubleshooting + "client-sent-an-http-request-to-an-https-server",
		title: "http fails: the port takes TLS only.",
		cause: "The server speaks TLS, and nothing in cleartext.",
		says:  clearToTLSSays,
		fix:   []string{"Use https, or credentials.NewTLS for gRPC. oneport can redirect: RedirectHTTP."},
		match: func(v *view) ([]string, string) {
			if !v.tlsSpoken || v.clearWorks || !v.clearWanted() {
				return nil, ""
			}
			return v.where(func(r *probe.Result) bool { return slices.Contains(basic, r.ID) && r.Verdict != probe.NotTried }), ""
		},
	},
	{
		code: "closed-after-settings", severity: Fault, page: troubleshooting + "error-reading-from-server-eof",
		title: "The server ends HTTP/2 connections before it answers.",
		cause: "It sends SETTINGS and then closes the connection without GOAWAY. SETTINGS make gRPC channels READY, so they do not back off: they reconnect in a tight loop.",
		says: []Saying{
			{"grpc-go", `UNAVAILABLE: error reading from server: EOF`},
			{"grpc-java", "UNAVAILABLE: Network closed for unknown reason"},
			{"grpcio", "UNAVAILABLE: Socket closed"},
			{"grpc-js", "UNAVAILABLE: Connection dropped"},
			{"grpcurl", "Error invoking method: EOF"},
			{"curl", "(18) HTTP/2 stream 1 was not closed cleanly before end of the underlying stream; (92); (52)"},
		},
		fix: []string{
			"Look at the log of the server, or of the proxy: a crash, a limit, a failing health check.",
			"A proxy that cannot serve a connection should close it before SETTINGS, or send GOAWAY with a reason.",
		},
		match: func(v *view) ([]string, string) {
			return v.open(func(r *probe.Result) bool {
				return (r.Outcome == probe.Closed || r.Outcome == probe.Reset) && r.HTTP2 != nil && len(r.HTTP2.Settings) > 0 && !r.HTTP2.First
			}), ""
		},
	},
	{
		code: "preface-eof", severity: Fault, page: troubleshooting + "error-reading-server-preface-eof",
		title: "gRPC clients are turned away: the server closes the connection without SETTINGS.",
		cause: "A client that waits for SETTINGS gets none: the program that accepts the connection has no server for HTTP/2 or gRPC, or is shutting down.",
		says: []Saying{
			{"grpc-go", `connection error: desc = "error reading server preface: EOF"`},
			{"grpc-java", "UNAVAILABLE: Network closed for unknown reason"},
			{"grpcurl", "Failed to dial target host: EOF; context deadline exceeded"},
			{"curl", "(18) HTTP/2 stream 1 was not closed cleanly before end of the underlying stream; (52)"},
		},
		fix: []string{
			"Check that both sides use TLS, or neither: a TLS server closes cleartext connections.",
			"With oneport, the log and Mux.Stats say why; a route for HTTP/2 may be missing.",
		},
		match: func(v *view) ([]string, string) {
			return v.open(func(r *probe.Result) bool {
				return (r.Outcome == probe.Closed || r.Outcome == probe.Reset) && r.HTTP2 != nil && len(r.HTTP2.Settings) == 0
			}), ""
		},
	},
	{
		code: "mixed", severity: Fault, page: "docs/requests.md",
		title: "Behind a proxy that shares connections, requests reach the wrong server: {detail}.",
		cause: "gRPC and REST each work alone, but not on one HTTP/2 connection: its first request decides where all the others go. HAProxy, Apache, Caddy, Armeria, Vert.x and Reactor Netty send both over one connection; gRPC clients and browsers do not.",
		says: []Saying{
			{"clients of REST", "415 Unsupported Media Type; 405; invalid gRPC request content-type"},
			{"grpc-go", "unexpected HTTP status code received from server: 404 (Not Found)"},
			{"grpc-java", "UNIMPLEMENTED: HTTP status code 404"},
		},
		fix: []string{
			"oneport.Server dispatches each request to its own server. cmux, and the routes of a Mux, decide once per connection.",
			"Or give the proxy two ports.",
		},
		match: func(v *view) ([]string, string) {
			ids := v.open(func(r *probe.Result) bool { return r.ID == "mixed" || r.ID == "tls-mixed" })
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "grpc-answered-by-http", severity: Fault, page: troubleshooting + "unexpected-http-status-code-received-from-server",
		title: "gRPC calls are answered by an HTTP server: {detail}.",
		cause: "The call reaches a server or proxy that does not speak gRPC: it has no route for content-type application/grpc, no route for the path, or a proxy that speaks HTTP/1 to the gRPC server.",
		says: []Saying{
			{"grpc-go", "unexpected HTTP status code received from server: 404 (Not Found); transport: received unexpected content-type \"text/html\""},
			{"grpc-java", "UNIMPLEMENTED: HTTP status code 404; invalid content-type: text/html"},
			{"grpcio", "UNIMPLEMENTED: Received http2 header with status: 404; UNAVAILABLE … 502"},
			{"grpc-js", "UNIMPLEMENTED: Received HTTP status code 404"},
		},
		fix: []string{
			"Use oneport.Server{GRPC: …}, or mux.Match(oneport.GRPC()) before the routes for HTTP.",
			"nginx: use grpc_pass, not proxy_pass. A balancer: use HTTP/2 (h2c) to the backend.",
		},
		match: func(v *view) ([]string, string) {
			ids := v.open(func(r *probe.Result) bool {
				return (r.ID == "grpc" || r.ID == "tls-grpc") && r.Outcome == probe.Declined && r.GRPC == nil
			})
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "no-grpc", severity: Fault, page: troubleshooting + "the-frame-header-looked-like-an-http11-header",
		title: "gRPC does not work here: the port speaks HTTP/1 only.",
		cause: "The answer to HTTP/2 is {detail}. The server, or a proxy in front of it, does not speak HTTP/2 in cleartext.",
		says:  http1Says,
		fix:   http1Fix,
		match: func(v *view) ([]string, string) {
			ids := v.open(func(r *probe.Result) bool { return r.Outcome == probe.Foreign && r.Language == wire.HTTP1 })
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "stream-reset", severity: Fault, page: troubleshooting + "rst_stream-with-internal_error",
		title: "Requests are reset: {detail}.",
		cause: "The server ends the stream with RST_STREAM instead of a response. INTERNAL_ERROR: a handler panicked, or a proxy lost its backend. REFUSED_STREAM: the server is too busy, and a retry is safe. HTTP_1_1_REQUIRED: use HTTP/1.1. ENHANCE_YOUR_CALM: too many requests.",
		says: []Saying{
			{"grpc-go", "INTERNAL: stream terminated by RST_STREAM with error code: INTERNAL_ERROR"},
			{"grpc-java", "INTERNAL: RST_STREAM closed stream. HTTP/2 error code: INTERNAL_ERROR"},
			{"net/http", "stream error: stream ID 1; INTERNAL_ERROR; received from peer"},
			{"curl", "(92) HTTP/2 stream 1 was not closed cleanly: INTERNAL_ERROR (err 2)"},
		},
		fix: []string{"Look at the log of the server for this request."},
		match: func(v *view) ([]string, string) {
			ids := v.open(outcome(probe.StreamReset))
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "goaway", severity: Fault, page: troubleshooting + "goaway-and-the-connection-is-draining",
		title: "The server closes HTTP/2 connections: {detail}.",
		cause: "The server sends GOAWAY before it answers. The error code, and the text that may follow it, say why.",
		says: []Saying{
			{"grpc-go", "UNAVAILABLE: closing transport due to: connection error …, received prior goaway: code: …; the connection is draining"},
			{"grpc-java", "UNAVAILABLE: Connection closed after GOAWAY. HTTP/2 error code: …"},
			{"net/http", "http2: server sent GOAWAY and closed the connection; …"},
			{"curl", "(56) … recveived GOAWAY, error=…"},
		},
		fix: []string{"ENHANCE_YOUR_CALM: send fewer pings (keepalive) and requests. INADEQUATE_SECURITY: use TLS. PROTOCOL_ERROR: use -v to see what the server had received."},
		match: func(v *view) ([]string, string) {
			ids := v.open(outcome(probe.WentAway))
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "tls-to-clear", severity: Fault, page: troubleshooting + "first-record-does-not-look-like-a-tls-handshake",
		title: "https fails: the port does not speak TLS.",
		cause: "The port does not answer a ClientHello with TLS. What came: {detail}.",
		says:  tlsToClearSays,
		fix:   []string{"Use http, grpcurl -plaintext or insecure.NewCredentials(); or add TLS to the port: oneport.Server.TLSConfig, Mux.TLS."},
		match: func(v *view) ([]string, string) {
			if v.tlsSpoken || !v.clearWorks {
				return nil, ""
			}
			ids := v.open(func(r *probe.Result) bool { return r.ID == "handshake" })
			return ids, v.Get("handshake").Came
		},
	},
	{
		code: "http-1.0", severity: Warning, page: troubleshooting + "layer7-wrong-status",
		title: "Simple health checks fail: HTTP/1.0 gets {detail}.",
		cause: "A request in HTTP/1.0 without Host, as the health checks of balancers send by default, is not answered like one in HTTP/1.1.",
		says:  []Saying{{"HAProxy", "Layer7 wrong status, code: 400"}, {"clients of the balancer", "503 Service Unavailable: no server is healthy"}},
		fix:   []string{"Set version and Host in the check (HAProxy: http-check send ver HTTP/1.1 hdr Host …)."},
		match: func(v *view) ([]string, string) {
			if !works(v.Get("http1")) {
				return nil, ""
			}
			ids := v.open(func(r *probe.Result) bool { return r.ID == "http1.0" })
			return ids, v.Get("http1.0").Came
		},
	},
	{
		code: "upgrade-broken", severity: Fault, page: "docs/http2-connection-setup.md#upgrade-h2c",
		title: "Upgrade: h2c is accepted, and then fails: {detail}.",
		cause: "The server answers 101, but then does not speak HTTP/2 correctly.",
		says: []Saying{
			{"curl --http2", "recveived GOAWAY, error=1; (56); (92)"},
			{"Java's HttpClient", "java.io.IOException: protocol error"},
		},
		fix: []string{"Apply the settings in HTTP2-Settings and those in the SETTINGS frame once each. Or do not upgrade: a server does not have to."},
		match: func(v *view) ([]string, string) {
			ids := v.open(func(r *probe.Result) bool { return strings.HasPrefix(r.ID, "upgrade") && r.HTTP2 != nil })
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "broken-http1", severity: Fault, page: troubleshooting + "transfer-closed-with-outstanding-read-data-remaining",
		title: "Clients drop the HTTP/1 response: {detail}.",
		cause: "The answer begins like a response and then violates HTTP/1 (RFC 9112).",
		says: []Saying{
			{"net/http", `net/http: HTTP/1.x transport connection broken: malformed …`},
			{"curl", "(8) Invalid status line; (56) Malformed encoding found in chunked-encoding; (18) transfer closed with outstanding read data remaining"},
			{"proxies", "502 Bad Gateway"},
		},
		fix: []string{"Use -v to see what came. Two goroutines that write to one connection can cause this."},
		match: func(v *view) ([]string, string) {
			ids := v.open(func(r *probe.Result) bool {
				return strings.Contains(r.ID, "http1") && r.Language == wire.HTTP1 && r.Outcome != probe.Stalled
			})
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "broken-tls", severity: Fault, page: troubleshooting + "remote-error-tls-handshake-failure",
		title: "The TLS handshake breaks: {detail}.",
		cause: "The server, or something in between, speaks TLS, but violates the protocol.",
		says: []Saying{
			{"Go, grpc-go", "tls: unexpected message; local error: tls: …"},
			{"curl", "(35) error:0A0000F4:SSL routines::unexpected message"},
			{"browsers", "ERR_SSL_PROTOCOL_ERROR"},
		},
		fix: []string{"Check whether a proxy or a filter in between intercepts TLS, and what the server logs."},
		match: func(v *view) ([]string, string) {
			r := v.Get("handshake")
			if r.Outcome != probe.Broken {
				return nil, ""
			}
			return v.open(func(r *probe.Result) bool {
				return r.Group == probe.TLS || r.Language == wire.TLSAlert || r.Language == wire.TLSRecord
			}), r.Came
		},
	},
	{
		code: "stalled", severity: Fault, page: troubleshooting + "transfer-closed-with-outstanding-read-data-remaining",
		title: "Clients wait for the rest of an answer that does not come in time: {detail}.",
		cause: "The server sends some bytes, and then nothing, or too little at a time.",
		says: []Saying{
			{"curl", "(28) Operation timed out; (18) transfer closed with outstanding read data remaining"},
			{"grpc-go", "DEADLINE_EXCEEDED: context deadline exceeded"},
		},
		fix: []string{"Find out what the server waits for. A longer -timeout shows whether it is only slow."},
		match: func(v *view) ([]string, string) {
			ids := v.open(outcome(probe.Stalled))
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "hangs", severity: Fault, page: troubleshooting + "context-deadline-exceeded-while-waiting-for-connections-to-become-ready",
		title: "Clients hang: {detail}.",
		cause: "The server sends nothing at all to such a client.",
		says:  []Saying{{"curl", "(28) Operation timed out"}, {"grpc-go", "context deadline exceeded while waiting for connections to become ready"}},
		fix:   []string{"The program that accepts the connection waits for something that this client does not send. Look at its routes, and use -v to see what was sent."},
		match: func(v *view) ([]string, string) {
			ids := v.open(outcome(probe.Silent))
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Title
		},
	},
	{
		code: "not-offered", severity: Fault, page: "docs/http2-connection-setup.md",
		title: "This is not offered: {detail}.",
		cause: "A port does not have to offer this. It counts as a fault because -only named it.",
		fix:   []string{"Run without -only to see what the port offers."},
		match: func(v *view) ([]string, string) {
			ids := v.open(func(r *probe.Result) bool { return r.Asked })
			if len(ids) == 0 {
				return nil, ""
			}
			r := v.Get(ids[0])
			return ids, r.Title + ": " + r.Came
		},
	},
	{
		code: "unexplained", severity: Fault, page: troubleshooting + "reading-the-frames",
		title: "Something fails, and the probe cannot explain it: {detail}.",
		cause: "Look at what came, and use -v to see the frames.",
		fix:   []string{"If oneport is involved, please report this with the output of -v."},
		match: func(v *view) ([]string, string) {
			ids := v.open(func(r *probe.Result) bool { return true })
			if len(ids) == 0 {
				return nil, ""
			}
			r := v.Get(ids[0])
			return ids, r.Title + ": " + r.Came
		},
	},

	// What works, but.
	{
		code: "gateway-error", severity: Warning, page: troubleshooting + "unexpected-http-status-code-received-from-server",
		title: "A proxy answers in place of a server that it cannot reach: {detail}.",
		cause: "Proxies send these statuses: 502 if they do not understand the server's answer (does the proxy speak HTTP/1 to a gRPC server?), 503 if no server is healthy, 504 if no answer arrives in time.",
		says: []Saying{
			{"grpc-go", "UNAVAILABLE: unexpected HTTP status code received from server: 502 (Bad Gateway)"},
			{"grpc-java", "UNAVAILABLE: HTTP status code 503"},
		},
		fix: []string{"Probe the server behind the proxy directly."},
		match: func(v *view) ([]string, string) {
			ids := v.where(func(r *probe.Result) bool {
				return r.Verdict == probe.WorksBut && r.HTTP != nil && r.HTTP.Status >= 502 && r.HTTP.Status <= 504
			})
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, fmt.Sprint(v.Get(ids[0]).HTTP.Status)
		},
	},
	{
		code: "grpc-status", severity: Warning, page: troubleshooting + "service-unhealthy",
		title: "The gRPC server answers the health check with {detail}.",
		cause: "This is the server's own answer. UNAUTHENTICATED and PERMISSION_DENIED come from an interceptor; NOT_SERVING is what the program has set.",
		says:  []Saying{{"grpc_health_probe", "service unhealthy (responded with \"NOT_SERVING\")"}, {"Kubernetes", "Readiness probe failed"}},
		fix:   []string{"Call health.Server.SetServingStatus for the service that clients ask for (-grpc-service)."},
		match: func(v *view) ([]string, string) {
			ids := v.where(func(r *probe.Result) bool { return r.Verdict == probe.WorksBut && r.GRPC != nil })
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "idle", severity: Warning, page: troubleshooting + "keepalive-ping-failed-to-receive-ack-within-timeout",
		title: "Keepalive will end idle connections: {detail}.",
		cause: "gRPC clients connect before their first call, and send PING to check the connection. Here nothing answers between the preface and the first request.",
		says: []Saying{
			{"grpc-go", "UNAVAILABLE: keepalive ping failed to receive ACK within timeout"},
			{"grpc-java", "UNAVAILABLE: Keepalive failed. The connection is likely gone"},
			{"grpcio", "UNAVAILABLE: keepalive watchdog timeout; ping timeout"},
		},
		fix: []string{"The program that holds the connection before its first request has to acknowledge SETTINGS and answer PING, as oneport does."},
		match: func(v *view) ([]string, string) {
			r := v.Get("idle")
			if r.Verdict != probe.WorksBut || r.HTTP2 == nil || r.HTTP2.Pong && r.HTTP2.ACKed {
				return nil, ""
			}
			return []string{"idle"}, r.Came
		},
	},

	// What is good to know.
	{
		code: "tls-only", severity: Remark, page: troubleshooting + "client-sent-an-http-request-to-an-https-server",
		title: "This port takes TLS only.",
		cause: "Clients in cleartext are refused, as they should be.",
		says:  clearToTLSSays,
		fix:   []string{"Use https, or credentials.NewTLS for gRPC."},
		match: func(v *view) ([]string, string) {
			if !v.tlsSpoken || v.clearWorks || v.clearWanted() {
				return nil, ""
			}
			return v.where(func(r *probe.Result) bool { return slices.Contains(basic, r.ID) && r.Verdict == probe.NotOffered }), ""
		},
	},
	{
		code: "http1-only", severity: Remark, page: troubleshooting + "the-frame-header-looked-like-an-http11-header",
		title: "HTTP/2 in cleartext is not offered, so gRPC is not either: the server speaks HTTP/1 only.",
		cause: "If that is intended, nothing is wrong. Clients of HTTP/2 and gRPC get {detail}.",
		says:  http1Says,
		fix:   http1Fix,
		match: func(v *view) ([]string, string) {
			ids := v.where(func(r *probe.Result) bool {
				return r.Verdict == probe.NotOffered && (r.ID == "h2" || r.ID == "h2-strict") && works(v.Get("http1"))
			})
			if len(ids) == 0 {
				return nil, ""
			}
			return ids, v.Get(ids[0]).Came
		},
	},
	{
		code: "tls-http1-only", severity: Remark, page: troubleshooting + "missing-selected-alpn-property",
		title: "HTTP/2 over TLS is not offered, so gRPC is not either: ALPN has no h2.",
		cause: "Clients that speak both use HTTP/1.1 here. Those that require h2, as gRPC clients do, are refused.",
		says: []Saying{
			{"grpc-go", "remote error: tls: no application protocol; credentials: cannot check peer: missing selected ALPN property"},
			{"curl --http2", "(nothing: it speaks HTTP/1.1)"},
			{"nghttp", "HTTP/2 protocol was not selected. (nghttp2 expects h2)"},
		},
		fix: []string{`If you want HTTP/2: NextProtos: []string{"h2", "http/1.1"}, with a server that speaks HTTP/2 (http.Server.ServeTLS does both).`},
		match: func(v *view) ([]string, string) {
			return v.where(func(r *probe.Result) bool {
				return r.Verdict == probe.NotOffered && (r.ID == "tls-h2" || r.ID == "tls-grpc" && !works(v.Get("tls-h2")))
			}), ""
		},
	},
	{
		code: "proxy-optional", severity: Remark, page: "docs/load-balancers.md",
		title: "The port accepts a PROXY header from this address, but does not require it.",
		cause: "Anyone who can connect from here can claim any client address.",
		fix:   []string{"Require the header from the balancer's addresses, and refuse it from all others."},
		match: func(v *view) ([]string, string) {
			if !v.clearWorks && !v.tlsSpoken {
				return nil, ""
			}
			return v.where(func(r *probe.Result) bool { return strings.HasPrefix(r.ID, "proxy-v") && works(r) }), ""
		},
	},
}

var http1Says = []Saying{
	{"grpc-go", "error reading server preface: http2: failed reading the frame payload: http2: frame too large, note that the frame header looked like an HTTP/1.1 header"},
	{"grpc-java", "UNAVAILABLE: … First received frame was not SETTINGS. Hex dump for first 5 bytes: 485454502f"},
	{"grpcio", "UNAVAILABLE: … Trying to connect an http1.x server"},
	{"curl", "(52) Empty reply from server; (55) Send failure: Broken pipe; (16) Error in the HTTP2 framing layer"},
	{"nghttp", "Remote peer returned unexpected data while we expected SETTINGS frame"},
}

var http1Fix = []string{
	"net/http: call SetUnencryptedHTTP2(true) on http.Server.Protocols, or use oneport.ConfigureHTTP.",
	"A balancer: use HTTP/2 (h2c, gRPC) for the backend. nginx: use grpc_pass, and listen … http2 on a port of its own.",
}

var clearToTLSSays = []Saying{
	{"curl", "(52) Empty reply from server; by HTTP/2 (18); 400 Client sent an HTTP request to an HTTPS server."},
	{"grpc-go", `connection error: desc = "error reading server preface: EOF"`},
	{"grpc-java", "UNAVAILABLE: Network closed for unknown reason"},
	{"browsers", "ERR_EMPTY_RESPONSE; ERR_CONNECTION_RESET"},
}

var tlsToClearSays = []Saying{
	{"Go, grpc-go", "tls: first record does not look like a TLS handshake; EOF"},
	{"curl", "(35) … wrong version number; (35) Recv failure: Connection reset by peer"},
	{"grpc-java", "UNAVAILABLE: … NotSslRecordException: not an SSL/TLS record"},
	{"browsers", "ERR_SSL_PROTOCOL_ERROR"},
}

// violated returns the ways in on which the server has broken one of the rules.
func (v *view) violated(faults ...wire.Fault) ([]string, string) {
	detail := ""
	ids := v.open(func(r *probe.Result) bool {
		if r.HTTP2 == nil || r.Outcome != probe.Violated {
			return false
		}
		for _, x := range r.HTTP2.Violations {
			if slices.Contains(faults, x.Fault) {
				if detail == "" {
					detail = x.Text
				}
				return true
			}
		}
		return false
	})
	return ids, detail
}
