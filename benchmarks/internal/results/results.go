// Package results stores the results of a benchmark run, computes their statistics, and prints them.
package results

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
)

// Results are all that a run has found. They are what results.json holds, and all that a report is made of.
type Results struct {
	Environment Environment
	Run         Run
	Contenders  []Contender
	Scenarios   []Scenario
	Kept        []Kept   `json:",omitempty"`
	Samples     []Sample `json:",omitempty"` // those of a run that was kept are not there
	Latencies   []Latency
	Failures    []Failure `json:",omitempty"`
	Notes       []string  `json:",omitempty"`
}

// Run says how the measuring was done.
type Run struct {
	Command    string  // to repeat it
	Began      string  // RFC 3339
	Minutes    float64 // that it took
	Rounds     int     // the most, or those of a run without slices
	WarmUp     string
	Duration   string  // of a slice, or of the measuring of a scenario in a round
	Width      float64 `json:",omitempty"` // of an interval that is narrow enough
	RoundTrips string  // how round-trip times were simulated
	Processors string  // who had which

	// Busy says how busy the machine was with something else.
	Busy *Busy `json:",omitempty"`
}

// Busy is what others did while a run went on.
type Busy struct {
	Others, Steal      float64 // parts of all processors' time: of others in all, and of those whom the host gave it
	Slices, Disturbed  int     // how many slices there were, and in how many of them others had too much
	LoadBegan, LoadNow string  // the load averages at the beginning and at the end
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

// Sample is what was measured of a contender in a scenario: in one slice, or of a whole round of processes. A metric
// that was not measured is missing.
type Sample struct {
	Scenario, Contender string

	// Round is the number of the round. Its slices are of the same processes.
	Round int

	// At is the place of the slice in its round, and Others the part of all processors' time that others had in it.
	At     int     `json:",omitempty"`
	Others float64 `json:",omitempty"`

	Values map[string]float64
}

// Kept is what is kept of all samples of a metric.
type Kept struct {
	Scenario, Contender, Metric string
	Value                       Interval
	Ratio                       *Interval `json:",omitempty"` // to the baseline's
}

// Interval is an [Estimate] as it is kept. Low and High are missing where there is no interval.
type Interval struct {
	Median    float64
	Low, High *float64 `json:",omitempty"`
	N         int
}

// intervalOf rounds to five digits.
func intervalOf(e Estimate) Interval {
	i := Interval{Median: digits(e.Median), N: e.N}
	if !math.IsInf(e.Low, 0) {
		low := digits(e.Low)
		i.Low = &low
	}
	if !math.IsInf(e.High, 0) {
		high := digits(e.High)
		i.High = &high
	}
	return i
}

func digits(v float64) float64 {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 5, 64), 64)
	if err != nil {
		return v // not a number
	}
	return rounded
}

func (i Interval) estimate() Estimate {
	e := Estimate{Median: i.Median, Low: math.Inf(-1), High: math.Inf(1), N: i.N}
	if i.Low != nil {
		e.Low = *i.Low
	}
	if i.High != nil {
		e.High = *i.High
	}
	return e
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
	{Key: "voluntary", Title: "waits", Unit: "/op", Ratio: true},
	{Key: "involuntary", Title: "preemptions", Unit: "/op", Ratio: true},
	{Key: "delay", Title: "waiting for a processor", Unit: "µs/op"},
	{Key: "goroutines", Title: "goroutines at rest", Unit: ""},
	{Key: "gc", Title: "GC share", Unit: "% of CPU"},
	{Key: "peak", Title: "peak memory", Unit: "MiB", Ratio: true},
	{Key: "idle", Title: "memory when idle again", Unit: "MiB", Ratio: true},
	{Key: "memory", Title: "memory per connection", Unit: "B", Ratio: true},
	{Key: "opening", Title: "CPU to open one", Unit: "µs", Ratio: true},
	{Key: "rest", Title: "CPU while all are idle", Unit: "µs/s"},
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
