// Package strace counts the system calls of a process, with the program of that name.
package strace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Find says why system calls cannot be counted here, if they cannot.
func Find() error {
	if runtime.GOOS != "linux" {
		return errors.New("system calls are counted on Linux only")
	}
	_, err := exec.LookPath("strace")
	return err
}

// attachTimeout is for attaching to all threads of a process, and for letting go of them.
const attachTimeout = 10 * time.Second

// Count counts the system calls of a process while f runs, by kind.
func Count(pid int, f func() error) (map[string]int, error) {
	dir, err := os.MkdirTemp("", "strace")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "counts")
	cmd := exec.Command("strace", "-c", "-f", "-U", "calls,name", "-o", path, "-p", strconv.Itoa(pid))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	attached, said := make(chan struct{}), make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		var all []string
		for first := true; lines.Scan(); {
			all = append(all, lines.Text())
			if first && strings.Contains(lines.Text(), "attached") {
				first = false
				close(attached)
			}
		}
		said <- strings.Join(all, "; ")
	}()
	timer := time.AfterFunc(attachTimeout, func() { cmd.Process.Kill() })
	var failed error
	select {
	case <-attached:
		timer.Stop()
		failed = f()
		timer.Reset(attachTimeout)
		cmd.Process.Signal(os.Interrupt)
	case what := <-said:
		failed = fmt.Errorf("strace: %s", what)
		said <- what
	}
	<-said
	cmd.Wait() // an interrupt is what it ends with
	timer.Stop()
	if failed != nil {
		return nil, failed
	}
	out, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	return parse(out)
}

// parse reads the table of strace -c -U calls,name.
func parse(r io.Reader) (map[string]int, error) {
	counts := make(map[string]int)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 2 || fields[1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(fields[0]); err == nil {
			counts[fields[1]] = n
		}
	}
	return counts, lines.Err()
}
