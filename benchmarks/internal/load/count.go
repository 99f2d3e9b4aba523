package load

import (
	"fmt"
	"time"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

// Counted reports whether what an operation of the scenario takes can be counted.
func (s *Scenario) Counted() bool { return s.single != nil }

// countWarmUp is how many operations go ahead of those that are counted, for what a server makes once.
const countWarmUp = 50

// Count has one client make so many operations, one after the other, and returns what the server has used for them. It
// calls during, if there is one, with a function that makes as many once more, for a count that takes a program beside.
func (s *Scenario) Count(e *Env, ops int, during func(again func() error) error) (*Measurement, error) {
	w, err := s.single(e, 0)
	if err != nil {
		return nil, err
	}
	defer w.close()
	op, ok := w.(*closedLoop)
	if !ok {
		return nil, fmt.Errorf("%s has no operations one after the other", s.Name)
	}
	run := func(n int) error {
		if op.conn != nil {
			op.conn.SetDeadline(time.Now().Add(opTimeout))
		}
		for range n {
			if err := op.op(); err != nil {
				return err
			}
		}
		return nil
	}
	if err := run(countWarmUp); err != nil {
		return nil, fmt.Errorf("warming up: %w", err)
	}
	m := &Measurement{Ops: ops}
	if m.Before, err = e.Server.Usage(contender.Collected); err != nil {
		return nil, err
	}
	if err := run(ops); err != nil {
		return nil, err
	}
	if m.After, err = e.Server.Usage(contender.Now); err != nil {
		return nil, err
	}
	if during != nil {
		return m, during(func() error { return run(ops) })
	}
	return m, nil
}
