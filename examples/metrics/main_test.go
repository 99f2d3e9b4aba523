package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves until the test ends.
func start(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer()
	s.Logger = slog.New(slog.DiscardHandler)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, oneport.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

func httpClient(t *testing.T, http2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, res.Status, err)
	}
	return string(b)
}

// startPrometheus runs a Prometheus by prometheus.yml that scrapes the server often, until the test ends.
func startPrometheus(t *testing.T, target string) prometheus.API {
	t.Helper()
	program := testenv.Program(t, "prometheus")
	config, err := os.ReadFile("prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Abs("../../metrics/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.NewReplacer("127.0.0.1:8080", target, "15s", "500ms", "../../metrics/prometheus/alerts.yml", rules).
		Replace(string(config))
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr := make(chan string, 1)
	logged := make(chan string, 1)
	go func() {
		var all strings.Builder
		listening := regexp.MustCompile(`[Ll]istening on.*address=(\S+:[1-9]\d*)`)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&all, lines.Text())
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case addr <- m[1]:
				default:
				}
			}
		}
		close(addr)
		logged <- all.String()
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		log := <-logged
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("Prometheus: %v\n%s", err, log)
		}
	})
	server, ok := <-addr
	if !ok {
		t.Fatal("Prometheus does not listen")
	}
	tr := new(http.Transport)
	t.Cleanup(tr.CloseIdleConnections)
	client, err := api.NewClient(api.Config{Address: "http://" + server, RoundTripper: tr})
	if err != nil {
		t.Fatal(err)
	}
	return prometheus.NewAPI(client)
}

// eventually calls f until it returns nil.
func eventually(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	var last error // which does not only say that the time is over
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatal(last, err)
		}
		last = err
	}
}

// wantValues waits until Prometheus answers the queries with the values.
func wantValues(t *testing.T, p prometheus.API, want map[string]float64) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		var errs []error
		for query, value := range want {
			got, _, _, err := p.Query(ctx, query, time.Now())
			switch v, ok := got.(model.Vector); {
			case err != nil:
				errs = append(errs, err)
			case !ok || len(v) != 1 || float64(v[0].Value) != value:
				errs = append(errs, fmt.Errorf("%s: got %v, want %v", query, got, value))
			}
		}
		return errors.Join(errs...)
	})
}

// TestPrometheus has clients of several kinds use the server, and asks a real Prometheus what it knows of them.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	testenv.Program(t, "prometheus")
	addr := start(t)
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	h1, h2 := httpClient(t, false), httpClient(t, true)
	use := func() {
		t.Helper()
		for range 3 {
			if _, err := healthpb.NewHealthClient(cc).Check(t.Context(), new(healthpb.HealthCheckRequest)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if got := get(t, h1, "http://"+addr+"/hello"); got != "hello over HTTP/1.1\n" {
				t.Error(got)
			}
		}
		if got := get(t, h2, "http://"+addr+"/hello"); got != "hello over HTTP/2.0\n" {
			t.Error(got)
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte{0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatal(err)
		}
	}

	use()
	p := startPrometheus(t, addr)
	// Prometheus connects over HTTP/1, and again if the machine is too busy to answer it in time.
	wantValues(t, p, map[string]float64{
		`up`: 1,
		`oneport_connections_accepted_total - oneport_connections_matched_total`:  1,
		`sum(oneport_connections_refused_total)`:                                  1,
		`oneport_connections_refused_total{reason="no route"}`:                    1,
		`oneport_connections{phase="passing"}`:                                    2,
		`oneport_route_requests_total{route="http2/grpc"}`:                        3,
		`oneport_route_requests_total{route="http2/http"}`:                        1,
		`oneport_route_connections_matched_total{route="http2/grpc"}`:             1,
		`oneport_route_connections_matched_total{route="http"} >= bool 2`:         1,
		`oneport_early_settings_total >= bool 1`:                                  1,
		`oneport_decide_duration_seconds_count{outcome="matched", route="http2"}`: 2,
		`oneport_decide_duration_seconds_count{outcome="refused", route=""}`:      1,
		`oneport_decide_duration_seconds_count{route="http"} >= bool 2`:           1,
	})
	use()
	wantValues(t, p, map[string]float64{
		`oneport_connections_accepted_total - oneport_connections_matched_total`: 2,
		`oneport_connections_refused_total{reason="no route"}`:                   2,
		`oneport_route_requests_total{route="http2/grpc"}`:                       6,
		`oneport_route_requests_total{route="http2/http"}`:                       2,
	})

	t.Run("alerts", func(t *testing.T) {
		eventually(t, func(ctx context.Context) error {
			rules, err := p.Rules(ctx, nil)
			if err != nil {
				return err
			}
			for _, g := range rules.Groups {
				for _, r := range g.Rules {
					if alert := r.(prometheus.AlertingRule); alert.Health != prometheus.RuleHealthGood {
						return fmt.Errorf("%s is %s: %s", alert.Name, alert.Health, alert.LastError)
					}
				}
			}
			if len(rules.Groups) != 1 {
				return fmt.Errorf("%d groups of rules", len(rules.Groups))
			}
			return nil
		})
	})
	t.Run("dashboard", func(t *testing.T) {
		b, err := os.ReadFile("../../metrics/prometheus/dashboard.json")
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			Panels []struct {
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(b, &dashboard); err != nil {
			t.Fatal(err)
		}
		variables := strings.NewReplacer("$__rate_interval", "1m", "$job", "oneport", "$instance", ".*")
		// Nothing of these kinds has happened.
		none := []string{"oneport_tls_handshakes_total", "oneport_route_connections_refused_total"}
		n := 0
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				n++
				empty := slices.ContainsFunc(none, func(name string) bool { return strings.Contains(target.Expr, name) })
				got, warnings, _, err := p.Query(t.Context(), variables.Replace(target.Expr), time.Now())
				if v, ok := got.(model.Vector); err != nil || len(warnings) > 0 || !ok || (len(v) == 0) != empty {
					t.Errorf("%s: %v, %q, %v", target.Expr, got, warnings, err)
				}
			}
		}
		if n == 0 {
			t.Error("there are no queries")
		}
	})
}

// TestMetrics reads /metrics as Prometheus does.
func TestMetrics(t *testing.T) {
	t.Parallel()
	addr := start(t)
	for _, http2 := range []bool{false, true} {
		got := get(t, httpClient(t, http2), "http://"+addr+"/metrics")
		for _, want := range []string{"oneport_connections{", "oneport_decide_duration_seconds_sum{", "go_info{"} {
			if !strings.Contains(got, "\n"+want) {
				t.Errorf("HTTP/2 %v: no %q in\n%s", http2, want, got)
			}
		}
	}
}
