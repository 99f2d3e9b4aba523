package clienthello

import "strings"

// MatchServerName reports whether name, a server name from a ClientHello, is one that pattern stands for. A pattern is
// a host name, or "*." and a host name for all names with exactly one more label (RFC 6125, Section 6.4.3; RFC 9525,
// Section 6.3). A "*" anywhere else has no meaning of its own. A trailing dot of name is ignored.
func MatchServerName(pattern, name string) bool {
	name = strings.TrimSuffix(name, ".")
	if parent, ok := strings.CutPrefix(pattern, "*."); ok {
		label, rest, _ := strings.Cut(name, ".")
		return label != "" && rest != "" && equalFold(parent, rest)
	}
	return name != "" && equalFold(pattern, name)
}

// equalFold is strings.EqualFold for ASCII letters only: host names are compared like that (RFC 4343, Section 3), and
// Unicode folding would have "K", the Kelvin sign, pass for "k".
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
