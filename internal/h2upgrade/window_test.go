package h2upgrade

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

// TestWindowFilter cuts what a server writes into two, at every place, and into single bytes.
func TestWindowFilter(t *testing.T) {
	t.Parallel()
	frames := func(increments ...int) []byte { // a negative one is for stream 1
		var b bytes.Buffer
		fr := http2.NewFramer(&b, nil)
		fr.WriteSettings()
		for i, n := range increments {
			var err error
			if n < 0 {
				err = fr.WriteWindowUpdate(1, uint32(-n))
			} else if n > 0 {
				err = fr.WriteWindowUpdate(0, uint32(n))
			}
			if err != nil {
				t.Fatal(err)
			}
			fr.WriteData(1, false, bytes.Repeat([]byte{8}, i)) // bytes that look like the type of WINDOW_UPDATE
		}
		return b.Bytes()
	}
	tests := []struct {
		name       string
		owed       int
		sent, want []byte
		left       int
	}{
		{"nothing owed", 0, frames(5, 6), frames(5, 6), 0},
		{"all in one", 10, frames(5<<20, 6), frames(5<<20-10, 6), 0},
		{"exactly one", 10, frames(10, 6), frames(0, 6), 0},
		{"in three", 10, frames(3, -7, 4, 9, 5), frames(0, -7, 0, 6, 5), 0},
		{"not all yet", 10, frames(3, -20, 4), frames(0, -20, 0), 3},
		{"none", 10, frames(), frames(), 10},
		{"reserved bits", 10, []byte("\x00\x00\x04\x08\x00\x80\x00\x00\x00\x80\x00\x00\x0b"),
			[]byte("\x00\x00\x04\x08\x00\x80\x00\x00\x00\x00\x00\x00\x01"), 0},
		{"of a wrong length", 10, []byte("\x00\x00\x05\x08\x00\x00\x00\x00\x00\x00\x00\x00\x0b\x01"),
			[]byte("\x00\x00\x05\x08\x00\x00\x00\x00\x00\x00\x00\x00\x0b\x01"), 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lines := "Content-Length: " + strconv.Itoa(tt.owed)
			r := mustCheck(t, []byte(upgrade(lines)))
			for cut := range len(tt.sent) + 2 {
				f := r.WindowFilter()
				var got []byte
				write := func(p []byte) {
					b := append(bytes.Clone(f.Held()), p...)
					got = append(got, b[:f.Filter(b)]...)
				}
				if cut <= len(tt.sent) {
					write(tt.sent[:cut])
					write(tt.sent[cut:])
				} else {
					for i := range tt.sent {
						write(tt.sent[i : i+1])
					}
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Fatalf("cut at %d: %s", cut, diff)
				}
				if f.owed != tt.left || f.Done() != (tt.left == 0) || len(f.Held()) > 0 {
					t.Fatalf("cut at %d: %d owed, done %v, %d held", cut, f.owed, f.Done(), len(f.Held()))
				}
			}
		})
	}
}
