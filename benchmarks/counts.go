package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
	"github.com/oneport-go/oneport/benchmarks/internal/load"
	"github.com/oneport-go/oneport/benchmarks/internal/results"
	"github.com/oneport-go/oneport/benchmarks/internal/strace"
)

// countedOps is how many operations are counted, by one client, one after the other.
const countedOps = 400

// countsRounds is how often that is done, each time with a new process. The median counts.
const countsRounds = 3

// countAll counts what an operation takes of what does not depend on how busy the machine is.
func countAll(ctx context.Context, o *options, errOut io.Writer) (*results.Counts, error) {
	r := newRunner(o, time.Now(), errOut)
	defer r.end()
	counts := &results.Counts{Environment: r.results.Environment}
	during := o.syscalls
	if during {
		if err := strace.Find(); err != nil {
			fmt.Fprintf(errOut, "System calls are not counted: %v.\n", err)
			during = false
		}
	}
	plays := slices.DeleteFunc(o.plan(), func(p *play) bool { return !p.scenario.Counted() })
	if len(plays) == 0 {
		return nil, errors.New("of none of the scenarios can be counted what an operation takes")
	}
	var failed error
	for i, p := range plays {
		processors, err := r.processors(p)
		if err != nil {
			return nil, err
		}
		for _, c := range p.contenders {
			var rounds []map[string]float64
			for round := range o.rounds {
				if ctx.Err() != nil {
					return nil, errors.New("interrupted")
				}
				r.progress.at(p.scenario.Name, i+1, len(plays), round+1)
				values, err := r.count(p, c, processors, during)
				if err != nil {
					failed = errors.Join(failed, fmt.Errorf("%s, %s: %w", p.scenario.Name, c.Name, err))
					break
				}
				rounds = append(rounds, values)
			}
			counts.Add(p.scenario.Name, c.Name, rounds)
		}
	}
	return counts, failed
}

// count counts, with a new process.
func (r *runner) count(p *play, c contender.Contender, processors []int, syscalls bool) (map[string]float64, error) {
	s := r.sit(p, c, processors)
	var m *load.Measurement
	calls := make(map[string]int)
	if s.err == nil {
		var during func(func() error) error
		if syscalls {
			during = func(again func() error) (err error) {
				calls, err = strace.Count(s.env.Server.(*contender.Process).Pid(), again)
				return err
			}
		}
		m, s.err = p.scenario.Count(s.env, countedOps, during)
	}
	s.close()
	if s.err != nil {
		return nil, s.err
	}
	v := make(map[string]float64)
	all := values(p.scenario, m)
	for _, metric := range []string{"allocs", "bytes", "voluntary", "involuntary"} {
		if n, ok := all[metric]; ok {
			v[metric] = n
		}
	}
	v["goroutines"] = float64(m.After.Goroutines)
	for name, n := range calls {
		v[results.Syscall+name] = math.Round(100*float64(n)/countedOps) / 100
	}
	return v, nil
}

// writeCounts writes the counts and compares them, if that was asked for.
func writeCounts(c *results.Counts, o *options, out io.Writer) error {
	c.Print(out)
	if o.against != "" {
		return againstCounts(c, o.against, out)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(c, "", "\t")
	if err != nil {
		return err
	}
	path := filepath.Join(o.out, results.CountsFile)
	fmt.Fprintf(out, "They are in %s.\n", path)
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func againstCounts(c *results.Counts, dir string, out io.Writer) error {
	kept, err := results.ReadCounts(filepath.Join(dir, results.CountsFile))
	if err != nil {
		return err
	}
	lines, all := c.Against(kept)
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
	if all == 0 {
		return fmt.Errorf("-against: %s and this run have nothing in common", dir)
	}
	if len(lines) > 0 {
		return fmt.Errorf("%d of %d counts are not those of %s", len(lines), all, dir)
	}
	_, err = fmt.Fprintf(out, "all %d counts are those of %s\n", all, dir)
	return err
}

// againstRun says where the ratios of a run have nothing in common with those of a kept one. That is an error only
// where they are more than intervals of that confidence allow.
func againstRun(r *results.Results, dir string, out io.Writer) error {
	kept, err := results.Read(filepath.Join(dir, results.File))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("-against: %s has no %s; counts alone are compared with -counts", dir, strings.TrimSpace(results.File))
	}
	if err != nil {
		return err
	}
	return results.Against(r, kept, out)
}
