package oneportprom

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oneport-go/oneport"
)

// A DecideTimer measures the time from Accept until a connection has its route or is refused: the histogram
// oneport_decide_duration_seconds, with the labels outcome (matched or refused) and route. It is a
// [prometheus.Collector]; create it with [NewDecideTimer].
//
//	timer := oneportprom.NewDecideTimer()
//	server.Hooks = timer.Hooks(server.Hooks)
//	prometheus.MustRegister(oneportprom.NewCollector(server), timer)
//
// A mux with the hook OnMatch decides about every connection on a separate goroutine, and no longer on its accept loop,
// which costs two goroutine switches for each connection whose first bytes had already arrived: see
// docs/performance.md. Leave the timer out if short connections matter more than the histogram.
//
// Where requests are dispatched, the timer measures the time until the first request has arrived, and the route is that
// of the RequestMux. A connection that had its route and was then refused, for instance because the queue stayed full,
// counts in both outcomes. The route is empty for connections that no route had taken. The histogram has classic
// buckets, and native ones for a Prometheus that asks for them.
type DecideTimer struct{ durations *prometheus.HistogramVec }

// NewDecideTimer returns a new DecideTimer.
func NewDecideTimer() *DecideTimer {
	return &DecideTimer{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace,
		Name:      "decide_duration_seconds",
		Help:      "Time from Accept until a connection had its route or was refused, by outcome and route.",
		// From first bytes that are there already, over round trips, to Limits.DecideTimeout and Limits.IdleTimeout.
		Buckets: []float64{.0001, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 300},

		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"outcome", "route"})}
}

// Hooks returns hooks that measure and call those of next. Fields of next may be nil, and next itself is not
// changed. One timer may serve several muxes, whose connections it then measures together.
func (t *DecideTimer) Hooks(next oneport.Hooks) oneport.Hooks {
	hooks := next
	hooks.OnMatch = func(m oneport.Matched) {
		if next.OnMatch != nil {
			next.OnMatch(m) // if it panics, the connection is refused
		}
		t.observe("matched", m.Route, m.Waited)
	}
	hooks.OnRefuse = func(r oneport.Refused) {
		t.observe("refused", r.Route, r.Waited)
		if next.OnRefuse != nil {
			next.OnRefuse(r)
		}
	}
	return hooks
}

func (t *DecideTimer) observe(outcome, route string, waited time.Duration) {
	t.durations.WithLabelValues(outcome, labelValue(route)).Observe(waited.Seconds())
}

// Describe implements [prometheus.Collector].
func (t *DecideTimer) Describe(ch chan<- *prometheus.Desc) { t.durations.Describe(ch) }

// Collect implements [prometheus.Collector].
func (t *DecideTimer) Collect(ch chan<- prometheus.Metric) { t.durations.Collect(ch) }
