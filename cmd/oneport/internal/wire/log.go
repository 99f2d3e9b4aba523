package wire

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Bounds on a log. A server decides how much there is to log, so the log decides how much of it is kept.
const (
	maxEvents  = 400
	maxDetails = 60
	maxText    = 300
)

// A Direction says who an event comes from.
type Direction string

const (
	Sent     Direction = "sent"
	Received Direction = "received"
	Note     Direction = "note" // of the probe, about what it has seen
)

// An Event is one entry of a log: a frame, the head of a message of HTTP/1, a step of TLS, or a remark.
type Event struct {
	At        time.Duration // since the log was begun
	Direction Direction
	Text      string
	Details   []string
}

// A Log records what passes on a connection. Its methods may be called by several goroutines at once.
type Log struct {
	start time.Time

	mu     sync.Mutex
	events []Event
	left   int // events that did not fit
}

// NewLog begins a log.
func NewLog() *Log { return &Log{start: time.Now()} }

// Since returns the time since the log was begun.
func (l *Log) Since() time.Duration { return time.Since(l.start) }

// Add adds an event. The text and the details may come from the server: what a terminal might act upon is quoted.
func (l *Log) Add(d Direction, text string, details ...string) {
	at := l.Since()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) >= maxEvents {
		l.left++
		return
	}
	var clean []string
	for i, s := range details {
		if i == maxDetails {
			clean = append(clean, fmt.Sprintf("(%d more)", len(details)-i))
			break
		}
		clean = append(clean, Printable(s))
	}
	l.events = append(l.events, Event{At: at, Direction: d, Text: Printable(text), Details: clean})
}

// Note adds a remark.
func (l *Log) Note(format string, args ...any) { l.Add(Note, fmt.Sprintf(format, args...)) }

// Events returns what was logged.
func (l *Log) Events() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.events[:len(l.events):len(l.events)]
	if l.left > 0 {
		last := events[len(events)-1].At
		events = append(events, Event{At: last, Direction: Note, Text: fmt.Sprintf("%d more events are not shown", l.left)})
	}
	return events
}

// Printable makes s fit for a terminal: escape sequences and other control characters, which a server may send to
// confuse whoever looks, are quoted, and what is very long is cut.
func Printable(s string) string {
	cut := len(s) > maxText
	if cut {
		s = s[:maxText]
	}
	if strings.IndexFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) >= 0 {
		s = strconv.Quote(s)
		s = s[1 : len(s)-1]
	}
	if cut {
		s += "…"
	}
	return s
}
