package dispatch

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// A decoder that skips what it has decoded before, or what changes no table, finds what one finds that skips nothing.
func TestBlockDecoder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		var got blockDecoder
		got.init(1 << 16)
		var want []hpack.HeaderField
		quiet := rnd.IntN(30) // so many blocks are followed before the first is decoded
		all := hpack.NewDecoder(4096, func(f hpack.HeaderField) { want = append(want, f) })
		for i := range 50 {
			if rnd.IntN(20) == 0 {
				enc.SetMaxDynamicTableSize(0) // which empties it
				enc.SetMaxDynamicTableSize(4096)
			}
			block.Reset()
			for range rnd.IntN(4) {
				f := hpack.HeaderField{Name: fmt.Sprint("n", rnd.IntN(3)), Value: fmt.Sprint("v", rnd.IntN(2))}
				f.Sensitive = rnd.IntN(10) == 0
				enc.WriteField(f)
			}
			want = want[:0]
			if _, err := all.Write(block.Bytes()); err != nil {
				t.Fatal(err)
			}
			all.Close()
			if i < quiet || rnd.IntN(3) == 0 {
				if err := got.follow(block.Bytes()); err != nil {
					t.Fatal(err)
				}
				continue
			}
			l, err := got.decode(block.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(l.fields, want) || l.size != listSize(want) {
				t.Fatalf("seed %d, block %d: got %v of size %d, want %v", seed, i, l.fields, l.size, want)
			}
			if rnd.IntN(2) == 0 {
				got.shrink()
			}
		}
	}
}

// A decoder that nobody needs is not made. What it has missed is judged when it is needed.
func TestBlockDecoderLate(t *testing.T) {
	t.Parallel()
	var block bytes.Buffer
	hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
	var d blockDecoder
	d.init(1 << 16)
	if err := d.follow(block.Bytes()); err != nil || d.dec != nil {
		t.Fatalf("%v, decoder %v", err, d.dec)
	}
	for size := block.Len(); d.dec == nil; size += block.Len() {
		if size > 2*maxMissed {
			t.Fatalf("%d bytes are kept", len(d.missed))
		}
		if err := d.follow(block.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if d.missed != nil {
		t.Errorf("%d bytes are kept beside the decoder", len(d.missed))
	}

	const noSuchField = 0xfe
	d = blockDecoder{}
	d.init(1 << 16)
	for _, b := range [][]byte{{0x20, noSuchField}, block.Bytes()} {
		if err := d.follow(b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.decode([]byte{0x82}); err == nil {
		t.Error("a block that was missed is wrong, and nobody says so")
	}
}
