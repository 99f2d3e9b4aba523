package results

import (
	"cmp"
	"math"
	"slices"
)

// How a ratio and its interval are found.
//
// What disturbs a measurement on a shared machine comes in bursts, which last from milliseconds to seconds and take any
// part of the processors. A mean over all of that is a mean of the neighbours. So the contenders take turns, in slices
// that are shorter than most bursts, in random order, with a slice of the baseline ahead of every two of the others.
// Each slice is compared with those of the baseline next to it in time, and what slows down all of them for a while
// cancels out. What is left of a burst, which hits one slice and not the next, is mostly explained by what the system
// says of the slice: how much of the processors others had. adjust takes that out.
//
// A process has properties that it keeps: where its memory lies, how its maps are seeded, how its collector is paced.
// Two processes of the same program differ by a percent or so however long one measures them. Slices of the same
// processes are not independent, and an interval from them alone would be too narrow: it would find that a contender
// differs from itself. So the processes are started anew for every few slices, a round, and the interval is over
// rounds, each of which counts as one value: the Hodges-Lehmann estimate of the logarithms of its ratios.
//
// The interval is that of Wilcoxon's signed-rank test. It assumes that the values lie symmetrically around the truth,
// which the random order gives: exchange contender and baseline, and the error of the logarithm changes its sign. It
// assumes nothing of how the values are distributed, and a quarter of them may be wild without effect. A bootstrap of
// so few rounds promises more than it keeps, and the interval of the sign test, which needs no symmetry, is wider by a
// fifth. TestNoise shows that the intervals keep what they promise.

// slice is one value of a slice, in a round.
type slice struct {
	at     int // its place
	value  float64
	others float64 // the part of the processors that others had
}

