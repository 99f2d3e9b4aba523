package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress shows how far a run is: on a terminal in one line, elsewhere in a line for each scenario.
type progress struct {
	out      io.Writer
	terminal bool
	limit    time.Duration
	began    time.Time
	last     string
}

func newProgress(out io.Writer, limit time.Duration) *progress {
	p := &progress{out: out, limit: limit, began: time.Now()}
	if f, ok := out.(*os.File); ok {
		p.terminal = term.IsTerminal(int(f.Fd()))
	}
	return p
}

// at says what is measured now.
func (p *progress) at(scenario string, number, of, round int) {
	took := time.Since(p.began).Round(time.Second)
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%v of %v at most: %s, %d of %d, round %d", took, p.limit, scenario, number, of, round)
		return
	}
	if scenario != p.last {
		fmt.Fprintf(p.out, "%v: %s, %d of %d\n", took, scenario, number, of)
	}
	p.last = scenario
}

func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
