package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
	"github.com/oneport-go/oneport/benchmarks/internal/load"
	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// options are what the command line says.
type options struct {
	contenders []contender.Contender
	scenarios  []load.Scenario
	rounds     int
	duration   time.Duration
	warmUp     time.Duration
	limit      time.Duration
	most       int // connections, 0 for as many as a scenario wants
	out        string
	shared     bool
	quick      bool
	selfCheck  bool
	counts     bool
	syscalls   bool
	against    string

	target targetOptions

	list          bool
	report        string
	compare, with string

	command string // that says the same
}

// The defaults.
const (
	defaultRounds   = results.MostRounds
	defaultDuration = 75 * time.Millisecond
	defaultLimit    = 39 * time.Minute
	warmUp          = 60 * time.Millisecond
	restTime        = 500 * time.Millisecond
	quickDuration   = 20 * time.Millisecond
	quickMost       = 500
	selfCheckRounds = 3 * results.FewestRounds
)

// parse reads the command line.
func parse(args []string, errOut io.Writer) (*options, error) {
	var o options
	var contenders, scenarios string
	flags := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.StringVar(&contenders, "contender", "", "run only these `names`, with commas between them; the baseline is one of them")
	flags.StringVar(&scenarios, "scenario", "", "run only these `names`; rpc-* stands for all that begin so")
	flags.IntVar(&o.rounds, "rounds", 0, fmt.Sprintf("measure everything this many times at most, each time with new processes; fewer where the intervals are narrow (default: as many as there is time for, and no more than %d)", defaultRounds))
	flags.DurationVar(&o.duration, "duration", 0, "measure in slices of this length (default 75ms)")
	flags.DurationVar(&o.limit, "limit", defaultLimit, "end the run in this time")
	flags.BoolVar(&o.quick, "quick", false, "no measuring: does everything work?")
	flags.BoolVar(&o.selfCheck, "selfcheck", false, "compare the baseline with itself, and fail if the harness finds differences more often than its confidence allows")
	flags.BoolVar(&o.counts, "counts", false, "no measuring: count what an operation takes of the servers that does not depend on the machine")
	flags.BoolVar(&o.syscalls, "syscalls", false, "count system calls too, with strace (implies -counts)")
	flags.StringVar(&o.against, "against", "", "compare with what is kept in this `directory`, and fail where it differs: counts by a tolerance, ratios by their intervals")
	flags.BoolVar(&o.shared, "shared", false, "let servers and load share the processors, and do not give each half of them")
	flags.BoolVar(&o.list, "list", false, "list contenders and scenarios and how long the run would take, and do not run")
	flags.StringVar(&o.out, "out", "", "write the results to this `directory` (default results/full, and results/custom where scenarios or contenders are chosen)")
	t := &o.target
	flags.StringVar(&t.address, "target", "", "say what the listener at this `address` carries: host:port, http://, https:// or unix:path. Contenders are put under the same load if they are named")
	flags.StringVar(&t.path, "path", "/", "the `path` of a GET that the target answers")
	flags.StringVar(&t.method, "method", load.HealthCheck, "the gRPC `method` that the target answers, with an empty message")
	flags.StringVar(&t.protocol, "protocol", "", "ask the target only in protocols whose name begins so: HTTP/1, h2c, gRPC, HTTP/2, \"gRPC over TLS\"")
	flags.IntVar(&t.clients, "clients", targetClients, "so many clients for the target, each with one request at a time")
	flags.Float64Var(&t.rate, "rate", 0, "ask the target so many times in a second too, whether or not it answers; latencies count from when a request was due")
	flags.StringVar(&t.find, "find", "", "search the highest rate at which the target keeps a `bound` such as p99=10ms")
	flags.IntVar(&t.pid, "pid", 0, "the process of the target, if it is here: CPU time, memory, files and context switches")
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

	o.counts = o.counts || o.syscalls
	if t.address != "" {
		o.duration = orDefault(o.duration, targetDuration)
		o.out = orDefault(o.out, "results/target")
		if t.clients < 1 || t.rate < 0 {
			return nil, errors.New("-clients and -rate must be more than 0")
		}
		if contenders == "" {
			return &o, nil
		}
		return &o, o.choose(contenders, "")
	}
	switch {
	case o.counts:
		o.rounds = orDefault(o.rounds, countsRounds)
	case o.quick:
		o.most = quickMost
		o.rounds, o.duration = orDefault(o.rounds, 1), orDefault(o.duration, quickDuration)
	case o.selfCheck:
		o.rounds = orDefault(o.rounds, selfCheckRounds)
		contenders, scenarios = orDefault(contenders, "plain,plain-again"), orDefault(scenarios, selfCheckScenarios)
	}
	o.rounds, o.duration = orDefault(o.rounds, defaultRounds), orDefault(o.duration, defaultDuration)
	o.warmUp = min(warmUp, o.duration)

	if err := o.choose(contenders, scenarios); err != nil {
		return nil, err
	}
	switch {
	case o.out != "":
	case o.counts:
		o.out = "results/counts"
	case contenders != "" || scenarios != "":
		o.out = "results/custom"
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

// choose finds the contenders and scenarios of the names. No names are all of them, and the baseline once more as a
// control.
func (o *options) choose(contenders, scenarios string) error {
	if contenders == "" {
		for _, c := range append(slices.Clone(contender.Table), contender.Again) {
			if err := c.Available(); err == nil {
				o.contenders = append(o.contenders, c)
			}
		}
	} else {
		for name := range strings.SplitSeq(contenders, ",") {
			c, ok := contender.Find(name)
			if !ok {
				return fmt.Errorf("-contender: there is no %q; -list shows what there is", name)
			}
			if err := c.Available(); err != nil {
				return fmt.Errorf("-contender: %s cannot be had here: %w", name, err)
			}
			c.Control, c.Aside = false, false // it was asked for
			if !slices.ContainsFunc(o.contenders, func(d contender.Contender) bool { return d.Name == name }) {
				o.contenders = append(o.contenders, c)
			}
		}
	}
	all := load.Table(load.Processors())
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
			return fmt.Errorf("-scenario: there is no %q; -list shows what there is", name)
		}
	}
	return nil
}

// selfCheckScenarios are those in which the baseline is compared with itself.
const selfCheckScenarios = "new-http1,new-grpc,new-h2c,rpc-1,rpc-32,http1-keepalive"
