package http1

import "bytes"

// Methods holds the methods of the IANA HTTP Method Registry, RFC 9110, Section 16.1, sorted. It has neither PRI, with
// which only the HTTP/2 connection preface starts, nor "*", which is reserved so that it is never a method.
var Methods = []string{
	"ACL",
	"BASELINE-CONTROL",
	"BIND",
	"CHECKIN",
	"CHECKOUT",
	"CONNECT",
	"COPY",
	"DELETE",
	"GET",
	"HEAD",
	"LABEL",
	"LINK",
	"LOCK",
	"MERGE",
	"MKACTIVITY",
	"MKCALENDAR",
	"MKCOL",
	"MKREDIRECTREF",
	"MKWORKSPACE",
	"MOVE",
	"OPTIONS",
	"ORDERPATCH",
	"PATCH",
	"POST",
	"PROPFIND",
	"PROPPATCH",
	"PUT",
	"QUERY",
	"REBIND",
	"REPORT",
	"SEARCH",
	"TRACE",
	"UNBIND",
	"UNCHECKOUT",
	"UNLINK",
	"UNLOCK",
	"UPDATE",
	"UPDATEREDIRECTREF",
	"VERSION-CONTROL",
}

// MethodPrefix reports whether data, the first bytes of a connection, start with one of the methods and the space after
// it, or may yet do so. An empty line in front is ignored, RFC 9112, Section 2.2. Methods are case-sensitive, RFC 9110,
// Section 9.1.
func MethodPrefix(data []byte, methods []string) bool {
	switch {
	case len(data) > 0 && data[0] == '\n':
		data = data[1:]
	case len(data) > 1 && data[0] == '\r' && data[1] == '\n':
		data = data[2:]
	case len(data) == 1 && data[0] == '\r':
		return len(methods) > 0
	}
	for _, m := range methods {
		if len(data) <= len(m) {
			if m[:len(data)] == string(data) {
				return true
			}
		} else if string(data[:len(m)]) == m && data[len(m)] == ' ' {
			return true
		}
	}
	return false
}

// EqualName reports whether a field name is the one wanted. Field names are case-insensitive, RFC 9110, Section 5.1.
func EqualName[T string | []byte](name T, want string) bool {
	if len(name) != len(want) {
		return false
	}
	for i := range len(name) {
		if toLower(name[i]) != toLower(want[i]) {
			return false
		}
	}
	return true
}

// Unfold appends a field value to dst, each obs-fold in it replaced by one space, RFC 9112, Section 5.2, and returns
// the extended slice.
func Unfold(dst, value []byte) []byte {
	for {
		line, rest, folded := bytes.Cut(value, []byte{'\n'})
		if !folded {
			return append(dst, line...)
		}
		line = bytes.TrimSuffix(line, []byte{'\r'})
		dst = append(dst, bytes.TrimRight(line, " \t")...)
		dst = append(dst, ' ')
		value = bytes.TrimLeft(rest, " \t")
	}
}

var (
	rootPath     = []byte("/")
	asteriskPath = []byte("*")
)

// SplitTarget returns the authority and the path of the request-target of a request, RFC 9112, Section 3.2. Which of
// the two there are depends on its form:
//
//	origin-form     GET /where?q=now              path "/where"
//	absolute-form   GET http://example.com/a?b    authority "example.com", path "/a"
//	authority-form  CONNECT example.com:80        authority "example.com:80"
//	asterisk-form   OPTIONS *                     path "*"
//
// The authority is without userinfo and the path without query; neither is decoded. The path of an absolute-form that
// has an authority is never empty: where it was left out it is "/" or, for OPTIONS without a query, "*".
//
// The results must not be modified.
func SplitTarget(method, target []byte) (authority, path []byte) {
	switch {
	case bytes.HasPrefix(target, rootPath):
		return nil, cutQuery(target)
	case string(method) == "CONNECT":
		return splitAuthority(target)
	case string(target) == "*":
		return nil, target
	}
	_, hier, ok := bytes.Cut(target, []byte{':'})
	if !ok {
		return nil, nil
	}
	rest, ok := bytes.CutPrefix(hier, []byte("//"))
	if !ok {
		return nil, cutQuery(hier)
	}
	authority, path = splitAuthority(rest)
	if len(path) > 0 {
		return authority, path
	}
	// RFC 9112, Section 3.2.4: this is how OPTIONS * is sent to a proxy.
	if string(method) == "OPTIONS" && bytes.IndexByte(rest, '?') < 0 {
		return authority, asteriskPath
	}
	// RFC 9110, Section 4.2.3: an empty path is equivalent to "/".
	return authority, rootPath
}

// splitAuthority splits what follows the "//" of a URI, RFC 3986, Section 3.2.
func splitAuthority(b []byte) (authority, path []byte) {
	authority = b
	if i := bytes.IndexAny(b, "/?"); i >= 0 {
		authority, path = b[:i], cutQuery(b[i:])
	}
	// RFC 9110, Section 4.2.4, has userinfo distrusted. The last "@" ends it: the host has none, so nothing before it
	// can pass for the host.
	if i := bytes.LastIndexByte(authority, '@'); i >= 0 {
		authority = authority[i+1:]
	}
	return authority, path
}

func cutQuery(b []byte) []byte {
	b, _, _ = bytes.Cut(b, []byte{'?'})
	return b
}

func toLower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}
