package results

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// figure is a plot in a file. It belongs to a scenario, or to none.
type figure struct{ file, title, scenario string }

// palette can be told apart by readers who do not see all colours (Okabe and Ito).
var palette = []color.RGBA{
	{0, 0, 0, 255},
	{0, 114, 178, 255},
	{213, 94, 0, 255},
	{0, 158, 115, 255},
	{204, 121, 167, 255},
	{230, 159, 0, 255},
	{86, 180, 233, 255},
}

var shapes = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.SquareGlyph{}, draw.PyramidGlyph{}, draw.CrossGlyph{}, draw.PlusGlyph{}, draw.RingGlyph{}, draw.BoxGlyph{},
}

// style is that of the i-th contender in all plots.
func style(i int) (draw.LineStyle, draw.GlyphStyle) {
	c := palette[i%len(palette)]
	line := draw.LineStyle{Color: c, Width: vg.Points(1.2)}
	if i >= len(palette) { // the colours begin again
		line.Dashes = []vg.Length{vg.Points(4), vg.Points(2)}
	}
	return line, draw.GlyphStyle{Color: c, Radius: vg.Points(3), Shape: shapes[(i+i/len(palette))%len(shapes)]}
}

// plot draws everything that there are numbers for.
func (r *Results) plot(sum *Summary, dir string) ([]figure, error) {
	var figures []figure
	draw := func(p *plot.Plot, f figure, width, height vg.Length) error {
		p.Title.Text = f.title
		p.BackgroundColor = color.White
		if err := save(p, filepath.Join(dir, f.file), width, height); err != nil {
			return fmt.Errorf("drawing %s: %w", f.file, err)
		}
		figures = append(figures, f)
		return nil
	}
	ratios := func(metric, prefix, title string, scenarios []string) error {
		m := FindMetric(metric)
		p, rows, err := r.ratioPlot(sum, m, scenarios)
		if err != nil || rows == 0 {
			return err
		}
		row := max(0.8, 0.14*float64(len(r.Contenders)))
		f := figure{file: prefix + m.Key + ".svg", title: title + " in relation to the baseline: " + m.Title}
		return draw(p, f, 18*vg.Centimeter, vg.Length(float64(rows)*row+3)*vg.Centimeter)
	}
	// The few that matter come first.
	for _, metric := range r.measured(sum, []string{"cpu", "throughput"}) {
		if err := ratios(metric, "first-", "The main scenarios", mainScenarios); err != nil {
			return nil, err
		}
	}
	for _, metric := range r.measured(sum, overviewMetrics) {
		if err := ratios(metric, "ratio-", "All scenarios", nil); err != nil {
			return nil, err
		}
	}
	for _, s := range seriesPlots {
		p, drawn, err := r.seriesPlot(sum, s)
		if err != nil {
			return nil, err
		}
		if drawn {
			m := FindMetric(s.metric)
			f := figure{file: s.series + "-" + s.metric + ".svg", title: fmt.Sprintf("%s, %s, by number of %s", m.Title, m.Unit, s.what)}
			if err := draw(p, f, 16*vg.Centimeter, 9*vg.Centimeter); err != nil {
				return nil, err
			}
		}
	}
	if p, drawn, err := r.memoryPlot(sum); err != nil {
		return nil, err
	} else if drawn {
		if err := draw(p, figure{file: "memory.svg", title: "Resident memory per idle connection, KiB"}, 14*vg.Centimeter, 9*vg.Centimeter); err != nil {
			return nil, err
		}
	}
	for _, s := range r.Scenarios {
		p, drawn, err := r.latencyPlot(s)
		if err != nil {
			return nil, err
		}
		if drawn {
			f := figure{file: "latency-" + s.Name + ".svg", title: "Latency, " + s.Name, scenario: s.Name}
			if err := draw(p, f, 16*vg.Centimeter, 9*vg.Centimeter); err != nil {
				return nil, err
			}
		}
	}
	return figures, nil
}

// mainScenarios are those of which the plots come first.
var mainScenarios = []string{"new-http1", "new-grpc", "new-tls-grpc", "one-grpc", "rpc-32", "http1-keepalive", "mixed", "routes-100"}

// errorBars are points with their intervals.
type errorBars struct {
	plotter.XYs
	low, high []float64
}

func (b errorBars) XError(i int) (float64, float64) { return b.low[i], b.high[i] }
func (b errorBars) YError(i int) (float64, float64) { return b.low[i], b.high[i] }

// add adds a point at which the estimate is drawn. Without an interval there is no bar.
func (b *errorBars) add(xy plotter.XY, e Estimate, scale float64) {
	b.XYs = append(b.XYs, xy)
	low, high := 0.0, 0.0
	if e.Bounded() {
		low, high = (e.Median-e.Low)*scale, (e.High-e.Median)*scale
	}
	b.low, b.high = append(b.low, low), append(b.high, high)
}

