package dispatch

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// TestRecode plays random scripts on shared connections: what one side has encoded is decoded, and encoded for another
// one, which has to decode the same. Tables are evicted from, resized and emptied on both sides, and some blocks are for
// a third side, which has a table of its own.
func TestRecode(t *testing.T) {
	t.Parallel()
	recalled, mostBlocks, mostFields := 0, 0, 0
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var from blockEncoder
		from.init(h2.DefaultTableSize, true)
		var dec blockDecoder
		dec.init(1 << 16)
		var to [2]blockEncoder
		var far [2]*hpack.Decoder
		for i := range to {
			to[i].init(h2.DefaultTableSize, true)
			far[i] = hpack.NewDecoder(h2.DefaultTableSize, nil)
		}
		size := uint32(100 + rnd.IntN(1000))
		kinds, step := 1+rnd.IntN(12), 1+4*rnd.IntN(2)
		changes := 1 + rnd.IntN(40)
		for i := range 200 {
			if rnd.IntN(changes) == 0 {
				side := &to[rnd.IntN(2)]
				if rnd.IntN(3) == 0 {
					side = &from
				}
				switch rnd.IntN(3) {
				case 0:
					side.clear()
				case 1:
					side.limit(0)
				case 2:
					side.limit(size) // always the same: package hpack takes two updates in a block if the first empties the table
				}
			}
			kind := rnd.IntN(kinds)
			want := []hpack.HeaderField{}
			for j := range kind % 7 * step {
				f := hpack.HeaderField{Name: fmt.Sprint("n", j%8), Value: fmt.Sprint(kind)}
				f.Sensitive = j == 3 && kind%4 == 3
				want = append(want, f)
			}
			if rnd.IntN(changes) == 0 {
				want = append(want, hpack.HeaderField{Name: "new", Value: fmt.Sprint(i)})
			}
			l, cerr := dec.decode(from.encode(want))
			if cerr != nil {
				t.Fatalf("seed %d, block %d: %v", seed, i, cerr)
			}
			if !slices.Equal(l.fields, want) || l.size != listSize(want) || l.large {
				t.Fatalf("seed %d, block %d: got %v, want %v", seed, i, l.fields, want)
			}
			side := rnd.IntN(2)
			if l.state == to[side].state {
				recalled++
			}
			got, err := far[side].DecodeFull(to[side].recode(l))
			if err != nil {
				t.Fatalf("seed %d, block %d: %v", seed, i, err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d, block %d: side %d decodes %v, want %v", seed, i, side, got, want)
			}
			if rnd.IntN(4) > 0 {
				dec.shrink()
			}
			length, fields := 0, 0
			for _, l := range dec.known {
				length += len(l.block)
				fields += len(l.fields)
			}
			mostBlocks, mostFields = max(mostBlocks, len(dec.known)), max(mostFields, fields)
			if len(dec.known) > maxKnown || length > maxKnownFields || fields > maxKnownFields {
				t.Fatalf("seed %d, block %d: %d blocks of %d bytes with %d fields are remembered", seed, i, len(dec.known), length, fields)
			}
		}
	}
	if recalled == 0 || mostBlocks < maxKnown || mostFields < maxKnownFields-10 {
		t.Errorf("at most %d blocks with %d fields are remembered, and were so %d times", mostBlocks, mostFields, recalled)
	}
}

// TestKnownRepeats has the requests of several kinds come by turns. When their fields are in the tables, none takes
// decoding, or encoding, or memory.
func TestKnownRepeats(t *testing.T) {
	var from, to blockEncoder
	from.init(h2.DefaultTableSize, true)
	to.init(h2.DefaultTableSize, true)
	var d blockDecoder
	d.init(1 << 16)
	paths := []string{"/a.Service/Get", "/a.Service/List", "/index"}
	var blocks [][]byte
	for i := range 3 {
		for _, path := range paths {
			block := bytes.Clone(from.encode([]hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":path", Value: path}}))
			blocks = append(blocks, block)
			if l, err := d.decode(block); err != nil || len(l.fields) != 2 || l.fields[1].Value != path {
				t.Fatalf("%d: %v, %v", i, l, err)
			} else {
				to.recode(l)
			}
			d.shrink()
		}
	}
	blocks = blocks[len(blocks)-len(paths):]
	all := func(f func(*headerList)) {
		for _, block := range blocks {
			l, _ := d.decode(block)
			f(l)
			d.shrink()
		}
	}
	if n := testing.AllocsPerRun(100, func() { all(func(l *headerList) { to.recode(l) }) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	all(func(l *headerList) {
		if len(l.block) == 0 || l.state != to.state {
			t.Errorf("%v is not remembered", l.fields)
		}
	})
}

// TestKnownForget remembers and forgets by turns, which takes no memory, and leaves nothing of what was forgotten.
func TestKnownForget(t *testing.T) {
	said := &headerList{fields: []hpack.HeaderField{{Name: ":path", Value: "/a"}, {Name: "a", Value: "b"}}}
	var known knownLists
	if n := testing.AllocsPerRun(100, func() {
		known.add([]byte{0x84, 0xbe}, said)
		known.forget()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	for range maxKnown {
		known.add([]byte{0x84, 0xbe}, said)
	}
	all := known
	known.forget()
	if len(known) > 0 {
		t.Errorf("%d lists are remembered", len(known))
	}
	for i, l := range all {
		if i == 0 && !slices.Equal(l.fields, make([]hpack.HeaderField, 2)) || i > 0 && l != nil {
			t.Errorf("list %d is left: %v", i, l)
		}
	}
}
