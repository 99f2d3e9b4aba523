//go:build !linux

package contender

import "os/exec"

func dieWithParent(*exec.Cmd) {}

func watch(int) {}

func addWatched(*Usage) {}
