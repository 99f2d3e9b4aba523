//go:build !linux

package machine

import "time"

// Now reads the times.
func Now() Times { return Times{At: time.Now()} }

// Load is the load average, where the system has one to show.
func Load() string { return "" }
