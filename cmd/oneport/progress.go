package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/oneport-go/oneport/cmd/oneport/internal/probe"
)

// A progress shows on a terminal what the probe waits for.
type progress struct {
	w     io.Writer
	width int
	stop  chan struct{}
	done  sync.WaitGroup

	mu      sync.Mutex
	began   time.Time
	ended   int
	waiting []string
}

// newProgress makes a progress that shows nothing unless w is a terminal.
func newProgress(w io.Writer) *progress {
	p := &progress{w: w, stop: make(chan struct{}), began: time.Now()}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return p
	}
	p.width = 80
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		p.width = width
	}
	p.done.Go(func() {
		// What is done in a moment needs no progress.
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				fmt.Fprint(p.w, "\r\x1b[K")
				return
			case <-tick.C:
				fmt.Fprintf(p.w, "\r\x1b[K%s", p.line())
			}
		}
	})
	return p
}

// show takes what the probe reports.
func (p *progress) show(r probe.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := r.Title
	if r.Group != probe.Clear {
		name = string(r.Group) + " " + name
	}
	if r.Verdict == "" {
		p.waiting = append(p.waiting, name)
		return
	}
	p.ended++
	p.waiting = slices.DeleteFunc(p.waiting, func(s string) bool { return s == name })
}

func (p *progress) line() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf("%.1f s, %d done, waiting for: %s", time.Since(p.began).Seconds(), p.ended, strings.Join(p.waiting, "; "))
	if utf8.RuneCountInString(line) >= p.width {
		line = string([]rune(line)[:max(p.width-2, 0)]) + "…"
	}
	return line
}

// end removes the line.
func (p *progress) end() {
	close(p.stop)
	p.done.Wait()
}
