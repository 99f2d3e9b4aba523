package cmux

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/soheilhy/cmux"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// TestProbe has oneport probe look at programs that use cmux: at the original, where it has to find what is wrong, and
// at the replacement, where nothing is.
func TestProbe(t *testing.T) {
	t.Parallel()
	if !original {
		t.Run("original", func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "go", "test", "-modfile=original.mod", "-vet=off", "-count=1", "-run", "^TestProbe$", ".")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %v\n%s", cmd, err, out)
			}
		})
	}
	command := filepath.Join(t.TempDir(), "oneport")
	if runtime.GOOS == "windows" {
		command += ".exe"
	}
	// A package of the root module, with its dependencies and not with those here.
	build := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.FromSlash("../../.."), "-o", command, "./cmd/oneport")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	for _, test := range []struct {
		name     string
		match    func(cmux.CMux) net.Listener
		original []string // what the probe finds with the original
	}{
		{"HTTP2HeaderField", func(m cmux.CMux) net.Listener {
			return m.Match(cmux.HTTP2HeaderField("content-type", "application/grpc"))
		}, []string{"settings-hang"}},
		{"SendSettings", func(m cmux.CMux) net.Listener {
			return m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc"))
		}, []string{"settings-ack"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := listen(t)
			m := cmux.New(l)
			g := grpc.NewServer()
			healthpb.RegisterHealthServer(g, health.NewServer())
			h := &http.Server{
				Handler:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello\n")) }),
				Protocols: new(http.Protocols),
			}
			h.Protocols.SetHTTP1(true)
			h.Protocols.SetUnencryptedHTTP2(true)
			grpcL, httpL := test.match(m), m.Match(cmux.HTTP2(), cmux.HTTP1Fast())
			go g.Serve(grpcL)
			go h.Serve(httpL)
			t.Cleanup(func() {
				g.Stop()
				h.Close()
			})
			serve(t, m, l)

			cmd := exec.CommandContext(t.Context(), command, "probe", "-json", "-timeout", "2s", "-idle", "200ms", "-skip", "mixed", l.Addr().String())
			out, err := cmd.Output()
			if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
				t.Fatal(err)
			}
			var report struct{ Findings []struct{ Code string } }
			if err := json.Unmarshal(out, &report); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var codes, want []string
			for _, f := range report.Findings {
				codes = append(codes, f.Code)
			}
			if original {
				want = test.original
			}
			if !slices.Equal(codes, want) {
				t.Errorf("findings %q, want %q\n%s", codes, want, out)
			}
		})
	}
}
