package results

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// CountsFile is the file with [Counts].
const CountsFile = "counts.json"

// Syscall is in front of the name of a system call where it is a metric.
const Syscall = "syscall:"

// Counts are what an operation takes of a server, of what can be counted, with one client. They depend on the program
// and hardly on the machine.
type Counts struct {
	Environment Environment
	Counts      []Count
}

// Count is what an operation takes of one contender.
type Count struct {
	Scenario, Contender string
	Values              map[string]float64
}

// Add adds the medians of the rounds.
func (c *Counts) Add(scenario, contender string, rounds []map[string]float64) {
	of := make(map[string][]float64)
	for _, r := range rounds {
		for metric, v := range r {
			of[metric] = append(of[metric], v)
		}
	}
	if len(of) == 0 {
		return
	}
	count := Count{scenario, contender, make(map[string]float64)}
	for metric, v := range of {
		count.Values[metric] = digits(median(v))
	}
	c.Counts = append(c.Counts, count)
}

// ReadCounts reads a [CountsFile].
func ReadCounts(path string) (*Counts, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := new(Counts)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// A tolerance is how far a count may be from another one: the sum of both.
type tolerance struct{ absolute, relative float64 }

// tolerances are for what is not the same each time. Whether a pool has something to give depends on when the collector
// has run, and whether a read finds something on how fast the client is: a read that does not is one more call, and a
// wait. What is not here is shown, and not compared.
var tolerances = map[string]tolerance{
	"allocs":             {0.5, 0.02},
	"bytes":              {64, 0.03},
	"goroutines":         {4, 0}, // kept for a while, or about to end
	Syscall:              {0.1, 0.02},
	Syscall + "read":     {0.5, 0.1},
	Syscall + "recvfrom": {0.5, 0.1},
}

// unstable are the system calls that depend on the scheduler: those by which threads wait for and wake up each other,
// and those of the timers.
var unstable = []string{
	"futex", "epoll_pwait", "epoll_ctl", "nanosleep", "tgkill", "getpid", "rt_sigreturn", "sched_yield", "madvise", "mmap", "munmap",
	"clone", "clone3", "rt_sigprocmask", "sigaltstack", "gettid", "restart_syscall",
}

// tolerated returns how far two counts of a metric may be from each other.
func tolerated(metric string) (tolerance, bool) {
	if t, ok := tolerances[metric]; ok {
		return t, true
	}
	if name, ok := strings.CutPrefix(metric, Syscall); ok && !slices.Contains(unstable, name) {
		return tolerances[Syscall], true
	}
	return tolerance{}, false
}

// Against returns a line for each count that is not the kept one, and how many were compared.
func (c *Counts) Against(kept *Counts) (lines []string, all int) {
	for _, a := range kept.Counts {
		for _, b := range c.Counts {
			if a.Scenario != b.Scenario || a.Contender != b.Contender {
				continue
			}
			for _, metric := range slices.Sorted(maps.Keys(a.Values)) {
				t, ok := tolerated(metric)
				was, is := a.Values[metric], b.Values[metric]
				if _, counted := b.Values[metric]; !ok || !counted {
					continue
				}
				all++
				if math.Abs(is-was) > t.absolute+t.relative*was {
					lines = append(lines, fmt.Sprintf("%s, %s: %s %s, and kept is %s (±%s)", a.Scenario, a.Contender, metric,
						showValue(is), showValue(was), showValue(t.absolute+t.relative*was)))
				}
			}
		}
	}
	return lines, all
}

// Print prints the counts for a terminal.
func (c *Counts) Print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "scenario\tcontender\tallocations\tbytes\twaits\tpreemptions\tgoroutines\tsystem calls")
	for _, n := range c.Counts {
		v := n.Values
		var calls []string
		for _, metric := range slices.SortedFunc(maps.Keys(v), func(a, b string) int {
			return cmp.Or(-cmp.Compare(v[a], v[b]), cmp.Compare(a, b))
		}) {
			if name, ok := strings.CutPrefix(metric, Syscall); ok && v[metric] >= 0.05 {
				calls = append(calls, fmt.Sprintf("%s %.3g", name, v[metric]))
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Scenario, n.Contender, showValue(v["allocs"]), showValue(v["bytes"]),
			showValue(v["voluntary"]), showValue(v["involuntary"]), showValue(v["goroutines"]), strings.Join(calls, ", "))
	}
	w.Flush()
}

// Against says where the ratios of two runs have intervals with nothing in common, and fails if there are more than
// their confidence allows. Two intervals of 95 % that are independent miss each other in less than one of a hundred
// cases.
func Against(r, kept *Results, out io.Writer) error {
	apart, all, err := compareRatios(kept, r, out)
	if err != nil {
		return err
	}
	if allowed := allowedMisses(all, 0.01, selfCheckRisk); apart > allowed {
		return fmt.Errorf("%d of %d ratios differ from those that were kept, and %d may", apart, all, allowed)
	}
	return nil
}
