package results

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// overviewMetrics are those of which the ratios are shown first.
var overviewMetrics = []string{"cpu", "throughput", "p50", "p99", "memory"}

// overview is a table of ratios: a row for each scenario and contender but the baseline.
func (r *Results) overview(sum *Summary) (header []string, rows [][]string) {
	metrics := r.measured(sum, overviewMetrics)
	header = []string{"scenario", "contender"}
	for _, m := range metrics {
		header = append(header, FindMetric(m).Title)
	}
	for _, s := range r.Scenarios {
		for _, c := range r.Contenders {
			if c.Name == s.Baseline {
				continue
			}
			row := []string{s.Name, c.Name}
			some := false
			for _, m := range metrics {
				e, ok := sum.Ratio(s.Name, c.Name, m)
				some = some || ok
				cell := ""
				if ok {
					cell = showRatio(e)
				}
				row = append(row, cell)
			}
			if some || r.failed(s.Name, c.Name) {
				if r.failed(s.Name, c.Name) {
					row[1] += " (failed)"
				}
				rows = append(rows, row)
			}
		}
	}
	return header, rows
}

// medians is a table of the metrics of the overview themselves.
func (r *Results) medians(sum *Summary) (header []string, rows [][]string) {
	header = []string{"scenario", "contender"}
	for _, m := range overviewMetrics {
		header = append(header, FindMetric(m).Title+", "+FindMetric(m).Unit)
	}
	for _, s := range r.Scenarios {
		for _, c := range r.Contenders {
			row := []string{s.Name, c.Name}
			some := false
			for _, m := range overviewMetrics {
				e, ok := sum.Absolute(s.Name, c.Name, m)
				some = some || ok
				cell := ""
				if ok {
					cell = showValue(e.Median)
				}
				row = append(row, cell)
			}
			if some {
				rows = append(rows, row)
			}
		}
	}
	return header, rows
}

// measured are those of the metrics of which there is a ratio.
func (r *Results) measured(sum *Summary, metrics []string) []string {
	return slices.DeleteFunc(slices.Clone(metrics), func(m string) bool {
		for k := range sum.ratio {
			if k.metric == m {
				return false
			}
		}
		return true
	})
}

func (r *Results) failed(scenario, contender string) bool {
	return slices.ContainsFunc(r.Failures, func(f Failure) bool {
		return f.Scenario == scenario && f.Contender == contender
	})
}

// showRatio shows a ratio with its interval, and a question mark if that is too wide.
func showRatio(e Estimate) string {
	s := fmt.Sprintf("%.3f", e.Median)
	if e.Bounded() {
		s += fmt.Sprintf(" [%.3f, %.3f]", e.Low, e.High)
	}
	if e.Wide() {
		s += " ?"
	}
	return s
}

