package rewind

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// A cutter is a Filter that takes a marker out, as often as left says.
type cutter struct {
	left int
	held []byte
}

const marker = "<<cut>"

func (c *cutter) Held() []byte { return c.held }

func (c *cutter) Done() bool { return c.left == 0 }

func (c *cutter) Filter(b []byte) (n int) {
	c.held = nil
	for i := 0; i < len(b); {
		rest := string(b[i:])
		switch {
		case c.left == 0:
			return n + copy(b[n:], b[i:])
		case strings.HasPrefix(rest, marker):
			c.left--
			i += len(marker)
		case strings.HasPrefix(marker, rest):
			c.held = []byte(rest)
			return n
		default:
			b[n] = b[i]
			n, i = n+1, i+1
		}
	}
	return n
}

// without returns s without the first n markers.
func without(s string, n int) string { return strings.Replace(s, marker, "", n) }

// A source is a stream that comes in pieces, with a deadline in between now and then.
type source struct {
	pieces [][]byte // an empty one is a deadline
	end    error
}

func (s *source) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, s.end
	}
	piece := s.pieces[0]
	if len(piece) == 0 {
		s.pieces = s.pieces[1:]
		return 0, &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
	}
	n := copy(p, piece)
	if s.pieces[0] = piece[n:]; n == len(piece) {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

// split cuts s into random pieces. With deadlines, some are empty.
func split(rnd *rand.Rand, s string, deadlines bool) (pieces [][]byte) {
	for len(s) > 0 {
		if deadlines && rnd.IntN(3) == 0 {
			pieces = append(pieces, nil)
		}
		n := 1 + rnd.IntN(min(len(s), 1+rnd.IntN(40)))
		pieces, s = append(pieces, []byte(s[:n])), s[n:]
	}
	return pieces
}

// stream returns a random stream with markers, and parts of them.
func stream(rnd *rand.Rand) string {
	var b strings.Builder
	for range rnd.IntN(20) {
		switch rnd.IntN(4) {
		case 0:
			b.WriteString(marker)
		case 1:
			b.WriteString(marker[:rnd.IntN(len(marker))])
		default:
			fmt.Fprintf(&b, "%0*d", 1+rnd.IntN(100), rnd.IntN(1000))
		}
	}
	return b.String()
}

// TestReader reads random streams, in pieces of random length on both sides, and compares what comes with what is to
// come.
func TestReader(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5000) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		whole, cuts := stream(rnd), rnd.IntN(4)
		replayed := rnd.IntN(len(whole) + 1)
		end := []error{io.EOF, errors.New("broken")}[rnd.IntN(2)]
		src := &source{pieces: split(rnd, whole[replayed:], true), end: end}
		first := strings.Repeat("first ", rnd.IntN(2))
		var filter Filter
		if cuts > 0 {
			filter = &cutter{left: cuts}
		}
		var r Reader
		r.Init(src, []byte(first), []byte(whole[:replayed]), filter)
		want := first + without(whole, cuts)
		if cuts == 0 {
			want = first + whole
		}
		var got []byte
		buf := make([]byte, 200)
		var err error
		for err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			var n int
			p := buf[:1+rnd.IntN(rnd.IntN(len(buf))+1)]
			n, err = r.Read(p[:len(p):len(p)])
			got = append(got, p[:n]...)
			if len(got) > len(want) || string(got) != want[:len(got)] {
				t.Fatalf("seed %d: read %q of %q", seed, got, want)
			}
		}
		if string(got) != want || err != end {
			t.Fatalf("seed %d: read %q, %v; want %q, %v", seed, got, err, want, end)
		}
		if n, err := r.Read(buf); n != 0 || err != end || !r.Plain() || r.ready != nil {
			t.Fatalf("seed %d: after the end: %d, %v, plain %v, %q", seed, n, err, r.Plain(), r.ready)
		}
	}
}

