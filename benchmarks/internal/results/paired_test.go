package results

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestSignedRankBound has the numbers of the tables of Wilcoxon's test, each plus one.
func TestSignedRankBound(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{1: 0, 5: 0, 6: 1, 8: 4, 10: 9, 12: 14, 16: 30, 20: 53} {
		if got := signedRankBound(n, 0.95); got != want {
			t.Errorf("%d values: %d, want %d", n, got, want)
		}
	}
}

func TestSignedRank(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for _, tt := range []struct {
		values []float64
		want   Estimate
	}{
		{[]float64{1}, Estimate{1, -inf, inf, 1}},
		{[]float64{5, 1, 3, 2, 4}, Estimate{3, -inf, inf, 5}},
		{[]float64{6, 5, 1, 3, 2, 4}, Estimate{3.5, 1, 6, 6}},
		{[]float64{3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1e9, -1e9}, Estimate{3, 3, 3, 16}},
	} {
		if diff := cmp.Diff(tt.want, signedRank(tt.values), cmpopts.EquateApprox(1e-9, 0)); diff != "" {
			t.Errorf("%v: %s", tt.values, diff)
		}
	}
}

func TestLogRatio(t *testing.T) {
	t.Parallel()
	const e = math.E
	for _, tt := range []struct {
		name                string
		contender, baseline []slice
		want                float64
		ok                  bool
	}{
		{"a round", []slice{{0, 2 * e, 0}}, []slice{{0, 2, 0}}, 1, true},
		{"between two", []slice{{1, 1, 0}}, []slice{{0, 1, 0}, {3, math.Exp(3), 0}}, -1, true},
		{"after the last", []slice{{5, 1, 0}}, []slice{{0, 1, 0}, {3, e, 0}}, -1, true},
		{"before the first", []slice{{0, 1, 0}}, []slice{{1, e, 0}, {3, 1, 0}}, -1, true},
		{"one wild slice of several", []slice{{1, e, 0}, {2, e, 0}, {4, e, 0}, {5, 50, 0}}, []slice{{0, 1, 0}, {3, 1, 0}}, 1, true},
		{"no baseline", []slice{{1, 1, 0}}, nil, 0, false},
		{"nothing was done", []slice{{1, 0, 0}}, []slice{{0, 1, 0}}, 0, false},
		{"the baseline has done nothing", []slice{{1, 1, 0}}, []slice{{0, 0, 0}}, 0, false},
	} {
		got, ok := logRatio(tt.contender, tt.baseline)
		if ok != tt.ok || math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%s: %v, %v", tt.name, got, ok)
		}
	}
}

// TestAdjust takes out what others did, and nothing else: with a slope of its own where that is clearly another one.
func TestAdjust(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	rounds := func(level, slope, noise float64) [][]slice {
		groups := [][]slice{{{0, 0, 0.9}}} // in which nothing was done
		for range 20 {
			var g []slice
			for i := range 4 {
				others := 0.5 * r.Float64()
				g = append(g, slice{i, level * math.Exp(slope*others+noise*r.NormFloat64()), others})
			}
			groups = append(groups, g)
		}
		return groups
	}
	for _, tt := range []struct {
		name            string
		baseline, other float64 // the slopes
		noise           float64
		same            bool // the slopes that are taken out
	}{
		{"one slope", -1.5, -1.5, 0, true},
		{"one slope, with noise", -1.5, -1.5, 0.1, true},
		{"slopes too close to tell", -1.5, -1.4, 0.1, true},
		{"another slope", -1.5, -0.2, 0.1, false},
		{"only the baseline is disturbed", -1.5, 0, 0.1, false},
		{"none", 0, 0, 0, true},
	} {
		groups := map[string][][]slice{"plain": rounds(1, tt.baseline, tt.noise), "other": rounds(3, tt.other, tt.noise)}
		took := make(map[string]float64)
		for contender, g := range groups {
			took[contender] = fit(g, 0).slope()
		}
		adjust(groups, "plain")
		left := make(map[string]float64)
		for contender, g := range groups {
			left[contender] = fit(g, 0).slope()
			if g[0][0] != (slice{0, 0, 0.9}) {
				t.Errorf("%s: nothing became %+v", tt.name, g[0][0])
			}
			took[contender] -= left[contender]
		}
		if same := math.Abs(took["plain"]-took["other"]) < 1e-9; same != tt.same {
			t.Errorf("%s: %v was taken out", tt.name, took)
		}
		for contender, slope := range left {
			if math.Abs(slope) > 0.1+tt.noise {
				t.Errorf("%s: a slope of %.3f is left for %s", tt.name, slope, contender)
			}
		}
	}
	quiet := map[string][][]slice{"plain": {{{0, 5, 0}, {1, 7, 0}}}, "other": {{{0, 5, 0}}}}
	adjust(quiet, "plain")
	want := map[string][][]slice{"plain": {{{0, 5, 0}, {1, 7, 0}}}, "other": {{{0, 5, 0}}}}
	if diff := cmp.Diff(want, quiet, cmp.AllowUnexported(slice{})); diff != "" {
		t.Errorf("where others had nothing: %s", diff)
	}
	alone := map[string][][]slice{"other": rounds(1, -1, 0)}
	adjust(alone, "plain")
	if left := fit(alone["other"], 0).slope(); math.Abs(left) > 1e-9 {
		t.Errorf("without a baseline: a slope of %v is left", left)
	}
}

