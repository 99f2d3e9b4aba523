// Package affinity keeps the server and the load from taking each other's processors.
package affinity

import (
	"cmp"
	"slices"
)

// A cpu is a processor.
type cpu struct {
	number int
	// Where it is: processors of one core, which share its units, have both in common.
	socket, core int
}

// halves divides processors into two groups of the same size, give or take one. No core is in both, where there are two.
func halves(cpus []cpu) (first, second []int) {
	cpus = slices.Clone(cpus)
	slices.SortFunc(cpus, func(a, b cpu) int {
		return cmp.Or(cmp.Compare(a.socket, b.socket), cmp.Compare(a.core, b.core), cmp.Compare(a.number, b.number))
	})
	sameCore := func(i int) bool {
		return cpus[i].socket == cpus[i-1].socket && cpus[i].core == cpus[i-1].core
	}
	middle := len(cpus) / 2
	for i := middle; i > 0; i-- {
		if !sameCore(i) {
			middle = i
			break
		}
	}
	for i, c := range cpus {
		if i < middle {
			first = append(first, c.number)
		} else {
			second = append(second, c.number)
		}
	}
	slices.Sort(first)
	slices.Sort(second)
	return first, second
}
