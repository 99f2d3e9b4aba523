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

// halves divides processors into two groups of the same size, or as near to that as can be without a core in both. Only
// those of one core alone are divided.
func halves(cpus []cpu) (first, second []int) {
	cpus = slices.Clone(cpus)
	slices.SortFunc(cpus, func(a, b cpu) int {
		return cmp.Or(cmp.Compare(a.socket, b.socket), cmp.Compare(a.core, b.core), cmp.Compare(a.number, b.number))
	})
	sameCore := func(i int) bool {
		return cpus[i].socket == cpus[i-1].socket && cpus[i].core == cpus[i-1].core
	}
	middle := len(cpus) / 2
	for d := range len(cpus) {
		if i := len(cpus)/2 - d; i > 0 && !sameCore(i) {
			middle = i
			break
		}
		if i := len(cpus)/2 + d; i < len(cpus) && !sameCore(i) {
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
