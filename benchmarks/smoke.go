package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// smoke has every contender play every scenario for a moment, several at once, and says whether all answers were right.
// It measures nothing, so it prints no numbers but those of the answers.
func smoke(ctx context.Context, o *options, out io.Writer) error {
	r := newRunner(o, time.Now(), io.Discard)
	defer r.end()
	r.shareAll()
	began := time.Now()
	failures, answers := 0, 0
	for _, note := range r.results.Notes {
		fmt.Fprintln(out, note)
	}
	for _, p := range o.plan() {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		counts, errs := r.smoke(p)
		var failed, names []string
		for i, c := range p.contenders {
			names = append(names, c.Name)
			if errs[i] != nil {
				failed = append(failed, fmt.Sprintf("  %s: %s", c.Name, strings.Join(strings.Fields(errs[i].Error()), " ")))
			}
			answers += counts[i]
		}
		failures += len(failed)
		if len(failed) > 0 {
			fmt.Fprintf(out, "%-16s FAILED\n%s\n", p.scenario.Name, strings.Join(failed, "\n"))
			continue
		}
		fmt.Fprintf(out, "%-16s all answers right: %s\n", p.scenario.Name, strings.Join(names, ", "))
	}
	if failures > 0 {
		return fmt.Errorf("%d of the contenders' scenarios have failed", failures)
	}
	_, err := fmt.Fprintf(out, "\n%d answers in %v, all of them right. This was a check that everything works; nothing was measured.\n",
		answers, time.Since(began).Round(time.Second))
	return err
}

// smoke returns the number of answers of each contender of a scenario, and its error.
func (r *runner) smoke(p *play) (counts []int, errs []error) {
	const several = 4
	counts, errs = make([]int, len(p.contenders)), make([]error, len(p.contenders))
	free := make(chan struct{}, several)
	var running sync.WaitGroup
	for i, c := range p.contenders {
		running.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			for range r.options.rounds {
				s := r.sit(p, c, nil)
				if s.err == nil {
					m, err := p.scenario.Measure(s.env)
					s.err = err
					if m != nil {
						counts[i] += m.Ops
					}
				}
				s.close()
				errs[i] = errors.Join(errs[i], s.err)
			}
		})
	}
	running.Wait()
	return counts, errs
}
