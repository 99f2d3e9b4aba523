// Package oneportprom exports the counters of a [oneport.Mux] or a [oneport.Server] to Prometheus:
//
//	import oneportprom "github.com/oneport-go/oneport/metrics/prometheus"
//
//	prometheus.MustRegister(oneportprom.NewCollector(server))
//
// The collector reads [oneport.Stats] when it is scraped, and costs nothing otherwise. A [DecideTimer] adds a
// histogram of the time that connections wait for their route, at some cost. docs/metrics.md of oneport explains
// each metric and suggests alerts. dashboard.json is a dashboard for Grafana, alerts.yml has rules for Prometheus.
//
// # Several muxes
//
// A registry takes one collector without labels. If a program has several muxes, give each a label:
//
//	for name, mux := range muxes {
//		labels := prometheus.Labels{"mux": name}
//		prometheus.WrapRegistererWith(labels, registry).MustRegister(oneportprom.NewCollector(mux))
//	}
//
// A collector stays registered when its mux has ended, and keeps the mux in memory. Its counters keep their last
// values, which is right for a program that ends with its mux. If muxes come and go, unregister the collector of each
// with the same registerer, when Serve and Shutdown have returned.
//
// # Cardinality
//
// The number of time series is bounded by the configuration and not by clients. Values of the label route are the
// names of routes ([oneport.Route]), those of reason the refusal reasons ([oneport.RefuseReason]), and those of alpn
// the protocols that the TLS configuration offers. A route has four series, and up to 13 more for the reasons for
// which it has refused connections.
package oneportprom

import (
	"maps"
	"strconv"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oneport-go/oneport"
)

const namespace = "oneport"

var (
	accepted = newDesc("connections_accepted_total",
		"Connections accepted from the listener.")
	matched = newDesc("connections_matched_total",
		"Connections that a server has accepted.")
	refused = newDesc("connections_refused_total",
		"Connections closed before a server had them, by reason.", "reason")
	connections = newDesc("connections",
		"Current connections that the mux holds, by phase: undecided (without a route), queued (not accepted by the server "+
			"of their route), refusing (being answered), passing and shared (requests dispatched, to one server or several).",
		"phase")
	split = newDesc("connections_split_total",
		"Connections that became shared.")
	abused = newDesc("connections_abused_total",
		"Connections ended because the client exceeded a limit after a server had accepted them.")
	upgraded = newDesc("connections_upgraded_total",
		"Connections upgraded to HTTP/2 by Upgrade: h2c.")
	earlySettings = newDesc("early_settings_total",
		"Connections that were sent a SETTINGS frame before they had a server.")
	acceptErrors = newDesc("accept_errors_total",
		"Temporary errors of Accept.")
	handshakes = newDesc("tls_handshakes_total",
		"Completed TLS handshakes, by negotiated protocol. An empty alpn stands for none.", "alpn")
	withoutALPN = newDesc("http2_without_alpn_total",
		"Connections with HTTP/2 inside TLS for which ALPN had negotiated nothing.")

	routeMatched = newDesc("route_connections_matched_total",
		"Connections that the server of the route has accepted. One whose requests are dispatched counts for each server.",
		"route")
	routeRefused = newDesc("route_connections_refused_total",
		"Connections that the route had taken and that were closed before its server had them, by reason.",
		"route", "reason")
	routeQueued = newDesc("route_connections_queued",
		"Current connections in the queue of the route.", "route")
	routeRequests = newDesc("route_requests_total",
		"Requests sent to the server of the route, where requests are dispatched. The route none counts those that no route took.",
		"route")
	routeRequestsRefused = newDesc("route_requests_refused_total",
		"Requests reset because their server could not take them, counted under the route none.", "route")
)

// descs are all that a collector describes.
var descs []*prometheus.Desc

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	descs = append(descs, d)
	return d
}

// NewCollector returns a collector for the counters of a [oneport.Mux] or a [oneport.Server].
func NewCollector(source interface{ Stats() oneport.Stats }) prometheus.Collector {
	return collector{source.Stats}
}

type collector struct{ stats func() oneport.Stats }

// Describe implements [prometheus.Collector].
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	s := c.stats()
	counter(accepted, s.Accepted)
	counter(matched, s.Matched)
	for reason, n := range everyReason(s.Refused) {
		counter(refused, n, reason.String())
	}
	gauge(connections, s.Undecided, "undecided")
	gauge(connections, s.Queued, "queued")
	gauge(connections, s.Refusing, "refusing")
	gauge(connections, s.Passing, "passing")
	gauge(connections, s.Shared, "shared")
	counter(split, s.Split)
	counter(abused, s.Abused)
	counter(upgraded, s.Upgraded)
	counter(earlySettings, s.EarlySettings)
	counter(acceptErrors, s.AcceptErrors)
	for protocol, n := range s.ALPN {
		counter(handshakes, n, labelValue(protocol))
	}
	counter(withoutALPN, s.HTTP2WithoutALPN)
	for _, r := range s.Routes {
		name := labelValue(r.Name)
		counter(routeMatched, r.Matched, name)
		gauge(routeQueued, r.Queued, name)
		counter(routeRequests, r.Requests, name)
		counter(routeRequestsRefused, r.Refused, name)
	}
	for route, reasons := range s.RefusedByRoute {
		for reason, n := range reasons {
			counter(routeRefused, n, labelValue(route), reason.String())
		}
	}
}

// everyReason returns the counts with those of the reasons that have not occurred, so that the first increase of a
// counter is one: Prometheus sees none where a series begins.
func everyReason(occurred map[oneport.RefuseReason]uint64) map[oneport.RefuseReason]uint64 {
	all := make(map[oneport.RefuseReason]uint64)
	for reason := oneport.ReasonNoRoute; reason <= lastReason; reason++ {
		all[reason] = 0
	}
	maps.Copy(all, occurred)
	return all
}

const lastReason = oneport.ReasonReadError

// labelValue returns a name as a label can have it: Prometheus accepts only UTF-8, and routes can be named after bytes.
func labelValue(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return strconv.QuoteToASCII(name)
}
