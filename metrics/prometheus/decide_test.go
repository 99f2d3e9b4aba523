package oneportprom_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/oneport-go/oneport"
	oneportprom "github.com/oneport-go/oneport/metrics/prometheus"
)

// TestHooks checks that a program's own hooks are called as without a timer.
func TestHooks(t *testing.T) {
	t.Parallel()
	timer := oneportprom.NewDecideTimer()
	if h := timer.Hooks(oneport.Hooks{}); h.OnDispatch != nil || h.OnAbuse != nil {
		t.Error("the timer sets hooks that it does not need")
	}
	timer.Hooks(oneport.Hooks{}).OnMatch(oneport.Matched{Route: "a"})
	timer.Hooks(oneport.Hooks{}).OnRefuse(oneport.Refused{Route: "a"})

	var called []string
	own := oneport.Hooks{
		OnMatch:    func(m oneport.Matched) { called = append(called, "matched "+m.Route) },
		OnRefuse:   func(r oneport.Refused) { called = append(called, "refused "+r.Route) },
		OnDispatch: func(d oneport.Dispatched) { called = append(called, "dispatched "+d.Route) },
		OnAbuse:    func(a oneport.Abused) { called = append(called, "abused "+a.Route) },
	}
	hooks := timer.Hooks(own)
	hooks.OnMatch(oneport.Matched{Route: "a"})
	hooks.OnRefuse(oneport.Refused{Route: "b"})
	hooks.OnDispatch(oneport.Dispatched{Route: "c"})
	hooks.OnAbuse(oneport.Abused{Route: "d"})
	own.OnMatch(oneport.Matched{Route: "e"}) // which is not measured
	if diff := cmp.Diff([]string{"matched a", "refused b", "dispatched c", "abused d", "matched e"}, called); diff != "" {
		t.Error(diff)
	}
	wantMeasured(t, timer,
		`oneport_decide_duration_seconds_count{outcome="matched",route="a"} 2`,
		`oneport_decide_duration_seconds_count{outcome="refused",route="a"} 1`,
		`oneport_decide_duration_seconds_count{outcome="refused",route="b"} 1`)
}

// TestHookPanics checks that a connection that a panic in the program's hook refuses is not measured as matched.
func TestHookPanics(t *testing.T) {
	t.Parallel()
	timer := oneportprom.NewDecideTimer()
	hooks := timer.Hooks(oneport.Hooks{
		OnMatch:  func(oneport.Matched) { panic("for a test") },
		OnRefuse: func(oneport.Refused) { panic("for a test") },
	})
	for _, call := range []func(){
		func() { hooks.OnMatch(oneport.Matched{Route: "\xff"}) },
		func() { hooks.OnRefuse(oneport.Refused{Route: "\xff"}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the mux does not see the panic")
				}
			}()
			call()
		}()
	}
	wantMeasured(t, timer, `oneport_decide_duration_seconds_count{outcome="refused",route="\"\\xff\""} 1`)
}

// wantMeasured checks how many connections were measured.
func wantMeasured(t *testing.T, timer *oneportprom.DecideTimer, counts ...string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(timer)
	got := slices.DeleteFunc(exposition(t, registry), func(line string) bool { return !strings.Contains(line, "_count{") })
	if diff := cmp.Diff(counts, got); diff != "" {
		t.Error(diff)
	}
}

// TestBuckets checks the whole histogram.
func TestBuckets(t *testing.T) {
	t.Parallel()
	timer := oneportprom.NewDecideTimer()
	hooks := timer.Hooks(oneport.Hooks{})
	for _, waited := range []time.Duration{0, 2 * time.Millisecond, 2 * time.Millisecond, 5 * time.Minute, time.Hour} {
		hooks.OnMatch(oneport.Matched{Route: "grpc", Waited: waited})
	}
	const want = `
# HELP oneport_decide_duration_seconds Time from Accept until a connection had its route or was refused, by outcome and route.
# TYPE oneport_decide_duration_seconds histogram
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="0.0001"} 1
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="0.001"} 1
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="0.0025"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="0.005"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="0.01"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="0.025"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="0.05"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="0.1"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="0.25"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="0.5"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="1"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="2.5"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="5"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="10"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="60"} 3
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="300"} 4
oneport_decide_duration_seconds_bucket{outcome="matched",route="grpc",le="+Inf"} 5
oneport_decide_duration_seconds_sum{outcome="matched",route="grpc"} 3900.004
oneport_decide_duration_seconds_count{outcome="matched",route="grpc"} 5
`
	if err := testutil.CollectAndCompare(timer, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// TestNativeHistogram checks that there are native buckets beside the classic ones.
func TestNativeHistogram(t *testing.T) {
	t.Parallel()
	timer := oneportprom.NewDecideTimer()
	timer.Hooks(oneport.Hooks{}).OnMatch(oneport.Matched{Route: "a", Waited: time.Millisecond})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(timer)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	h := families[0].GetMetric()[0].GetHistogram()
	if len(h.GetPositiveSpan()) != 1 || len(h.GetBucket()) < 10 {
		t.Errorf("%v", h)
	}
	if n := testutil.CollectAndCount(timer); n != 1 {
		t.Errorf("%d histograms", n)
	}
}
