package oneportprom_test

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/oneport-go/oneport"
	oneportprom "github.com/oneport-go/oneport/metrics/prometheus"
)

// A server exports its own counters on its own port.
func Example() {
	registry := prometheus.NewRegistry()
	handler := http.NewServeMux()
	handler.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	handler.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello over", r.Proto) })
	server := &oneport.Server{Handler: handler}

	timer := oneportprom.NewDecideTimer()
	server.Hooks = timer.Hooks(server.Hooks)
	registry.MustRegister(oneportprom.NewCollector(server), timer)

	l, err := oneport.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- server.Serve(l) }()

	show := []string{"hello", "oneport_connections_matched", "oneport_route", "oneport_decide_duration_seconds_count"}
	for _, path := range []string{"/", "/metrics"} { // over one connection
		res, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			log.Fatal(err)
		}
		lines := bufio.NewScanner(res.Body)
		for lines.Scan() {
			for _, prefix := range show {
				if strings.HasPrefix(lines.Text(), prefix) {
					fmt.Println(lines.Text())
				}
			}
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	server.Close()
	<-done
	// Output:
	// hello over HTTP/1.1
	// oneport_connections_matched_total 1
	// oneport_decide_duration_seconds_count{outcome="matched",route="http"} 1
	// oneport_route_connections_matched_total{route="http"} 1
	// oneport_route_connections_queued{route="http"} 0
	// oneport_route_requests_refused_total{route="http"} 0
	// oneport_route_requests_total{route="http"} 0
}

// Two muxes in one registry get a label each.
func ExampleNewCollector() {
	registry := prometheus.NewRegistry()
	for _, name := range []string{"public", "internal"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		defer l.Close()
		labels := prometheus.Labels{"mux": name}
		prometheus.WrapRegistererWith(labels, registry).MustRegister(oneportprom.NewCollector(oneport.New(l)))
	}
	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "oneport_connections_accepted_total" {
			for _, m := range f.GetMetric() {
				fmt.Println(m.GetLabel()[0].GetValue(), m.GetCounter().GetValue())
			}
		}
	}
	// Output:
	// internal 0
	// public 0
}