// ratioPlot has a row for each scenario, the first at the top, and in it a point for each contender.
// With names, it has those scenarios only.
func (r *Results) ratioPlot(sum *Summary, m Metric, scenarios []string) (*plot.Plot, int, error) {
	p := newPlot()
	p.X.Label.Text = m.Title + " in relation to the baseline"
	setLegend(p, true)
	var rows []string
	for _, s := range r.Scenarios {
		if scenarios != nil && !slices.Contains(scenarios, s.Name) {
			continue
		}
		for _, c := range r.Contenders {
			if _, ok := sum.Ratio(s.Name, c.Name, m.Key); ok && c.Name != s.Baseline {
				rows = append(rows, s.Name)
				break
			}
		}
	}
	slices.Reverse(rows)
	one, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(rows)) - 0.5}})
	if err != nil {
		return nil, 0, err
	}
	one.Color = color.Gray{128}
	p.Add(plotter.NewGrid(), one)
	for i, c := range r.Contenders {
		var points errorBars
		for y, name := range rows {
			if e, ok := sum.Ratio(name, c.Name, m.Key); ok && !r.isBaseline(name, c.Name) {
				offset := (float64(i) - float64(len(r.Contenders)-1)/2) * -0.7 / float64(len(r.Contenders))
				points.add(plotter.XY{X: e.Median, Y: float64(y) + offset}, e, 1)
			}
		}
		if len(points.XYs) == 0 {
			continue
		}
		scatter, err := plotter.NewScatter(points.XYs)
		if err != nil {
			return nil, 0, err
		}
		bars, err := plotter.NewXErrorBars(points)
		if err != nil {
			return nil, 0, err
		}
		bars.LineStyle, scatter.GlyphStyle = style(i)
		p.Add(bars, scatter)
		p.Legend.Add(c.Name, scatter)
	}
	if len(rows) > 0 {
		p.NominalY(rows...)
		p.Y.Min, p.Y.Max = -0.5, float64(len(rows))+float64(len(r.Contenders))/2 // with room for the legend
	}
	p.X.Scale = plot.LogScale{}
	p.X.Min, p.X.Max = p.X.Min/1.03, p.X.Max*1.03
	p.X.Tick.Marker = ratioTicks{}
	return p, len(rows), nil
}

// ratioTicks are those of a logarithmic axis of ratios, close to each other where it is short.
type ratioTicks struct{}

func (ratioTicks) Ticks(low, high float64) []plot.Tick {
	at := []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100}
	switch {
	case high/low < 1.5:
		at = []float64{0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4}
	case high/low < 4:
		at = []float64{0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3}
	}
	var ticks []plot.Tick
	for _, v := range at {
		if low <= v && v <= high {
			ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', -1, 64)})
		}
	}
	return ticks
}

// setLegend sets the legend at the top.
func setLegend(p *plot.Plot, left bool) {
	p.Legend.Top, p.Legend.Left = true, left
	p.Legend.TextStyle.Font.Size = vg.Points(9)
	p.Legend.ThumbnailWidth = vg.Points(16)
	p.Legend.Padding = vg.Points(3)
}

func (r *Results) isBaseline(scenario, contender string) bool {
	return slices.ContainsFunc(r.Scenarios, func(s Scenario) bool { return s.Name == scenario && s.Baseline == contender })
}

// seriesPlots show what a cost depends on.
var seriesPlots = []struct{ series, what, metric string }{
	{"routes", "other routes", "cpu"},
	{"clients", "concurrent clients", "cpu"},
	{"clients", "concurrent clients", "p99"},
	{"silent", "silent clients", "cpu"},
	{"silent", "silent clients", "p99"},
	{"cores", "cores", "throughput"},
	{"cores", "cores", "cpu"},
}

func (r *Results) seriesPlot(sum *Summary, sp struct{ series, what, metric string }) (p *plot.Plot, drawn bool, err error) {
	p = newPlot()
	p.X.Label.Text = sp.what
	p.Y.Label.Text = FindMetric(sp.metric).Unit
	p.Add(plotter.NewGrid())
	var ticks []plot.Tick
	for _, s := range r.Scenarios {
		if s.Series == sp.series {
			ticks = append(ticks, plot.Tick{Value: s.X, Label: grouped(int64(s.X))})
		}
	}
	if len(ticks) < 2 {
		return p, false, nil
	}
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	labels := new(endLabels)
	low, high := math.Inf(1), 0.0
	for i, c := range r.Contenders {
		var points errorBars
		for _, s := range r.Scenarios {
			if e, ok := sum.Absolute(s.Name, c.Name, sp.metric); ok && s.Series == sp.series {
				points.add(plotter.XY{X: s.X, Y: e.Median}, e, 1)
				low, high = min(low, e.Median), max(high, e.Median)
			}
		}
		if len(points.XYs) == 0 {
			continue
		}
		drawn = true
		line, scatter, err := plotter.NewLinePoints(points.XYs)
		if err != nil {
			return nil, false, err
		}
		bars, err := plotter.NewYErrorBars(points)
		if err != nil {
			return nil, false, err
		}
		line.LineStyle, scatter.GlyphStyle = style(i)
		bars.LineStyle = line.LineStyle
		p.Add(line, scatter, bars)
		labels.add(p, i, c.Name, points.XYs[len(points.XYs)-1])
	}
	p.Add(labels)
	spread(p, low, high)
	return p, drawn, nil
}

