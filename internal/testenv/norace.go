//go:build !race

package testenv

// RaceEnabled reports whether the tests run with the race detector, which takes memory and time of its own.
const RaceEnabled = false
