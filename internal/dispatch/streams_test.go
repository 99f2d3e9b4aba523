package dispatch

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestPassedStreams opens streams, ends them in any order, and compares the table with a map.
func TestPassedStreams(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var table passedStreams
		open := make(map[uint32]*streamState)
		var ids []uint32 // of open
		most := 1 << rng.IntN(10)
		skips := rng.IntN(3) // numbers that the client leaves out
		next := uint32(1)
		for range 3000 {
			if len(ids) < most && rng.IntN(2) == 0 {
				next += 2 * uint32(rng.IntN(1+skips))
				table.add(next)
				open[next] = new(streamState)
				ids = append(ids, next)
				next += 2
			} else if len(ids) > 0 {
				i := min(rng.IntN(len(ids)), rng.IntN(len(ids))) // the older ones first
				id := ids[i]
				s, want := table.find(id), open[id]
				switch rng.IntN(5) {
				case 0, 1:
					want.clientEnded = true
					table.endClient(s)
				case 2, 3:
					want.serverEnded = true
					table.endServer(s)
				default:
					want.clientEnded, want.serverEnded = true, true
					table.reset(s)
				}
				if want.clientEnded && want.serverEnded {
					delete(open, id)
					ids = slices.Delete(ids, i, i+1)
				}
			}

			if table.open != len(open) || len(table.places) > 2*table.open {
				t.Fatalf("seed %d: %d streams in %d places, want %d", seed, table.open, len(table.places), len(open))
			}
			if table.open == 0 && cap(table.places) > keptPlaces {
				t.Fatalf("seed %d: memory for %d streams is kept", seed, cap(table.places))
			}
			sending := false
			for range 10 {
				id := uint32(rng.IntN(int(next) + 3))
				if s, want := table.find(id), open[id]; (s != nil) != (want != nil) || s != nil && s.id != id {
					t.Fatalf("seed %d: found %v for stream %d, want %v", seed, s, id, want)
				}
			}
			for _, id := range ids {
				s, want := table.find(id), open[id]
				if s == nil || s.id != id || s.clientEnded != want.clientEnded || s.serverEnded != want.serverEnded {
					t.Fatalf("seed %d: found %+v for stream %d, want %+v", seed, s, id, want)
				}
				sending = sending || !want.clientEnded
			}
			if table.sending() != sending {
				t.Fatalf("seed %d: sending %t, want %t", seed, table.sending(), sending)
			}
		}
	}
}
