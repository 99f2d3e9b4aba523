package results

import (
	"fmt"
	"io"
	"math"
)

// selfCheckRisk is how often a check fails although the intervals keep what they promise.
const selfCheckRisk = 1e-3

// SelfCheck looks at a contender that is the baseline under another name. It takes the rounds of each scenario in
// groups of [FewestRounds], and the interval of each group, and fails if more of these have not 1 in them than their
// confidence allows. The metrics of a scenario depend on each other, so each is judged by itself.
func (r *Results) SelfCheck(baseline, again string, out io.Writer) error {
	metrics := []string{"cpu", "throughput", "p50"}
	failed := ""
	for _, metric := range metrics {
		all, differ := 0, 0
		for _, s := range r.Scenarios {
			for first := 0; ; first += FewestRounds {
				group := &Results{Scenarios: []Scenario{{Name: s.Name, Baseline: baseline}}}
				for _, sample := range r.Samples {
					if sample.Scenario == s.Name && sample.Round >= first && sample.Round < first+FewestRounds {
						group.Samples = append(group.Samples, sample)
					}
				}
				e, ok := group.Summarize().Ratio(s.Name, again, metric)
				if !ok || e.N < FewestRounds {
					break
				}
				all++
				if e.Low > 1 || e.High < 1 {
					differ++
				}
			}
		}
		allowed := allowedMisses(all, 1-confidence, selfCheckRisk/float64(len(metrics)))
		fmt.Fprintf(out, "%s: %d of %d intervals show a difference between %s and itself; %d are allowed\n",
			FindMetric(metric).Title, differ, all, baseline, allowed)
		if differ > allowed {
			failed = metric
		}
		if all == 0 {
			return fmt.Errorf("no scenario has had %d rounds", FewestRounds)
		}
	}
	if failed != "" {
		return fmt.Errorf("the harness finds differences where there are none: %s", FindMetric(failed).Title)
	}
	return nil
}

// allowedMisses is the number that of n intervals, each of which misses with probability p, miss at most, but for a
// risk.
func allowedMisses(n int, p, risk float64) int {
	probability := math.Pow(1-p, float64(n)) // of k misses
	for k, beyond := 0, 1.0; k < n; k++ {
		if beyond -= probability; beyond < risk {
			return k
		}
		probability *= float64(n-k) / float64(k+1) * p / (1 - p)
	}
	return n
}
