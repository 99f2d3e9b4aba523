package load

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

// Measurement is what a scenario has found.
type Measurement struct {
	Ops     int
	Elapsed time.Duration           // 0 where the number of operations in a time means nothing
	Latency *hdrhistogram.Histogram // in nanoseconds; nil where there is none

	// What the server has used before and after the operations.
	Before, After contender.Usage

	// Idle is what it used when all clients were gone; zero where that was not looked at.
	Idle contender.Usage

	// Connections is how many idle connections the memory between Before and After is that of.
	Connections int

	// Note says what was not as it should be, if anything.
	Note string
}

// withWorkers measures what the workers that make makes do.
func withWorkers(e *Env, make func() ([]worker, error)) (*Measurement, error) {
	workers, err := make()
	closed := false
	closeAll := func() {
		if !closed {
			closed = true
			for _, w := range workers {
				w.close()
			}
		}
	}
	defer closeAll()
	if err != nil {
		return nil, err
	}
	if _, _, err := runAll(workers, e.WarmUp); err != nil {
		return nil, fmt.Errorf("warming up: %w", err)
	}
	m := new(Measurement)
	if m.Before, err = e.Server.Usage(contender.Collected); err != nil {
		return nil, err
	}
	rec, elapsed, err := runAll(workers, e.Duration)
	if err != nil {
		return nil, err
	}
	if m.After, err = e.Server.Usage(contender.Now); err != nil {
		return nil, err
	}
	m.Ops, m.Elapsed, m.Latency = int(rec.hist.TotalCount()), elapsed, rec.hist
	closeAll()
	if m.Idle, err = e.Server.Usage(contender.Trimmed); err != nil {
		return nil, err
	}
	return m, nil
}
