//go:build race

package oneport

const raceEnabled = true
