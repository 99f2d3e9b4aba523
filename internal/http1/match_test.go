package http1_test

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oneport-go/oneport/internal/http1"
)

func TestMethods(t *testing.T) {
	t.Parallel()
	if !slices.IsSorted(http1.Methods) {
		t.Error("not sorted")
	}
	if got := slices.Compact(slices.Clone(http1.Methods)); len(got) != len(http1.Methods) {
		t.Error("not unique")
	}
	for _, m := range http1.Methods {
		if r := parse([]byte(m + " ")); r.Method != m || r.State != http1.Incomplete {
			t.Errorf("%s: state %d, method %q", m, r.State, r.Method)
		}
	}
	for _, m := range []string{
		http.MethodConnect, http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions,
		http.MethodPatch, http.MethodPost, http.MethodPut, http.MethodTrace,
	} {
		if !slices.Contains(http1.Methods, m) {
			t.Errorf("%s is missing", m)
		}
	}
}

func TestMethodPrefix(t *testing.T) {
	t.Parallel()
	some := []string{"GET", "POST", "PROPFIND", "PROP"}
	tests := []struct {
		data    string
		methods []string
		want    bool
	}{
		{"", some, true},
		{"", nil, false},
		{"GET", nil, false},
		{"G", some, true},
		{"P", some, true},
		{"PROPF", some, true},
		{"GET", some, true},
		{"GET ", some, true},
		{"GET / HTTP/1.1\r\n\r\n", some, true},
		{"PROP /", some, true},
		{"PROPFIND /", some, true},
		{"GE ", some, false},
		{"GE /", some, false},
		{"GETS", some, false},
		{"GET\r\n", some, false},
		{"PU", some, false},
		{"g", some, false},
		{"get ", some, false},
		{"\x16\x03\x01", some, false},
		{"PR", http1.Methods, true},
		{"PRI", http1.Methods, false},
		{"*", http1.Methods, false},
	}
	for _, tt := range tests {
		if got := http1.MethodPrefix([]byte(tt.data), tt.methods); got != tt.want {
			t.Errorf("MethodPrefix(%q, %q) = %v", tt.data, tt.methods, got)
		}
	}
}

func TestEqualName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, want string
		equal      bool
	}{
		{"", "", true},
		{"Host", "Host", true},
		{"hOsT", "Host", true},
		{"host", "HOST", true},
		{"Host", "Hos", false},
		{"Hos", "Host", false},
		{"Hose", "Host", false},
		{"A^", "A~", false},
		{"a-b", "A\rB", false},
		{"\xe2\x84\xaa", "k", false}, // the Kelvin sign, which Unicode folds to k
	}
	for _, tt := range tests {
		if got := http1.EqualName([]byte(tt.name), tt.want); got != tt.equal {
			t.Errorf("EqualName(%q, %q) = %v", tt.name, tt.want, got)
		}
	}
}

func TestUnfold(t *testing.T) {
	t.Parallel()
	tests := []struct{ value, want string }{
		{"", ""},
		{"a", "a"},
		{"a \t b", "a \t b"},
		{"a\r\n b", "a b"},
		{"a\n\tb", "a b"},
		{"a \t\r\n \t b", "a b"},
		{"a\r\n b\n c", "a b c"},
		{"a\r\n \r\n b", "a  b"},
		{"a\r\n \t", "a "},
		{"a\n \n ", "a  "},
	}
	for _, tt := range tests {
		if got := string(http1.Unfold([]byte("dst:"), []byte(tt.value))); got != "dst:"+tt.want {
			t.Errorf("Unfold(%q) = %q, want %q", tt.value, got, "dst:"+tt.want)
		}
	}
}

