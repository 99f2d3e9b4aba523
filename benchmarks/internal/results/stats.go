package results

import (
	"math"

	"golang.org/x/perf/benchmath"
)

// confidence is that of all intervals.
const confidence = 0.95

// wide is the width of an interval, in relation to its median, from which on a ratio is said to be uncertain.
const wide = 0.10

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
func (e Estimate) Wide() bool { return !e.Bounded() || e.High-e.Low > wide*math.Abs(e.Median) }

// Overlaps reports whether the intervals have a value in common.
func (e Estimate) Overlaps(f Estimate) bool { return e.Low <= f.High && f.Low <= e.High }

// key is a place in a table.
type key struct{ scenario, contender, metric string }

// Summary is what the samples of a run say.
type Summary struct {
	absolute, ratio map[key]Estimate
}

// Summarize estimates every metric, and its ratio to the baseline, which is taken in each round for itself: what slows
// down a whole round slows down both. What a contender had before it failed counts for nothing.
func (r *Results) Summarize() *Summary {
	byRound := make(map[key]map[int]float64)
	for _, s := range r.Samples {
		if r.failed(s.Scenario, s.Contender) {
			continue
		}
		for metric, v := range s.Values {
			k := key{s.Scenario, s.Contender, metric}
			if byRound[k] == nil {
				byRound[k] = make(map[int]float64)
			}
			byRound[k][s.Round] = v
		}
	}
	baselines := make(map[string]string)
	for _, s := range r.Scenarios {
		baselines[s.Name] = s.Baseline
	}
	sum := &Summary{absolute: make(map[key]Estimate), ratio: make(map[key]Estimate)}
	for k, rounds := range byRound {
		base := byRound[key{k.scenario, baselines[k.scenario], k.metric}]
		var values, ratios []float64
		for round, v := range rounds {
			values = append(values, v)
			if b := base[round]; b > 0 {
				ratios = append(ratios, v/b)
			}
		}
		sum.absolute[k] = estimate(values)
		if len(ratios) > 0 && FindMetric(k.metric).Ratio {
			sum.ratio[k] = estimate(ratios)
		}
	}
	return sum
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

// Quantiles are the points of a distribution of n values: the least, then ten for every further nine, as far as n values
// reach, and the most.
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