// logRatio estimates the logarithm of the ratio between contender and baseline in one round. Both are in order of
// time.
func logRatio(contender, baseline []slice) (float64, bool) {
	var all []float64
	for _, x := range contender {
		if b, ok := neighbour(x.at, baseline); ok && x.value > 0 {
			all = append(all, math.Log(x.value)-b)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	return hodgesLehmann(all), true
}

// neighbour is the logarithm of what the baseline would have had at that place: on the line between the slices before
// and after it, or that of one of the two where the other is missing.
func neighbour(at int, baseline []slice) (logarithm float64, ok bool) {
	var before, after *slice
	for i := range baseline {
		b := &baseline[i]
		switch {
		case b.value <= 0:
		case b.at <= at:
			before = b
		case after == nil:
			after = b
		}
	}
	switch {
	case before == nil && after == nil:
		return 0, false
	case after == nil:
		return math.Log(before.value), true
	case before == nil:
		return math.Log(after.value), true
	}
	part := float64(at-before.at) / float64(after.at-before.at)
	return (1-part)*math.Log(before.value) + part*math.Log(after.value), true
}

// typical is the median of the values of a round.
func typical(s []slice) float64 {
	var all []float64
	for _, x := range s {
		all = append(all, x.value)
	}
	return median(all)
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// walsh are the means of all pairs of values, each with itself too, in order.
func walsh(values []float64) []float64 {
	means := make([]float64, 0, len(values)*(len(values)+1)/2)
	for i, a := range values {
		for _, b := range values[i:] {
			means = append(means, (a+b)/2)
		}
	}
	slices.SortFunc(means, cmp.Compare)
	return means
}

// hodgesLehmann is the median of the Walsh averages.
func hodgesLehmann(values []float64) float64 { return median(walsh(values)) }

// signedRank estimates what the values lie symmetrically around.
func signedRank(values []float64) Estimate {
	w := walsh(values)
	e := Estimate{Median: median(w), Low: math.Inf(-1), High: math.Inf(1), N: len(values)}
	if k := signedRankBound(len(values), confidence); k > 0 {
		e.Low, e.High = w[k-1], w[len(w)-k]
	}
	return e
}

// signedRankBound is how many of n(n+1)/2 ordered Walsh averages an interval leaves out at each end, and one: the k-th
// from either side are its ends. It is 0 if n values are too few for the confidence.
func signedRankBound(n int, confidence float64) int {
	// ways[s] is how many of the 2^n choices of signs have the rank sum s.
	ways := make([]float64, n*(n+1)/2+1)
	ways[0] = 1
	for rank := 1; rank <= n; rank++ {
		for s := len(ways) - 1; s >= rank; s-- {
			ways[s] += ways[s-rank]
		}
	}
	tail, total := 0.0, math.Pow(2, float64(n))
	for k, count := range ways {
		tail += count
		if 2*tail/total > 1-confidence {
			return k
		}
	}
	return 0
}

// ratioOf estimates a ratio from one logarithm for each round, which have an error of that variance in common.
func ratioOf(logarithms []float64, common float64) Estimate {
	e := signedRank(logarithms)
	if !math.IsInf(e.Low, 0) {
		beyond := quantile * math.Sqrt(common)
		e.Low = math.Exp(e.Median - math.Hypot(e.Median-e.Low, beyond))
		e.High = math.Exp(e.Median + math.Hypot(e.High-e.Median, beyond))
	}
	e.Median = math.Exp(e.Median)
	return e
}

// quantile is how many standard deviations around the mean of a normal distribution have the confidence.
const quantile = 1.96

// adjust takes out of the values of a scenario what others did to them: the logarithm of each is a straight line of the
// part of the processors that they had. Each line is fitted to the differences from the means of each group, the slices
// of a contender in a round.
//
// A contender that makes its client wait loses nothing when others hold up the client, so one that is several times
// slower than the baseline has another line. But a line that rests on few slices is uncertain, and a ratio between
// two of these is more so. Contenders therefore have one slope, that of the baseline and all of them, unless their own is
// clearly another one. The part does not depend on what is measured, and slices on one line are treated alike, so this
// makes no difference where there is none. Where others had nothing, it changes nothing.
//
// A slope that is fitted to parts that are not exact is too flat. How exact they are, the parts below zero tell, which
// cannot have been less than nothing.
//
// What adjust returns is the variance of the error that the slopes bring into all rounds of a contender's logarithmic
// ratio alike. With one slope for both sides there is none.
func adjust(groups map[string][][]slice, baseline string) (common map[string]float64) {
	lines := make(map[string]line)
	inexact := inexactness(groups)
	for contender, g := range groups {
		lines[contender] = fit(g, inexact)
	}
	base := lines[baseline]
	var shared line
	for _, l := range lines {
		if !l.differs(base) {
			shared.exact += l.exact
			shared.xy += l.xy
		}
	}
	common = make(map[string]float64)
	for contender, l := range lines {
		if l.differs(base) {
			common[contender] = l.error(groups[contender]) + base.error(groups[baseline])
		} else {
			l = shared
		}
		slope := l.slope()
		for _, g := range groups[contender] {
			for i := range g {
				g[i].value *= math.Exp(-slope * g[i].others)
			}
		}
	}
	return common
}

// line is a regression of logarithms of values on what others had: the sums of squares and products of the differences
// from the means, and how many are free to differ. Of xx, exact is not due to parts that are not exact.
type line struct{ xx, xy, yy, free, exact float64 }

// inexactness is the variance of the parts that others are said to have had around those that they had.
func inexactness(groups map[string][][]slice) float64 {
	var squares, n float64
	for _, rounds := range groups {
		for _, g := range rounds {
			for _, s := range g {
				if s.others < 0 {
					squares += s.others * s.others
					n++
				}
			}
		}
	}
	return squares / max(1, n)
}

// fit fits a line to parts with such a variance of their own.
func fit(groups [][]slice, inexact float64) line {
	var l line
	for _, g := range groups {
		var x, y, n float64
		for _, s := range g {
			if s.value > 0 {
				x, y, n = x+s.others, y+math.Log(s.value), n+1
			}
		}
		for _, s := range g {
			if s.value > 0 {
				dx, dy := s.others-x/n, math.Log(s.value)-y/n
				l.xx += dx * dx
				l.xy += dx * dy
				l.yy += dy * dy
			}
		}
		l.free += max(0, n-1)
	}
	l.exact = l.xx - inexact*l.free
	if l.exact < l.xx/2 {
		l.exact = l.xx // there is next to nothing to be seen
	}
	l.free-- // the slope
	return l
}

func (l line) slope() float64 {
	if l.exact == 0 {
		return 0
	}
	return l.xy / l.exact
}

// variance is that of the slope.
func (l line) variance() float64 {
	if l.xx == 0 || l.free <= 0 {
		return math.Inf(1)
	}
	return max(0, l.yy-l.xy*l.xy/l.xx) / l.free * l.xx / (l.exact * l.exact)
}

// error is the variance that the slope brings into the mean of the logarithms.
func (l line) error(groups [][]slice) float64 {
	var others, n float64
	for _, g := range groups {
		for _, s := range g {
			others += s.others
			n++
		}
	}
	return l.variance() * (others / n) * (others / n)
}

// differs reports whether the slopes are clearly not the same: by more than four standard errors, which happens by
// chance once in ten thousand times.
func (l line) differs(m line) bool {
	return math.Abs(l.slope()-m.slope()) > 4*math.Sqrt(l.variance()+m.variance())
}
