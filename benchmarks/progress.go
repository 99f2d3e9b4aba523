package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far a run is: on a terminal a bar with the time left, elsewhere a line for each round.
type progress struct {
	out     io.Writer
	options *options
	bar     *progressbar.ProgressBar // nil if out is not a terminal
	round   int
	began   time.Time
}

func newProgress(out io.Writer, steps []step, o *options) *progress {
	p := &progress{out: out, options: o, round: -1, began: time.Now()}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		var total time.Duration
		for _, s := range steps {
			total += s.takes(o)
		}
		p.bar = progressbar.NewOptions64(total.Milliseconds(),
			progressbar.OptionSetWriter(out),
			progressbar.OptionFullWidth(),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionSetElapsedTime(true),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionThrottle(100*time.Millisecond),
		)
	}
	return p
}

// at says what is measured now.
func (p *progress) at(s step) {
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf("round %d of %d, %s, %s", s.round+1, p.options.rounds, s.scenario.Name, s.contender.Name))
	} else if s.round != p.round {
		fmt.Fprintf(p.out, "%v: round %d of %d\n", time.Since(p.began).Round(time.Second), s.round+1, p.options.rounds)
	}
	p.round = s.round
}

func (p *progress) done(s step) {
	if p.bar != nil {
		p.bar.Add64(s.takes(p.options).Milliseconds())
	}
}

func (p *progress) end() {
	if p.bar != nil {
		p.bar.Finish()
	}
}