func TestSplitTarget(t *testing.T) {
	t.Parallel()
	tests := []struct {
		method, target  string
		authority, path string
	}{
		{"GET", "/", "", "/"},
		{"GET", "/where?q=now", "", "/where"},
		{"GET", "/?", "", "/"},
		{"GET", "/a?b?c", "", "/a"},
		{"GET", "/a%2Fb?c", "", "/a%2Fb"},
		{"GET", "/a:b@c", "", "/a:b@c"},
		{"GET", "//host/path", "", "//host/path"},
		{"GET", "/a#b", "", "/a#b"},
		{"OPTIONS", "*", "", "*"},
		{"OPTIONS", "/", "", "/"},

		{"GET", "http://example.com/a?b", "example.com", "/a"},
		{"GET", "HTTPS://Example.COM:8443/", "Example.COM:8443", "/"},
		{"GET", "http://[::1]:80/a", "[::1]:80", "/a"},
		{"GET", "http://example.com", "example.com", "/"},
		{"GET", "http://example.com?a/b", "example.com", "/"},
		{"GET", "http://example.com/?http://x/y", "example.com", "/"},
		{"GET", "http://good.example@evil.example/", "evil.example", "/"},
		{"GET", "http://@example.com/", "example.com", "/"},
		{"GET", "http://a@b:c@d:80/e@f", "d:80", "/e@f"},
		{"OPTIONS", "http://example.com", "example.com", "*"},
		{"OPTIONS", "http://example.com?", "example.com", "/"},
		{"OPTIONS", "http://example.com/", "example.com", "/"},
		{"GET", "file:///a", "", "/a"},
		{"GET", "http:/a?b", "", "/a"},
		{"GET", "urn:x:y?z", "", "x:y"},

		{"CONNECT", "example.com:443", "example.com:443", ""},
		{"CONNECT", "[::1]:443", "[::1]:443", ""},
		{"CONNECT", "example.com:443/a?b", "example.com:443", "/a"},
		{"CONNECT", "*", "*", ""},
		{"CONNECT", "/_goRPC_", "", "/_goRPC_"},

		{"GET", "", "", ""},
		{"GET", "nothing", "", ""},
		{"CONNECT", "", "", ""},
	}
	for _, tt := range tests {
		authority, path := http1.SplitTarget([]byte(tt.method), []byte(tt.target))
		if diff := cmp.Diff([]string{tt.authority, tt.path}, []string{string(authority), string(path)}); diff != "" {
			t.Errorf("SplitTarget(%q, %q) (-want +got):\n%s", tt.method, tt.target, diff)
		}
		checkSplitTarget(t, tt.method, tt.target)
	}
}

func TestMatchAllocs(t *testing.T) {
	var (
		connect   = []byte("CONNECT")
		options   = []byte("OPTIONS")
		authority = []byte("example.com:443")
		absolute  = []byte("http://user@example.com?query")
		host      = []byte("hOST")
		folded    = []byte("a\r\n b\r\n c")
		dst       = make([]byte, 0, len(folded))
	)
	allocs := testing.AllocsPerRun(10, func() {
		http1.MethodPrefix(connect, http1.Methods)
		http1.SplitTarget(connect, authority)
		http1.SplitTarget(options, absolute)
		http1.EqualName(host, "Host")
		http1.Unfold(dst, folded)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// FuzzSplitTarget compares the parts of a request-target with those of net/url wherever net/http accepts it.
func FuzzSplitTarget(f *testing.F) {
	for _, target := range []string{
		"/", "/a%2fb?c", "//h/p", "*", "http://h", "http://u:p@h:1/p?q", "http://[fe80::1%25en0]:80/",
		"http:/p", "urn:x:y", "h:443", "[::1]:443", "http://%e2%82%ac/",
	} {
		for _, method := range []string{"GET", "OPTIONS", "CONNECT"} {
			f.Add(method, target)
		}
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		checkSplitTarget(t, method, target)
	})
}

func checkSplitTarget(t *testing.T, method, target string) {
	t.Helper()
	rawAuthority, rawPath := http1.SplitTarget([]byte(method), []byte(target))
	if bytes.ContainsAny(rawAuthority, "/?@") || bytes.ContainsAny(rawPath, "?") {
		t.Fatalf("SplitTarget(%q, %q) = %q, %q", method, target, rawAuthority, rawPath)
	}
	req, err := readRequest([]byte(method + " " + target + " HTTP/1.1\r\n\r\n"))
	if err != nil || req.Method != method || req.RequestURI != target {
		return
	}
	authority, err := url.PathUnescape(string(rawAuthority))
	if err != nil {
		t.Fatalf("authority of %s %q: %v", method, target, err)
	}
	if authority != req.URL.Host {
		t.Errorf("authority of %s %q is %q, want %q", method, target, authority, req.URL.Host)
	}
	if req.URL.Opaque != "" {
		// net/url has no path for these, RFC 3986, Section 3.3, has.
		if string(rawPath) != req.URL.Opaque {
			t.Errorf("path of %s %q is %q, want %q", method, target, rawPath, req.URL.Opaque)
		}
		return
	}
	path, err := url.PathUnescape(string(rawPath))
	if err != nil {
		t.Fatalf("path of %s %q: %v", method, target, err)
	}
	if path != req.URL.Path && !isEmptyAbsolutePath(req, path) {
		t.Errorf("path of %s %q is %q, want %q", method, target, path, req.URL.Path)
	}
}

// isEmptyAbsolutePath reports whether the target is an absolute-form whose path was left out, which net/url has as
// empty and not as what it means.
func isEmptyAbsolutePath(req *http.Request, path string) bool {
	return req.URL.Scheme != "" && req.URL.Path == "" &&
		(path == "/" || path == "*" && req.Method == http.MethodOptions)
}
