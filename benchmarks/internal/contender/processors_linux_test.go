package contender

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/oneport-go/oneport/benchmarks/internal/affinity"
)

// TestProcessors has a server use one processor only.
func TestProcessors(t *testing.T) {
	t.Parallel()
	all, err := affinity.All()
	if err != nil {
		t.Fatal(err)
	}
	last := all[len(all)-1]
	p := startContender(t, Config{Contender: "plain", Processors: []int{last}})
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\nCpus_allowed_list:\t%d\n", last); !strings.Contains(string(b), want) {
		t.Errorf("the server may use others than %d: %s", last, b)
	}
}
