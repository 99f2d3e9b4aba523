package results

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAgainstCounts tells what differs by more than it varies, and compares nothing that is not in both.
func TestAgainstCounts(t *testing.T) {
	t.Parallel()
	kept := new(Counts)
	kept.Add("new", "oneport", []map[string]float64{
		{"allocs": 160, "bytes": 11_000, "voluntary": 4, "goroutines": 5, "syscall:write": 3, "syscall:futex": 0.1, "syscall:accept4": 2},
	})
	kept.Add("old", "oneport", []map[string]float64{{"allocs": 1}})
	now := new(Counts)
	now.Add("new", "oneport", []map[string]float64{
		{"allocs": 100, "bytes": 11_100, "voluntary": 9, "goroutines": 6, "syscall:write": 3.05, "syscall:futex": 5, "syscall:brk": 1},
		{"allocs": 170, "bytes": 11_100, "voluntary": 9, "goroutines": 6, "syscall:write": 4, "syscall:futex": 5, "syscall:brk": 1},
		{"allocs": 171, "bytes": 11_100, "voluntary": 9, "goroutines": 6, "syscall:write": 4, "syscall:futex": 5, "syscall:brk": 1},
	})
	lines, all := now.Against(kept)
	want := []string{
		"new, oneport: allocs 170, and kept is 160 (±3.70)",
		"new, oneport: syscall:write 4.00, and kept is 3.00 (±0.16)",
	}
	if diff := cmp.Diff(want, lines); diff != "" || all != 4 {
		t.Errorf("of %d: %s", all, diff)
	}
	var out bytes.Buffer
	now.Print(&out)
	if got := out.String(); !strings.Contains(got, "futex 5, write 4, brk 1") {
		t.Error(got)
	}
}

func TestAgainst(t *testing.T) {
	t.Parallel()
	a, b := fixed(), fixed()
	var out bytes.Buffer
	if err := Against(a, b, &out); err != nil {
		t.Error(err)
	}
	for i, s := range b.Samples {
		for metric := range s.Values {
			if s.Contender == "oneport" {
				b.Samples[i].Values[metric] *= 1.5
			}
		}
	}
	if err := Against(a, b, &out); err == nil {
		t.Error("half as much again, and no error")
	}
}
