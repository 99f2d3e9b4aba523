package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
	"github.com/oneport-go/oneport/benchmarks/internal/load"
	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// A play is a scenario with those that play it, and how far that is.
type play struct {
	scenario   *load.Scenario
	contenders []contender.Contender // the baseline first, if it is there
	rounds     int                   // that were played

	// The rounds that it has in any case if there is time, those that it is to have, and the most.
	fewest, wanted, most int

	took, planned time.Duration // for the rounds that were played
}

// What a round takes beside the measuring: the start and the end of a server process, and what is asked of it around
// each slice.
const (
	startTakes = 150 * time.Millisecond
	sliceTakes = 5 * time.Millisecond
)

// plan is what to play.
func (o *options) plan() []*play {
	var plays []*play
	for i := range o.scenarios {
		s := &o.scenarios[i]
		p := &play{scenario: s, most: o.rounds}
		if s.MaxRounds > 0 {
			p.most = min(p.most, s.MaxRounds)
		}
		p.fewest = min(p.most, results.FewestRounds)
		p.wanted = p.fewest
		if s.Main {
			p.wanted = min(p.most, results.MainRounds)
		}
		for _, c := range o.contenders {
			if need, _ := s.Missing(c); need != "" || c.Control && !s.Control {
				continue
			}
			p.contenders = append(p.contenders, c)
			if c.Name == s.Baseline {
				last := len(p.contenders) - 1
				copy(p.contenders[1:], p.contenders[:last])
				p.contenders[0] = c
			}
		}
		if len(p.contenders) > 0 {
			plays = append(plays, p)
		}
	}
	return plays
}

// main reports whether the scenario is to have more rounds than others.
func (p *play) main() bool { return p.wanted > p.fewest }

// slice is how long a slice of the play is.
func (p *play) slice(o *options) time.Duration { return max(o.duration, p.scenario.Slice) }

func (p *play) passes() int {
	if p.scenario.Passes > 0 {
		return p.scenario.Passes
	}
	return results.Passes
}

// players are those of the contenders that play a round. Those that are there for perspective play the fewest of the
// rounds that the scenario is to have, spread over all of these.
func (p *play) players(round int) []contender.Contender {
	part := func(round int) int { return round * p.fewest / p.wanted }
	if round == 0 || round < p.wanted && part(round) > part(round-1) {
		return p.contenders
	}
	return slices.DeleteFunc(slices.Clone(p.contenders), func(c contender.Contender) bool { return c.Aside })
}

// slices is how many slices a round of n contenders has.
func (p *play) slices(n int) int {
	if !p.scenario.Sliced() {
		return n
	}
	return p.passes()*(n-1+n/2) + 1
}

// takes is about how long a round takes on a quiet machine.
func (p *play) takes(o *options, round int) time.Duration {
	n := len(p.players(round))
	return time.Duration(n)*(startTakes+o.warmUp) + time.Duration(p.slices(n))*(p.slice(o)+sliceTakes+p.scenario.Takes)
}

// take is about how long the next rounds take, up to that number of them in all.
func (p *play) take(o *options, rounds int) time.Duration {
	var sum time.Duration
	for round := p.rounds; round < rounds; round++ {
		sum += p.takes(o, round)
	}
	return sum
}

// rest is how long idle connections are left alone: in the first round only, since an interval would say no more than
// that it is next to nothing.
func (p *play) rest(o *options) time.Duration {
	if p.rounds > 0 {
		return 0
	}
	if o.quick {
		return o.duration
	}
	return restTime
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
	var wanted, most time.Duration
	for _, p := range o.plan() {
		wanted += p.take(o, p.wanted)
		most += p.take(o, p.most)
	}
	_, err := fmt.Fprintf(out, "\nabout %v on a quiet machine, %v on a busy one, and no more than %v\n",
		min(wanted, o.limit).Round(time.Second), min(most, o.limit).Round(time.Second), o.limit)
	return err
}
