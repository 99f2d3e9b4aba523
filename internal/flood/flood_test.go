package main

import (
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/oneport-go/oneport"
	"github.com/oneport-go/oneport/internal/testenv"
)

// The test binary is the process of the clients too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == loadCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestFlood(t *testing.T) {
	type floodTest struct {
		name   string
		config config
		reason oneport.RefuseReason // of most refusals
	}
	tests := []floodTest{
		// A client has half a second to show what it wants.
		{"the longest waiting make room", config{serve: "mux", n: 60, rate: 100, maxUndecided: 50}, oneport.ReasonTooMany},
		{"as much as they may", config{serve: "mux", n: 100, hold: true}, oneport.ReasonTooMany},
	}
	for _, way := range slices.Sorted(maps.Keys(serving)) {
		tests = append(tests, floodTest{way, config{serve: way, n: 40}, oneport.ReasonTimeout})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.config
			c.limit, c.decide = 30*time.Second, 2*time.Second
			switch {
			case testenv.RaceEnabled && c.serve != "mux" && c.serve != "requests", testenv.RaceEnabled && c.hold:
				t.Skip("takes too long with the race detector for its times to mean anything")
			case testenv.RaceEnabled:
				c.decide = 4 * time.Second
			}
			c.maxBytes = 512 << 10 // with so few bad connections the good ones take most of the memory
			c.maxTotal = 384
			r, err := run(c)
			if err != nil {
				t.Error(err)
			}
			if r == nil {
				return
			}
			if r.stats.Refused[tt.reason] == 0 {
				t.Errorf("no connection was refused for %q", tt.reason)
			}
			if t.Failed() || testing.Verbose() {
				r.print()
			}
		})
	}
}
