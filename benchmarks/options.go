package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
	"github.com/oneport-go/oneport/benchmarks/internal/load"
)

// options are what the command line says.
type options struct {
	contenders []contender.Contender
	scenarios  []load.Scenario
	rounds     int
	duration   time.Duration
	warmUp     time.Duration
	most       int // connections, 0 for as many as a scenario wants
	out        string
	shared     bool

	target, path, method string

	list          bool
	report        string
	compare, with string

	command string // that says the same
}

// targetName is the name under which the server at -target is in the results.
const targetName = "target"

// The defaults. Twelve rounds are the fewest for which two that are far off do not decide how far an interval reaches.
const (
	defaultRounds   = 12
	defaultDuration = 500 * time.Millisecond
	quickRounds     = 2
	quickDuration   = 100 * time.Millisecond
	quickMost       = 2000
)

// parse reads the command line.
func parse(args []string, errOut io.Writer) (*options, error) {
	var o options
	var contenders, scenarios string
	var quick bool
	flags := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.StringVar(&contenders, "contender", "", "run only these `names`, with commas between them; the baseline is one of them")
	flags.StringVar(&scenarios, "scenario", "", "run only these `names`; rpc-* stands for all that begin so")
	flags.IntVar(&o.rounds, "rounds", 0, "measure everything this many times (default 12, with -quick 2)")
	flags.DurationVar(&o.duration, "duration", 0, "measure each scenario for so long in a round (default 500ms, with -quick 100ms)")
	flags.BoolVar(&quick, "quick", false, "a short run, that shows errors and no times to rely on")
	flags.BoolVar(&o.shared, "shared", false, "let servers and load share the processors, and do not give each half of them")
	flags.BoolVar(&o.list, "list", false, "list contenders and scenarios and how long the run would take, and do not run")
	flags.StringVar(&o.out, "out", "", "write the results to this `directory` (default results/full, results/quick for -quick, and results/custom where scenarios or contenders are chosen)")
	flags.StringVar(&o.target, "target", "", "put the server at this `host:port` under load too, with requests for -path and -method")
	flags.StringVar(&o.path, "path", "/", "the `path` of a GET that the target answers")
	flags.StringVar(&o.method, "method", load.HealthCheck, "the gRPC `method` that the target answers, with an empty message")
	flags.StringVar(&o.report, "report", "", "do not run: write the report of this `directory` anew, from its results.json")
	flags.StringVar(&o.compare, "compare", "", "do not run: say where the results.json of this `directory` disagrees with the one of the directory that follows")
	flags.Usage = func() {
		fmt.Fprintln(errOut, "usage: go run . [flags]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if o.compare != "" {
		if flags.NArg() != 1 {
			return nil, errors.New("-compare: give two directories, the second without a flag")
		}
		o.with = flags.Arg(0)
		return &o, nil
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.rounds < 0 || o.duration < 0 {
		return nil, errors.New("-rounds and -duration must be more than 0")
	}
	o.command = "go run ."
	for _, arg := range args {
		o.command += " " + quoted(arg)
	}

	if quick {
		o.most = quickMost
		o.rounds, o.duration = orDefault(o.rounds, quickRounds), orDefault(o.duration, quickDuration)
	}
	o.rounds, o.duration = orDefault(o.rounds, defaultRounds), orDefault(o.duration, defaultDuration)
	o.warmUp = o.duration / 4

	if err := o.choose(contenders, scenarios); err != nil {
		return nil, err
	}
	switch {
	case o.out != "":
	case contenders != "" || scenarios != "" || o.target != "":
		o.out = "results/custom"
	case quick:
		o.out = "results/quick"
	default:
		o.out = "results/full"
	}
	return &o, nil
}

// quoted returns an argument as a shell takes it.
func quoted(arg string) string {
	if arg != "" && !strings.ContainsFunc(arg, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_=.,:/@%+", r)
	}) {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// choose finds the contenders and scenarios of the names. No names are all of them; for a target, the target and what can
// be asked of it.
func (o *options) choose(contenders, scenarios string) error {
	if o.target != "" {
		if _, _, err := net.SplitHostPort(o.target); err != nil {
			return fmt.Errorf("-target: %w", err)
		}
		o.contenders = []contender.Contender{{Name: targetName, About: "the server at -target"}}
	}
	switch {
	case contenders != "":
		for name := range strings.SplitSeq(contenders, ",") {
			c, ok := contender.Find(name)
			if !ok {
				return fmt.Errorf("-contender: there is no %q; -list shows what there is", name)
			}
			if !slices.ContainsFunc(o.contenders, func(d contender.Contender) bool { return d.Name == name }) {
				o.contenders = append(o.contenders, c)
			}
		}
	case o.target == "":
		o.contenders = contender.Table
	}
	all := load.Table(load.Processors())
	if o.target != "" {
		all = slices.DeleteFunc(all, func(s load.Scenario) bool { return !s.ForTarget() })
	}
	if scenarios == "" {
		o.scenarios = all
		return nil
	}
	for name := range strings.SplitSeq(scenarios, ",") {
		found := false
		for _, s := range all {
			prefix, many := strings.CutSuffix(name, "*")
			if s.Name == name || many && strings.HasPrefix(s.Name, prefix) {
				found = true
				if !slices.ContainsFunc(o.scenarios, func(c load.Scenario) bool { return c.Name == s.Name }) {
					o.scenarios = append(o.scenarios, s)
				}
			}
		}
		if !found {
			return fmt.Errorf("-scenario: there is no %q, or the target cannot play it; -list shows what there is", name)
		}
	}
	return nil
}
