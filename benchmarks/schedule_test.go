package main

import (
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
	"github.com/oneport-go/oneport/benchmarks/internal/load"
	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// fullRun returns the options of a whole run on two processors, with all contenders.
func fullRun(t *testing.T) *options {
	t.Helper()
	o, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	o.scenarios = load.Table(2)
	o.contenders = append(slices.Clone(contender.Table), contender.Again)
	return o
}

// TestSchedule plays a whole run with a clock of its own, in which a round takes what was planned, or more or less.
func TestSchedule(t *testing.T) {
	t.Parallel()
	as := func(factor float64) func(*play) float64 { return func(*play) float64 { return factor } }
	wide := func(*play) float64 { return 1 }
	for _, tt := range []struct {
		name         string
		pace         func(*play) float64
		width        func(*play) float64
		main, others int // the rounds that each has at least
	}{
		{"as planned", as(1), wide, results.MainRounds, results.FewestRounds},
		{"a fast machine", as(0.5), wide, results.MostRounds, 2 * results.FewestRounds},
		{"a slow machine", as(1.25), wide, 3 * results.FewestRounds / 2, results.FewestRounds},
		{"a machine that is too slow", as(2), wide, 4, 4},
		{"idle connections take long", func(p *play) float64 {
			if p.scenario.Sliced() {
				return 1
			}
			return 2
		}, wide, 2 * results.FewestRounds, results.FewestRounds},
		{"slow at first", func(p *play) float64 {
			if p.rounds < 3 {
				return 1.5
			}
			return 0.75
		}, func(*play) float64 { return 0 }, results.MainRounds, results.FewestRounds},
		{"certain", as(0.9), func(p *play) float64 {
			return 1.5 / float64(p.rounds)
		}, results.MainRounds, results.FewestRounds + 1},
		{"narrow intervals", as(1), func(p *play) float64 { return 0 }, results.MainRounds, results.FewestRounds},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := fullRun(t)
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := &schedule{options: o, plays: o.plan(), deadline: began.Add(o.limit), width: tt.width}
				s.round = func(p *play) bool {
					time.Sleep(time.Duration(tt.pace(p) * float64(p.takes(o, p.rounds))))
					return true
				}
				s.run()
				if took := time.Since(began); took > o.limit || o.limit > 40*time.Minute {
					t.Errorf("it took %v, and the limit is %v", took, o.limit)
				}
				for _, p := range s.plays {
					least := tt.others
					if p.scenario.Main {
						least = tt.main
					}
					t.Logf("%s: %d rounds in %v", p.scenario.Name, p.rounds, p.took.Round(time.Second))
					if least = min(least, p.most); p.rounds < least {
						t.Errorf("%s has had %d rounds, want %d", p.scenario.Name, p.rounds, least)
					}
					if p.rounds > p.most {
						t.Errorf("%s has had %d rounds, and %d are the most", p.scenario.Name, p.rounds, p.most)
					}
				}
				t.Log(time.Since(began))
			})
		})
	}
}

// TestSpread has the rounds of each scenario all over a run.
func TestSpread(t *testing.T) {
	t.Parallel()
	o := fullRun(t)
	synctest.Test(t, func(t *testing.T) {
		const parts = 4
		began := time.Now()
		s := &schedule{options: o, plays: o.plan(), deadline: began.Add(o.limit), width: func(*play) float64 { return 1 }}
		in := make(map[*play]*[parts]int)
		for _, p := range s.plays {
			in[p] = new([parts]int)
		}
		s.round = func(p *play) bool {
			in[p][parts*time.Since(began)/o.limit]++
			time.Sleep(p.takes(o, p.rounds))
			return true
		}
		s.run()
		for _, p := range s.plays {
			for i, n := range in[p] {
				if least := p.wanted / parts / 2; n < max(1, least) {
					t.Errorf("%s: %d rounds in part %d of the run", p.scenario.Name, n, i+1)
				}
			}
		}
	})
}

// TestScheduleFailed asks once for a round of a scenario that cannot be played, and goes on with the others.
func TestScheduleFailed(t *testing.T) {
	t.Parallel()
	o := fullRun(t)
	synctest.Test(t, func(t *testing.T) {
		plays := o.plan()
		s := &schedule{options: o, plays: plays, deadline: time.Now().Add(o.limit), width: func(*play) float64 { return 1 }}
		asked := 0
		s.round = func(p *play) bool {
			if p == plays[0] {
				asked++
				return false
			}
			time.Sleep(p.takes(o, p.rounds))
			return true
		}
		s.run()
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		for _, p := range plays[1:] {
			if want := min(p.most, results.FewestRounds); p.rounds < want {
				t.Errorf("%s has had %d rounds, want %d", p.scenario.Name, p.rounds, want)
			}
		}
	})
}

// TestPlayers leaves those that are there for perspective out of most rounds of the main scenarios, and out of those
// that are there to make intervals narrow, unless they were asked for.
func TestPlayers(t *testing.T) {
	t.Parallel()
	asked, err := parse([]string{"-contender", "plain,plain-again", "-scenario", "new-http1", "-rounds", "12"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		scenario, contender string
		options             *options
		want                []int // the rounds that it plays
	}{
		{"new-http1", "plain-again", fullRun(t), []int{0, 4, 7, 11, 14, 18, 21, 25}},
		{"rpc-1", "haproxy", fullRun(t), []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"idle-http1", "cmux-dropin", fullRun(t), []int{0, 1, 2, 3, 4, 5}},
		{"new-http1", "plain-again", asked, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
	} {
		for _, p := range tt.options.plan() {
			if p.scenario.Name != tt.scenario {
				continue
			}
			var got []int
			for round := range p.most {
				if slices.ContainsFunc(p.players(round), func(c contender.Contender) bool { return c.Name == tt.contender }) {
					got = append(got, round)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s in %s: %s", tt.contender, tt.scenario, diff)
			}
		}
	}
}
