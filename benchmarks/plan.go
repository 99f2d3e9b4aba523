package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
	"github.com/oneport-go/oneport/benchmarks/internal/load"
)

// A step is one measurement of a plan.
type step struct {
	round     int
	scenario  *load.Scenario
	contender contender.Contender
}

// overhead is about what starting and stopping a server process takes.
const overhead = 150 * time.Millisecond

// takes is about how long the step will take.
func (s step) takes(o *options) time.Duration {
	return overhead + o.warmUp + o.duration + s.scenario.Takes
}

// plan is what to measure in which order: in each round every scenario with all contenders one after the other, a
// different one first each time.
func (o *options) plan() []step {
	var steps []step
	for round := range o.rounds {
		for i := range o.scenarios {
			s := &o.scenarios[i]
			if s.MaxRounds > 0 && round >= s.MaxRounds {
				continue
			}
			for j := range o.contenders {
				c := o.contenders[(round+j)%len(o.contenders)]
				if need, _ := s.Missing(c); need == "" {
					steps = append(steps, step{round, s, c})
				}
			}
		}
	}
	return steps
}

// list prints what there is and how long it would take.
func list(o *options, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "contender\t")
	for _, c := range o.contenders {
		fmt.Fprintf(w, "%s\t%s\n", c.Name, c.About)
	}
	fmt.Fprintln(w, "\t\nscenario\t")
	for _, s := range o.scenarios {
		var without []string
		for _, c := range o.contenders {
			if need, _ := s.Missing(c); need != "" {
				without = append(without, c.Name)
			}
		}
		title := s.Title
		if len(without) > 0 {
			title += " (without " + strings.Join(without, ", ") + ")"
		}
		fmt.Fprintf(w, "%s\t%s\n", s.Name, title)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	var total time.Duration
	steps := o.plan()
	for _, s := range steps {
		total += s.takes(o)
	}
	_, err := fmt.Fprintf(out, "\n%d measurements in %d rounds, about %v\n", len(steps), o.rounds, total.Round(time.Second))
	return err
}
