package results

import (
	"bytes"
	"math"
	"os"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// newPlot makes a plot in a font without serifs.
func newPlot() *plot.Plot {
	p := plot.New()
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	for _, style := range []*draw.TextStyle{
		&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle,
	} {
		size := style.Font.Size
		style.Font = sans
		style.Font.Size = size
	}
	p.Title.Padding = vg.Points(8)
	p.X.Label.Padding, p.Y.Label.Padding = vg.Points(4), vg.Points(4)
	return p
}

// margin is around a plot, in the plot's white: on a dark page it is a card.
const margin = vg.Length(14)

// save writes a plot as SVG.
func save(p *plot.Plot, path string, width, height vg.Length) error {
	c := vgsvg.New(width+2*margin, height+2*margin)
	all := draw.New(c)
	all.FillPolygon(p.BackgroundColor, []vg.Point{
		all.Min, {X: all.Max.X, Y: all.Min.Y}, all.Max, {X: all.Min.X, Y: all.Max.Y},
	})
	p.Draw(draw.Crop(all, margin, -margin, margin, -margin))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return err
	}
	// Where the font is not there, one of the same widths is.
	svg := bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif;"))
	return os.WriteFile(path, svg, 0o644)
}

// endLabels are the names of lines, at their ends, each in the colour of its line. They take the place of a legend.
type endLabels struct {
	ends   plotter.XYs
	names  []string
	styles []draw.TextStyle
}

// add adds the label of the i-th line.
func (l *endLabels) add(p *plot.Plot, i int, name string, end plotter.XY) {
	line, _ := style(i)
	text := p.Legend.TextStyle
	text.Color, text.XAlign, text.YAlign = line.Color, draw.XLeft, draw.YCenter
	text.Font.Size = vg.Points(9)
	l.ends, l.names, l.styles = append(l.ends, end), append(l.names, name), append(l.styles, text)
}

// labelGap is between the end of a line and its label.
const labelGap = vg.Length(7)

// Plot draws them, as near to their lines as they fit under each other.
func (l *endLabels) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	order := make([]int, len(l.ends))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(math.Copysign(1, l.ends[b].Y-l.ends[a].Y)) })
	at := make([]vg.Length, len(order))
	right := c.Min.X
	for k, i := range order {
		at[k] = y(l.ends[i].Y)
		right = max(right, x(l.ends[i].X))
	}
	const apart = vg.Length(11)
	// From the top down, then up again where that ends below the plot.
	for k := 1; k < len(at); k++ {
		at[k] = min(at[k], at[k-1]-apart)
	}
	if n := len(at); n > 0 {
		at[n-1] = max(at[n-1], c.Min.Y)
		for k := n - 2; k >= 0; k-- {
			at[k] = max(at[k], at[k+1]+apart)
		}
	}
	for k, i := range order {
		c.FillText(l.styles[i], vg.Point{X: right + labelGap, Y: at[k]}, l.names[i])
	}
}

// GlyphBoxes reserves the room.
func (l *endLabels) GlyphBoxes(p *plot.Plot) []plot.GlyphBox {
	var boxes []plot.GlyphBox
	right := math.Inf(-1)
	for _, end := range l.ends {
		right = max(right, p.X.Norm(end.X))
	}
	for i, name := range l.names {
		r := l.styles[i].Rectangle(name)
		r.Max.X += labelGap
		boxes = append(boxes, plot.GlyphBox{X: right, Y: p.Y.Norm(l.ends[i].Y), Rectangle: r})
	}
	return boxes
}

// spread sets a logarithmic scale for y where the values span more than an order, and else one from 0.
func spread(p *plot.Plot, low, high float64) {
	if low <= 0 || high/low < 10 {
		p.Y.Min = 0
		return
	}
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = decades{}
	p.Y.Min, p.Y.Max = low/1.2, high*1.2
}

// decades are the ticks of a logarithmic axis: 1, 2 and 5 of each power of ten, with commas between the thousands.
type decades struct{}

func (decades) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for exponent := math.Floor(math.Log10(low)); math.Pow(10, exponent) <= high; exponent++ {
		for _, m := range []float64{1, 2, 5} {
			v := m * math.Pow(10, exponent)
			if v < low || v > high {
				continue
			}
			label := strconv.FormatFloat(v, 'g', 3, 64)
			if v >= 1000 {
				label = grouped(int64(math.Round(v)))
			}
			if m != 1 && high/low > 1000 {
				label = ""
			}
			ticks = append(ticks, plot.Tick{Value: v, Label: label})
		}
	}
	return ticks
}
