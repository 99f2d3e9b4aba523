package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// job is what the process of the clients is told.
type job struct {
	Addr   string
	TLS    bool
	Hold   bool // bad connections send as much as they are let, and wait
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
	r.Quiet = runGood(quiet, j.Addr, j.TLS)

	flood, cancel := context.WithCancel(context.Background())
	defer cancel()
	var good sync.WaitGroup
	good.Go(func() { r.Good = runGood(flood, j.Addr, j.TLS) })
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
	below bool                     // TLS, where there is TLS
	http1 bool                     // what it speaks
}

var kinds = []kind{
	{name: "silent", parts: 3, write: once(""), told: toldNothing, below: true},
	{name: "HTTP/2, without a request", parts: 1, write: once(http2.ClientPreface + settings), told: toldByHTTP2},
	{name: "HTTP/2, ready but silent", parts: 1, write: once(http2.ClientPreface + settings + settingsACK), told: toldByHTTP2},
	{name: "HTTP/2, half a request", parts: 1, write: once(http2.ClientPreface + settings + settingsACK + openHeaders), told: toldByHTTP2},
	{name: "HTTP/1, byte by byte", parts: 2, write: trickle("GET /a/very/long/request/target/"), told: toldByHTTP1, http1: true},
	{name: "HTTP/2, byte by byte", parts: 2, write: trickle(http2.ClientPreface + longSettings), told: toldByHTTP2},
	{name: "PING, slowly", parts: 1, write: slowly(ping), told: toldByHTTP2},
	{name: "PING, endlessly", parts: 1, write: flood(ping), told: toldByHTTP2},
	{name: "WINDOW_UPDATE, slowly", parts: 1, write: slowly(windowUpdate), told: toldByHTTP2},
	{name: "WINDOW_UPDATE, endlessly", parts: 1, write: flood(windowUpdate), told: toldByHTTP2},
	{name: "CONTINUATION, slowly", parts: 1, write: slowly(openHeaders, continuation), told: toldByHTTP2},
}

// kindsOfTLS are those that stop in the middle of a handshake.
var kindsOfTLS = []kind{
	{name: "TLS, silent", parts: 1, write: once(clientHello()[:11]), told: toldNothing, below: true},
	{name: "TLS, half a handshake", parts: 1, write: once(clientHello()), told: toldNothing, below: true},
}

// kindsThatHold have the server hold as much as it is ready to, or more.
var kindsThatHold = []kind{
	{name: "HTTP/1, long", parts: 4, write: once("GET /" + strings.Repeat("a", holdBytes)), told: toldByHTTP1, http1: true},
	{name: "HTTP/1, endless", parts: 1, write: endlessly("GET /", strings.Repeat("a", 16<<10)), told: toldByHTTP1, http1: true},
	{name: "CONTINUATION, long", parts: 4, write: once(http2.ClientPreface + settings + settingsACK + openHeaders + strings.Repeat(longContinuation, holdBytes/len(longContinuation))), told: toldByHTTP2},
	{name: "CONTINUATION, endless", parts: 1, write: endlessly(http2.ClientPreface+settings+settingsACK+openHeaders, longContinuation), told: toldByHTTP2},
}

// kinds returns those for the job.
func (j job) kinds() []kind {
	switch {
	case j.Hold:
		return kindsThatHold
	case j.TLS:
		return slices.Concat(kinds, kindsOfTLS)
	}
	return kinds
}

// holdBytes is less than the default of MaxPreviewBytes.
const holdBytes = 900_000

// clientHello returns what a client of TLS sends first.
func clientHello() string {
	client, server := net.Pipe()
	go tls.Client(client, clientConfig()).Handshake()
	defer client.Close()
	b := make([]byte, 16<<10)
	n, err := server.Read(b) // a record is a Write
	if err != nil {
		panic(err)
	}
	return string(b[:n])
}

// clientConfig trusts everybody: what is at stake here is not who the server is.
func clientConfig(alpn ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: alpn}
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
	openHeaders  = "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" // END_HEADERS is not set
	continuation = "\x00\x00\x00\x09\x00\x00\x00\x00\x01"
	windowUpdate = "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01"
)

// longContinuation is CONTINUATION with a field of 16 KB.
var longContinuation = func() string {
	var block bytes.Buffer
	value := strings.Repeat("&", 16<<10-10) // which a Huffman code does not make shorter
	hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "x", Value: value, Sensitive: true})
	return string(h2.AppendFrame(nil, http2.FrameContinuation, 0, 1, block.Bytes()))
}()

// once sends text at the beginning, and nothing else.
func once(text string) func(badConn) error {
	return func(c badConn) error {
		_, err := io.WriteString(c, text)
		return err
	}
}

// trickle sends text a byte at a time, and zeros when it is over. Each connection starts at another place in it, so
// that at any time there are some everywhere.
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

// slowly sends the last of the frames every now and then, not often enough for MaxFramesBeforeHeaders.
func slowly(frames ...string) func(badConn) error {
	last := len(frames) - 1
	begin, again := []byte(http2.ClientPreface+settings+strings.Join(frames[:last], "")), []byte(frames[last])
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

// flood sends the frame a hundred thousand times a second, or as fast as the connection takes it.
func flood(frame string) func(badConn) error {
	return endlessly(http2.ClientPreface+settings, strings.Repeat(frame, 200))
}

// endlessly sends text again and again. Without a pause the process would hardly get to its other connections.
func endlessly(first, text string) func(badConn) error {
	begin, again := []byte(first), []byte(text)
	return func(c badConn) error {
		if _, err := c.Write(begin); err != nil {
			return err
		}
		c.pause = 2 * time.Millisecond
		return c.repeat(func() []byte { return again })
	}
}

func toldNothing([]byte) bool { return false }

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
	kinds := j.kinds()
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
				e := k.run(badConn{c, number, j.Decide / 5, make(chan struct{})}, j.TLS && !k.below, j.Limit)
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
func (k kind) run(c badConn, secure bool, limit time.Duration) ending {
	opened := time.Now()
	c.SetDeadline(opened.Add(limit))
	if secure {
		alpn := []string{"h2"}
		if k.http1 {
			alpn = nil // with "http/1.1" a route for that has the connection before its first byte
		}
		t := tls.Client(c.Conn, clientConfig(alpn...))
		if err := t.Handshake(); err != nil { // as one that was evicted
			c.Close()
			return ending{closed: !errors.Is(err, os.ErrDeadlineExceeded), after: time.Since(opened)}
		}
		c.Conn = t
	}
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
