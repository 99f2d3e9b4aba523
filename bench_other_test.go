//go:build !unix

package oneport

import "time"

// cpuTime is not known here.
func cpuTime() time.Duration { return 0 }
