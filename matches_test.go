package oneport

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestMatches(t *testing.T) {
	t.Parallel()
	grpc := string(capture(t, "grpc-go.1")) + string(capture(t, "grpc-go.2"))
	long := "GET / HTTP/1.1\r\nFirst: " + strings.Repeat("a", 2000) + "\r\nLast: 1\r\n\r\n"
	for _, tt := range []struct {
		matcher Matcher
		data    string
		want    bool
	}{
		{Any(), "", true},
		{HTTP1(), "GET / HTTP/1.1\r\n", true},
		{HTTP1(), "GET / HTTP", false},
		{HTTP1(), "", false},
		{Header("Last", "1"), long, true},
		{Header("Last", "2"), long, false},
		{Header("Last", "1"), strings.Replace(long, "aaa", strings.Repeat("a", DefaultMaxPreviewBytes), 1), false},
		{GRPC(), grpc, true},
		{All(GRPC(), ReadMatcher(func(r io.Reader) bool { _, err := io.ReadFull(r, make([]byte, 60)); return err == nil })), grpc, true},
		{MatcherFunc(func(p *Preview) Verdict {
			if p.RemoteAddr() != nil || p.LocalAddr() != nil {
				return No
			}
			return Yes
		}), "", true},
		{ReadWriteMatcher(func(w io.Writer, _ io.Reader) bool { _, err := io.WriteString(w, "x"); return err == nil }), "", false},
	} {
		for name, r := range map[string]io.Reader{
			"at once":      strings.NewReader(tt.data),
			"byte by byte": iotest.OneByteReader(strings.NewReader(tt.data)),
			"with the end": iotest.DataErrReader(strings.NewReader(tt.data)),
			"failing":      io.MultiReader(strings.NewReader(tt.data), iotest.ErrReader(errors.New("broken"))),
		} {
			if got := Matches(tt.matcher, r); got != tt.want {
				t.Errorf("%v, %d bytes, %s: %v, want %v", tt.matcher, len(tt.data), name, got, tt.want)
			}
		}
	}
}

// TestMatchesTakes checks that a decision takes no more than the read it came with.
func TestMatchesTakes(t *testing.T) {
	t.Parallel()
	rest := strings.NewReader("SSH-2.0-x\r\n")
	if !Matches(SSH(), iotest.OneByteReader(rest)) {
		t.Fatal("no match")
	}
	if got, _ := io.ReadAll(rest); string(got) != "2.0-x\r\n" {
		t.Errorf("left is %q", got)
	}
}