// showValue shows three digits.
func showValue(v float64) string {
	switch {
	case v >= 1000 || v <= -1000:
		return grouped(int64(math.Round(v)))
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// grouped sets commas between the thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// remarks are what a reader has to know before the numbers.
func (r *Results) remarks(sum *Summary) []string {
	var lines []string
	if len(r.Failures) > 0 {
		lines = append(lines, "FAILED. A contender that fails in a scenario has no result there, whatever it was before:")
		for _, f := range r.Failures {
			lines = append(lines, fmt.Sprintf("- %s, %s, round %d: %s", f.Scenario, f.Contender, f.Round+1,
				strings.Join(strings.Fields(f.Error), " ")))
		}
	}
	all, uncertain, unbounded := 0, 0, 0
	baselines := make(map[string]string)
	for _, s := range r.Scenarios {
		baselines[s.Name] = s.Baseline
	}
	for k, e := range sum.ratio {
		if k.contender == baselines[k.scenario] || !slices.Contains(overviewMetrics, k.metric) {
			continue
		}
		all++
		if e.Wide() {
			uncertain++
		}
		if !e.Bounded() {
			unbounded++
		}
	}
	if unbounded > 0 {
		lines = append(lines, fmt.Sprintf("%d of %d ratios have no interval: there are too few rounds for one (it takes 6). They say nothing.", unbounded, all))
	}
	if n := uncertain - unbounded; n > 0 {
		lines = append(lines, fmt.Sprintf("%d of %d ratios have an interval wider than %.0f %%, marked with a question mark: the machine was not quiet enough for them, or there was not enough time.", n, all, 100*Uncertain))
	}
	if b := r.Run.Busy; b != nil && b.Slices > 0 {
		lines = append(lines, fmt.Sprintf("Others had %.0f %% of the processors while it was measured, and more than a tenth in %.0f %% of %s slices; %.1f %% were stolen by the host. Load averages: %s at the beginning, %s at the end.",
			100*b.Others, 100*float64(b.Disturbed)/float64(b.Slices), grouped(int64(b.Slices)), 100*b.Steal, orUnknown(b.LoadBegan), orUnknown(b.LoadNow)))
	}
	return append(lines, r.Notes...)
}

// writeReport writes the report in Markdown.
func (r *Results) writeReport(w io.Writer, sum *Summary, figures []figure) {
	fmt.Fprintf(w, "# Results\n\n")
	e := r.Environment
	rows := [][]string{
		{"machine", fmt.Sprintf("%s, %d processors, %.1f GiB", orUnknown(e.CPU), e.Processors, e.MemoryGiB)},
		{"system", strings.TrimSpace(e.System + ", kernel " + orUnknown(e.Kernel))},
		{"Go", e.Go},
		{"oneport", orUnknown(e.Revision)},
	}
	for _, m := range slices.Sorted(maps.Keys(e.Modules)) {
		rows = append(rows, []string{m, e.Modules[m]})
	}
	rows = append(rows,
		[]string{"run", fmt.Sprintf("%s, %.1f minutes", r.Run.Began, r.Run.Minutes)},
		[]string{"rounds", r.rounds()})
	if r.Run.Processors != "" {
		rows = append(rows, []string{"processors", r.Run.Processors})
	}
	if r.Run.RoundTrips != "" {
		rows = append(rows, []string{"round-trip times", r.Run.RoundTrips})
	}
	rows = append(rows, []string{"to repeat", "`" + r.Run.Command + "` in `benchmarks/`"})
	writeTable(w, []string{"", ""}, rows)

	fmt.Fprintf(w, "\nThe contenders:\n\n")
	for _, c := range r.Contenders {
		fmt.Fprintf(w, "- **%s**: %s\n", c.Name, c.About)
	}
	if remarks := r.remarks(sum); len(remarks) > 0 {
		fmt.Fprintf(w, "\n## Mind\n\n")
		for _, line := range remarks {
			if !strings.HasPrefix(line, "- ") {
				line = "- " + line
			} else {
				line = "  " + line
			}
			fmt.Fprintln(w, line)
		}
	}
	if header, rows := r.overview(sum); len(rows) > 0 {
		fmt.Fprintf(w, "\n## Ratios\n\n")
		fmt.Fprintf(w, "Each number is the contender's in relation to that of the scenario's baseline at the same time, with its %.0f %% confidence interval. For throughput more is better, for all else less.\n\n", 100*confidence)
		writeTable(w, header, rows)
	}
	writeFigures(w, figures, "")
	fmt.Fprintf(w, "\n## Scenarios\n\nMedians over the rounds. Latencies are in microseconds.\n")
	for _, s := range r.Scenarios {
		fmt.Fprintf(w, "\n### %s\n\n%s. Baseline: %s.\n\n", s.Name, s.Title, s.Baseline)
		r.writeScenario(w, sum, s)
		for _, c := range r.Contenders {
			if why := s.Lacks[c.Name]; why != "" {
				fmt.Fprintf(w, "\nWithout %s: %s.\n", c.Name, why)
			}
		}
		writeFigures(w, figures, s.Name)
	}
}

// rounds says what a round was.
func (r *Results) rounds() string {
	if r.Run.Width == 0 {
		return fmt.Sprintf("%d, in each every scenario for %s after a warm-up of %s", r.Run.Rounds, r.Run.Duration, r.Run.WarmUp)
	}
	return fmt.Sprintf("%d at most, fewer where the intervals are narrower than %.0f %% or there was no time; new processes for each, slices of %s, in turn and in random order",
		r.Run.Rounds, 100*r.Run.Width, r.Run.Duration)
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// writeScenario writes a table with a row for each contender and a column for each metric that was measured.
func (r *Results) writeScenario(w io.Writer, sum *Summary, s Scenario) {
	var metrics []Metric
	header := []string{"contender"}
	for _, m := range Metrics {
		for _, c := range r.Contenders {
			if _, ok := sum.Absolute(s.Name, c.Name, m.Key); ok {
				metrics = append(metrics, m)
				header = append(header, strings.TrimSpace(m.Title+", "+m.Unit))
				break
			}
		}
	}
	if len(metrics) == 0 {
		fmt.Fprintln(w, "Not measured.")
		return
	}
	var rows [][]string
	for _, c := range r.Contenders {
		if s.Lacks[c.Name] != "" {
			continue
		}
		row := []string{c.Name}
		for _, m := range metrics {
			e, ok := sum.Absolute(s.Name, c.Name, m.Key)
			switch {
			case r.failed(s.Name, c.Name):
				row = append(row, "failed")
			case ok:
				row = append(row, showValue(e.Median))
			default:
				row = append(row, "not measured")
			}
		}
		rows = append(rows, row)
	}
	writeTable(w, header, rows)
}

func writeTable(w io.Writer, header []string, rows [][]string) {
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat(" --- |", len(header)))
	for _, row := range rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
}

// writeFigures writes those of a scenario, or of none.
func writeFigures(w io.Writer, figures []figure, scenario string) {
	for _, f := range figures {
		if f.scenario == scenario {
			fmt.Fprintf(w, "\n![%s](%s)\n", f.title, f.file)
		}
	}
}
