// Package capacity stores and prints the results of a load test of one listener: absolute numbers, without a
// comparison.
package capacity

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// Report is all that was found.
type Report struct {
	Environment results.Environment
	Command     string
	Began       string // RFC 3339
	Seconds     float64
	Processors  string
	Load        string // averages, at the end
	Others      float64
	Servers     []Server
}

// Server is a listener, with what it speaks.
type Server struct {
	Name, Address string
	Speaks        []string
	Not           []Refusal
	Rows          []Row
	Searches      []Search `json:",omitempty"`
}

// Refusal is a protocol that a server does not speak, or not as it was asked.
type Refusal struct{ Protocol, Why string }

// Row is what one load has found. Latencies are in microseconds, for all operations; -1 stands for none.
type Row struct {
	Protocol    string
	Connections string // new, or open
	Clients     int
	Wanted      float64 `json:",omitempty"` // operations in a second, where a rate was given
	PerSecond   float64
	Ops, Errors int
	Unasked     int    `json:",omitempty"`
	Error       string `json:",omitempty"`

	P50, P90, P99, P999, Max float64
	LateP99                  float64 `json:",omitempty"` // of the load itself

	Process *Use `json:",omitempty"`
}

// Use is what the server's process has used for an operation, and what it had at the end.
type Use struct {
	CPU                    float64 // microseconds for an operation
	Voluntary, Involuntary float64 // context switches for an operation
	ResidentMiB, PeakMiB   float64
	Files                  int
}

// Search is a search for the highest rate that keeps a bound.
type Search struct {
	Protocol, Connections string
	Bound                 string
	Found                 float64 // 0 if none does
	Rows                  []Row   // in order of the rates
}

// The files of a report.
const (
	jsonFile   = "target.json"
	reportFile = "report.md"
)

// Print prints the report for a terminal.
func (r *Report) Print(out io.Writer) error {
	for _, s := range r.Servers {
		fmt.Fprintf(out, "%s\n", s.speaks())
		for _, n := range s.Not {
			fmt.Fprintf(out, "  not %s: %s\n", n.Protocol, n.Why)
		}
		if len(s.Rows) > 0 {
			fmt.Fprintln(out)
			printTable(out, s.Rows)
		}
		for _, search := range s.Searches {
			fmt.Fprintf(out, "\n%s\n\n", search.sentence())
			printTable(out, search.Rows)
		}
		fmt.Fprintln(out)
	}
	for _, line := range r.remarks() {
		fmt.Fprintln(out, line)
	}
	return nil
}

func (s Server) speaks() string {
	if len(s.Speaks) == 0 {
		return fmt.Sprintf("%s (%s) speaks nothing that was asked for.", s.Name, s.Address)
	}
	return fmt.Sprintf("%s (%s) speaks %s.", s.Name, s.Address, strings.Join(s.Speaks, ", "))
}

func (s Search) sentence() string {
	if s.Found == 0 {
		return fmt.Sprintf("%s, %s connections: no rate keeps %s.", s.Protocol, s.Connections, s.Bound)
	}
	return fmt.Sprintf("%s, %s connections: %s keeps %s.", s.Protocol, s.Connections, perSecond(s.Found), s.Bound)
}

func perSecond(rate float64) string { return number(rate) + "/s" }

// remarks are what a reader has to know.
func (r *Report) remarks() []string {
	var lines []string
	worst := 0.0
	for _, s := range r.Servers {
		for _, row := range s.all() {
			if row.Errors > 0 || row.Unasked > 0 {
				lines = append(lines, fmt.Sprintf("%s, %s, %s connections: %d errors, %d requests too late; the first: %s",
					s.Name, row.Protocol, row.Connections, row.Errors, row.Unasked, row.Error))
			}
			worst = max(worst, row.LateP99)
		}
	}
	if worst > 0 {
		lines = append(lines, fmt.Sprintf("Latencies at a rate count from when a request was due. The load itself began 99 %% of them within %s.", duration(worst)))
	}
	return append(lines, fmt.Sprintf("Others had %.0f %% of the processors meanwhile. The load shares the machine with the server, if that is here.", 100*r.Others))
}

func (s Server) all() []Row {
	rows := s.Rows
	for _, search := range s.Searches {
		rows = append(rows[:len(rows):len(rows)], search.Rows...)
	}
	return rows
}

