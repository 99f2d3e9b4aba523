// Package cmux holds tests of the drop-in replacement for github.com/soheilhy/cmux, most of which also run against the
// original: what has to be the same passes there, and what the replacement improves fails there. It is a module of its
// own so that the original can take the replacement's place: go test -modfile=original.mod.
package cmux
