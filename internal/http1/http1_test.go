package http1_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oneport-go/oneport/internal/http1"
)

// field is an http1.Field with the bytes that it covers.
type field struct{ Name, Value string }

// result is all that a Parser says about data.
type result struct {
	State   http1.State
	Method  string
	Target  string
	Minor   int // -1 while the version is not known
	Fields  []field
	HeadLen int
	Err     *http1.Error
}

func resultOf(p *http1.Parser, state http1.State, data []byte) result {
	r := result{State: state, Minor: -1, HeadLen: p.HeadLen(), Err: p.Err()}
	if s, ok := p.Method(); ok {
		r.Method = string(s.Of(data))
	}
	if s, ok := p.Target(); ok {
		r.Target = string(s.Of(data))
	}
	if minor, ok := p.Version(); ok {
		r.Minor = minor
	}
	// One copy of data for all the fields: the fuzzer waits for this.
	s := string(data)
	for _, f := range p.Fields() {
		r.Fields = append(r.Fields, field{s[f.Name.Start:f.Name.End], s[f.Value.Start:f.Value.End]})
	}
	return r
}

// diff explains how got differs from want. It is empty if they are equal, which it finds out sooner than go-cmp does.
func diff(want, got result) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}

// parse gives data to a new parser at once.
func parse(data []byte) result {
	var p http1.Parser
	return resultOf(&p, p.Parse(data), data)
}

// checkIncremental gives data to a new parser in growing prefixes, of which step says by how much, each in memory of
// its own that is overwritten before the next one is given. At each prefix the parser must say what it says of that
// prefix at once, and never take anything back.
func checkIncremental(t *testing.T, data []byte, step func() int) {
	t.Helper()
	var p http1.Parser
	var prev result
	for n := 0; n < len(data); {
		n = min(n+step(), len(data))
		buf := bytes.Clone(data[:n])
		got := resultOf(&p, p.Parse(buf), buf)
		clear(buf)
		if d := diff(parse(data[:n]), got); d != "" {
			t.Fatalf("%q: at once (-) and in parts (+) differ:\n%s", data[:n], d)
		}
		if prev.State != http1.Incomplete {
			if d := diff(prev, got); d != "" {
				t.Fatalf("%q: final state changed (-before +after):\n%s", data[:n], d)
			}
		}
		if len(got.Fields) < len(prev.Fields) || !slices.Equal(prev.Fields, got.Fields[:len(prev.Fields)]) {
			t.Fatalf("%q: fields %q, before %q", data[:n], got.Fields, prev.Fields)
		}
		prev = got
	}
}

func byteByByte() int { return 1 }

// capture is what a real client sent on a fresh connection.
type capture struct {
	name  string
	data  []byte
	http1 bool
}

func captures(tb testing.TB) []capture {
	tb.Helper()
	paths, err := filepath.Glob("../../testdata/captures/*.bin")
	if err != nil {
		tb.Fatal(err)
	}
	var all []capture
	var n int
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		c := capture{name: filepath.Base(path), data: data}
		c.http1 = strings.Contains(c.name, "http1") || strings.Contains(c.name, "upgrade")
		if c.http1 {
			n++
		}
		all = append(all, c)
	}
	if n == 0 || n == len(all) {
		tb.Fatalf("%d of %d captures are HTTP/1.1", n, len(all))
	}
	return all
}

