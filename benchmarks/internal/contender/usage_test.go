package contender

import "testing"

// TestSettledAllocs has the question around each slice allocate next to nothing, since that counts as the server's. It
// is not parallel, since all that is allocated meanwhile is counted.
func TestSettledAllocs(t *testing.T) {
	if n := testing.AllocsPerRun(5, func() { measure(Settled) }); n > 10 {
		t.Errorf("%v allocations", n)
	}
}
