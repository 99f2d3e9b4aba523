package oneportprom_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/testenv"
	oneportprom "github.com/oneport-go/oneport/metrics/prometheus"
)

// exported returns everything that is exported.
func exported(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	timer := oneportprom.NewDecideTimer()
	timer.Hooks(oneport.Hooks{}).OnMatch(oneport.Matched{})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(oneportprom.NewCollector(statsFunc(everything)), timer)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// series returns the labels of what can be queried, by name.
func series(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for _, f := range exported(t) {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		if f.GetType() != dto.MetricType_HISTOGRAM {
			all[f.GetName()] = labels
			continue
		}
		all[f.GetName()+"_sum"], all[f.GetName()+"_count"] = labels, labels
		all[f.GetName()+"_bucket"] = append(slices.Clip(labels), "le")
	}
	return all
}

// A dashboard is what a test has to know of one.
type dashboard struct {
	Templating struct {
		List []struct{ Definition string }
	}
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	b, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

var (
	selector   = regexp.MustCompile(`\{[^}]*\}`)
	matcher    = regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"[^"]*"`)
	grouping   = regexp.MustCompile(`\b(?:by|without) \(([^)]*)\)`)
	interval   = regexp.MustCompile(`\[[^\]]*\]`)
	identifier = regexp.MustCompile(`[a-zA-Z_]\w*`)
)

// checkQuery reports what a query names that is not exported, and returns the names of the series.
func checkQuery(t *testing.T, all map[string][]string, query string) (names []string) {
	t.Helper()
	rest := interval.ReplaceAllString(grouping.ReplaceAllString(selector.ReplaceAllString(query, ""), ""), "")
	labels := []string{"job", "instance"} // of the scrape
	for _, name := range identifier.FindAllString(rest, -1) {
		switch name {
		case "sum", "rate", "increase", "histogram_quantile", "label_values", "job", "instance":
			continue
		}
		if _, ok := all[name]; !ok {
			t.Errorf("%s: %s is not exported", query, name)
		}
		names = append(names, name)
		labels = append(labels, all[name]...)
	}
	if len(names) == 0 {
		t.Errorf("%s: no metric", query)
	}
	var used []string
	for _, m := range matcher.FindAllStringSubmatch(query, -1) {
		used = append(used, m[1])
	}
	for _, m := range grouping.FindAllStringSubmatch(query, -1) {
		used = append(used, strings.Split(m[1], ", ")...)
	}
	for _, label := range used {
		if !slices.Contains(labels, label) {
			t.Errorf("%s: there is no label %s", query, label)
		}
	}
	return names
}

// TestDashboard checks that the dashboard shows every metric, and only what there is.
func TestDashboard(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	all := series(t)
	shown := make(map[string]bool)
	for _, v := range d.Templating.List {
		if v.Definition != "" {
			checkQuery(t, all, v.Definition)
		}
	}
	ids := make(map[int]bool)
	cells := make(map[[2]int]string)
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the ID %d", p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%q is in the place of %q, or outside", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			for _, name := range checkQuery(t, all, target.Expr) {
				shown[name] = true
			}
		}
	}
	for name := range all {
		if !shown[name] {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

// alertQueries returns the queries of alerts.yml by the name of the alert.
func alertQueries(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	queries := make(map[string]string)
	for _, m := range regexp.MustCompile(`- alert: (\w+)\n +expr: (.+)\n`).FindAllStringSubmatch(string(b), -1) {
		queries[m[1]] = m[2]
	}
	if n := strings.Count(string(b), "alert:"); len(queries) != n {
		t.Fatalf("found %d of %d alerts", len(queries), n)
	}
	return queries
}

// TestAlerts checks that the alerts query only what there is.
func TestAlerts(t *testing.T) {
	t.Parallel()
	reasons := make(map[string]bool)
	for reason := oneport.ReasonNoRoute; !strings.HasPrefix(reason.String(), "RefuseReason("); reason++ {
		reasons[reason.String()] = true
	}
	for name, query := range alertQueries(t) {
		checkQuery(t, series(t), query)
		for _, m := range regexp.MustCompile(`reason="([^"]*)"`).FindAllStringSubmatch(query, -1) {
			if !reasons[m[1]] {
				t.Errorf("%s: there is no reason %q", name, m[1])
			}
		}
	}
}

// TestAlertsFire has promtool run the alerts over time series that are made up.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	promtool := testenv.Program(t, "promtool")
	tests, err := os.ReadFile("testdata/alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for name := range alertQueries(t) {
		if !strings.Contains(string(tests), "alertname: "+name+"\n") {
			t.Errorf("testdata/alerts_test.yml does not have %s", name)
		}
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "testdata/alerts_test.yml"}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}

// TestPage checks that docs/metrics.md explains every metric and every alert, and no other.
func TestPage(t *testing.T) {
	t.Parallel()
	const path = "../../docs/metrics.md"
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		t.Skip("the module is not in its repository")
	}
	if err != nil {
		t.Fatal(err)
	}
	explained := func(row string) []string {
		var names []string
		for _, m := range regexp.MustCompile(row).FindAllStringSubmatch(string(b), -1) {
			names = append(names, m[1])
		}
		slices.Sort(names)
		return names
	}
	var metrics []string
	for _, f := range exported(t) {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		name := f.GetName()
		if len(labels) > 0 {
			name += "{" + strings.Join(labels, ", ") + "}"
		}
		metrics = append(metrics, name+"` | "+strings.ToLower(f.GetType().String()))
	}
	slices.Sort(metrics)
	if got := explained("(?m)^\\| `(oneport_[^|]+` \\| \\w+) \\|"); !slices.Equal(got, metrics) {
		t.Errorf("%s explains\n%s\nand there are\n%s", path, strings.Join(got, "\n"), strings.Join(metrics, "\n"))
	}
	alerts := slices.Sorted(maps.Keys(alertQueries(t)))
	if got := explained("(?m)^\\| `(Oneport\\w+)` \\|"); !slices.Equal(got, alerts) {
		t.Errorf("%s explains the alerts %q, and there are %q", path, got, alerts)
	}
}
