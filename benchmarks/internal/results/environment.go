package results

import (
	"bufio"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// Environment is what the numbers hold for.
type Environment struct {
	System     string // GOOS/GOARCH
	Kernel     string
	CPU        string
	Processors int
	MemoryGiB  float64
	Go         string
	Revision   string            // of the code
	Modules    map[string]string // versions
}

// modules are those whose versions matter for the numbers.
var modules = []string{
	"google.golang.org/grpc",
	"golang.org/x/net",
	"github.com/soheilhy/cmux",
}

// Look finds out what the environment is.
func Look() Environment {
	e := Environment{
		System:     runtime.GOOS + "/" + runtime.GOARCH,
		Kernel:     firstLine("/proc/sys/kernel/osrelease"),
		CPU:        procValue("/proc/cpuinfo", "model name"),
		Processors: runtime.NumCPU(),
		Go:         runtime.Version(),
		Revision:   revision(),
		Modules:    make(map[string]string),
	}
	if kB := procValue("/proc/meminfo", "MemTotal"); kB != "" {
		e.MemoryGiB = parseGiB(kB)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if slices.Contains(modules, m.Path) {
				e.Modules[m.Path] = m.Version
			}
		}
	}
	return e
}

func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// procValue finds the first line "name : value".
func procValue(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		n, v, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(n) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// revision asks git, since go run does not put the revision into the program.
func revision() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// parseGiB reads "1234 kB".
func parseGiB(s string) float64 {
	kB, err := strconv.ParseFloat(strings.TrimSuffix(s, " kB"), 64)
	if err != nil {
		return 0
	}
	return math.Round(kB/(1<<20)*10) / 10
}