// TestPass has every contender once, and the baseline beside each.
func TestPass(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for n := 1; n < 8; n++ {
		order := Pass(r, n)
		seen := make([]int, n)
		for at, i := range order {
			seen[i]++
			if i != 0 && order[at-1] != 0 && at+1 < len(order) && order[at+1] != 0 {
				t.Errorf("%v: no baseline beside %d", order, i)
			}
		}
		for i, k := range seen {
			if want := max(1, n/2); i == 0 && k != want || i > 0 && k != 1 {
				t.Errorf("%v has %d %d times", order, i, k)
			}
		}
	}
}

// bursts is a neighbour that takes half of all processors for a while, and then none.
type bursts struct {
	r     *rand.Rand
	mean  float64 // milliseconds of a burst, and of a pause
	until float64
	busy  bool
}

// in returns how much of the time from begin to end is burst.
func (b *bursts) in(begin, end float64) float64 {
	total := 0.0
	for at := begin; at < end; {
		for b.until <= at {
			b.busy = !b.busy
			b.until += b.r.ExpFloat64() * b.mean
		}
		next := min(b.until, end)
		if b.busy {
			total += next - at
		}
		at = next
	}
	return total / (end - begin)
}

// simulate makes the samples of a run as the runner would, of contenders with the true ratios, on a machine with a
// neighbour. It stops as the runner does.
func simulate(r *rand.Rand, ratios []float64, neighbour *bursts) *Summary {
	return simulateRounds(r, ratios, neighbour, MainRounds, true).Summarize()
}

func simulateRounds(r *rand.Rand, ratios []float64, neighbour *bursts, most int, early bool) *Results {
	const length, gap, pause = 75.0, 5.0, 1000.0 // milliseconds
	results := &Results{Scenarios: []Scenario{{Name: "s", Baseline: "c0"}}}
	names := make([]string, len(ratios))
	for i := range ratios {
		names[i] = fmt.Sprint("c", i)
		results.Contenders = append(results.Contenders, Contender{Name: names[i]})
	}
	now := 0.0
	for round := range most {
		of := make([]float64, len(ratios)) // of the process
		for i := range of {
			of[i] = math.Exp(0.01 * r.NormFloat64())
		}
		at := 0
		play := func(i int) {
			busy := 0.0
			if neighbour != nil {
				busy = neighbour.in(now, now+length)
			}
			now += length + gap
			others := 0.5 * busy
			cpu := ratios[i] * of[i] * (1 + 0.6*others) * math.Exp(0.03*r.NormFloat64())
			results.Samples = append(results.Samples, Sample{
				Scenario: "s", Contender: names[i], Round: round, At: at,
				Others: others + 0.03*r.NormFloat64(),
				Values: map[string]float64{"cpu": cpu, "throughput": math.Exp(-loss(ratios[i])*others) / cpu},
			})
			at++
		}
		for range Passes {
			for _, i := range Pass(r, len(ratios)) {
				play(i)
			}
		}
		play(0)
		now += pause
		if early && round+1 >= FewestRounds && results.Width("s", results.Summarize()) <= Enough {
			break
		}
	}
	return results
}

// loss is the slope with which a contender loses throughput to a neighbour, about as measured: one that is several times
// slower than the baseline has its processor to itself while its client waits.
func loss(ratio float64) float64 {
	if ratio > 2 {
		return 0.2
	}
	return 1.5
}

// TestNoise promises what README.md does: on a machine of which a neighbour takes half in bursts, half of the time, the
// intervals are narrower than 6 % within the rounds of a full run, and contain the truth as often as they say.
func TestNoise(t *testing.T) {
	t.Parallel()
	ratios := []float64{1, 1, 1.02, 1.1, 1.25, 1.5, 5}
	for _, tt := range []struct {
		name string
		mean float64 // of the bursts; 0 for a quiet machine
	}{{"quiet", 0}, {"short bursts", 40}, {"bursts", 150}, {"long bursts", 1000}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, 2))
			all, missed, wideOnes, rounds := 0, 0, 0, 0
			for range 60 {
				var neighbour *bursts
				if tt.mean > 0 {
					neighbour = &bursts{r: r, mean: tt.mean}
				}
				sum := simulate(r, ratios, neighbour)
				for i, truth := range ratios {
					for metric, want := range map[string]float64{"cpu": truth, "throughput": 1 / truth} {
						e, ok := sum.Ratio("s", fmt.Sprint("c", i), metric)
						if !ok || i == 0 {
							continue
						}
						all++
						rounds += e.N
						if e.Wide() {
							wideOnes++
						}
						if want < e.Low || want > e.High {
							missed++
						}
					}
				}
			}
			t.Logf(tt.name+": %.1f rounds, %.1f %% missed, %.1f %% wide", float64(rounds)/float64(all),
				100*float64(missed)/float64(all), 100*float64(wideOnes)/float64(all))
			if float64(missed) > 0.08*float64(all) {
				t.Errorf("%d of %d intervals of %.0f %% have missed", missed, all, 100*confidence)
			}
			if float64(wideOnes) > 0.05*float64(all) {
				t.Errorf("%d of %d intervals are wider than %.0f %%", wideOnes, all, 100*Uncertain)
			}
		})
	}
}
