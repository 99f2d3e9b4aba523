package dispatch

import "time"

// Limits bound what one client connection can cost. All fields must be positive.
type Limits struct {
	WriteTimeout time.Duration // for what is written last
	IdleTimeout  time.Duration // of a connection that no server has, and of one whose client does not read

	QueueLength   int           // connections that wait for the server of a target
	AcceptTimeout time.Duration // for the server to accept one

	MaxStreams         int // open at once, for all servers
	MaxHeaderListBytes int // of one header block, as RFC 9113, Section 6.5.2 counts
	MaxContinuations   int // CONTINUATION frames in one header block

	// Bytes of DATA that are held, in each direction and, towards the client, for each server.
	MaxBuffered int

	// Streams that the client resets within a second and before they are answered, or that are reset for a fault of the
	// client's, and how many of those are forgiven per second. One is forgiven for each stream that is answered, too.
	ResetBurst int
	ResetRate  int

	ControlBurst int // frames that do nothing for a request: PING, SETTINGS, PRIORITY, empty DATA, unknown ones,
	ControlRate  int // and how many of those are forgiven per second
}

// DefaultLimits are safe on the open internet.
func DefaultLimits() Limits {
	return Limits{
		WriteTimeout:       10 * time.Second,
		IdleTimeout:        5 * time.Minute,
		QueueLength:        1024,
		AcceptTimeout:      10 * time.Second,
		MaxStreams:         10_000,
		MaxHeaderListBytes: 1<<20 + 320, // as net/http, which says so in its SETTINGS
		MaxContinuations:   128,
		MaxBuffered:        1 << 20,
		ResetBurst:         10_000,
		ResetRate:          1000,
		ControlBurst:       10_000,
		ControlRate:        1000,
	}
}

// A bucket counts events that are forgiven with time.
type bucket struct {
	spent  int
	filled instant // when time was last taken into account
}

// spend counts an event, and reports whether it is within what burst and rate allow.
func (b *bucket) spend(burst, rate int) bool {
	if b.spent == 0 {
		b.filled = now()
	}
	b.spent++
	if b.spent <= burst {
		return true
	}
	t := now()
	forgiven := min(float64(b.spent), time.Duration(t-b.filled).Seconds()*float64(rate))
	if n := int(forgiven); n > 0 {
		b.spent -= n
		b.filled = t
	}
	return b.spent <= burst
}

// forgive takes one event back.
func (b *bucket) forgive() {
	if b.spent > 0 {
		b.spent--
	}
}
