package main

import (
	"time"

	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// A schedule divides the time of a run among the scenarios.
//
// A ratio whose rounds all lie in the same minute is at the mercy of that minute: its interval says what another minute
// of the same kind would have given, and the next run finds something else. A round costs as much wherever it is, since
// it starts all processes anyway. So the run goes through all scenarios several times, and each has rounds all over it.
//
// The main scenarios, those whose ratios the project's pages have, have several rounds each time, since an interval of
// a few rounds is wide. These take no time that another needs for its fewest rounds.
type schedule struct {
	options  *options
	plays    []*play
	deadline time.Time

	round func(p *play) bool    // plays a round, and reports whether that made sense
	width func(p *play) float64 // that of its widest interval that matters
}

func (s *schedule) run() {
	for pass := 1; pass <= results.FewestRounds; pass++ {
		for _, p := range s.plays {
			part := (p.wanted*pass + results.FewestRounds - 1) / results.FewestRounds
			for p.rounds < part && s.next(p) {
			}
		}
	}
	// What is left goes to the main scenarios as long as they have uncertain ratios, and then to all whose intervals are
	// not narrow.
	s.inTurn(func(p *play) bool { return p.main() && s.width(p) > results.Uncertain })
	s.inTurn(func(p *play) bool { return s.width(p) > results.Enough })
}

// inTurn gives the scenarios that need it a round each in turn, as long as there are any.
func (s *schedule) inTurn(need func(*play) bool) {
	for going := true; going; {
		going = false
		for _, p := range s.plays {
			if p.rounds < p.most && need(p) && s.next(p) {
				going = true
			}
		}
	}
}

// next plays the next round of a scenario if there is time for it, and reports whether it has. The first round of a
// scenario has time in any case.
func (s *schedule) next(p *play) bool {
	until := s.deadline
	if p.rounds >= p.fewest {
		for _, q := range s.plays {
			until = until.Add(-s.take(q, q.fewest))
		}
	}
	if p.rounds > 0 && time.Now().Add(s.take(p, p.rounds+1)).After(until) {
		return false
	}
	planned, began := p.takes(s.options, p.rounds), time.Now()
	if !s.round(p) {
		p.fewest, p.wanted, p.most = p.rounds, p.rounds, p.rounds
		return false
	}
	p.planned += planned
	p.took += time.Since(began)
	p.rounds++
	return true
}

// take is how long the next rounds of a scenario take, up to that number of them in all, if the machine is as fast as
// it was: for this scenario, or for all, if this one has had no round.
func (s *schedule) take(p *play, rounds int) time.Duration {
	took, planned := p.took, p.planned
	if planned == 0 {
		for _, q := range s.plays {
			took += q.took
			planned += q.planned
		}
	}
	next := p.take(s.options, rounds)
	if planned == 0 {
		return next
	}
	return time.Duration(float64(next) * float64(took) / float64(planned))
}
