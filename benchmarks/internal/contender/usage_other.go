//go:build !unix

package contender

import "time"

func cpuTime() time.Duration { return 0 }

func runDelay() time.Duration { return 0 }

func switches() (voluntary, involuntary uint64) { return 0, 0 }
