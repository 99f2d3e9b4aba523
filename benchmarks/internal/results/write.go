package results

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
)

// The files of a directory of results, beside the plots.
const (
	File       = "results.json"
	csvFile    = "samples.csv"
	reportFile = "report.md"
)

// Write writes the results, the samples as CSV, the report and its plots to a directory.
func (r *Results) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	sum := r.Summarize()
	figures, err := r.plot(sum, dir)
	if err != nil {
		return err
	}
	kept := *r
	kept.Kept, kept.Samples = sum.keep(), nil
	b, err := json.MarshalIndent(kept, "", "\t")
	if err != nil {
		return err
	}
	var samples, report bytes.Buffer
	if err := r.writeCSV(&samples); err != nil {
		return err
	}
	r.writeReport(&report, sum, figures)
	for name, content := range map[string][]byte{
		File:       append(b, '\n'),
		csvFile:    samples.Bytes(),
		reportFile: report.Bytes(),
	} {
		if name == csvFile && len(r.Samples) == 0 {
			continue // of results that were kept
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeCSV writes a line for each sample.
func (r *Results) writeCSV(out io.Writer) error {
	w := csv.NewWriter(out)
	header := []string{"scenario", "contender", "round", "slice", "others"}
	for _, m := range Metrics {
		header = append(header, m.Key)
	}
	w.Write(header)
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	for _, s := range r.Samples {
		line := []string{s.Scenario, s.Contender, strconv.Itoa(s.Round), strconv.Itoa(s.At), number(s.Others)}
		for _, m := range Metrics {
			cell := ""
			if v, ok := s.Values[m.Key]; ok {
				cell = number(v)
			}
			line = append(line, cell)
		}
		w.Write(line)
	}
	w.Flush()
	return w.Error()
}

// Print prints the ratios for a terminal, and where the rest is. Without a baseline, it prints the numbers themselves.
func (r *Results) Print(out io.Writer, dir string) error {
	sum := r.Summarize()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	header, rows := r.overview(sum)
	if len(rows) == 0 {
		header, rows = r.medians(sum)
	}
	for _, row := range append([][]string{header}, rows...) {
		for i, c := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, c)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, line := range r.remarks(sum) {
		fmt.Fprintln(out, line)
	}
	_, err := fmt.Fprintf(out, "The report is %s.\n", filepath.Join(dir, reportFile))
	return err
}

// Compare prints every ratio on which two runs disagree: its intervals have nothing in common, and its medians differ
// by more than nearly.
func Compare(a, b *Results, out io.Writer) error {
	_, _, err := compareRatios(a, b, out)
	return err
}

// nearly is how far apart two ratios may be and still count as equal. The intervals of allocations are narrower than
// what the scheduler and the collector change from one run to the next.
const nearly = 0.02

func compareRatios(a, b *Results, out io.Writer) (apart, both int, err error) {
	sa, sb := a.Summarize(), b.Summarize()
	for _, s := range a.Scenarios {
		for _, c := range a.Contenders {
			for _, m := range Metrics {
				ea, okA := sa.Ratio(s.Name, c.Name, m.Key)
				eb, okB := sb.Ratio(s.Name, c.Name, m.Key)
				if !okA || !okB || c.Name == s.Baseline {
					continue
				}
				both++
				if !ea.Overlaps(eb) && math.Abs(ea.Median-eb.Median) > nearly*ea.Median {
					apart++
					fmt.Fprintf(out, "%s, %s, %s: %s and %s\n", s.Name, c.Name, m.Title, showRatio(ea), showRatio(eb))
				}
			}
		}
	}
	_, err = fmt.Fprintf(out, "%d of %d ratios have intervals with nothing in common\n", apart, both)
	return apart, both, err
}