func TestParse(t *testing.T) {
	t.Parallel()
	const line = "GET / HTTP/1.1\r\n"
	// head completes line, whose parts are in every result below.
	head := func(fields ...field) result {
		return result{State: http1.Complete, Method: "GET", Target: "/", Minor: 1, Fields: fields}
	}
	tests := []struct {
		name string
		in   string
		rest string // what follows the head
		want result // HeadLen is that of in
	}{
		{name: "no fields", in: line + "\r\n", want: head()},
		{name: "body", in: line + "\r\n", rest: "\x00\r\n: ", want: head()},
		{name: "empty line first", in: "\r\n" + line + "\r\n", want: head()},
		{name: "LF first", in: "\n" + line + "\r\n", want: head()},
		{name: "pipelined", in: line + "\r\n", rest: line + "\r\n", want: head()},
		{name: "LF alone", in: "GET / HTTP/1.1\nA: b\nC: d\n\n",
			want: head(field{"A", "b"}, field{"C", "d"})},
		{name: "LF alone then CRLF", in: "GET / HTTP/1.1\nA: b\r\n\n", want: head(field{"A", "b"})},
		{name: "HTTP/1.0", in: "GET / HTTP/1.0\r\n\r\n",
			want: result{State: http1.Complete, Method: "GET", Target: "/", Minor: 0}},
		{name: "unknown minor version", in: "GET / HTTP/1.9\r\n\r\n",
			want: result{State: http1.Complete, Method: "GET", Target: "/", Minor: 9}},
		{name: "method of every tchar", in: "!#$%&'*+-.^_`|~09azAZ / HTTP/1.1\r\n\r\n",
			want: result{State: http1.Complete, Method: "!#$%&'*+-.^_`|~09azAZ", Target: "/", Minor: 1}},
		{name: "method starts like the preface", in: "PRIX * HTTP/1.1\r\n\r\n",
			want: result{State: http1.Complete, Method: "PRIX", Target: "*", Minor: 1}},
		{name: "method is part of the preface's", in: "PR * HTTP/1.1\r\n\r\n",
			want: result{State: http1.Complete, Method: "PR", Target: "*", Minor: 1}},
		{name: "lower-case pri", in: "pri * HTTP/1.1\r\n\r\n",
			want: result{State: http1.Complete, Method: "pri", Target: "*", Minor: 1}},
		{name: "target with obs-text and unencoded bytes", in: "GET /\xe2\x82\xac\xff\"<>\\^`{|}#%zz HTTP/1.1\r\n\r\n",
			want: result{State: http1.Complete, Method: "GET", Target: "/\xe2\x82\xac\xff\"<>\\^`{|}#%zz", Minor: 1}},
		{name: "absolute-form", in: "GET a0+-.Z://h/p?q HTTP/1.1\r\n\r\n",
			want: result{State: http1.Complete, Method: "GET", Target: "a0+-.Z://h/p?q", Minor: 1}},
		{name: "absolute-form without authority", in: "GET urn:x HTTP/1.1\r\n\r\n",
			want: result{State: http1.Complete, Method: "GET", Target: "urn:x", Minor: 1}},
		{name: "authority-form", in: "CONNECT 127.0.0.1:80 HTTP/1.1\r\n\r\n",
			want: result{State: http1.Complete, Method: "CONNECT", Target: "127.0.0.1:80", Minor: 1}},
		{name: "CONNECT to IPv6", in: "CONNECT [::1]:80 HTTP/1.1\r\n\r\n",
			want: result{State: http1.Complete, Method: "CONNECT", Target: "[::1]:80", Minor: 1}},
		{name: "CONNECT with a path", in: "CONNECT /_goRPC_ HTTP/1.0\n\n",
			want: result{State: http1.Complete, Method: "CONNECT", Target: "/_goRPC_", Minor: 0}},
		{name: "CONNECT to asterisk", in: "CONNECT *.x:80 HTTP/1.1\n\n",
			want: result{State: http1.Complete, Method: "CONNECT", Target: "*.x:80", Minor: 1}},
		{name: "asterisk-form", in: "OPTIONS * HTTP/1.1\r\n\r\n",
			want: result{State: http1.Complete, Method: "OPTIONS", Target: "*", Minor: 1}},
		{name: "field name of every tchar", in: line + "!#$%&'*+-.^_`|~09azAZ: v\r\n\r\n",
			want: head(field{"!#$%&'*+-.^_`|~09azAZ", "v"})},
		{name: "no whitespace around the value", in: line + "A:b\r\n\r\n", want: head(field{"A", "b"})},
		{name: "whitespace around the value", in: line + "A: \t b \t c \t \r\n\r\n", want: head(field{"A", "b \t c"})},
		{name: "empty value", in: line + "A:\r\nB: \t\r\n\r\n", want: head(field{"A", ""}, field{"B", ""})},
		{name: "colons in the value", in: line + "Host: [::1]:80\r\n\r\n", want: head(field{"Host", "[::1]:80"})},
		{name: "obs-text in the value", in: line + "A: \x80\xff\r\n\r\n", want: head(field{"A", "\x80\xff"})},
		{name: "repeated field", in: line + "A: 1\r\na: 2\r\nA: 1\r\n\r\n",
			want: head(field{"A", "1"}, field{"a", "2"}, field{"A", "1"})},
		{name: "obs-fold", in: line + "A: b \r\n\t c\r\nD: e\r\n\r\n",
			want: head(field{"A", "b \r\n\t c"}, field{"D", "e"})},
		{name: "obs-fold with LF alone", in: line + "A: b\n c\n\n", want: head(field{"A", "b\n c"})},
		{name: "obs-fold with a colon", in: line + "A: b\r\n C: d\r\n\r\n", want: head(field{"A", "b\r\n C: d"})},
		{name: "obs-fold before the value", in: line + "A:\r\n b\r\n\r\n", want: head(field{"A", "b"})},
		{name: "obs-fold after the value", in: line + "A: b\r\n \t\r\n\r\n", want: head(field{"A", "b\r\n \t"})},
		{name: "obs-folds after the value", in: line + "A: b\n \n\t\nC:d \n\n", want: head(field{"A", "b\n \n\t"}, field{"C", "d"})},
		{name: "obs-fold with a blank line", in: line + "A: b\r\n \r\n c\r\n\r\n",
			want: head(field{"A", "b\r\n \r\n c"})},
		{name: "obs-fold and no value", in: line + "A: \r\n \r\n\r\n", want: head(field{"A", ""})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.want.HeadLen = len(tt.in)
			data := []byte(tt.in + tt.rest)
			if d := diff(tt.want, parse(data)); d != "" {
				t.Errorf("%q (-want +got):\n%s", data, d)
			}
			for n := range tt.in {
				if got := parse(data[:n]).State; got != http1.Incomplete {
					t.Errorf("%q: state %d, want Incomplete", data[:n], got)
				}
			}
			checkIncremental(t, data, byteByByte)
			checkOracle(t, data)
		})
	}
}