// TestReaderDelaysNothing checks that a reader gets what has come without waiting for more, but for a part of what may
// have to be taken out.
func TestReaderDelaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		var r Reader
		r.Init(server, nil, []byte("replay<<"), &cutter{left: 1})
		read := func(want string) {
			t.Helper()
			p := make([]byte, 100)
			server.SetReadDeadline(time.Now().Add(time.Second))
			n, err := r.Read(p)
			if string(p[:n]) != want || want == "" && !errors.Is(err, os.ErrDeadlineExceeded) || want != "" && err != nil {
				t.Errorf("read %q, %v; want %q", p[:n], err, want)
			}
		}
		read("replay")
		read("")
		send := func(s string) { go client.Write([]byte(s)) }
		send("a<<c")
		read("<<a")
		send("ut")
		read("")
		if r.Plain() {
			t.Error("the stream is plain while a part of it is held back")
		}
		send(">b")
		read("b")
		if !r.Plain() {
			t.Error("the stream is not plain after the last change")
		}
		send(marker)
		read(marker)
	})
}

// TestReaderPlain checks for which streams there is nothing to do.
func TestReaderPlain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		first, replay string
		filter        Filter
		want          bool
	}{
		{"", "", nil, true},
		{"", "", &cutter{}, true},
		{"", marker, &cutter{left: 1}, true},
		{"first", "", nil, false},
		{"", "replay", nil, false},
		{"", "", &cutter{left: 1}, false},
		{"", marker, &cutter{left: 2}, false},
		{"", marker[:3], &cutter{left: 1}, false},
	} {
		var r Reader
		r.Init(strings.NewReader("rest"), []byte(tt.first), []byte(tt.replay), tt.filter)
		if got := r.Plain(); got != tt.want {
			t.Errorf("%q, %q, %+v: plain %v", tt.first, tt.replay, tt.filter, got)
		}
		if n, err := r.Read(nil); n != 0 || err != nil {
			t.Errorf("%q, %q, %+v: Read of nothing: %d, %v", tt.first, tt.replay, tt.filter, n, err)
		}
	}
}

// TestCopyChanged checks that copying stops where the stream becomes that of the source.
func TestCopyChanged(t *testing.T) {
	t.Parallel()
	src := &source{pieces: [][]byte{[]byte("a<<c"), []byte("ut>b"), []byte("not copied")}, end: io.EOF}
	var r Reader
	r.Init(src, []byte("first "), []byte("replay "), &cutter{left: 1})
	var got bytes.Buffer
	if n, err := r.CopyChanged(&got); n != int64(got.Len()) || err != nil || got.String() != "first replay ab" || !r.Plain() {
		t.Errorf("copied %d bytes, %v: %q", n, err, &got)
	}
	if rest, err := io.ReadAll(&r); string(rest) != "not copied" || err != nil {
		t.Errorf("read %q, %v behind it", rest, err)
	}

	for _, tt := range []struct {
		name string
		src  io.Reader
		dst  io.Writer
	}{
		{"the source breaks", iotest.ErrReader(errBroken), io.Discard},
		{"the destination breaks", strings.NewReader("rest"), &failing{}},
	} {
		var r Reader
		r.Init(tt.src, []byte("first "), nil, &cutter{left: 1})
		if n, err := r.CopyChanged(tt.dst); err != errBroken || n > 6 {
			t.Errorf("%s: %d, %v", tt.name, n, err)
		}
	}
}

var errBroken = errors.New("broken")

// A failing writer takes a number of bytes.
type failing struct {
	bytes.Buffer
	room int
}

func (f *failing) Write(p []byte) (int, error) {
	n, _ := f.Buffer.Write(p[:min(f.room, len(p))])
	if f.room -= n; n < len(p) {
		return n, errBroken
	}
	return n, nil
}

