package kubernetes

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/oneport-go/oneport/internal/exampletest"
	"github.com/oneport-go/oneport/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// readYAML decodes each of the documents in a file, of which values of T must have every key.
func readYAML[T any](t *testing.T, file string) []T {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []T
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var v T
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, v)
	}
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

// An object has what the test looks at.
type object struct {
	Kind string
	Spec struct {
		Template struct {
			Spec struct {
				TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
				Containers                    []struct {
					Args  []string
					Ports []struct {
						Name          string
						ContainerPort int `yaml:"containerPort"`
					}
					StartupProbe   probe `yaml:"startupProbe"`
					LivenessProbe  probe `yaml:"livenessProbe"`
					ReadinessProbe probe `yaml:"readinessProbe"`
					Lifecycle      struct {
						PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
					}
				}
			}
		}
		Ports []struct {
			TargetPort string `yaml:"targetPort"`
		}
	}
}

// TestManifest checks what has to agree with the program, and that the times of the end add up.
func TestManifest(t *testing.T) {
	t.Parallel()
	objects := readYAML[object](t, "manifest.yaml")
	if len(objects) != 4 || objects[0].Kind != "Deployment" || len(objects[0].Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("objects: %+v", objects)
	}
	pod := objects[0].Spec.Template.Spec
	c := pod.Containers[0]
	if c.StartupProbe.HTTPGet.Path != "/livez" || c.LivenessProbe.HTTPGet.Path != "/livez" || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
		t.Errorf("probes: %+v, %+v, %+v", c.StartupProbe, c.LivenessProbe, c.ReadinessProbe)
	}
	for _, p := range []probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if p.HTTPGet.Port != c.Ports[0].Name {
			t.Errorf("probe of port %q, want %q", p.HTTPGet.Port, c.Ports[0].Name)
		}
	}
	for _, o := range objects {
		for _, p := range o.Spec.Ports {
			if p.TargetPort != c.Ports[0].Name {
				t.Errorf("%s for port %q, want %q", o.Kind, p.TargetPort, c.Ports[0].Name)
			}
		}
	}
	args := flag.NewFlagSet("production", flag.ContinueOnError)
	notice, drain := args.Duration("notice", 0, ""), args.Duration("drain", 0, "")
	args.String("cert", "", "")
	args.String("key", "", "")
	if err := args.Parse(c.Args); err != nil {
		t.Fatal(err)
	}
	end := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds)*time.Second + *notice + *drain
	if grace := time.Duration(pod.TerminationGracePeriodSeconds) * time.Second; *drain == 0 || end >= grace {
		t.Errorf("the end takes %v, and the pod is killed after %v", end, grace)
	}
}

// TestCompose checks that the services have the files that they mount.
func TestCompose(t *testing.T) {
	t.Parallel()
	compose := readYAML[struct {
		Services map[string]struct {
			Build struct{ Context, Dockerfile string }
			// Volumes are in the short form.
			Volumes []string
		}
	}](t, "compose.yaml")[0]
	if app := compose.Services["app"]; app.Build.Context == "" {
		t.Errorf("no app: %+v", compose)
	} else if _, err := os.Stat(filepath.Join(app.Build.Context, app.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
	for name, s := range compose.Services {
		for _, v := range s.Volumes {
			file, _, _ := strings.Cut(v, ":")
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestEnvoyConfig checks that the routes lead to clusters that there are.
func TestEnvoyConfig(t *testing.T) {
	t.Parallel()
	config := readYAML[map[string]any](t, "envoy.yaml")[0]
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Static struct {
			Listeners []struct {
				FilterChains []struct {
					Filters []struct {
						Config struct {
							Routes struct {
								Hosts []struct {
									Routes []struct {
										Route struct{ Cluster string }
									}
								} `json:"virtual_hosts"`
							} `json:"route_config"`
						} `json:"typed_config"`
					}
				} `json:"filter_chains"`
			}
			Clusters []struct{ Name string }
		} `json:"static_resources"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	routes := c.Static.Listeners[0].FilterChains[0].Filters[0].Config.Routes.Hosts[0].Routes
	if len(routes) != 2 || len(c.Static.Clusters) != 1 {
		t.Fatalf("routes %+v, clusters %+v", routes, c.Static.Clusters)
	}
	for _, r := range routes {
		if r.Route.Cluster != c.Static.Clusters[0].Name {
			t.Errorf("a route to cluster %q, want %q", r.Route.Cluster, c.Static.Clusters[0].Name)
		}
	}
}

// startProduction starts the example production, and returns its address.
func startProduction(t *testing.T) (addr string, process *os.Process, log *exampletest.Log) {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "production")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", exe, "./examples/production")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(exe, "-addr", "127.0.0.1:0", "-notice", "1h")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	t.Cleanup(func() {
		cmd.Process.Kill()
		reading.Wait()
		cmd.Wait()
	})
	lines := bufio.NewReader(stderr)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var serving struct{ Msg, Addr string }
	if err := json.Unmarshal(first, &serving); err != nil || serving.Msg != "serving" {
		t.Fatalf("%s: %v", first, err)
	}
	log = new(exampletest.Log)
	reading.Go(func() { io.Copy(log, lines) })
	return serving.Addr, cmd.Process, log
}

// TestHAProxy has HAProxy check its configuration, and serve with it, in front of the program that later drains.
func TestHAProxy(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("HAProxy inherits its socket")
	}
	haproxy := testenv.Program(t, "haproxy")
	app, process, log := startProduction(t)
	l := exampletest.Listen(t).(*net.TCPListener)
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), haproxy, args...)
		cmd.Env = append(os.Environ(), "PROXY_ADDR=fd@3", "APP_ADDR="+app)
		cmd.ExtraFiles = []*os.File{f}
		return cmd
	}
	if out, err := command("-c", "-f", "haproxy.cfg").CombinedOutput(); err != nil || bytes.Contains(out, []byte("WARNING")) {
		t.Fatalf("haproxy -c: %v\n%s", err, out)
	}
	var out exampletest.Log
	proxy := command("-db", "-f", "haproxy.cfg")
	proxy.Stdout, proxy.Stderr = &out, &out
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		proxy.Process.Kill()
		proxy.Wait()
	}()

	addr := l.Addr().String()
	cc := exampletest.GRPC(t, addr)
	exampletest.CheckHealth(t, cc)
	exampletest.CheckServices(t, cc, "grpc.health.v1.Health")
	for _, http2 := range []bool{false, true} {
		if status, got := exampletest.Get(t, exampletest.HTTP(t, http2), "http://"+addr+"/hello/World"); status != 200 || got != "Hello, World, over HTTP/2.0\n" {
			t.Errorf("%d, %q", status, got)
		}
	}

	// When the program drains, HAProxy notices, and sends it no more requests.
	if err := process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	log.Await(t, "not ready: waiting for load balancers to notice")
	out.Await(t, "Server app/app is DOWN")
	if status, _ := exampletest.Get(t, exampletest.HTTP(t, false), "http://"+addr+"/hello/World"); status != 503 {
		t.Errorf("HAProxy answers %d while its only server drains", status)
	}
}
