package results

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestSelfCheck passes for two that are the same, every time, on a machine with a neighbour, and fails where one has a
// little more to do.
func TestSelfCheck(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	check := func(ratio float64) error {
		all := new(Results)
		for i := range 6 {
			one := simulateRounds(r, []float64{1, ratio}, &bursts{r: r, mean: 100}, 3*FewestRounds, false)
			name := fmt.Sprint("s", i)
			all.Scenarios = append(all.Scenarios, Scenario{Name: name, Baseline: "c0"})
			for _, s := range one.Samples {
				s.Scenario = name
				s.Values["p50"] = s.Values["cpu"]
				all.Samples = append(all.Samples, s)
			}
		}
		return all.SelfCheck("c0", "c1", io.Discard)
	}
	for i := range 20 {
		if err := check(1); err != nil {
			t.Errorf("check %d: %v", i, err)
		}
	}
	if err := check(1.05); err == nil || !strings.Contains(err.Error(), "server CPU") && !strings.Contains(err.Error(), "p50") {
		t.Errorf("of 5 %%: %v", err)
	}
	if err := new(Results).SelfCheck("c0", "c1", io.Discard); err == nil {
		t.Error("nothing was measured, and nothing was wrong")
	}
}

func TestAllowedMisses(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 4, 18, 100} {
		k := allowedMisses(n, 0.05, 1e-3)
		tail := func(from int) float64 {
			sum := 0.0
			for i := from; i <= n; i++ {
				lg := func(x int) float64 { v, _ := math.Lgamma(float64(x + 1)); return v }
				sum += math.Exp(lg(n) - lg(i) - lg(n-i) + float64(i)*math.Log(0.05) + float64(n-i)*math.Log(0.95))
			}
			return sum
		}
		if tail(k+1) >= 1e-3 || k > 0 && tail(k) < 1e-3 {
			t.Errorf("of %d: %d; more have probability %v, and as many %v", n, k, tail(k+1), tail(k))
		}
	}
}