// table is a table of rows.
func table(rows []Row) (header []string, cells [][]string) {
	rated, watched := false, false
	for _, r := range rows {
		rated = rated || r.Wanted > 0
		watched = watched || r.Process != nil
	}
	header = []string{"protocol", "connections", "clients"}
	if rated {
		header = append(header, "wanted/s")
	}
	header = append(header, "requests/s", "p50", "p90", "p99", "p99.9", "most", "errors")
	if watched {
		header = append(header, "CPU/request", "switches/request", "memory", "files")
	}
	for _, r := range rows {
		line := []string{r.Protocol, r.Connections, strconv.Itoa(r.Clients)}
		if rated {
			line = append(line, number(r.Wanted))
		}
		line = append(line, number(r.PerSecond))
		for _, us := range []float64{r.P50, r.P90, r.P99, r.P999, r.Max} {
			line = append(line, duration(us))
		}
		line = append(line, strconv.Itoa(r.Errors+r.Unasked))
		if u := r.Process; watched && u != nil {
			line = append(line, duration(u.CPU), fmt.Sprintf("%.2f + %.2f", u.Voluntary, u.Involuntary),
				fmt.Sprintf("%.1f MiB", u.ResidentMiB), strconv.Itoa(u.Files))
		}
		cells = append(cells, line)
	}
	return header, cells
}

func printTable(out io.Writer, rows []Row) {
	header, cells := table(rows)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range append([][]string{header}, cells...) {
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	w.Flush()
}

// number shows three digits, and no fewer than there are ahead of the point.
func number(v float64) string {
	switch {
	case v <= 0:
		return "-"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// duration shows microseconds.
func duration(us float64) string {
	switch {
	case us < 0:
		return "-"
	case us >= 1e6:
		return fmt.Sprintf("%.2f s", us/1e6)
	case us >= 1e5:
		return fmt.Sprintf("%.0f ms", us/1e3)
	case us >= 1e4:
		return fmt.Sprintf("%.1f ms", us/1e3)
	case us >= 1e3:
		return fmt.Sprintf("%.2f ms", us/1e3)
	}
	return fmt.Sprintf("%.0f µs", us)
}

// Write writes JSON, a report and its plots to a directory.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, jsonFile), append(b, '\n'), 0o644); err != nil {
		return err
	}
	var text strings.Builder
	e := r.Environment
	fmt.Fprintf(&text, "# What a listener carries\n\n`%s`, on %s (%d processors, %s), %s, %.0f seconds. %s.\n",
		r.Command, e.CPU, e.Processors, e.System, r.Began, r.Seconds, e.Go)
	for i, s := range r.Servers {
		fmt.Fprintf(&text, "\n## %s\n\n%s\n", s.Name, s.speaks())
		if len(s.Not) > 0 {
			fmt.Fprintln(&text)
		}
		for _, n := range s.Not {
			fmt.Fprintf(&text, "- not %s: %s\n", n.Protocol, n.Why)
		}
		if len(s.Rows) > 0 {
			markdown(&text, s.Rows)
		}
		for j, search := range s.Searches {
			fmt.Fprintf(&text, "\n### %s\n", search.sentence())
			markdown(&text, search.Rows)
			name := fmt.Sprintf("rates-%d-%d.svg", i, j)
			drawn, err := results.PlotRates(filepath.Join(dir, name), search.sentence(), search.points())
			if err != nil {
				return err
			}
			if drawn {
				fmt.Fprintf(&text, "\n![Latency by rate](%s)\n", name)
			}
		}
	}
	fmt.Fprintf(&text, "\n## Mind\n\n")
	for _, line := range r.remarks() {
		fmt.Fprintf(&text, "- %s\n", line)
	}
	return os.WriteFile(filepath.Join(dir, reportFile), []byte(text.String()), 0o644)
}

func markdown(out io.Writer, rows []Row) {
	header, cells := table(rows)
	fmt.Fprintf(out, "\n| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat(" --- |", len(header)))
	for _, line := range cells {
		fmt.Fprintf(out, "| %s |\n", strings.Join(line, " | "))
	}
}

func (s Search) points() []results.RatePoint {
	var points []results.RatePoint
	for _, r := range s.Rows {
		points = append(points, results.RatePoint{Rate: r.Wanted, P50: r.P50 / 1e3, P99: r.P99 / 1e3, P999: r.P999 / 1e3})
	}
	return points
}
