package main

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestIntegrity(t *testing.T) {
	c := config{seed: rand.Uint64(), n: 400, workers: 4}
	if _, err := run(c); err != nil {
		t.Errorf("seed %d: %v", c.seed, err)
	}
}

// TestCheck checks that what is wrong is found.
func TestCheck(t *testing.T) {
	e := exchange{seed: 1}
	content := e.message(upwards, 0, 100_000).all()
	changed := bytes.Clone(content)
	changed[70_000] ^= 1
	for _, tt := range []struct {
		name string
		got  []byte
		want string // in the error; "" for none
	}{
		{"whole", content, ""},
		{"a byte is wrong", changed, "byte 70000 is"},
		{"one is missing", content[:99_999], "1 are missing"},
		{"one is lost", append(content[:500:500], content[501:]...), "byte 500 is"},
		{"one is too much", append(content[:100_000:100_000], 0), "there are bytes behind the 100000"},
		{"of another message", e.message(downwards, 0, 100_000).all(), "byte 0 is"},
	} {
		err := e.message(upwards, 0, 100_000).check(bytes.NewReader(tt.got))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
