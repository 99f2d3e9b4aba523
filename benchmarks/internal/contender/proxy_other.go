//go:build !linux

package contender

import (
	"os/exec"
	"time"
)

func dieWithParent(*exec.Cmd) {}

func watch(int) {}

func watchedCPU() time.Duration { return 0 }

func addWatched(*Usage) {}
