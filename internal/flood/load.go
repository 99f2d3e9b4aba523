package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

// job is what the process of the clients is told.
type job struct {
	Addr   string
	N      int
	Rate   int // bad connections to open in a second, 0 for as many as possible
	Decide time.Duration
	Limit  time.Duration
}

// report is what it answers.
type report struct {
	Bad         []badReport
	Quiet, Good []goodReport // before the flood, and in it
}

// runLoad is the process of the clients.
func runLoad(in io.Reader, out io.Writer) error {
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return err
	}
	var r report
	quiet, cancel := context.WithTimeout(context.Background(), j.Decide/4)
	defer cancel()
	r.Quiet = runGood(quiet, j.Addr)

	flood, cancel := context.WithCancel(context.Background())
	defer cancel()
	var good sync.WaitGroup
	good.Go(func() { r.Good = runGood(flood, j.Addr) })
	var err error
	r.Bad, err = runBad(j)
	cancel()
	good.Wait()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// A kind is a way of never becoming a request.
type kind struct {
	name  string
	parts int // of config.n connections, in quarters
	write func(badConn) error
	told  func(answer []byte) bool // whether the server said why it closes the connection
}

var kinds = []kind{
	{"silent", 3, once(""), func([]byte) bool { return false }},
	{"HTTP/2, ready but silent", 1, once(http2.ClientPreface + settings + settingsACK), toldByHTTP2},
	{"HTTP/1, byte by byte", 2, trickle("GET /a/very/long/request/target/"), toldByHTTP1},
	{"HTTP/2, byte by byte", 2, trickle(http2.ClientPreface + longSettings), toldByHTTP2},
	{"PING, slowly", 1, slowly(ping), toldByHTTP2},
	{"PING, endlessly", 1, endlessly(ping), toldByHTTP2},
	{"WINDOW_UPDATE, slowly", 1, slowly(windowUpdate), toldByHTTP2},
	{"WINDOW_UPDATE, endlessly", 1, endlessly(windowUpdate), toldByHTTP2},
}

// badConn is a connection of one of the kinds.
type badConn struct {
	net.Conn
	number int           // among those of its kind
	pause  time.Duration // between writes, where there is one
	ended  chan struct{}
}

// Frames of RFC 9113, Section 6.
const (
	settings     = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	settingsACK  = "\x00\x00\x00\x04\x01\x00\x00\x00\x00"
	longSettings = "\x00\x03\x00\x04\x00\x00\x00\x00\x00" // the header only, of 768 bytes
	ping         = "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
	windowUpdate = "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01"
)

// once sends text at the beginning, and nothing else.
func once(text string) func(badConn) error {
	return func(c badConn) error {
		_, err := io.WriteString(c, text)
		return err
	}
}

// trickle sends text a byte at a time, and zeros when it is over. Each connection starts at another place in it, so that
// at any time there are some everywhere.
func trickle(text string) func(badConn) error {
	all, zero := []byte(text), []byte("0")
	return func(c badConn) error {
		next := c.number % len(all)
		if _, err := c.Write(all[:next]); err != nil {
			return err
		}
		return c.repeat(func() []byte {
			if next == len(all) {
				return zero
			}
			next++
			return all[next-1 : next]
		})
	}
}

// slowly sends the frame every now and then, not often enough for MaxFramesBeforeHeaders.
func slowly(frame string) func(badConn) error {
	begin, again := []byte(http2.ClientPreface+settings), []byte(frame)
	return func(c badConn) error {
		if _, err := c.Write(begin); err != nil {
			return err
		}
		return c.repeat(func() []byte { return again })
	}
}

// repeat sends what next returns until the connection ends.
func (c badConn) repeat(next func() []byte) error {
	tick := time.NewTicker(c.pause)
	defer tick.Stop()
	for {
		if _, err := c.Write(next()); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-c.ended:
			return nil
		}
	}
}

// endlessly sends the frame a hundred thousand times a second, or as fast as the connection takes it. Without a pause
// the process would hardly get to its other connections.
func endlessly(frame string) func(badConn) error {
	begin, again := []byte(http2.ClientPreface+settings), bytes.Repeat([]byte(frame), 200)
	return func(c badConn) error {
		if _, err := c.Write(begin); err != nil {
			return err
		}
		c.pause = 2 * time.Millisecond
		return c.repeat(func() []byte { return again })
	}
}

func toldByHTTP1(answer []byte) bool { return bytes.HasPrefix(answer, []byte("HTTP/1.1 ")) }

func toldByHTTP2(answer []byte) bool {
	for r := http2.NewFramer(nil, bytes.NewReader(answer)); ; {
		frame, err := r.ReadFrame()
		if err != nil {
			return false
		}
		if _, ok := frame.(*http2.GoAwayFrame); ok {
			return true
		}
	}
}

// badReport is what became of the connections of a kind.
type badReport struct {
	Kind        string
	Opened      int
	Closed      int // by the server
	Reset       int // those of Closed that saw a RST
	Told        int // those of Closed that were told why
	First, Last time.Duration
}

func (b *badReport) add(e ending) {
	b.Opened++
	if !e.closed {
		return
	}
	if b.Closed == 0 || e.after < b.First {
		b.First = e.after
	}
	b.Last = max(b.Last, e.after)
	b.Closed++
	if e.reset {
		b.Reset++
	}
	if e.told {
		b.Told++
	}
}

// ending is how a connection ended.
type ending struct {
	closed, reset, told bool
	after               time.Duration // it was opened
}

// ticksPerSecond is how often bad connections are opened if their rate is limited.
const ticksPerSecond = 100

// runBad opens all bad connections and waits until they have ended.
func runBad(j job) ([]badReport, error) {
	limit, perTick := j.Limit, 0
	if j.Rate > 0 {
		limit += time.Duration(3*j.N) * time.Second / time.Duration(j.Rate)
		perTick = j.Rate / ticksPerSecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	reports := make([]badReport, len(kinds))
	for i, k := range kinds {
		reports[i].Kind = k.name
	}
	var mu sync.Mutex // guards reports
	var running sync.WaitGroup
	defer running.Wait()

	pace := time.NewTicker(time.Second / ticksPerSecond)
	defer pace.Stop()
	opened := 0
	for number := range j.N {
		for i, k := range kinds {
			if number >= j.N*k.parts/4 {
				continue
			}
			if perTick > 0 && opened%perTick == 0 {
				<-pace.C // ticks that were missed are not made up for
			}
			opened++
			c, err := new(net.Dialer).DialContext(ctx, "tcp", j.Addr)
			if err != nil {
				return nil, err
			}
			running.Go(func() {
				e := k.run(badConn{c, number, j.Decide / 5, make(chan struct{})}, j.Limit)
				mu.Lock()
				defer mu.Unlock()
				reports[i].add(e)
			})
		}
	}
	running.Wait()
	return reports, nil
}

// run keeps a connection open for as long as the server lets it, within the limit.
func (k kind) run(c badConn, limit time.Duration) ending {
	opened := time.Now()
	c.SetDeadline(opened.Add(limit))
	var writing sync.WaitGroup
	writing.Go(func() { k.write(c) })
	var answer bytes.Buffer
	_, err := io.Copy(&answer, c)
	e := ending{after: time.Since(opened), told: k.told(answer.Bytes())}
	e.reset = errors.Is(err, syscall.ECONNRESET)
	e.closed = err == nil || e.reset
	close(c.ended)
	c.Close()
	writing.Wait()
	return e
}
