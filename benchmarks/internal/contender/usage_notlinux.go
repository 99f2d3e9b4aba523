//go:build unix && !linux

package contender

import "time"

func cpuTime() time.Duration { return rusageTime() }

func runDelay() time.Duration { return 0 }