// headroom is what an axis is longer by for the legend.
const headroom = 1.35

// memoryPlot has a group of points for each scenario with idle connections.
func (r *Results) memoryPlot(sum *Summary) (p *plot.Plot, drawn bool, err error) {
	p = newPlot()
	p.Y.Label.Text = "KiB"
	p.Y.Min = 0
	setLegend(p, true)
	p.Add(plotter.NewGrid())
	var names []string
	for _, s := range r.Scenarios {
		for _, c := range r.Contenders {
			if _, ok := sum.Absolute(s.Name, c.Name, "memory"); ok {
				names = append(names, s.Name)
				break
			}
		}
	}
	if len(names) == 0 {
		return p, false, nil
	}
	for i, c := range r.Contenders {
		var points errorBars
		for x, name := range names {
			if e, ok := sum.Absolute(name, c.Name, "memory"); ok {
				offset := (float64(i) - float64(len(r.Contenders)-1)/2) * 0.5 / float64(len(r.Contenders))
				points.add(plotter.XY{X: float64(x) + offset, Y: e.Median / 1024}, e, 1.0/1024)
			}
		}
		if len(points.XYs) == 0 {
			continue
		}
		scatter, err := plotter.NewScatter(points.XYs)
		if err != nil {
			return nil, false, err
		}
		bars, err := plotter.NewYErrorBars(points)
		if err != nil {
			return nil, false, err
		}
		bars.LineStyle, scatter.GlyphStyle = style(i)
		p.Add(bars, scatter)
		p.Legend.Add(c.Name, scatter)
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.5, float64(len(names))-0.5
	p.Y.Max *= headroom
	return p, true, nil
}

// latencyPlot shows the distributions, with as much room for each further nine of the quantile.
func (r *Results) latencyPlot(s Scenario) (p *plot.Plot, drawn bool, err error) {
	p = newPlot()
	p.X.Label.Text = "part of the operations"
	p.Y.Label.Text = "µs"
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = decades{}
	p.X.Tick.Marker = plot.ConstantTicks([]plot.Tick{
		{Value: nines(0.5), Label: "50 %"}, {Value: 1, Label: "90 %"},
		{Value: 2, Label: "99 %"}, {Value: 3, Label: "99.9 %"}, {Value: 4, Label: "99.99 %"}, {Value: 5, Label: "99.999 %"},
	})
	p.Add(plotter.NewGrid())
	labels := new(endLabels)
	for i, c := range r.Contenders {
		for _, l := range r.Latencies {
			if l.Scenario != s.Name || l.Contender != c.Name || r.failed(s.Name, c.Name) {
				continue
			}
			var points plotter.XYs
			for _, q := range l.Points {
				if q.Quantile < 1 && q.Microseconds > 0 {
					points = append(points, plotter.XY{X: nines(q.Quantile), Y: q.Microseconds})
				}
			}
			if len(points) < 2 {
				continue
			}
			drawn = true
			line, err := plotter.NewLine(points)
			if err != nil {
				return nil, false, err
			}
			line.LineStyle, _ = style(i)
			p.Add(line)
			labels.add(p, i, c.Name, points[len(points)-1])
		}
	}
	p.Add(labels)
	return p, drawn, nil
}

// nines is 0 for 0 %, 1 for 90 %, 2 for 99 %.
func nines(quantile float64) float64 { return -math.Log10(1 - quantile) }

// A RatePoint is the latencies, in milliseconds, at a rate.
type RatePoint struct{ Rate, P50, P99, P999 float64 }

// PlotRates draws latencies against rates. It draws nothing of less than two points.
func PlotRates(path, title string, points []RatePoint) (drawn bool, err error) {
	p := newPlot()
	p.Title.Text = title
	p.BackgroundColor = color.White
	p.X.Label.Text = "wanted requests/s"
	p.Y.Label.Text = "ms"
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = decades{}
	p.Add(plotter.NewGrid())
	labels := new(endLabels)
	for i, line := range []struct {
		name  string
		value func(RatePoint) float64
	}{
		{"p50", func(r RatePoint) float64 { return r.P50 }},
		{"p99", func(r RatePoint) float64 { return r.P99 }},
		{"p99.9", func(r RatePoint) float64 { return r.P999 }},
	} {
		var xys plotter.XYs
		for _, r := range points {
			if v := line.value(r); v > 0 {
				xys = append(xys, plotter.XY{X: r.Rate, Y: v})
			}
		}
		if len(xys) < 2 {
			return false, nil
		}
		l, s, err := plotter.NewLinePoints(xys)
		if err != nil {
			return false, err
		}
		l.LineStyle, s.GlyphStyle = style(i)
		p.Add(l, s)
		labels.add(p, i, line.name, xys[len(xys)-1])
	}
	p.Add(labels)
	return true, save(p, path, 16*vg.Centimeter, 9*vg.Centimeter)
}
