// Flood opens thousands of connections that never complete a request, while well-behaved clients make requests on new
// connections. It fails if a request of these is not served, if a bad connection stays open too long or takes more
// memory than allowed, or if anything is left at the end.
//
//	go run ./internal/flood -n 4000 -for 30s
//	go run ./internal/flood -n 4000 -for 30s -max-undecided 2000 -rate 2000 -max-bytes 65536
//	go run ./internal/flood -n 1000 -serve server
//	go run ./internal/flood -n 400 -hold
//
// In the second command, the oldest connections are evicted to make room for new ones: at that rate, a client has one
// second for its request. The fewer connections are undecided, the more the memory of everything else counts.
//
// The clients run in a process of their own, since each connection needs a file at both ends. All connections are on
// loopback.
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// config is what the command line says.
type config struct {
	n            int
	rate         int
	limit        time.Duration
	decide       time.Duration
	maxUndecided int
	maxBytes     int
	serve        string
	hold         bool
	maxTotal     int // MiB
}

// loadCommand is the argument with which the program starts itself as the process of the clients.
const loadCommand = "load"

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	if len(args) == 1 && args[0] == loadCommand {
		return runLoad(os.Stdin, os.Stdout)
	}
	var c config
	flags := flag.NewFlagSet("flood", flag.ExitOnError)
	flags.IntVar(&c.n, "n", 4000, "bad `connections` of each kind: silent ones, ones that send a byte at a time, ones that send frames but no HEADERS")
	flags.IntVar(&c.rate, "rate", 0, "bad `connections` to open in a second; 0 for as many as possible")
	flags.DurationVar(&c.limit, "for", 30*time.Second, "fail if it takes longer than this to open the bad connections, or for one of them to end, beside what -rate takes")
	flags.DurationVar(&c.decide, "decide", 5*time.Second, "the mux's DecideTimeout and IdleTimeout")
	flags.IntVar(&c.maxUndecided, "max-undecided", 0, "the mux's MaxUndecided; 0 has room for all")
	flags.IntVar(&c.maxBytes, "max-bytes", 16<<10, "fail if a connection without a route costs more memory than this")
	flags.StringVar(&c.serve, "serve", "mux", "the `way` to serve: "+strings.Join(slices.Sorted(maps.Keys(serving)), ", "))
	flags.BoolVar(&c.hold, "hold", false, "bad connections send nearly a megabyte of a first request, or more, and no end of it")
	flags.IntVar(&c.maxTotal, "max-total", 384, "with -hold, fail if all connections without a route take more memory than this, garbage included, in `MiB`")
	flags.Parse(args)
	_, known := serving[c.serve]
	switch {
	case !known:
		return fmt.Errorf("-serve %q: no such way", c.serve)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case c.n < 4 || c.n > 4500:
		return fmt.Errorf("-n %d: must be from 4 to 4500, so that more than 4 times as many fit in a process that may open 20,000 files", c.n)
	case c.rate < 0 || c.rate > 0 && c.rate < ticksPerSecond:
		return fmt.Errorf("-rate %d: must be 0, or %d or more", c.rate, ticksPerSecond)
	case c.decide <= 0 || c.limit <= c.decide:
		return fmt.Errorf("-for %v: must be longer than -decide %v", c.limit, c.decide)
	}
	result, err := run(c)
	if result != nil {
		result.print()
	}
	return err
}

// print shows what was measured.
func (r *result) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "bad connections\topened\tclosed\treset\ttold why\tfirst after\tlast after")
	for _, b := range r.load.Bad {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%v\t%v\n", b.Kind, b.Opened, b.Closed, b.Reset, b.Told, ms(b.First), ms(b.Last))
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "good clients\trequests\tfailed\tp50\tp99\tlongest\twithout the flood\tp50\tp99\tlongest")
	for i, g := range r.load.Good {
		q := r.load.Quiet[i]
		fmt.Fprintf(w, "%s\t%d\t%d\t%v\t%v\t%v\t%d\t%v\t%v\t%v\n",
			g.Kind, g.Requests, g.Failed, ms(g.P50), ms(g.P99), ms(g.Longest), q.Requests, ms(q.P50), ms(q.P99), ms(q.Longest))
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "memory\tundecided\tleaving\theap and stacks\tlive heap\tbytes for each")
	for _, s := range []struct {
		when string
		sample
	}{{"most undecided", r.mostUndecided}, {"most memory", r.mostMemory}} {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f MiB\t%.1f MiB\t%d\n", s.when, s.undecided, s.leaving, float64(s.memory)/(1<<20), float64(s.live)/(1<<20), s.each())
	}
	w.Flush()
	s := r.stats
	fmt.Printf("\n%d accepted, %d got early SETTINGS, %d reached a server\n", s.Accepted, s.EarlySettings, s.Matched)
	for _, reason := range slices.Sorted(maps.Keys(s.Refused)) {
		fmt.Printf("%d refused: %v\n", s.Refused[reason], reason)
	}
	fmt.Printf("the last was refused after %v in the mux\n", ms(r.longestWait))
	fmt.Printf("left at the end: %.1f KiB of heap, %d files\n", float64(r.left.heap)/1024, r.left.files)
}

func ms(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
