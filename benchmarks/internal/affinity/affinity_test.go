package affinity

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHalves(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		cpus          []cpu
		first, second []int
	}{
		{"two", []cpu{{0, 0, 0}, {1, 0, 1}}, []int{0}, []int{1}},
		{"two of one core", []cpu{{0, 0, 0}, {1, 0, 0}}, []int{0}, []int{1}},
		{"an odd number", []cpu{{0, 0, 0}, {1, 0, 1}, {2, 0, 2}}, []int{0}, []int{1, 2}},
		{"threads far from each other", []cpu{{0, 0, 0}, {1, 0, 1}, {2, 0, 0}, {3, 0, 1}}, []int{0, 2}, []int{1, 3}},
		{"three cores", []cpu{{0, 0, 0}, {1, 0, 0}, {2, 0, 1}, {3, 0, 1}, {4, 0, 2}, {5, 0, 2}}, []int{0, 1}, []int{2, 3, 4, 5}},
		{"a large core first", []cpu{{0, 0, 0}, {1, 0, 0}, {2, 0, 0}, {3, 0, 1}}, []int{0, 1, 2}, []int{3}},
		{"a core in the middle", []cpu{{0, 0, 0}, {1, 0, 1}, {2, 0, 1}, {3, 0, 2}}, []int{0}, []int{1, 2, 3}},
		{"two sockets with the same names", []cpu{{0, 0, 0}, {1, 1, 0}, {2, 0, 1}, {3, 1, 1}}, []int{0, 2}, []int{1, 3}},
		{"not all from 0 on", []cpu{{5, 0, 5}, {7, 0, 7}}, []int{5}, []int{7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			first, second := halves(tt.cpus)
			if diff := cmp.Diff(tt.first, first); diff != "" {
				t.Errorf("first: %s", diff)
			}
			if diff := cmp.Diff(tt.second, second); diff != "" {
				t.Errorf("second: %s", diff)
			}
		})
	}
}
