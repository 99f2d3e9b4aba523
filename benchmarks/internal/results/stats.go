package results

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// confidence is that of all intervals.
const confidence = 0.95

// Estimate is a median with its confidence interval, which rests on no assumption of how the values are distributed.
type Estimate struct {
	Median, Low, High float64
	N                 int // rounds
}

// estimate estimates the median of what the values are samples of.
func estimate(values []float64) Estimate {
	s := benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), confidence)
	return Estimate{Median: s.Center, Low: s.Lo, High: s.Hi, N: len(values)}
}

// Bounded reports whether there were enough rounds for an interval.
func (e Estimate) Bounded() bool { return !math.IsInf(e.Low, 0) && !math.IsInf(e.High, 0) }

// Wide reports whether the interval is too wide to say much, or unbounded.
func (e Estimate) Wide() bool { return e.width() > Uncertain }

// width is the width of the interval in relation to the median.
func (e Estimate) width() float64 {
	if !e.Bounded() {
		return math.Inf(1)
	}
	return (e.High - e.Low) / math.Abs(e.Median)
}

// Overlaps reports whether the intervals have a value in common.
func (e Estimate) Overlaps(f Estimate) bool { return e.Low <= f.High && f.Low <= e.High }

// key is a place in a table.
type key struct{ scenario, contender, metric string }

// Summary is what the samples of a run say.
type Summary struct {
	absolute, ratio map[key]Estimate
}

// Summarize estimates every metric, and its ratio to the baseline's. What a contender had before it failed counts for
// nothing. Results that are kept have the estimates in place of the samples.
func (r *Results) Summarize() *Summary {
	sum := &Summary{absolute: make(map[key]Estimate), ratio: make(map[key]Estimate)}
	for _, k := range r.Kept {
		at := key{k.Scenario, k.Contender, k.Metric}
		sum.absolute[at] = k.Value.estimate()
		if k.Ratio != nil {
			sum.ratio[at] = k.Ratio.estimate()
		}
	}
	byRound := make(map[key]map[int][]slice)
	for _, s := range r.Samples {
		if r.failed(s.Scenario, s.Contender) {
			continue
		}
		for metric, v := range s.Values {
			k := key{s.Scenario, s.Contender, metric}
			if byRound[k] == nil {
				byRound[k] = make(map[int][]slice)
			}
			byRound[k][s.Round] = append(byRound[k][s.Round], slice{s.At, v, s.Others})
		}
	}
	baselines := make(map[string]string)
	for _, s := range r.Scenarios {
		baselines[s.Name] = s.Baseline
	}
	groups := make(map[key]map[string][][]slice) // of a scenario and metric, by contender
	for k, rounds := range byRound {
		at := key{k.scenario, "", k.metric}
		if groups[at] == nil {
			groups[at] = make(map[string][][]slice)
		}
		groups[at][k.contender] = slices.Collect(maps.Values(rounds))
	}
	common := make(map[key]map[string]float64)
	for at, g := range groups {
		common[at] = adjust(g, baselines[at.scenario])
	}
	for k, rounds := range byRound {
		base := byRound[key{k.scenario, baselines[k.scenario], k.metric}]
		var values, ratios []float64
		for _, g := range slices.Sorted(maps.Keys(rounds)) {
			values = append(values, typical(rounds[g]))
			if d, ok := logRatio(rounds[g], base[g]); ok {
				ratios = append(ratios, d)
			}
		}
		// Rounded as they are kept, so that a report made of what was kept is the same.
		sum.absolute[k] = intervalOf(estimate(values)).estimate()
		if len(ratios) > 0 && FindMetric(k.metric).Ratio {
			sum.ratio[k] = intervalOf(ratioOf(ratios, common[key{k.scenario, "", k.metric}][k.contender])).estimate()
		}
	}
	return sum
}

// keep is what is kept of a run.
func (s *Summary) keep() []Kept {
	var all []Kept
	for k, e := range s.absolute {
		kept := Kept{Scenario: k.scenario, Contender: k.contender, Metric: k.metric, Value: intervalOf(e)}
		if ratio, ok := s.ratio[k]; ok {
			i := intervalOf(ratio)
			kept.Ratio = &i
		}
		all = append(all, kept)
	}
	slices.SortFunc(all, func(a, b Kept) int {
		return cmp.Or(cmp.Compare(a.Scenario, b.Scenario), cmp.Compare(a.Contender, b.Contender), cmp.Compare(a.Metric, b.Metric))
	})
	return all
}

// Absolute returns the estimate of a metric itself.
func (s *Summary) Absolute(scenario, contender, metric string) (Estimate, bool) {
	e, ok := s.absolute[key{scenario, contender, metric}]
	return e, ok
}

// Ratio returns the estimate of a metric in relation to the baseline's.
func (s *Summary) Ratio(scenario, contender, metric string) (Estimate, bool) {
	e, ok := s.ratio[key{scenario, contender, metric}]
	return e, ok
}

// Quantiles are the points of a distribution of n values: the least, then ten for every further nine, as far as n
// values reach, and the most.
func Quantiles(n int64) []float64 {
	quantiles := []float64{0}
	for i := 0; ; i++ {
		beyond := math.Pow(10, -float64(i)/10)
		if beyond*float64(n) < 1 {
			return append(quantiles, 1)
		}
		if i > 0 {
			quantiles = append(quantiles, 1-beyond)
		}
	}
}
