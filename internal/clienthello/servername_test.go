package clienthello_test

import (
	"crypto/x509"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/oneport-go/oneport/internal/clienthello"
)

func TestMatchServerName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"example.com", "example.com", true},
		{"example.com", "EXAMPLE.com", true},
		{"Example.COM", "example.com", true},
		{"example.com", "example.com.", true},
		{"example.com", "example.com..", false},
		{"example.com", "www.example.com", false},
		{"example.com", "example.co", false},
		{"example.com", "xample.com", false},
		{"example.com", "", false},
		{"*.example.com", "www.example.com", true},
		{"*.example.com", "WWW.EXAMPLE.COM.", true},
		{"*.Example.com", "www.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", ".example.com", false},
		{"*.example.com", "a.b.example.com", false},
		{"*.example.com", "wwwexample.com", false},
		{"*.example.com", "", false},
		{"*.com", "example.com", true},
		// A wildcard is a whole label, the leftmost.
		{"w*.example.com", "www.example.com", false},
		{"*w.example.com", "www.example.com", false},
		{"www.*.com", "www.example.com", false},
		{"*.*.com", "www.example.com", false},
		{"*", "localhost", false},
		{"*", "", false},
		{"*.", "localhost.", false},
		{"*.", "localhost", false},
		{"", "", false},
		{"", ".", false},
		// Only ASCII letters have cases.
		{"k.example.com", "\u212a.example.com", false},
		{"[.example.com", "{.example.com", false},
		{"@.example.com", "`.example.com", false},
		{"\xc0.example.com", "\xe0.example.com", false},
	}
	for _, tt := range tests {
		if got := clienthello.MatchServerName(tt.pattern, tt.name); got != tt.want {
			t.Errorf("MatchServerName(%q, %q) = %t, want %t", tt.pattern, tt.name, got, tt.want)
		}
	}
}

func FuzzMatchServerName(f *testing.F) {
	f.Add("example.com", "EXAMPLE.COM.")
	f.Add("*.example.com", "www.example.com")
	f.Add("*.example.com", "a.b.example.com")
	f.Add("*", "localhost")
	f.Add("k", "\u212a")
	hostname := regexp.MustCompile(`^[0-9A-Za-z_][-0-9A-Za-z_]*(\.[0-9A-Za-z_][-0-9A-Za-z_]*)*$`)
	f.Fuzz(func(t *testing.T, pattern, name string) {
		// Of anything but host names, x509 only wants the very same bytes, and addresses are no names to it.
		if !hostname.MatchString(strings.TrimPrefix(pattern, "*.")) ||
			!hostname.MatchString(strings.TrimSuffix(name, ".")) || net.ParseIP(name) != nil {
			return
		}
		cert := &x509.Certificate{DNSNames: []string{pattern}}
		want := cert.VerifyHostname(name) == nil
		if got := clienthello.MatchServerName(pattern, name); got != want {
			t.Errorf("MatchServerName(%q, %q) = %t, but x509 says %t", pattern, name, got, want)
		}
	})
}
