package h2upgrade

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/http1"
)

// head is the head of an HTTP/1 request, with the fields set apart that are about the connection or the message, and
// not about the request.
type head struct {
	method, target string

	connection, upgrade, settings, host, contentLength []string // the values of the fields of the name
	expects, coded, trailers                           bool     // Expect; Transfer-Encoding; TE with "trailers"

	rest []hpack.HeaderField // the others, with their names in lower case
}

func readHead(data []byte, p *http1.Parser) *head {
	method, _ := p.Method()
	target, _ := p.Target()
	h := &head{method: string(method.Of(data)), target: string(target.Of(data))}
	for _, f := range p.Fields() {
		name := strings.ToLower(string(f.Name.Of(data)))
		// In HTTP/2 no value ends with a space (RFC 9113, Section 8.2.1), as one does behind an empty obs-fold.
		value := strings.TrimRight(string(http1.Unfold(nil, f.Value.Of(data))), " ")
		switch name {
		case "connection":
			h.connection = append(h.connection, value)
		case "upgrade":
			h.upgrade = append(h.upgrade, value)
		case "http2-settings":
			h.settings = append(h.settings, value)
		case "host":
			h.host = append(h.host, value)
		case "content-length":
			h.contentLength = append(h.contentLength, value)
		case "expect":
			h.expects = true
		case "transfer-encoding":
			h.coded = true
		case "te":
			h.trailers = h.trailers || hasToken([]string{value}, "trailers")
		case "keep-alive", "proxy-connection":
			// Connection-specific, whether Connection names them or not (RFC 9113, Section 8.2.2).
		default:
			h.rest = append(h.rest, hpack.HeaderField{Name: name, Value: value, Sensitive: sensitive(name)})
		}
	}
	return h
}

// sensitive reports whether a field is to stay out of every compression context on its way (RFC 7541, Section 7.1.3).
func sensitive(name string) bool {
	return name == "authorization" || name == "proxy-authorization" || name == "cookie"
}

// splitTarget returns what :authority and :path are in HTTP/2 (RFC 9113, Section 8.3.1).
func (h *head) splitTarget() (authority, path string, err error) {
	if len(h.host) != 1 {
		// RFC 9112, Section 3.2 has the request answered with 400.
		return "", "", errors.New("the field Host does not occur exactly once")
	}
	authority, path = h.host[0], h.target
	if !validAuthority(authority) {
		return "", "", errors.New("the field Host is malformed")
	}
	if path[0] != '/' && path != "*" {
		// In absolute-form the target counts, not Host (RFC 9112, Section 3.2.2).
		const scheme = "http://"
		if len(path) < len(scheme) || !strings.EqualFold(path[:len(scheme)], scheme) {
			return "", "", errors.New("the scheme of the target is not http")
		}
		rest := path[len(scheme):]
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		authority, path = rest[:end], rest[end:]
		if !validAuthority(authority) {
			return "", "", errors.New("the authority of the target is malformed")
		}
		if path == "" && h.method == "OPTIONS" {
			path = "*" // RFC 9112, Section 3.2.4
		} else if path == "" || path[0] == '?' {
			path = "/" + path // RFC 9110, Section 4.2.3
		}
	}
	if path == "*" && h.method != "OPTIONS" {
		return "", "", errors.New("the target is * and the method is not OPTIONS")
	}
	return authority, path, nil
}

// validAuthority reports whether the authority is one that :authority can have: neither empty nor with userinfo
// (RFC 9113, Section 8.3.1).
func validAuthority(s string) bool { return s != "" && httpguts.ValidHostHeader(s) }

// translate makes the header list of HTTP/2. Like any intermediary that changes the version it leaves out Connection
// and what that names (RFC 9110, Section 7.6.1, RFC 9113, Section 8.2.2).
func (h *head) translate(authority, path string) []hpack.HeaderField {
	fields := make([]hpack.HeaderField, 0, 4+len(h.rest)+2)
	fields = append(fields,
		hpack.HeaderField{Name: ":method", Value: h.method},
		hpack.HeaderField{Name: ":scheme", Value: "http"},
		hpack.HeaderField{Name: ":authority", Value: authority},
		hpack.HeaderField{Name: ":path", Value: path},
	)
	named := h.connectionOptions()
	for _, f := range h.rest {
		if !slices.Contains(named, f.Name) {
			fields = append(fields, f)
		}
	}
	if len(h.contentLength) > 0 {
		// Whether Connection names it, which it must not (RFC 9110, Section 7.6.1), or not.
		fields = append(fields, hpack.HeaderField{Name: "content-length", Value: h.contentLength[0]})
	}
	if h.trailers {
		// This much of TE is the client's still when it speaks HTTP/2, though Connection has to name it in HTTP/1
		// (RFC 9110, Section 10.1.4).
		fields = append(fields, hpack.HeaderField{Name: "te", Value: "trailers"})
	}
	return fields
}

// connectionOptions returns the field names in Connection, in lower case.
func (h *head) connectionOptions() []string {
	var names []string
	for _, value := range h.connection {
		for name := range strings.SplitSeq(value, ",") {
			names = append(names, strings.ToLower(strings.Trim(name, " \t")))
		}
	}
	return names
}