// TestReaderConcurrent has several read at once. Together they get every byte once.
func TestReaderConcurrent(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer server.Close()
	const each = 1000
	var sent bytes.Buffer // the bytes are told apart by their number, in order
	for i := range each {
		fmt.Fprintf(&sent, "%05d", i)
		if i%100 == 50 {
			sent.WriteString(marker)
		}
	}
	replay := bytes.Clone(sent.Bytes()[:777])
	go func() {
		rnd := rand.New(rand.NewPCG(1, 0))
		for rest := sent.Bytes()[777:]; len(rest) > 0; {
			n := 1 + rnd.IntN(min(len(rest), 50))
			client.Write(rest[:n])
			rest = rest[n:]
		}
		client.Close()
	}()
	var r Reader
	r.Init(server, nil, replay, &cutter{left: 10})
	var mu sync.Mutex
	total := 0
	var counts [256]int
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			p := make([]byte, 17)
			for {
				n, err := r.Read(p)
				mu.Lock()
				total += n
				for _, b := range p[:n] {
					counts[b]++
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	var want [256]int
	for _, b := range []byte(without(sent.String(), 10)) {
		want[b]++
	}
	if total != 5*each || counts != want {
		t.Errorf("read %d bytes, want %d", total, 5*each)
	}
}

// TestWriter writes random streams in random pieces.
func TestWriter(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5000) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		// What is held back at the end would come with the next Write.
		whole, cuts := stream(rnd)+"end", rnd.IntN(4)
		var filter Filter
		if cuts > 0 {
			filter = &cutter{left: cuts}
		}
		var dst bytes.Buffer
		var w Writer
		w.Init(&dst, filter)
		for _, piece := range split(rnd, whole, true) {
			before := string(piece)
			if n, err := w.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("seed %d: Write of %q: %d, %v", seed, piece, n, err)
			}
			if string(piece) != before {
				t.Fatalf("seed %d: Write changed %q to %q", seed, before, piece)
			}
		}
		want := without(whole, cuts)
		if cuts == 0 {
			want = whole
		}
		if dst.String() != want {
			t.Fatalf("seed %d: wrote %q, want %q", seed, &dst, want)
		}
		if left := strings.Count(want, marker); w.Plain() != (cuts == 0 || left > 0 || strings.Count(whole, marker) == cuts) {
			t.Fatalf("seed %d: plain %v after %d of %d", seed, w.Plain(), strings.Count(whole, marker), cuts)
		}
	}
}

// TestWriterDelaysNothing checks that each Write reaches the destination with one Write, unless there is nothing to
// write.
func TestWriterDelaysNothing(t *testing.T) {
	t.Parallel()
	var writes []string
	var w Writer
	w.Init(writerFunc(func(p []byte) (int, error) { writes = append(writes, string(p)); return len(p), nil }), &cutter{left: 1})
	for _, piece := range []string{"a", "", "b<<", "cu", "t>c", "<<", ""} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Errorf("Write of %q: %d, %v", piece, n, err)
		}
	}
	if got := strings.Join(writes, "|"); got != "a|b|c|<<|" {
		t.Errorf("written: %s", got)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestWriterError(t *testing.T) {
	t.Parallel()
	dst := &failing{room: 3}
	var w Writer
	w.Init(dst, &cutter{left: 1})
	if n, err := w.Write([]byte("abcdef")); n != 0 || err != errBroken {
		t.Errorf("Write returned %d, %v", n, err)
	}
}

// TestWriterConcurrent has several write at once, in pieces that stay whole.
func TestWriterConcurrent(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got bytes.Buffer
	var w Writer
	w.Init(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return got.Write(p)
	}), &cutter{left: 100})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 200 {
				fmt.Fprintf(&w, "[%d %03d"+marker+"]", i, j)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(got.String(), marker); n != 700 {
		t.Errorf("%d markers are left, want 700", n)
	}
	text := strings.ReplaceAll(got.String(), marker, "")
	next := make([]int, 4)
	for piece := range strings.SplitSeq(strings.TrimSuffix(text, "]"), "]") {
		var i, j int
		if _, err := fmt.Sscanf(piece, "[%d %d", &i, &j); err != nil || j != next[i] {
			t.Fatalf("piece %q of writer %d comes where %d is due", piece, i, next[i])
		}
		next[i]++
	}
}