// TestEmptyLine checks that one empty line in front of a request is ignored, RFC 9112, Section 2.2, and no second one.
func TestEmptyLine(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"\r\r", "\r\n\r", "\r\n\n", "\n\n", "\n\r", "\r\n ", "\rG"} {
		if got := parse([]byte(in)); got.State != http1.Invalid || got.Err.Status != 0 {
			t.Errorf("%q: state %d, error %+v", in, got.State, got.Err)
		}
		if got := parse([]byte(in[:len(in)-1])); got.State != http1.Incomplete {
			t.Errorf("%q: state %d", in[:len(in)-1], got.State)
		}
	}
}

// TestInvalid has the shortest bytes that no request starts with, by each of the rules. That they are the shortest
// shows in the completion, which makes a request of them when it takes the place of the last byte.
func TestInvalid(t *testing.T) {
	t.Parallel()
	const (
		end    = "\r\n\r\n"
		line   = "GET / HTTP/1.1\r\n"
		method = "malformed method"
		target = "malformed request-target"
		none   = "request line without an HTTP version"
		vers   = "malformed HTTP version"
		major  = "HTTP version other than 1.x"
		after  = "request line goes on after the HTTP version"
		cr     = "CR not followed by LF"
		name   = "malformed field name"
		colon  = "whitespace between field name and colon"
		value  = "control character in a field value"
	)
	tests := []struct {
		in         string
		status     int
		reason     string
		completion string
	}{
		{" ", 0, method, line + "\r\n"},
		{"\x00", 0, method, line + "\r\n"},
		{"\x16", 0, method, line + "\r\n"},
		{"\x80", 0, method, line + "\r\n"},
		{"GET\r", 0, method, " / HTTP/1.1" + end},
		{"GET\n", 0, method, " / HTTP/1.1" + end},
		{"GET\t", 0, method, " / HTTP/1.1" + end},
		{"GET/", 0, method, " / HTTP/1.1" + end},
		{"SSH-2.0-Go\r", 0, method, " / HTTP/1.1" + end},
		{"*1\r", 0, method, " / HTTP/1.1" + end},
		{"PRI ", 0, "method PRI is reserved for the HTTP/2 connection preface", "X / HTTP/1.1" + end},

		{"GET  ", 400, target, "/ HTTP/1.1" + end},
		{"GET \r", 400, none, "/ HTTP/1.1" + end},
		{"GET \n", 400, none, "/ HTTP/1.1" + end},
		{"GET \x00", 400, target, "/ HTTP/1.1" + end},
		{"GET \x80", 400, target, "/ HTTP/1.1" + end},
		{"GET ?", 400, target, "/ HTTP/1.1" + end},
		{"GET 1", 400, target, "/ HTTP/1.1" + end},
		{"GET :", 400, target, "/ HTTP/1.1" + end},
		{"GET @", 400, target, "A: HTTP/1.1" + end},
		{"GET [", 400, target, "Z: HTTP/1.1" + end},
		{"GET `", 400, target, "a: HTTP/1.1" + end},
		{"GET {", 400, target, "z: HTTP/1.1" + end},
		{"GET *x", 400, target, " HTTP/1.1" + end},
		{"GET *\r", 400, none, " HTTP/1.1" + end},
		{"GET x ", 400, target, ":y HTTP/1.1" + end},
		{"GET x/", 400, target, ":y HTTP/1.1" + end},
		{"GET x\n", 400, none, ":y HTTP/1.1" + end},
		{"GET /\r", 400, none, " HTTP/1.1" + end},
		{"GET /\n", 400, none, " HTTP/1.1" + end},
		{"GET /\t", 400, target, " HTTP/1.1" + end},
		{"GET /\x7f", 400, target, " HTTP/1.1" + end},
		{"CONNECT  ", 400, target, "h:80 HTTP/1.1" + end},
		{"CONNECT \r", 400, none, "h:80 HTTP/1.1" + end},
		{"CONNECT \x01", 400, target, "h:80 HTTP/1.1" + end},

		{"GET /  ", 400, vers, "HTTP/1.1" + end},
		{"GET / \r", 400, vers, "HTTP/1.1" + end},
		{"GET / \n", 400, vers, "HTTP/1.1" + end},
		{"GET / x", 400, vers, "HTTP/1.1" + end},
		{"GET / h", 400, vers, "HTTP/1.1" + end},
		{"GET / HTTPS", 400, vers, "/1.1" + end},
		{"GET / HTTP/x", 400, vers, "1.1" + end},
		{"GET / HTTP/0", 505, major, "1.1" + end},
		{"GET / HTTP/2", 505, major, "1.1" + end},
		{"GET / HTTP/3", 505, major, "1.1" + end},
		{"PRIX * HTTP/2", 505, major, "1.1" + end},
		{"GET / HTTP/10", 400, vers, ".1" + end},
		{"GET / HTTP/1\r", 400, vers, ".1" + end},
		{"GET / HTTP/1,", 400, vers, ".1" + end},
		{"GET / HTTP/1.x", 400, vers, "1" + end},
		{"GET / HTTP/1./", 400, vers, "0" + end},
		{"GET / HTTP/1.:", 400, vers, "9" + end},
		{"GET / HTTP/1.\n", 400, vers, "1" + end},
		{"GET / HTTP/1.10", 400, after, end},
		{"GET / HTTP/1.1 ", 400, after, end},
		{"GET / HTTP/1.1\t", 400, after, end},
		{"GET / HTTP/1.1\r\r", 400, cr, "\n\r\n"},
		{"GET / HTTP/1.1\rA", 400, cr, "\n\r\n"},

		{line + " ", 400, "whitespace before the first field line", "\r\n"},
		{line + "\t", 400, "whitespace before the first field line", "\r\n"},
		{line + "\r\r", 400, cr, "\n"},
		{line + "\rA", 400, cr, "\n"},
		{line + ":", 400, name, "\r\n"},
		{line + "\x00", 400, name, "\r\n"},
		{line + "\x80", 400, name, "\r\n"},
		{line + "A\r", 400, name, ":" + end},
		{line + "A\n", 400, name, ":" + end},
		{line + "A/", 400, name, ":" + end},
		{line + "A\x00", 400, name, ":" + end},
		{line + "A ", 400, colon, ":" + end},
		{line + "A\t", 400, colon, ":" + end},
		{line + "A: b\r\nC ", 400, colon, ":" + end},
		{line + "A: b\r\n:", 400, name, "\r\n"},
		{line + "A: b\r\n\r\r", 400, cr, "\n"},
		{line + "A:\x00", 400, value, end},
		{line + "A: b\x00", 400, value, end},
		{line + "A: b\x1f", 400, value, end},
		{line + "A: b\x7f", 400, value, end},
		{line + "A: b\rc", 400, cr, "\n\r\n"},
		{line + "A: b\r\r", 400, cr, "\n\r\n"},
		{line + "A: b\r\n c\x00", 400, value, end},
		{line + "A: b\r\n \rc", 400, cr, "\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%q", tt.in), func(t *testing.T) {
			t.Parallel()
			data := []byte(tt.in)
			before := data[:len(data)-1]
			for n := range data {
				if got := parse(data[:n]).State; got != http1.Incomplete {
					t.Fatalf("%q: state %d, want Incomplete", data[:n], got)
				}
			}
			got := parse(data)
			if want := (&http1.Error{Status: tt.status, Reason: tt.reason}); got.State != http1.Invalid || !cmp.Equal(want, got.Err) {
				t.Errorf("state %d, error %+v, want Invalid with %+v", got.State, got.Err, want)
			}
			if got.Err != nil && got.Err.Error() != "http1: "+tt.reason {
				t.Errorf("error text %q", got.Err.Error())
			}
			completed := []byte(string(before) + tt.completion)
			if got := parse(completed); got.State != http1.Complete {
				t.Errorf("%q: state %d with error %+v, want Complete", completed, got.State, got.Err)
			}
			if _, err := readRequest(completed); err != nil {
				t.Errorf("%q: net/http: %v", completed, err)
			}
			for _, rest := range []string{"", "x", tt.completion, " ", "\n", " HTTP/1.1\r\n\r\n"} {
				checkIncremental(t, []byte(tt.in+rest), byteByByte)
				checkOracle(t, []byte(tt.in+rest))
			}
		})
	}
}

