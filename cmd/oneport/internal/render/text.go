// Package render prints the results of a probe, for people and for programs.
package render

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oneport-go/oneport/cmd/oneport/internal/diagnose"
	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// Docs is where the pages of the documentation are.
const Docs = "https://github.com/oneport-go/oneport/blob/main/"

// A Style says how text is written.
type Style struct {
	Width   int // in columns, 120 if it is 0
	Color   bool
	Verbose bool // with the frames
}

// Escape sequences for colors that are legible on light and dark backgrounds.
const (
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[1;31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// A printer writes text, and remembers an error.
type printer struct {
	Style
	b strings.Builder
}

// Text writes a report and what it means.
func Text(w io.Writer, r *probe.Report, findings []diagnose.Finding, style Style) error {
	p := &printer{Style: style}
	if p.Width == 0 {
		p.Width = 120
	}
	p.Width = max(p.Width, 60)
	p.header(r)
	p.table(r)
	p.findings(findings)
	p.summary(r, findings)
	if p.Verbose {
		p.logs(r)
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}

func (p *printer) line(format string, args ...any) {
	p.b.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
}

func (p *printer) paint(color, s string) string {
	if !p.Color || s == "" {
		return s
	}
	return color + s + reset
}

func (p *printer) header(r *probe.Report) {
	text := fmt.Sprintf("%s   ", p.paint(bold, wire.Printable(r.Target)))
	if r.Address != r.Target && r.Network == "tcp" {
		text += r.Address + ", "
	}
	text += "connected in " + Millis(r.Connect)
	p.line("%s", text)
	if r.FromProxy != "" {
		p.line("Each connection begins with a PROXY header, %s.", r.FromProxy)
	}
	if len(r.Others) > 0 {
		p.line("%s", p.paint(dim, "Other addresses of the name are not probed: "+strings.Join(r.Others, ", ")))
	}
	p.line("")
}

// Widths of the columns.
const (
	groupWidth   = 5
	verdictWidth = 8
	titleWidth   = 31
	timeWidth    = 8
	cameColumn   = groupWidth + verdictWidth + titleWidth + timeWidth + 5
)

func (p *printer) table(r *probe.Report) {
	p.line("%s", p.paint(dim, strings.Repeat(" ", groupWidth+verdictWidth+2)+
		pad("way in", titleWidth)+" "+padLeft("1st byte", timeWidth)+"  what came"))
	shown := probe.Group("")
	for _, x := range rows(r, p.Verbose) {
		group := ""
		if x.Group != shown {
			group, shown = string(x.Group), x.Group
		}
		word, color := verdictWord(x.Verdict)
		first := "–"
		if x.Answered {
			first = Millis(x.FirstByte)
		}
		came := wrap(x.Came, max(p.Width-cameColumn, 20))
		if x.Verdict == probe.NotOffered || x.Verdict == probe.NotTried {
			for i := range came {
				came[i] = p.paint(dim, came[i])
			}
		}
		p.line("%s %s %s %s  %s", p.paint(bold, pad(group, groupWidth)), p.paint(color, pad(word, verdictWidth)),
			pad(x.Title, titleWidth), padLeft(first, timeWidth), came[0])
		for _, s := range came[1:] {
			p.line("%s%s", strings.Repeat(" ", cameColumn), s)
		}
	}
	p.line("")
}

// rows returns the results that get a row. It leaves out what was not tried because something else does not work, and
// returns one row for a group of which nothing is offered.
func rows(r *probe.Report, all bool) []*probe.Result {
	if all {
		return r.Results
	}
	var out []*probe.Result
	for rest := r.Results; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Group == rest[0].Group {
			n++
		}
		group := slices.DeleteFunc(slices.Clone(rest[:n]), func(x *probe.Result) bool {
			return x.Verdict == probe.NotTried && x.Outcome == probe.Untried && !x.Asked
		})
		rest = rest[n:]
		if slices.ContainsFunc(group, func(x *probe.Result) bool { return x.Verdict != probe.NotOffered }) || len(group) == 0 {
			out = append(out, group...)
			continue
		}
		// An answer says more than the absence of one.
		one := *group[max(0, slices.IndexFunc(group, func(x *probe.Result) bool { return x.Answered }))]
		one.Came = "not offered: " + one.Came
		if len(group) > 1 {
			one.Title = map[probe.Group]string{probe.Clear: "HTTP/1.1, HTTP/2, gRPC", probe.Proxy: "with a PROXY header"}[one.Group]
		}
		out = append(out, &one)
	}
	return out
}

func verdictWord(v probe.Verdict) (word, color string) {
	switch v {
	case probe.Works:
		return "ok", green
	case probe.WorksBut:
		return "ok, but", yellow
	case probe.Refused:
		return "refused", yellow
	case probe.Fails:
		return "FAILS", red
	case probe.Hangs:
		return "HANGS", red
	case probe.NotTried:
		return "?", dim
	}
	return "–", dim
}

func (p *printer) findings(findings []diagnose.Finding) {
	for _, f := range findings {
		color := map[diagnose.Severity]string{diagnose.Fault: red, diagnose.Warning: yellow, diagnose.Remark: bold}[f.Severity]
		head := map[diagnose.Severity]string{diagnose.Fault: "Fault: ", diagnose.Warning: "Warning: ", diagnose.Remark: "Note: "}[f.Severity]
		for _, s := range wrap(head+f.Title, p.Width) {
			p.line("%s", p.paint(color, s))
		}
		p.labelled("why", f.Cause)
		if len(f.Says) > 0 {
			width := 0
			for _, s := range f.Says {
				width = max(width, utf8.RuneCountInString(s.Who))
			}
			label := "  clients"
			for _, s := range f.Says {
				lines := wrap(s.What, max(p.Width-labelWidth-width-2, 30))
				for i, line := range lines {
					who := ""
					if i == 0 {
						who = s.Who
					}
					p.line("%s%s  %s", p.paint(dim, pad(label, labelWidth)), pad(who, width), line)
					label = ""
				}
			}
		}
		for i, c := range f.Fix {
			label := "fix"
			if i > 0 {
				label = ""
			}
			p.labelled(label, c)
		}
		p.labelled("more", Docs+f.Page)
		p.line("")
	}
}

const labelWidth = 12

func (p *printer) labelled(label, text string) {
	for _, s := range wrap(text, p.Width-labelWidth) {
		p.line("%s%s", p.paint(dim, pad("  "+label, labelWidth)), s)
		label = ""
	}
}

func (p *printer) summary(r *probe.Report, findings []diagnose.Finding) {
	switch {
	case r.Interrupted:
		p.line("Interrupted: the results so far.")
	case diagnose.Failed(r, findings):
		n := 0
		for _, f := range findings {
			if f.Severity == diagnose.Fault {
				n++
			}
		}
		if n == 1 {
			p.line("%s", p.paint(red, "1 fault."))
		} else {
			p.line("%s", p.paint(red, fmt.Sprintf("%d faults.", n)))
		}
	default:
		p.line("%s", p.paint(green, "Everything that this port offers works."))
	}
	if !p.Verbose && diagnose.Failed(r, findings) {
		p.line("%s", p.paint(dim, "-v shows the frames, and where it goes wrong."))
	}
}

// logs writes what passed on each way in.
func (p *printer) logs(r *probe.Report) {
	for _, x := range r.Results {
		if len(x.Log) == 0 {
			continue
		}
		p.line("")
		p.line("%s", p.paint(bold, fmt.Sprintf("%s  %s, %s", x.ID, x.Title, x.Group)))
		for _, e := range x.Log {
			arrow, color := "  ", dim
			switch e.Direction {
			case wire.Sent:
				arrow, color = "->", ""
			case wire.Received:
				arrow, color = "<-", bold
			}
			text := e.Text
			if e.Direction == wire.Note {
				text = "# " + text
			}
			lines := wrap(text, max(p.Width-16, 30))
			if color != "" {
				for i := range lines {
					lines[i] = p.paint(color, lines[i])
				}
			}
			p.line("%10.2f %s %s", float64(e.At)/float64(time.Millisecond), arrow, lines[0])
			for _, s := range lines[1:] {
				p.line("%s%s", strings.Repeat(" ", 16), s)
			}
			for _, d := range e.Details {
				for _, s := range wrap(d, max(p.Width-18, 30)) {
					p.line("%s%s", strings.Repeat(" ", 18), s)
				}
			}
		}
	}
}

// Millis writes a time as it is compared with others.
func Millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms >= 1000:
		return fmt.Sprintf("%.1f s", ms/1000)
	case ms >= 100:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

func padLeft(s string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s))) + s
}

// wrap breaks text into lines at spaces. It returns one line at least.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
