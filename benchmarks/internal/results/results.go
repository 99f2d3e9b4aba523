// Package results has what a run of the benchmarks has found, the statistics of it, and how it is shown.
package results

import (
	"encoding/json"
	"fmt"
	"os"
)

// Results are all that a run has found. They are what results.json holds, and all that a report is made of.
type Results struct {
	Environment Environment
	Run         Run
	Contenders  []Contender
	Scenarios   []Scenario
	Samples     []Sample
	Latencies   []Latency
	Failures    []Failure `json:",omitempty"`
	Notes       []string  `json:",omitempty"`
}

// Run says how the measuring was done.
type Run struct {
	Command    string  // to repeat it
	Began      string  // RFC 3339
	Minutes    float64 // that it took
	Rounds     int
	WarmUp     string
	Duration   string // of the measuring of a scenario in a round
	RoundTrips string // how round-trip times were simulated
	Processors string // who had which
}

// Contender is one of the servers that were compared.
type Contender struct{ Name, About string }

// Scenario is one of the loads.
type Scenario struct {
	Name, Title string
	Baseline    string
	Series      string  `json:",omitempty"`
	X           float64 `json:",omitempty"`
	RTT         float64 `json:",omitempty"` // in milliseconds

	// Lacks says which contenders are missing, and why.
	Lacks map[string]string `json:",omitempty"`
}

// Sample is what was measured of a contender in a scenario in one round. A metric that was not measured is missing.
type Sample struct {
	Scenario, Contender string
	Round               int
	Values              map[string]float64
}

// Latency is the distribution of all rounds' latencies.
type Latency struct {
	Scenario, Contender string
	Points              []Point
}

// Point says that a part of the operations, Quantile, took no longer than Microseconds.
type Point struct{ Quantile, Microseconds float64 }

// Failure is a scenario that a contender has not got through.
type Failure struct {
	Scenario, Contender string
	Round               int
	Error               string
}

// A Metric is a number that is measured.
type Metric struct {
	Key    string
	Title  string
	Unit   string
	Higher bool // is better
	Ratio  bool // makes sense against the baseline
}

// Metrics are all metrics, in the order of the reports.
var Metrics = []Metric{
	{Key: "throughput", Title: "throughput", Unit: "op/s", Higher: true, Ratio: true},
	{Key: "cpu", Title: "server CPU", Unit: "µs/op", Ratio: true},
	{Key: "p50", Title: "p50", Unit: "µs", Ratio: true},
	{Key: "p90", Title: "p90", Unit: "µs", Ratio: true},
	{Key: "p99", Title: "p99", Unit: "µs", Ratio: true},
	{Key: "p999", Title: "p99.9", Unit: "µs", Ratio: true},
	{Key: "allocs", Title: "allocations", Unit: "/op", Ratio: true},
	{Key: "bytes", Title: "allocated", Unit: "B/op", Ratio: true},
	{Key: "gc", Title: "GC share", Unit: "% of CPU"},
	{Key: "peak", Title: "peak memory", Unit: "MiB", Ratio: true},
	{Key: "idle", Title: "memory when idle again", Unit: "MiB", Ratio: true},
	{Key: "memory", Title: "memory per connection", Unit: "B", Ratio: true},
	{Key: "roundtrips", Title: "time to the answer", Unit: "round trips"},
}

// FindMetric returns the metric with the key.
func FindMetric(key string) Metric {
	for _, m := range Metrics {
		if m.Key == key {
			return m
		}
	}
	panic("no metric " + key)
}

// Read reads results.json.
func Read(path string) (*Results, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Results)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}