// TestParseKnows shows at which byte each part of the head becomes known.
func TestParseKnows(t *testing.T) {
	t.Parallel()
	const in = "GET /a HTTP/1.1\r\nA: b\r\n c\r\nD: e\r\n\r\n"
	after := func(part string) int { return strings.Index(in, part) + len(part) }
	want := []struct {
		n    int
		what string
	}{
		{after("GET "), "method"},
		{after("/a "), "target"},
		{after("HTTP/1.1\r\n"), "version"},
		{after(" c\r\nD"), "field"},
		{after("D: e\r\n\r"), "field"},
		{len(in), "head"},
	}
	var p http1.Parser
	var prev result
	i := 0
	for n := range len(in) + 1 {
		data := []byte(in[:n])
		got := resultOf(&p, p.Parse(data), data)
		wantNow := prev
		if n == 0 {
			wantNow.Minor = -1
		}
		if i < len(want) && want[i].n == n {
			switch want[i].what {
			case "method":
				wantNow.Method = "GET"
			case "target":
				wantNow.Target = "/a"
			case "version":
				wantNow.Minor = 1
			case "field":
				all := []field{{"A", "b\r\n c"}, {"D", "e"}}
				wantNow.Fields = all[:len(prev.Fields)+1]
			case "head":
				wantNow.State, wantNow.HeadLen = http1.Complete, len(in)
			}
			i++
		}
		if d := diff(wantNow, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", data, d)
		}
		prev = got
	}
}

