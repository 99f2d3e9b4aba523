//go:build !linux

package contender

func memory() (resident, peak uint64) { return 0, 0 }
