package contender

import "testing"

func TestKilobytes(t *testing.T) {
	t.Parallel()
	const status = "Name:\tserver\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nVmData:\tmany kB\n"
	for name, want := range map[string]uint64{"VmRSS": 1 << 20, "VmHWM": 2 << 20, "VmData": 0, "VmSwap": 0} {
		if got := kilobytes(status, name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}