func TestInvalidKeepsWhatIsKnown(t *testing.T) {
	t.Parallel()
	got := parse([]byte("GET / HTTP/1.1\r\nA: b\r\nC: d\r\n\x00"))
	want := result{
		State: http1.Invalid, Method: "GET", Target: "/", Minor: 1,
		Fields: []field{{"A", "b"}, {"C", "d"}},
		Err:    &http1.Error{Status: 400, Reason: "malformed field name"},
	}
	if d := diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestParseCaptures(t *testing.T) {
	t.Parallel()
	for _, c := range captures(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkIncremental(t, c.data, byteByByte)
			checkOracle(t, c.data)
			if !c.http1 {
				invalidAt := 1
				if bytes.HasPrefix(c.data, []byte("PRI * HTTP/2.0\r\n")) {
					invalidAt = len("PRI ")
				}
				for n := range len(c.data) + 1 {
					got := parse(c.data[:n])
					if want := n >= invalidAt; (got.State == http1.Invalid) != want || got.State == http1.Complete {
						t.Fatalf("first %d bytes: state %d", n, got.State)
					}
					if got.Err != nil && got.Err.Status != 0 {
						t.Fatalf("status %d, want 0", got.Err.Status)
					}
				}
				return
			}
			headLen := bytes.Index(c.data, []byte("\r\n\r\n")) + len("\r\n\r\n")
			for n := range len(c.data) + 1 {
				want := http1.Incomplete
				if n >= headLen {
					want = http1.Complete
				}
				if got := parse(c.data[:n]); got.State != want {
					t.Fatalf("first %d bytes: state %d with error %+v, want %d", n, got.State, got.Err, want)
				}
			}
			if got := parse(c.data).HeadLen; got != headLen {
				t.Errorf("head of %d bytes, want %d", got, headLen)
			}
		})
	}
}

