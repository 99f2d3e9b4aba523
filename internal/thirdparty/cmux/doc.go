// Package cmux holds tests of the drop-in replacement for github.com/soheilhy/cmux, most of which run against the
// original as well: what has to be the same is the same there, and what is better fails there. It is a module of its
// own so that the original can take the replacement's place: go test -modfile=original.mod.
package cmux
