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
		begun := rnd.IntN(2) == 0 // nothing has come before
		var want []hpack.HeaderField
		quiet := rnd.IntN(30)     // so many blocks are followed before the first is decoded
		names := 1 + rnd.IntN(10) // with many, the table outgrows what is kept
		all := hpack.NewDecoder(4096, func(f hpack.HeaderField) { want = append(want, f) })
		for i := range 50 {
			if rnd.IntN(20) == 0 {
				enc.SetMaxDynamicTableSize(0) // which empties it
				enc.SetMaxDynamicTableSize(4096)
			}
			block.Reset()
			for range rnd.IntN(4) {
				f := hpack.HeaderField{Name: fmt.Sprint("n", rnd.IntN(names)), Value: fmt.Sprint("v", rnd.IntN(2))}
				f.Sensitive = rnd.IntN(10) == 0
				enc.WriteField(f)
			}
			want = want[:0]
			if _, err := all.Write(block.Bytes()); err != nil {
				t.Fatal(err)
			}
			all.Close()
			if !begun {
				begun = true
				var dec *hpack.Decoder
				if !KeepsBlock(block.Bytes()) || rnd.IntN(2) == 0 {
					dec = hpack.NewDecoder(4096, nil)
					dec.SetEmitEnabled(false)
					dec.Write(block.Bytes())
					dec.Close()
				}
				got.goOn(block.Bytes(), dec, 1<<16)
				continue
			}
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
			if got.dec != nil && got.kept != nil {
				t.Fatalf("seed %d, block %d: %d bytes are kept beside the decoder", seed, i, len(got.kept))
			}
			if rnd.IntN(2) == 0 {
				got.shrink()
			}
		}
	}
}

// A decoder that nobody needs is not made. What is kept for it is judged when it is needed.
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
		if size > 2*maxKeptBlocks {
			t.Fatalf("%d bytes are kept", len(d.kept))
		}
		if err := d.follow(block.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if d.kept != nil {
		t.Errorf("%d bytes are kept beside the decoder", len(d.kept))
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
		t.Error("a block that was kept is wrong, and nobody says so")
	}
}

// TestBlockDecoderLends has a client make its first calls of gRPC. For each block that is not like an earlier one, a
// decoder is lent, up to maxLent times.
func TestBlockDecoderLends(t *testing.T) {
	t.Parallel()
	fields := func(path, timeout string) []hpack.HeaderField {
		return []hpack.HeaderField{
			{Name: ":method", Value: "POST"}, {Name: ":path", Value: path}, {Name: "content-type", Value: "application/grpc"},
			{Name: "grpc-timeout", Value: timeout},
		}
	}
	var client blockEncoder
	client.init(4096, true)
	var d blockDecoder
	d.goOn(client.encode(fields("/s/0", "1S")), nil, 1<<16)
	decode := func(want []hpack.HeaderField, lends bool) {
		t.Helper()
		before := d.lent
		l, err := d.decode(client.encode(want))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(l.fields, want) {
			t.Fatalf("got %v, want %v", l.fields, want)
		}
		if (d.lent > before) != lends {
			t.Errorf("%d decoders lent, and before %d", d.lent, before)
		}
	}
	decode(fields("/s/0", "1S"), true)
	decode(fields("/s/0", "1S"), false) // it is remembered
	decode(fields("/s/0", "2S"), true)  // and kept
	decode(fields("/s/0", "2S"), true)
	decode(fields("/s/0", "1S"), true)
	if d.dec != nil || d.lent != maxLent {
		t.Errorf("decoder %v after %d were lent", d.dec, d.lent)
	}
	decode(fields("/s/1", "1S"), true) // this one stays
	decode(fields("/s/2", "3S"), false)
	if d.dec == nil || d.kept != nil {
		t.Errorf("decoder %v, %d bytes are kept", d.dec, len(d.kept))
	}
}
