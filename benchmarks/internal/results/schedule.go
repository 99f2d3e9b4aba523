package results

import (
	"math"
	"math/rand/v2"
)

// What a scenario that is played in slices takes.
const (
	// Passes is how many slices each contender has in a round; the baseline has about half as many as all the others
	// together.
	Passes = 4

	// FewestRounds is how many there are in any case, MainRounds how many the scenarios have whose ratios matter most,
	// and MostRounds how many there are at most, however wide the intervals are.
	FewestRounds, MainRounds, MostRounds = 8, 28, 54
)

// Pass is the order of the slices of one pass over n contenders, as indices of contenders, of which 0 is the baseline.
// Each of the others has one slice, in random order, and one of the baseline is in front of every two. The first slice
// of the next pass is the baseline's, so each has the baseline as a neighbour. With k others that is close to the best
// use of the time too: the baseline is in all ratios, and should have the square root of k slices for each one of
// theirs.
func Pass(r *rand.Rand, n int) []int {
	var order []int
	for i, other := range r.Perm(n - 1) {
		if i%2 == 0 {
			order = append(order, 0)
		}
		order = append(order, 1+other)
	}
	if n == 1 {
		return []int{0}
	}
	return order
}

// How wide an interval may be in relation to its middle: Enough, before the measuring goes on, and Uncertain, before a
// ratio is said to be uncertain.
const Enough, Uncertain = 0.04, 0.06

// deciding returns the metrics whose intervals decide whether a scenario has been measured long enough. The median
// latency does where the throughput is given; elsewhere the two say nearly the same. Latencies further out take longer
// than a run.
func (s *Summary) deciding(scenario, contender string) []string {
	if _, ok := s.Ratio(scenario, contender, "throughput"); ok {
		return []string{"cpu", "throughput", "memory"}
	}
	return []string{"cpu", "p50", "memory"}
}

// Width is the width of the widest interval of the ratios of the deciding metrics of a scenario, in relation to its
// middle. Whether one is narrow says nothing of where it lies, so that stopping then does not make it miss more often.
func (r *Results) Width(scenario string, sum *Summary) float64 {
	widest := math.Inf(-1)
	for _, c := range r.Contenders {
		if r.isBaseline(scenario, c.Name) || r.failed(scenario, c.Name) {
			continue
		}
		for _, metric := range sum.deciding(scenario, c.Name) {
			if e, ok := sum.Ratio(scenario, c.Name, metric); ok {
				widest = max(widest, e.width())
			}
		}
	}
	if math.IsInf(widest, -1) {
		return math.Inf(1) // without a ratio
	}
	return widest
}
