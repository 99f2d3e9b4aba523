package main

import (
	"os"
	"testing"
	"time"

	"github.com/oneport-go/oneport"
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
	for _, tt := range []struct {
		name   string
		config config
		reason oneport.RefuseReason // of most refusals
	}{
		{"room for all", config{n: 100}, oneport.ReasonTimeout},
		// A client has half a second to show what it wants.
		{"the longest waiting make room", config{n: 60, rate: 100, maxUndecided: 50}, oneport.ReasonTooMany},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.config
			c.limit, c.decide = 10*time.Second, time.Second
			c.maxBytes = 256 << 10 // with so few bad connections the good ones take most of the memory
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