// TestParseLooksOnce overwrites the bytes of each call before the next one, in which they would be found if they were
// looked at again. Only the method is left, of which two values have a meaning.
func TestParseLooksOnce(t *testing.T) {
	t.Parallel()
	const in = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\nA: b \r\n \r\n \t c\r\n\r\n"
	var p http1.Parser
	buf := []byte(in)
	for n := range len(buf) + 1 {
		p.Parse(buf[:n])
		for i := len("CONNECT "); i < n; i++ {
			buf[i] = 0
		}
	}
	data := []byte(in)
	if d := diff(parse(data), resultOf(&p, p.Parse(data), data)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	heads := []string{
		"GET / HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n",
		"POST http://x/ HTTP/1.0\r\nE:\r\n\r\n",
		"GET / HTTP/1.1\r\nA: b\r\n\x00",
		"GET / HTTP/2.0\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"",
		"GET / HTTP/1.1\r\nA: b\r\nC",
		"GE",
		"GET / HTTP/1.1\r\n\r\n",
	}
	var p http1.Parser
	for _, head := range heads {
		p.Reset()
		data := []byte(head)
		if d := diff(parse(data), resultOf(&p, p.Parse(data), data)); d != "" {
			t.Errorf("%q: new (-) and reset (+) parser differ:\n%s", head, d)
		}
	}
}

func TestResetMemory(t *testing.T) {
	t.Parallel()
	tests := []struct {
		fields int
		keep   bool
	}{
		{1, true},
		{100, true},
		{10_000, false},
	}
	for _, tt := range tests {
		var p http1.Parser
		p.Parse([]byte("GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", tt.fields) + "\r\n"))
		if got := len(p.Fields()); got != tt.fields {
			t.Fatalf("%d fields, want %d", got, tt.fields)
		}
		p.Reset()
		if got := cap(p.Fields()); (got > 0) != tt.keep {
			t.Errorf("after %d fields, memory for %d was kept", tt.fields, got)
		}
	}
}

func TestParseAllocs(t *testing.T) {
	var p http1.Parser
	for _, c := range captures(t) {
		p.Reset()
		p.Parse(c.data)
		allocs := testing.AllocsPerRun(10, func() {
			p.Reset()
			for n := range len(c.data) + 1 {
				p.Parse(c.data[:n])
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", c.name, allocs)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, c := range captures(b) {
		b.Run(strings.TrimSuffix(c.name, ".bin"), func(b *testing.B) {
			var p http1.Parser
			p.Parse(c.data)
			if n := p.HeadLen(); n > 0 {
				b.SetBytes(int64(n))
			}
			b.ReportAllocs()
			for b.Loop() {
				p.Reset()
				p.Parse(c.data)
			}
		})
	}
}
